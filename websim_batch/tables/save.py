"""Final files: written beside their place under another name, made durable, then renamed in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from websim_batch.errors import DiskFullError, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


@contextlib.contextmanager
def atomic_write(path: Path, clears_leftovers: bool = True) -> Iterator[BinaryIO]:
    """A file to write whose content becomes `path` at the end, whole; after an error or kill the old stands.

    `clears_leftovers` looks through the folder for what a killed process left of this file; in a folder of many
    files let `ready_folder` do that once. Raises DiskFullError when the disk is full or fails, UsageError when
    the place cannot be written.
    """
    target = _real_target(path)
    part = _part_name(target)
    try:
        if clears_leftovers:
            _remove_stale_parts(target.parent, _part_prefix(target))
        # 1 another name in the same folder; 2 write; 3 flush; 4 fsync; 5 close; 6 rename; 7 fsync the folder
        with _create(part, target) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        _sync_folder(target.parent)
    except OSError as exc:
        raise _explained(exc, path) from exc
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def ready_folder(folder: Path) -> None:
    """Make the folder, or rid it of what killed processes left in it; raises as `atomic_write`."""
    try:
        if not folder.is_dir():
            folder.mkdir()
            _sync_folder(folder.parent)
        _remove_stale_parts(folder)
    except OSError as exc:
        raise _explained(exc, folder) from exc


def require_writable(path: Path) -> None:
    """Raise UsageError now if `atomic_write(path)` could not begin, so that nothing is paid for in vain."""
    target = _real_target(path)
    part = _part_name(target)
    try:
        _create(part, target).close()
    except OSError as exc:
        raise _explained(exc, path) from exc
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _real_target(path: Path) -> Path:
    """Where a link leads, so that the link stays one; refuses what a rename would destroy."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except OSError as exc:  # a name too long, a folder that may not be entered
        raise _explained(exc, path) from exc
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: is no regular file; name a file that may be replaced")
    return target


def _part_name(target: Path) -> Path:
    return target.with_name(f"{_part_prefix(target)}{os.getpid()}.part")


def _part_prefix(target: Path) -> str:
    short = os.fsencode(target.name)[:200]  # names end at 255 bytes
    return "." + short.decode(errors="ignore") + "."


def _create(part: Path, target: Path) -> BinaryIO:
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with contextlib.suppress(OSError):  # no old file, or not ours to change
        os.fchmod(fd, stat.S_IMODE(target.stat().st_mode))
    return os.fdopen(fd, "wb", 1 << 18)


def _remove_stale_parts(folder: Path, prefix: str | None = None) -> None:
    """Take away what killed processes left of the file whose hidden names begin with `prefix`, or of any."""
    for entry in folder.glob(".*.part"):
        name, dot, pid = entry.name.removesuffix(".part").rpartition(".")
        if prefix in (None, name + dot) and pid.isdigit() and not _is_alive(int(pid)):
            entry.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _explained(exc: OSError, path: Path) -> DiskFullError | UsageError:
    reason = exc.strerror or str(exc)
    if exc.errno in _FULL:
        return DiskFullError(
            f"{path}: the output cannot be written ({reason}); make room, then give the same command"
        )
    return UsageError(f"{path}: cannot be written ({reason})")
