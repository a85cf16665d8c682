"""What SQLite and the file system say, in our own errors and in plain words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from websim_batch.errors import DiskFullError, InternalError, JournalError, WebsimBatchError

_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SHUT = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


def fault_of(exc: sqlite3.Error, path: Path) -> WebsimBatchError:
    """The error of ours that says what SQLite met at the journal `path`."""
    # The low byte is the primary code; exceptions of the module itself have none.
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in _DISK:
        return DiskFullError(f"{path}: the disk is full or failed ({exc}); what was finished before is kept")
    if code in _DAMAGED:
        return JournalError(
            f"{path}: the journal is damaged or was cut short ({exc}); restore it from a copy, "
            "or start anew with --overwrite"
        )
    if code in _HELD:
        return JournalError(
            f"{path}: another program keeps the journal locked ({exc}); close it and try again"
        )
    if code in _SHUT:
        return JournalError(
            f"{path}: the journal cannot be written here ({exc}); choose another place with --journal PATH"
        )
    return InternalError(f"{path}: {type(exc).__name__}: {exc}")


@contextmanager
def plain_words(path: Path) -> Iterator[None]:
    """Turn SQLite's errors inside the block into ours; `path` is the journal they are about."""
    try:
        yield
    except sqlite3.Error as exc:
        raise fault_of(exc, path) from exc
