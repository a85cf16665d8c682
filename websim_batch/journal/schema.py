"""The journal's tables, how older layouts become the present one, and what tells a journal from other files.

    meta      key, value                    schema version, sandbox mark, the input's path
    runs      one line per run              state, settings, versions, the summary as of the last commit
    rows      one line per row ever sent    row_id, key (who it is), cells (what it held, with an id column)
    results   one line per finished row     the columns of records.Result
    requests  the ledger                    the columns of records.Attempt; an intent has no elapsed_us yet
    answers, ledger                         the same as views for human eyes: ISO times, hex hashes, run ids

Columns that may be long stand last in `results`: SQLite finds the short ones without reading them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

VERSION = 1
APPLICATION_ID = 0x77624A31  # "wbJ1", in the file's header

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, run_id TEXT NOT NULL, started_us INTEGER NOT NULL, finished_us INTEGER,
    state TEXT NOT NULL, settings TEXT NOT NULL, summary TEXT NOT NULL, versions TEXT NOT NULL);
CREATE TABLE rows (row_id INTEGER PRIMARY KEY, key BLOB NOT NULL, cells BLOB);
CREATE TABLE results (
    row_id INTEGER PRIMARY KEY, status TEXT NOT NULL, error_type TEXT, http_status INTEGER,
    requests INTEGER NOT NULL, latency_ms INTEGER, wait_ms INTEGER, prompt_tokens INTEGER,
    completion_tokens INTEGER, finish_reason TEXT, request_kind TEXT, request_model TEXT,
    request_project_id TEXT, request_hash BLOB, started_us INTEGER, finished_us INTEGER NOT NULL,
    run INTEGER NOT NULL, error_message TEXT, image_url TEXT, response TEXT);
CREATE TABLE requests (
    row_id INTEGER NOT NULL, number INTEGER NOT NULL, run INTEGER NOT NULL, started_us INTEGER NOT NULL,
    elapsed_us INTEGER, http_status INTEGER, error_type TEXT, delivery TEXT NOT NULL,
    PRIMARY KEY (row_id, number)) WITHOUT ROWID;
"""


def _iso(column: str) -> str:
    """SQL for a time in microseconds as ISO 8601, UTC."""
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch') "
        f"|| printf('.%06dZ', {column} % 1000000)"
    )


_EDITED = """CREATE TRIGGER edited AFTER UPDATE OF cells ON rows WHEN old.cells IS NOT new.cells BEGIN
    DELETE FROM results WHERE row_id = new.row_id; END"""
"""The row behind an id was edited and is sent again: its old answer is none of the new row's."""

_VIEWS = f"""
DROP VIEW IF EXISTS answers;
DROP VIEW IF EXISTS ledger;
CREATE VIEW answers AS
    SELECT row_id, status, response, image_url, error_type, error_message, http_status, requests,
        latency_ms, wait_ms, prompt_tokens, completion_tokens, finish_reason, request_kind, request_model,
        request_project_id, lower(hex(request_hash)) AS request_hash,
        {_iso("r.started_us")} AS started_at, {_iso("r.finished_us")} AS finished_at, run_id
    FROM results AS r LEFT JOIN runs USING (run);
CREATE VIEW ledger AS
    SELECT row_id, number, run_id, {_iso("q.started_us")} AS started_at, elapsed_us / 1000.0 AS elapsed_ms,
        http_status, error_type, delivery
    FROM requests AS q LEFT JOIN runs USING (run);
"""


def _from_0(db: sqlite3.Connection) -> None:
    """Version 0, never released: rows without their cells, runs without versions."""
    db.execute("ALTER TABLE rows ADD COLUMN cells BLOB")
    db.execute("ALTER TABLE runs ADD COLUMN versions TEXT NOT NULL DEFAULT '{}'")
    db.execute(_EDITED)


MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {0: _from_0}
"""From each older version, the step to the next one. It runs inside a transaction."""


def create(db: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    """Lay out an empty database as a journal of the present version, in one transaction."""
    _script(db, "BEGIN IMMEDIATE;" + _TABLES + _VIEWS)
    db.execute(_EDITED)
    notes = {"schema_version": str(VERSION), **meta}
    db.executemany("INSERT INTO meta VALUES (?, ?)", list(notes.items()))
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("COMMIT")


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring a journal of an older `version` to the present one, all steps or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in range(version, VERSION):
            MIGRATIONS[step](db)
        _script(db, _VIEWS)
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(VERSION),))
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _script(db: sqlite3.Connection, script: str) -> None:
    """Run some statements; `executescript` would commit what is open first."""
    for statement in script.split(";"):
        if statement.strip():
            db.execute(statement)
