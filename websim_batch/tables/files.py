"""The bytes of an input: plain or compressed files and spooled streams, read as often as wanted."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from websim_batch.errors import DiskFullError, InputChangedError, UsageError
from websim_batch.tables.base import Compression

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 1 << 18
"""What one read of an input takes from the file."""

_PACKED_BYTES = 1 << 15
"""Compressed bytes that are unpacked at once: small, because they may grow a thousandfold."""

_MAGIC: tuple[tuple[bytes, Compression], ...] = ((b"\x1f\x8b", "gz"), (b"\x28\xb5\x2f\xfd", "zst"))


class DamagedError(ValueError):
    """Compressed bytes are cut off or broken."""


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class CountedReader(io.RawIOBase):
    """Raw bytes of a file descriptor from its start, by position, so that several readers may share one.

    `count` is how many bytes went out so far.
    """

    def __init__(self, fd: int, *, owns_fd: bool) -> None:
        self._fd = fd
        self._owns_fd = owns_fd
        self.count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer`; 0 at the end."""
        got = os.preadv(self._fd, [buffer], self.count) if hasattr(os, "preadv") else self._pread(buffer)
        self.count += got
        return got

    def _pread(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = os.pread(self._fd, len(view), self.count)
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the descriptor, if it is this reader's own."""
        if not self.closed and self._owns_fd:
            os.close(self._fd)
        super().close()


class UnpackedReader(io.RawIOBase):
    """Raw bytes out of gzip or zstd, over all members or frames; DamagedError where they are cut off."""

    def __init__(self, packed: CountedReader, compression: Compression) -> None:
        self._packed = packed
        self._compression = compression
        self._error = _unpack_error(compression)
        self._unpacker: _Unpacker | None = None
        self._ready = memoryview(b"")
        self.count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer`; 0 at the end."""
        while not self._ready:
            chunk = self._packed.read(_PACKED_BYTES)
            if not chunk:
                if self._unpacker is not None:
                    raise DamagedError("the compressed data ends too early")
                return 0
            self._ready = memoryview(self._unpack(chunk))
        view = memoryview(buffer)
        size = min(len(view), len(self._ready))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        self.count += size
        return size

    def _unpack(self, data: bytes) -> bytes:
        parts = []
        while data:
            if self._unpacker is None:
                if not data.strip(b"\0"):  # padding after the last member, as tape archives have it
                    break
                self._unpacker = _new_unpacker(self._compression)
            parts.append(self._decompress(self._unpacker, data))
            if not self._unpacker.eof:
                break
            data = self._unpacker.unused_data
            self._unpacker = None
        return b"".join(parts)

    def _decompress(self, unpacker: _Unpacker, data: bytes) -> bytes:
        try:
            return unpacker.decompress(data)
        except self._error as exc:
            raise DamagedError(f"the {self._compression} data is damaged") from exc

    def close(self) -> None:
        """Close the packed file too."""
        self._packed.close()
        super().close()


def _new_unpacker(compression: Compression) -> _Unpacker:
    if compression == "gz":
        return zlib.decompressobj(wbits=31)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _unpack_error(compression: Compression) -> type[Exception]:
    if compression == "gz":
        return zlib.error
    import zstandard

    return zstandard.ZstdError


class InputFile:
    """A file to read from its start, any number of times.

    `display` names it in messages. `fingerprint()` changes with size, time of change or identity of the file.
    """

    def __init__(self, path: Path, compression: Compression | None) -> None:
        self.path: Path | None = path
        self.display = str(path)
        self.compression = compression
        _require_readable(path)

    def open_raw(self) -> CountedReader:
        """The bytes as they lie in the file."""
        assert self.path is not None
        try:
            return CountedReader(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC), owns_fd=True)
        except OSError as exc:
            raise InputChangedError(f"{self.display}: cannot be opened any more ({exc.strerror})") from exc

    def open(self) -> tuple[BinaryIO, CountedReader | UnpackedReader]:
        """The unpacked bytes, buffered, and the reader below that counts them."""
        raw: CountedReader | UnpackedReader = self.open_raw()
        if self.compression is not None:
            assert isinstance(raw, CountedReader)
            raw = UnpackedReader(raw, self.compression)
        return io.BufferedReader(raw, BUFFER_BYTES), raw

    def head(self, size: int) -> bytes:
        """The first unpacked bytes, at most `size`."""
        with self.open()[0] as file:
            return file.read(size)

    def fingerprint(self) -> str:
        """What `require_unchanged` compares."""
        assert self.path is not None
        try:
            facts = self.path.stat()
        except OSError as exc:
            raise InputChangedError(f"{self.display}: is gone while it is read ({exc.strerror})") from exc
        return f"{facts.st_size}-{facts.st_mtime_ns}-{facts.st_ino}"

    def require_unchanged(self, fingerprint: str) -> None:
        """Raise InputChangedError if the file is not the one with this fingerprint."""
        if self.fingerprint() != fingerprint:
            raise changed(self.display)

    def close(self) -> None:
        """Nothing is held open."""


class SpooledInput(InputFile):
    """A stream copied to a file without a name, so that it can be read again; gone with the process."""

    def __init__(self, stream: BinaryIO, display: str) -> None:
        self._file = tempfile.TemporaryFile(prefix="websim-batch-")  # noqa: SIM115 (closed by close)
        try:
            shutil.copyfileobj(stream, self._file, BUFFER_BYTES)
            self._file.flush()
        except OSError as exc:
            with suppress(OSError):  # what was not written cannot be written at the end either
                self._file.close()
            raise DiskFullError(
                f"{display} cannot be kept in {tempfile.gettempdir()} ({exc.strerror}); make room there, or name"
                " another folder by TMPDIR"
            ) from exc
        self.path = None
        self.display = display
        self.compression = None
        head = self.head(4)
        self.compression = next((name for magic, name in _MAGIC if head.startswith(magic)), None)

    def open_raw(self) -> CountedReader:
        """The bytes as they came."""
        return CountedReader(self._file.fileno(), owns_fd=False)

    def fingerprint(self) -> str:
        """The copy is ours alone, so only its size says something."""
        return f"{os.fstat(self._file.fileno()).st_size}-spooled"

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


def changed(display: str) -> InputChangedError:
    """The error for an input that is not what it was."""
    return InputChangedError(
        f"{display}: the file changed while it was read; let its writer finish, then try again"
    )


def _require_readable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path}: is a folder; name a table in it")
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path}: is no regular file; pipe it in and write '-' for the input")
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError as exc:
        raise UsageError(f"{path}: no such file{_nearest(path)}") from exc
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read ({exc.strerror})") from exc


def _nearest(path: Path) -> str:
    import difflib

    try:
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:
        names = []
    close = difflib.get_close_matches(path.name, names, 1)
    return f"; did you mean {str(path.with_name(close[0]))!r}?" if close else ""
