"""A journal without a disk, for tests of what stands above it; held by the contract of the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from websim_batch.journal import Known, LedgerFacts, Placed
from websim_batch.records import Attempt, OutputCells, Result


class MemoryJournal:
    """Rows, results and requests in dictionaries."""

    def __init__(self) -> None:
        self.run = 0
        self.run_ids: dict[int, str] = {}
        self.rows: dict[int, tuple[bytes, bytes | None]] = {}
        self.results: dict[int, Result] = {}
        self.requests: dict[tuple[int, int], Attempt] = {}

    def begin_run(self, run_id: str, started_us: int, settings: bytes, versions: bytes = b"{}") -> int:
        """Count the run."""
        self.run += 1
        self.run_ids[self.run] = run_id
        return self.run

    def known(self, placed: Iterable[Placed]) -> Iterator[Known]:
        """What is known of each row."""
        for row_id, key, _ in placed:
            noted, cells = self.rows.get(row_id, (None, None))
            if noted != key:
                yield Known()
                continue
            result = self.results.get(row_id)
            sent, number = self._requests_of(row_id)
            if result is None:
                yield Known(cells=cells, requests=sent, number=number)
            else:
                yield Known(
                    result.status, result.error_type, result.request_hash, cells, result.requests, number
                )

    def output_cells(self, placed: Iterable[Placed]) -> Iterator[OutputCells]:
        """The output's cells of each row."""
        for row_id, key, _ in placed:
            result = self.results.get(row_id)
            if row_id not in self.rows or self.rows[row_id][0] != key:
                yield OutputCells("pending")
            elif result is None:
                yield self._unfinished(row_id)
            else:
                shown = result._replace(request_hash=result.request_hash and result.request_hash.hex())
                yield OutputCells(*shown[1:-1], self.run_ids.get(result.run))

    def _unfinished(self, row_id: int) -> OutputCells:
        sent = [a for a in self.attempts() if a.row_id == row_id and a.delivery != "not_sent"]
        if not sent:
            return OutputCells("pending")
        statuses = [a.http_status for a in sent if a.http_status is not None]
        last_us = sent[-1].elapsed_us
        return OutputCells(
            "pending",
            http_status=statuses[-1] if statuses else None,
            requests=len(sent),
            latency_ms=None if last_us is None else round(last_us / 1000),
            started_at=sent[0].started_us,
        )

    def attempts(self) -> Iterator[Attempt]:
        """The ledger, by row and number."""
        return (self.requests[place] for place in sorted(self.requests))

    def ledger(self, run: int | None = None) -> LedgerFacts:
        """Counts of the ledger."""
        of_run = [attempt for attempt in self.requests.values() if run in (None, attempt.run)]
        counts = {
            kind: sum(a.delivery == kind for a in of_run) for kind in ("answered", "unknown", "not_sent")
        }
        return LedgerFacts(
            **counts, open=sum(a.delivery == "unknown" and a.elapsed_us is None for a in of_run)
        )

    def _requests_of(self, row_id: int) -> tuple[int, int]:
        of_row = [attempt for (row, _), attempt in self.requests.items() if row == row_id]
        return sum(a.delivery != "not_sent" for a in of_row), max((a.number for a in of_row), default=0)


class MemoryWriter:
    """Commits in the loop's next turn; `fail_with` makes the next commit fail instead."""

    def __init__(
        self,
        journal: MemoryJournal,
        loop: asyncio.AbstractEventLoop,
        on_commit: Callable[[list[Any]], None],
        on_error: Callable[[BaseException], None],
        summary: Callable[[], bytes] | None = None,
    ) -> None:
        self.journal = journal
        self.fail_with: BaseException | None = None
        self._loop = loop
        self._on_commit = on_commit
        self._on_error = on_error
        self._waiting: list[Callable[[], None]] = []
        self._tokens: list[Any] = []
        self._has_failed = False
        self._is_due = False

    def intend(self, attempt: Attempt, key: bytes | None, cells: bytes | None, token: Any) -> None:
        """Note an intent."""
        self._add(lambda: (self._note(attempt.row_id, key, cells), self._request(attempt)), token)

    def settle(self, attempt: Attempt, result: Result | None, token: Any) -> None:
        """Note an outcome."""
        self._add(lambda: (self._request(attempt), self._result(result)), token)

    def finish(self, result: Result, key: bytes | None, cells: bytes | None, token: Any) -> None:
        """Note a result."""
        self._add(lambda: (self._note(result.row_id, key, cells), self._result(result)), token)

    def withdraw(self, attempt: Attempt) -> None:
        """Take back an intent."""
        self._waiting.append(lambda: self.journal.requests.pop(attempt[:2], None))
        self._arm()

    def touch(self) -> None:
        """Nothing: there is no summary."""

    async def close(self) -> None:
        """Commit what waits."""
        self._commit()

    def _note(self, row_id: int, key: bytes | None, cells: bytes | None) -> None:
        if key is not None:
            if row_id in self.journal.rows and self.journal.rows[row_id][1] != cells:
                self.journal.results.pop(row_id, None)
            self.journal.rows[row_id] = key, cells

    def _request(self, attempt: Attempt) -> None:
        self.journal.requests[attempt.row_id, attempt.number] = attempt

    def _result(self, result: Result | None) -> None:
        if result is not None:
            self.journal.results[result.row_id] = result

    def _add(self, action: Callable[[], Any], token: Any) -> None:
        self._waiting.append(action)
        self._tokens.append(token)
        self._arm()

    def _arm(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._is_due = False
        actions, self._waiting = self._waiting, []
        tokens, self._tokens = self._tokens, []
        if self._has_failed:
            return
        if self.fail_with is not None:
            self._has_failed = True
            self._on_error(self.fail_with)
            return
        for action in actions:
            action()
        if tokens:
            self._on_commit(tokens)
