"""Sorts the input's rows for the engine: finished before, to be sent, or settled without a request."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat, tee
from typing import Literal, TypeAlias

from websim_batch.engine import Batch, Guard, Settled, Work
from websim_batch.journal import Identity, Journal, Known, Placed
from websim_batch.records import UNFINISHED, Problem, PromptRow, Request, Result, Status
from websim_batch.render import Renderer, Skip
from websim_batch.run.prepare import Table

NOTHING_KNOWN = Known()

Rendered: TypeAlias = Request | Skip | Problem


@dataclass(frozen=True, slots=True)
class ResumeRule:
    """Which rows that have a result are sent again.

    `retry_failed` None: none because it failed; (): all that failed; else those of these error types. `keep` leaves a
    finished row alone although its request changed with the settings.
    """

    retry_failed: tuple[str, ...] | None = None
    on_drift: Literal["refuse", "keep", "resend"] = "refuse"

    def is_finished(self, known: Known, request_hash: bytes | None, cells: bytes | None) -> bool:
        """Whether the row needs nothing more. `request_hash` None: there is nothing to send for it now."""
        if (
            known.status is None
            or known.status in UNFINISHED
            or self._is_to_retry(known.status, known.error_type)
        ):
            return False
        return known.request_hash == request_hash or (self.on_drift == "keep" and known.cells == cells)

    def _is_to_retry(self, status: Status, error_type: str | None) -> bool:
        if self.retry_failed is None or status not in ("failed", "invalid", "refused"):
            return False
        return not self.retry_failed or error_type in self.retry_failed


class Feed:
    """The batches of one run over one table, in input order; read on one thread, once."""

    def __init__(
        self, table: Table, identity: Identity, journal: Journal, rule: ResumeRule, *, with_keys: bool = False
    ) -> None:
        self._table = table
        self._renderer: Renderer = table.renderer
        self._identity = identity
        self._journal = journal
        self._rule = rule
        self._with_keys = with_keys
        self._guard = Guard()

    def batches(self) -> Iterator[Batch]:
        """Every row of the table exactly once, in batches of at most 256."""
        lines = self._lines()
        for rows in self._table.rows():
            batch = Batch()
            # The rows come first: where they end, no line is taken.
            for row, rendered, (placed, known) in zip(rows, self._rendered(rows), lines, strict=False):
                self._sort(row, rendered, placed, known, batch)
            yield batch

    def _lines(self) -> Iterator[tuple[Placed, Known]]:
        placed = self._identity.place()
        if self._journal.run == 1:  # nothing was there before this run
            return zip(placed, repeat(NOTHING_KNOWN))
        left, right = tee(placed)
        return zip(left, self._journal.known(right), strict=True)

    def _rendered(self, rows: Sequence[PromptRow]) -> Sequence[Rendered]:
        """What each row asks for; a fault of ours ends the row that it meets."""
        with self._guard:
            return list(map(self._renderer.render, rows))
        return [self._rendered_alone(row) for row in rows]

    def _rendered_alone(self, row: PromptRow) -> Rendered:
        with self._guard:
            return self._renderer.render(row)
        return Problem("internal", self._guard.fault or "", is_structural=False)

    def _sort(self, row: PromptRow, rendered: Rendered, placed: Placed, known: Known, batch: Batch) -> None:
        row_id, key, is_new = placed
        cells = self._renderer.cells_hash(row)
        request_hash = bytes.fromhex(rendered.hash_hex) if isinstance(rendered, Request) else None
        if known.status is not None and self._rule.is_finished(known, request_hash, cells):
            batch.known[known.status, known.error_type] += 1
            return
        # An edited row of the same id is noted again, with its new cells.
        noted_key = None if not is_new and known.cells == cells else key
        if isinstance(rendered, Request):
            if self._with_keys:
                rendered.idempotency_key = blake2b(key + (request_hash or b""), digest_size=16).hexdigest()
            batch.work.append(Work(row_id, rendered, noted_key, cells, known.number + 1, known.requests))
        else:
            problem = rendered if isinstance(rendered, Problem) else None
            result = _settled(row_id, problem, known.requests, self._journal.run)
            batch.settled.append(Settled(result, noted_key, cells))


def _settled(row_id: int, problem: Problem | None, requests: int, run: int) -> Result:
    """The result of a row that nothing is sent for: `skipped`, or `failed` / `input` for a cell that cannot be sent."""
    now_us = time.time_ns() // 1000
    if problem is None:
        return Result(row_id, "skipped", requests=requests, finished_us=now_us, run=run)
    message = _told(problem)
    return Result(
        row_id,
        "failed",
        error_type="internal" if problem.kind == "internal" else "input",
        error_message=message,
        requests=requests,
        finished_us=now_us,
        run=run,
    )


def _told(problem: Problem) -> str:
    column = "" if problem.column is None else f"column {problem.column!r}: "
    return " ".join((column + problem.message).split())
