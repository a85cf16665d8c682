"""SQL of the hot paths: many rows in one statement, so that SQLite works on them without Python's lock.

Each statement gives the lock away and waits for it again, which the loop's thread pays for too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

SIZES = (256, 128, 64, 32, 16, 8, 4, 1)
"""Rows per statement: few, so that each is compiled once. 100 rows take one of 128 with 28 lines left empty; 70 rows
take one of 64 and one of 8."""

MOST_EMPTY = 0.25
"""The share of a statement's lines that may be left empty, so that one statement does instead of two."""

_NULL = float("nan")
"""SQLite keeps NaN as null. For each None, Python's module looks for an adapter first: 0.7 µs instead of 0.05."""

_RESULT_COLUMNS = (
    "row_id, status, response, image_url, error_type, error_message, http_status, requests, latency_ms, "
    "wait_ms, prompt_tokens, completion_tokens, finish_reason, request_kind, request_model, "
    "request_project_id, request_hash, started_us, finished_us, run"
)
_REQUEST_COLUMNS = "row_id, number, run, started_us, elapsed_us, http_status, error_type, delivery"
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in _REQUEST_COLUMNS.split(", ")[2:])


class ManyRows:
    """One table's statement that stores rows, in a few fixed sizes."""

    def __init__(self, head: str, width: int, tail: str = "") -> None:
        line = "(" + ", ".join("?" * width) + ")"
        # A line that is left empty has no row_id.
        self._texts = {
            size: f"{head} SELECT * FROM (VALUES {', '.join([line] * size)}) WHERE column1 IS NOT NULL {tail}"
            for size in SIZES
        }
        self._width = width

    def store(self, db: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Write all `rows`; each has as many values as the table's statement has columns."""
        start = 0
        while start < len(rows):
            size = _size_for(len(rows) - start)
            values = _quick(chain.from_iterable(rows[start : start + size]))
            values += [_NULL] * (size * self._width - len(values))
            db.execute(self._texts[size], values)
            start += size


def _size_for(left: int) -> int:
    """The size of the next statement, where so many rows are left to be written."""
    fits = next(size for size in SIZES if size <= left)
    roomy = min((size for size in SIZES if size >= left), default=fits)
    return roomy if left >= roomy * (1 - MOST_EMPTY) else fits


def _quick(values: Iterable[Any]) -> list[Any]:
    """The same values in the types that Python's module hands to SQLite without looking for an adapter."""
    return [
        _NULL if value is None else bytearray(value) if value.__class__ is bytes else value
        for value in values
    ]


ROWS = ManyRows(
    "INSERT INTO rows (row_id, key, cells)",
    3,
    "ON CONFLICT (row_id) DO UPDATE SET key = excluded.key, cells = excluded.cells",
)
RESULTS = ManyRows(f"INSERT OR REPLACE INTO results ({_RESULT_COLUMNS})", 20)
REQUESTS = ManyRows(
    f"INSERT INTO requests ({_REQUEST_COLUMNS})", 8, f"ON CONFLICT (row_id, number) DO UPDATE SET {_UPDATES}"
)
WITHDRAW = "DELETE FROM requests WHERE row_id = ? AND number = ? AND elapsed_us IS NULL"
SUMMARY = "UPDATE runs SET summary = ? WHERE run = ?"
