"""Streams out of the journal in the input's order, in reads too short to keep the log from being folded."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, repeat
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from websim_batch.records import Attempt, OutputCells, Status

CHUNK = 1024
CHUNK_CHARS = 4 << 20
"""So much text of answers is in memory at once, and one answer more."""


class Placed(NamedTuple):
    """An input row as the journal knows it: its number there, who it is, and whether it was never noted."""

    row_id: int
    key: bytes
    is_new: bool


class Known(NamedTuple):
    """What the journal knows of a row; `status` None: no result yet.

    `requests` counts those that were sent, or perhaps sent; `number` is the highest in the ledger: the next
    request of the row has `number + 1`.
    """

    status: Status | None = None
    error_type: str | None = None
    request_hash: bytes | None = None
    cells: bytes | None = None
    requests: int = 0
    number: int = 0


NOTHING = Known()
PENDING = OutputCells("pending")

_SENT = "(SELECT count(*) FROM requests AS q WHERE q.row_id = w.row_id AND q.delivery <> 'not_sent')"
# The last column is 1 for a row that has requests, whose higher numbers _LATER finds; else it is looked up.
_KNOWN = (
    "SELECT w.row_id, w.key, r.status, r.error_type, r.request_hash, w.cells, "
    f"coalesce(r.requests, {_SENT}), CASE WHEN r.requests > 0 THEN 1 ELSE "
    "coalesce((SELECT max(number) FROM requests AS q WHERE q.row_id = w.row_id), 0) END "
    "FROM rows AS w LEFT JOIN results AS r ON r.row_id = w.row_id WHERE w.row_id "
)
_LATER = "SELECT row_id, max(number) FROM requests AS w WHERE number > 1 AND w.row_id "
# Plain columns: what the output's cells need beyond them costs less in Python than in SQL.
_CELLS = (
    "SELECT w.row_id, w.key, r.status, r.response, r.image_url, r.error_type, r.error_message, "
    f"r.http_status, coalesce(r.requests, {_SENT}), r.latency_ms, r.wait_ms, r.prompt_tokens, "
    "r.completion_tokens, r.finish_reason, r.request_kind, r.request_model, r.request_project_id, "
    "r.request_hash, r.started_us, r.finished_us, r.run "
    "FROM rows AS w LEFT JOIN results AS r ON r.row_id = w.row_id WHERE w.row_id "
)
_RANGE = "BETWEEN ? AND ?"
_LIST = f"IN ({', '.join('?' * CHUNK)})"

Line: TypeAlias = tuple[Any, ...]
"""A line of the journal: row_id, key, then what was asked for."""

_who = itemgetter(0, 1)
_facts: Callable[[Any], Any] = itemgetter(slice(2, None))
_STATUS, _RESPONSE, _IMAGE_URL, _REQUESTS = 2, 3, 4, 8  # in _CELLS
_MOST_REQUESTS = 32_767  # the output's column has 16 bits

_new_known: Callable[[Sequence[Any]], Known] = partial(tuple.__new__, Known)
_new_cells: Callable[[Sequence[Any]], OutputCells] = partial(tuple.__new__, OutputCells)


def known(db: sqlite3.Connection, placed: Iterable[Placed]) -> Iterator[Known]:
    """What the journal knows of each placed row."""
    for chunk, lines in _matched(db, _KNOWN, placed):
        later: dict[int, int] = dict(_lines(db, _LATER, chunk, " GROUP BY w.row_id") or ())
        if later or None in lines:
            yield from map(_known_of, chunk, lines, repeat(later))
        else:
            yield from map(_new_known, map(_facts, lines))


def _known_of(row: Placed, line: Line | None, later: dict[int, int]) -> Known:
    if line is None:
        return NOTHING
    number = later.get(row[0])
    return _new_known(line[2:] if number is None else (*line[2:-1], number))


def output_cells(db: sqlite3.Connection, placed: Iterable[Placed]) -> Iterator[OutputCells]:
    """The output's cells of each placed row."""
    run_ids = _RunIds(db)
    for _, lines in _matched(db, _CELLS, placed):
        for line in lines:
            if line is None:
                yield PENDING
            elif line[_STATUS] is None and line[_REQUESTS]:
                yield _unfinished(db, line)
            else:
                yield _cells_of(line, run_ids)


