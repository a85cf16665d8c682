"""One run at a time for each output, across processes; a dead process holds nothing.

The lock is the kernel's (`flock`), not the file: it is gone with its process, however that ended. The file
stays when a run ends, emptied: if it were removed, two runs could each hold "the" lock, one on the removed
file, one on its successor.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from websim_batch.errors import LockedError, UsageError
from websim_batch.journal.places import beside, lock_path

_LOOKS = 10
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds an output: process, machine, and since when (microseconds UTC)."""

    pid: int
    host: str
    started_us: int

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started_us / 1e6, UTC).astimezone()
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%d %H:%M:%S}"


class OutputLock:
    """Holds an output, and a journal that lies elsewhere, for one run; a context manager.

    Raises LockedError if another run holds it, UsageError if the folder cannot be written.
    """

    def __init__(self, output: Path, journal: Path | None = None) -> None:
        self.output = output
        self._paths = [lock_path(output)]
        if journal is not None and os.path.realpath(journal) != str(beside(output, ".journal")):
            self._paths.append(lock_path(journal))
        self._handles: list[int] = []

    def __enter__(self) -> OutputLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock now, or raise LockedError."""
        try:
            for path in self._paths:
                self._handles.append(_take(path, self.output))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back; the file stays, empty."""
        while self._handles:
            handle = self._handles.pop()
            with suppress(OSError):
                os.ftruncate(handle, 0)
            os.close(handle)


def holder_of(output: Path) -> Holder | None:
    """Who holds the output now; None if nobody does."""
    try:
        handle = os.open(lock_path(output), os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _is_taken(handle, fcntl.LOCK_SH) else _read_holder(handle)
    finally:
        os.close(handle)


def _take(path: Path, output: Path) -> int:
    handle = _open(path)
    # `status` looks by taking the lock for an instant, so one refusal proves nothing.
    for _ in range(_LOOKS):
        if _is_taken(handle, fcntl.LOCK_EX):
            _write_holder(handle)
            return handle
        time.sleep(_PAUSE_S)
    holder = _read_holder(handle)
    os.close(handle)
    who = f" ({holder})" if holder.pid else ""
    raise LockedError(f"{output}: another run holds this output{who}; wait for it, or stop it first")


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as exc:
        reason = "the folder does not exist" if exc.errno == errno.ENOENT else exc.strerror
        raise UsageError(f"{path}: cannot write here ({reason}); choose another folder with -o") from exc


def _is_taken(handle: int, kind: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(handle: int) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started_us": time.time_ns() // 1000}
    # Who holds it is said for people; the lock itself stands also on a full disk.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)


def _read_holder(handle: int) -> Holder:
    """The holder as the file names it; process 0 if it does not (it has just begun, or its disk is full)."""
    try:
        told = json.loads(os.pread(handle, 4096, 0))
        return Holder(int(told["pid"]), str(told["host"]), int(told["started_us"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(0, "this machine", 0)
