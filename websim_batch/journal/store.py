"""The journal as a store: its runs, and what it knows of rows, always in the order of the input."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

from websim_batch.journal import reading
from websim_batch.journal.faults import plain_words
from websim_batch.journal.opening import Mode, open_database
from websim_batch.journal.reading import Known, Placed
from websim_batch.records import Attempt, OutputCells, Status


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run; `settings`, `summary` and `versions` are JSON texts, times microseconds UTC."""

    run: int
    run_id: str
    started_us: int
    finished_us: int | None
    state: str
    settings: str
    summary: str
    versions: str


class LedgerFacts(NamedTuple):
    """Requests by delivery; `unknown` may be paid for nothing, `open` of them have no outcome (yet)."""

    answered: int = 0
    unknown: int = 0
    not_sent: int = 0
    open: int = 0


def open_journal(path: Path, mode: Mode = "write", *, is_sandbox: bool | None = None) -> Journal:
    """The journal at `path`; `write` makes one where there is none, `read` only looks and never blocks a run.

    With `is_sandbox` given, a new journal is marked so, and one with the other mark is refused. Raises
    JournalError for what is no usable journal (one sentence says why), UsageError for a folder that cannot be
    written.
    """
    return Journal(path, open_database(path, mode, is_sandbox))


class Journal:
    """An open journal. The caller of `write` methods holds the output's lock; readers need none."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self.run = 0
        """The number of the run that goes on; 0 before `begin_run`."""
        self.left_open = 0
        """Requests that `begin_run` found without an outcome: sent perhaps, and paid perhaps."""
        self._db = db

    def __repr__(self) -> str:
        return f"<Journal {self.path} run={self.run}>"

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. The last to do so moves the log into it."""
        with plain_words(self.path):
            self._db.close()

    def note(self, key: str, value: str) -> None:
        """Keep a fact about the whole journal, in place of an older one of that name."""
        with plain_words(self.path):
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        """A fact that `note` kept (and `schema_version`, `sandbox`); None if there is none."""
        with plain_words(self.path):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    @property
    def is_sandbox(self) -> bool:
        """Whether its answers came from the sandbox."""
        return self.noted("sandbox") == "1"

    def runs(self) -> list[RunFacts]:
        """All runs, the first one first."""
        columns = "run, run_id, started_us, finished_us, state, settings, summary, versions"
        with plain_words(self.path):
            return [RunFacts(*row) for row in self._db.execute(f"SELECT {columns} FROM runs ORDER BY run")]

    def begin_run(self, run_id: str, started_us: int, settings: bytes, versions: bytes = b"{}") -> int:
        """Open a run and give its number. What a dead run left without an outcome counts as `unknown`."""
        with plain_words(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self.left_open = self._settle_dead_runs()
                added = self._db.execute(
                    "INSERT INTO runs (run_id, started_us, state, settings, summary, versions) "
                    "VALUES (?, ?, 'running', ?, '{}', ?)",
                    (run_id, started_us, settings.decode(), versions.decode()),
                )
                self.run = added.lastrowid or 0
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        return self.run

    def _settle_dead_runs(self) -> int:
        """Close runs that never ended; how many of their requests have no outcome."""
        dead = [run for (run,) in self._db.execute("SELECT run FROM runs WHERE state = 'running'")]
        if not dead:
            return 0
        marks = ", ".join("?" * len(dead))
        open_rows = (
            "SELECT row_id FROM requests "
            f"WHERE elapsed_us IS NULL AND delivery = 'unknown' AND run IN ({marks})"
        )
        found: int = self._db.execute(f"SELECT count(*) FROM ({open_rows})", dead).fetchone()[0]
        # Rows that were being sent again keep their old result; the count beside it holds all requests.
        self._db.execute(
            "UPDATE results SET requests = max(requests, (SELECT count(*) FROM requests AS q "
            "WHERE q.row_id = results.row_id AND q.delivery <> 'not_sent')) "
            f"WHERE row_id IN ({open_rows})",
            dead,
        )
        self._db.execute(f"UPDATE runs SET state = 'stopped' WHERE run IN ({marks})", dead)
        return found

    def end_run(self, state: Literal["finished", "stopped"], finished_us: int, summary: bytes) -> None:
        """Close the run that `begin_run` opened; the writer is closed already."""
        with plain_words(self.path):
            self._db.execute(
                "UPDATE runs SET state = ?, finished_us = ?, summary = ? WHERE run = ?",
                (state, finished_us, summary.decode(), self.run),
            )

    def known(self, placed: Iterable[Placed]) -> Iterator[Known]:
        """What the journal knows of each row, in the order given; reads ahead by at most 1,024 rows."""
        with plain_words(self.path):
            yield from reading.known(self._db, placed)

    def output_cells(self, placed: Iterable[Placed]) -> Iterator[OutputCells]:
        """Our columns of each row, in the order given; without a result `pending`, with its requests."""
        with plain_words(self.path):
            yield from reading.output_cells(self._db, placed)

    def attempts(self) -> Iterator[Attempt]:
        """The whole ledger, by row and number."""
        with plain_words(self.path):
            yield from reading.attempts(self._db)

    def outcomes(self) -> dict[tuple[Status, str | None], int]:
        """Rows with a result, by status and error type; reads the whole table of results."""
        query = "SELECT status, error_type, count(*) FROM results GROUP BY status, error_type"
        with plain_words(self.path):
            return {(status, kind): rows for status, kind, rows in self._db.execute(query)}

    def recent_sends(self, since_us: int) -> list[tuple[int, int | None, int]]:
        """(started_us, elapsed_us, run) of requests sent since then; those without an outcome, whenever it was."""
        query = (
            "SELECT started_us, elapsed_us, run FROM requests "
            "WHERE delivery <> 'not_sent' AND (started_us >= ? OR elapsed_us IS NULL)"
        )
        with plain_words(self.path):
            return self._db.execute(query, (since_us,)).fetchall()

    def ledger(self, run: int | None = None) -> LedgerFacts:
        """Counts of the ledger, of one run or of all."""
        with plain_words(self.path):
            return LedgerFacts(*reading.ledger_counts(self._db, run))

    def checkpoint(self) -> bool:
        """Move the log into the file as far as no reader or writer is in the way; whether all of it went."""
        with plain_words(self.path):
            _, log, moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(log == moved)