def _unfinished(db: sqlite3.Connection, line: Line) -> OutputCells:
    """A row that was sent and has no result: what the ledger tells of its requests."""
    sent = db.execute(
        "SELECT started_us, elapsed_us, http_status FROM requests "
        "WHERE row_id = ? AND delivery <> 'not_sent' ORDER BY number",
        (line[0],),
    ).fetchall()
    elapsed_us = sent[-1][1]
    return PENDING._replace(
        http_status=next((http_status for _, _, http_status in reversed(sent) if http_status), None),
        requests=min(line[_REQUESTS], _MOST_REQUESTS),
        latency_ms=None if elapsed_us is None else round(elapsed_us / 1000),
        started_at=sent[0][0],
    )


class _RunIds(dict[int | None, str | None]):
    """The ids of runs by their numbers; looked up once each, also of runs that began meanwhile."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__()
        self._db = db

    def __missing__(self, run: int | None) -> str | None:
        found = self._db.execute("SELECT run_id FROM runs WHERE run = ?", (run,)).fetchone()
        self[run] = run_id = None if found is None else found[0]
        return run_id


def _cells_of(line: Line, run_ids: _RunIds) -> OutputCells:
    (_, _, status, response, image_url, error_type, message, http, requests, latency, wait, prompt,
     completion, finish, kind, model, project, digest, started, finished, run) = line  # fmt: skip
    return _new_cells(
        (
            status or "pending", response, image_url, error_type, message, http,
            requests if requests < _MOST_REQUESTS else _MOST_REQUESTS, latency, wait, prompt, completion,
            finish, kind, model, project, None if digest is None else digest.hex(), started, finished,
            run_ids[run],
        )
    )  # fmt: skip


def _matched(
    db: sqlite3.Connection, query: str, placed: Iterable[Placed]
) -> Iterator[tuple[list[Placed], Sequence[Line | None]]]:
    """Rows in chunks, each with its line, or None. A line counts only if its key is the row's own."""
    rows = iter(placed)
    while chunk := list(islice(rows, CHUNK)):
        yield from _match(db, query, chunk)


def _match(
    db: sqlite3.Connection, query: str, chunk: list[Placed]
) -> Iterator[tuple[list[Placed], Sequence[Line | None]]]:
    lines = _lines(db, query, chunk)
    if lines is None:
        half = len(chunk) // 2
        yield from _match(db, query, chunk[:half])
        yield from _match(db, query, chunk[half:])
    elif list(map(_who, lines)) == list(map(_who, chunk)):
        yield chunk, lines  # the usual case: all are known, in the journal's order
    else:
        found = dict(zip(map(_who, lines), lines, strict=True))
        yield chunk, [found.get(who) for who in map(_who, chunk)]


def _lines(db: sqlite3.Connection, query: str, chunk: list[Placed], tail: str = "") -> list[Line] | None:
    """The journal's lines about some rows, by range if they lie close together; None if they are too long."""
    row_ids = [row[0] for row in chunk]
    low, high = min(row_ids), max(row_ids)
    if high - low < 2 * len(row_ids):
        found = db.execute(query + _RANGE + tail, (low, high))
    else:
        fill = (None,) * (CHUNK - len(row_ids))
        found = db.execute(query + _LIST + tail, (*row_ids, *fill))
    if query is not _CELLS or len(chunk) == 1:
        return found.fetchall()
    return _light(found)


def _light(found: sqlite3.Cursor) -> list[Line] | None:
    """All lines with answers, or None once they are too long together."""
    lines: list[Line] = []
    chars = 0
    for line in found:
        lines.append(line)
        chars += len(line[_RESPONSE] or "") + len(line[_IMAGE_URL] or "")
        if chars > CHUNK_CHARS:
            found.close()
            return None
    return lines


def attempts(db: sqlite3.Connection) -> Iterator[Attempt]:
    """The ledger in the order of its key."""
    query = (
        "SELECT row_id, number, run, started_us, elapsed_us, http_status, error_type, delivery FROM requests "
        f"WHERE (row_id, number) > (?, ?) ORDER BY row_id, number LIMIT {CHUNK}"
    )
    last: tuple[int, int] = (-1, -1)
    while lines := db.execute(query, last).fetchall():
        yield from map(Attempt._make, lines)
        last = lines[-1][:2]


def ledger_counts(db: sqlite3.Connection, run: int | None) -> tuple[int, int, int, int]:
    """Requests answered, unknown, not sent; and of the unknown those without an outcome."""
    query = (
        "SELECT coalesce(sum(delivery = 'answered'), 0), coalesce(sum(delivery = 'unknown'), 0), "
        "coalesce(sum(delivery = 'not_sent'), 0), "
        "coalesce(sum(delivery = 'unknown' AND elapsed_us IS NULL), 0) "
        "FROM requests WHERE ? IS NULL OR run = ?"
    )
    answered, unknown, not_sent, left_open = db.execute(query, (run, run)).fetchone()
    return answered, unknown, not_sent, left_open
