"""Opening a journal: what may lie at its path, and what is refused with which words."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import quote

from websim_batch.errors import JournalError, UsageError
from websim_batch.journal import schema
from websim_batch.journal.faults import plain_words
from websim_batch.journal.places import network_type, sync_folder

Mode: TypeAlias = Literal["write", "read"]

_HEADER = b"SQLite format 3\0"
_BUSY_TIMEOUT_MS = 30_000
_LOG_LIMIT_BYTES = 16 << 20  # what the write-ahead log keeps on disk once its content is in the file


def open_database(path: Path, mode: Mode, is_sandbox: bool | None = None) -> sqlite3.Connection:
    """A connection to the journal at `path`, of the present version; `write` creates one where there is none.

    With `is_sandbox` given, a new journal is marked so, and one with the other mark is refused. Raises
    JournalError for what is no usable journal, UsageError for a folder that cannot be written.
    """
    _refuse_network(path)
    if not path.exists():
        if mode == "read":
            raise JournalError(f"{path}: there is no journal here; has the job been run, with this output?")
        _create(path, bool(is_sandbox))
    _refuse_other_files(path)
    # Looked at through a connection that changes nothing: a stranger's file stays as it is.
    with plain_words(path), closing(connect_reading(path)) as db:
        version = _check(db, path, is_sandbox)
    with plain_words(path):
        if version < schema.VERSION:
            with closing(connect_writing(path)) as db:
                schema.migrate(db, version)
        return connect_writing(path) if mode == "write" else connect_reading(path)


def uri_of(path: Path, options: str) -> str:
    """The URI under which SQLite opens `path`, whatever bytes are in its name."""
    return f"file:{quote(os.fsencode(path.absolute()))}?{options}"


def connect_writing(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return; the journal exists."""
    db = _connect(uri_of(path, "mode=rw"))
    for pragma in (
        "synchronous = FULL",
        "fullfsync = ON",  # macOS: fsync alone leaves data in the drive's cache
        "secure_delete = OFF",
        f"journal_size_limit = {_LOG_LIMIT_BYTES}",
    ):
        db.execute(f"PRAGMA {pragma}")
    found = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if found != "wal":
        db.close()
        raise JournalError(
            f"{path}: this file system cannot hold a journal (SQLite's write-ahead log does not work on it); "
            "choose a local disk with --journal PATH"
        )
    return db


def connect_reading(path: Path) -> sqlite3.Connection:
    """A connection that changes no row; it can fold the log into the file, where the folder allows it."""
    db = _connect(reading_uri(path))
    db.execute("PRAGMA query_only = ON")
    return db


def reading_uri(path: Path) -> str:
    """The URI under which `path` can be read where it lies."""
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return uri_of(path, "mode=rw")
    # A folder that cannot be written: without a log beside it, the file alone is the whole journal.
    has_log = Path(f"{path}-wal").exists()
    return uri_of(path, "mode=ro" if has_log else "mode=ro&immutable=1")


def _connect(uri: str) -> sqlite3.Connection:
    # The reader, the loop and the writer's thread each use their own connection, one at a time.
    db = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_MS / 1000,
        cached_statements=64,
    )  # fmt: skip
    db.execute("PRAGMA temp_store = FILE")
    return db


def _refuse_network(path: Path) -> None:
    kind = network_type(path.parent)
    if kind is not None:
        raise JournalError(
            f"{path}: the journal cannot lie on a network file system ({kind}), where SQLite's write-ahead "
            "log does not work; put it on a local disk with --journal PATH"
        )


def _refuse_other_files(path: Path) -> None:
    """Refuse what is no database. Before any connection is open: closing a file drops SQLite's locks."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_HEADER))
    except OSError as exc:
        raise JournalError(
            f"{path}: the journal cannot be read ({exc.strerror}); choose another with --journal PATH"
        ) from exc
    if not start:
        raise JournalError(
            f"{path}: the journal is empty, so it was cut short; restore it from a copy, or start anew "
            "with --overwrite"
        )
    if start != _HEADER:
        raise JournalError(
            f"{path}: this file is not a journal (not an SQLite database); move it away, or choose another "
            "place with --journal PATH"
        )


def _create(path: Path, is_sandbox: bool) -> None:
    """Make a new journal under another name first: what stands at `path` is always whole."""
    draft = path.with_name(f".{path.name}.new")
    remains = [Path(f"{file}{suffix}") for file in (draft, path) for suffix in ("-wal", "-shm", "-journal")]
    try:
        # Logs of a journal that someone deleted would be replayed into the new one.
        for file in (draft, *remains):
            file.unlink(missing_ok=True)
        with draft.open("xb"):
            pass
        with plain_words(path), closing(connect_writing(draft)) as db:
            schema.create(db, {"sandbox": "1" if is_sandbox else "0"})
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as exc:
        raise UsageError(
            f"{path}: cannot write here ({exc.strerror}); choose another folder with -o or --journal PATH"
        ) from exc
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _check(db: sqlite3.Connection, path: Path, is_sandbox: bool | None) -> int:
    """Refuse what is no journal of ours, or of the other mark; its version."""
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    if mark != schema.APPLICATION_ID:
        raise JournalError(
            f"{path}: this SQLite database is not a journal of websim-batch; move it away, or choose another "
            "place with --journal PATH"
        )
    meta = dict(db.execute("SELECT key, value FROM meta"))
    version = int(meta.get("schema_version", 0))
    if version > schema.VERSION:
        raise JournalError(
            f"{path}: the journal was written by a newer websim-batch (its version is {version}, this one "
            f"knows {schema.VERSION}); update websim-batch"
        )
    is_marked = meta.get("sandbox") == "1"
    if is_sandbox is not None and is_marked != is_sandbox:
        raise JournalError(_mark_message(path, is_marked))
    return version


def _mark_message(path: Path, is_marked: bool) -> str:
    if is_marked:
        return (
            f"{path}: the journal holds answers of the sandbox; a real run needs another output (-o), "
            "or --overwrite to start anew"
        )
    return f"{path}: the journal holds real answers; a rehearsal with --sandbox needs another output (-o)"
