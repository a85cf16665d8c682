"""The journal's one writer: groups of rows, each committed as a whole on a thread of its own.

    loop's thread      intend, settle, finish ──> group ─┐                       ┌──> on_commit(tokens)
    writer's thread                                      └─ BEGIN … COMMIT, fsync ┘    or on_error, once

A group is closed after 20 ms, or when it has 256 entries or 1 MiB of answers; and at once if none was closed
within the last 20 ms, so that single rows do not wait.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Generic, TypeVar

from websim_batch.errors import InternalError, WebsimBatchError
from websim_batch.journal import sql
from websim_batch.journal.faults import fault_of
from websim_batch.journal.opening import connect_writing
from websim_batch.journal.store import Journal
from websim_batch.records import Attempt, Result

Token = TypeVar("Token")

WINDOW_S = 0.02
GROUP_SIZE = 256
GROUP_BYTES = 1 << 20

_UNBINDABLE = (UnicodeEncodeError, OverflowError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What a value meets that SQLite cannot hold: a lone surrogate, a huge number, a foreign type."""

_row_id = itemgetter(0)


@dataclass(slots=True)
class _Group(Generic[Token]):
    """What is committed together. Withdrawn intents go first: the same number may be intended again."""

    withdrawn: list[Attempt] = field(default_factory=list)
    rows: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    intents: list[Attempt] = field(default_factory=list)
    outcomes: list[Attempt] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    weight: int = 0
    summary: bytes | None = None


