"""SQL of the hot paths: many rows in one statement, so that SQLite works on them without Python's lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

SIZES = (256, 64, 16, 4, 1)
"""Rows per statement: few, so that each is compiled once; 100 rows take the statements of 64, 16, 16 and 4."""

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
        self._texts = {size: f"{head} VALUES {', '.join([line] * size)} {tail}" for size in SIZES}

    def store(self, db: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Write all `rows`; each has as many values as the table's statement has columns."""
        start, left = 0, len(rows)
        for size in SIZES:
            while left >= size:
                db.execute(self._texts[size], list(chain.from_iterable(rows[start : start + size])))
                start, left = start + size, left - size


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