class JournalWriter(Generic[Token]):
    """Makes intents, outcomes and results durable in groups; every method but `close` returns at once.

    `on_commit` gets the tokens of a group, in the order in which they were handed in, in the loop's thread,
    after the fsync. `on_error` is called once, with DiskFullError, JournalError or InternalError; nothing is
    written afterwards and no more tokens come back; what was committed before is kept. `summary` is called in
    the loop's thread when a group is closed; its JSON is committed together with that group.
    """

    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        on_commit: Callable[[list[Token]], None],
        on_error: Callable[[BaseException], None],
        summary: Callable[[], bytes] | None = None,
        window_s: float = WINDOW_S,
    ) -> None:
        self._path = journal.path
        self._run = journal.run
        self._loop = loop
        self._on_commit = on_commit
        self._on_error = on_error
        self._summary = summary
        self._window_s = window_s
        self._group: _Group[Token] = _Group()
        self._timer: asyncio.TimerHandle | None = None
        self._last_close = -1e9
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._has_failed = False  # set and read in the loop's thread
        self._is_broken = False  # set and read in the writer's thread
        self._is_closed = False
        self._db = connect_writing(journal.path)
        self._thread = ThreadPoolExecutor(1, "journal")

    def __repr__(self) -> str:
        return f"<JournalWriter waiting={len(self._group.tokens)} groups under way={self._under_way}>"

    def intend(self, attempt: Attempt, key: bytes | None, cells: bytes | None, token: Token) -> None:
        """Note that a request is about to be sent; it has no elapsed time. `key` None: the row is known."""
        group = self._group
        if key is not None:
            group.rows.append((attempt.row_id, key, cells))
        group.intents.append(attempt)
        self._add(token)

    def settle(self, attempt: Attempt, result: Result | None, token: Token) -> None:
        """Note a request's outcome in place of its intent, and the row's result if it has one now."""
        group = self._group
        group.outcomes.append(attempt)
        if result is not None:
            group.results.append(result)
            if result.response is not None:
                group.weight += len(result.response)
        self._add(token)

    def finish(self, result: Result, key: bytes | None, cells: bytes | None, token: Token) -> None:
        """Note the result of a row that no request was sent for now. `key` None: the row is known."""
        group = self._group
        if key is not None:
            group.rows.append((result.row_id, key, cells))
        group.results.append(result)
        self._add(token)

    def withdraw(self, attempt: Attempt) -> None:
        """Take back an intent whose request was never sent."""
        if self._group.intents:
            self._close_group()
        self._group.withdrawn.append(attempt)
        self._arm()

    def touch(self) -> None:
        """Have the summary written although no row moves."""
        self._arm()

    async def close(self) -> None:
        """Commit what waits, give its tokens back, end the thread. Does not raise what `on_error` got."""
        if self._is_closed:
            return
        self._close_group()
        self._is_closed = True
        await self._idle.wait()
        await asyncio.wrap_future(self._thread.submit(self._end), loop=self._loop)
        self._thread.shutdown()

    def _add(self, token: Token) -> None:
        group = self._group
        group.tokens.append(token)
        if len(group.tokens) >= GROUP_SIZE or group.weight >= GROUP_BYTES:
            self._close_group()
        elif self._timer is None:
            self._arm()

    def _arm(self) -> None:
        if self._is_closed:
            raise InternalError("the journal's writer was used after it was closed")
        if self._timer is None:
            self._timer = self._loop.call_at(self._last_close + self._window_s, self._close_group)

    def _close_group(self) -> None:
        if self._is_closed:
            raise InternalError("the journal's writer was used after it was closed")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._last_close = self._loop.time()
        group, self._group = self._group, _Group()
        if self._has_failed:
            return
        self._under_way += 1
        self._idle.clear()
        task: Future[list[Token] | None] = Future()
        try:
            group.summary = None if self._summary is None else self._summary()
        except BaseException as exc:
            # Nobody waits for this group any more, so those who wait for its rows have to hear of it.
            task.set_exception(exc)
            self._deliver(task)
            raise
        self._thread.submit(self._commit, group).add_done_callback(self._hand_back)

    # In the writer's thread.

    def _commit(self, group: _Group[Token]) -> list[Token] | None:
        """Make the group durable; its tokens, or None if an earlier group failed already."""
        if self._is_broken:
            return None
        self._is_broken = True
        try:
            try:
                self._write(group)
            except _UNBINDABLE:
                self._db.execute("ROLLBACK")
                _clean(group)
                self._write(group)
        except sqlite3.Error as exc:
            self._roll_back()
            raise fault_of(exc, self._path) from exc
        self._is_broken = False
        return group.tokens

    def _write(self, group: _Group[Token]) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        if group.withdrawn:
            db.executemany(sql.WITHDRAW, [attempt[:2] for attempt in group.withdrawn])
        # In the order of the tables' keys, pages fill up and are written once.
        sql.ROWS.store(db, group.rows)
        sql.REQUESTS.store(db, group.intents)
        sql.REQUESTS.store(db, sorted(group.outcomes, key=_row_id))
        sql.RESULTS.store(db, sorted(group.results, key=_row_id))
        if group.summary is not None:
            db.execute(sql.SUMMARY, (group.summary.decode(), self._run))
        db.execute("COMMIT")

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself where the disk is full.
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _end(self) -> None:
        # The last connection moves the log into the file as it closes; on a full disk it stays beside it.
        with suppress(sqlite3.Error):
            self._db.close()

    def _hand_back(self, done: Future[list[Token] | None]) -> None:
        # A loop that was closed under us has nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver, done)

    # In the loop's thread again.

    def _deliver(self, done: Future[list[Token] | None]) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()
        exc = done.exception()
        if exc is None:
            tokens = done.result()
            if tokens:
                self._on_commit(tokens)
        elif not self._has_failed:
            self._has_failed = True
            self._on_error(exc if isinstance(exc, WebsimBatchError) else _internal(exc))


def _internal(exc: BaseException) -> InternalError:
    error = InternalError(f"the journal's writer failed: {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error


def _clean(group: _Group[Token]) -> None:
    """Replace in a group what SQLite cannot hold; all else stays as it is."""
    group.intents = [Attempt(*map(_storable, attempt)) for attempt in group.intents]
    group.outcomes = [Attempt(*map(_storable, attempt)) for attempt in group.outcomes]
    group.results = [Result(*map(_storable, result)) for result in group.results]


def _storable(value: Any) -> Any:
    """`value` as SQLite holds it: lone surrogates become U+FFFD, huge numbers null, other types text."""
    if isinstance(value, str):
        # Two halves of one character that came apart become that character again.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else None
    return value if value is None or isinstance(value, float | bytes) else _storable(str(value))
