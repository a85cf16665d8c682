"""Drives the engine in virtual time: minutes pass in milliseconds, with a journal that only remembers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests import virtual_time
from websim_batch.engine import Batch, Counters, Engine, Rules, Work
from websim_batch.errors import HeldBackError
from websim_batch.records import Answer, Attempt, Ceiling, Reply, Request, Result, StopReason
from websim_batch.retry import RetryPolicy
from websim_batch.throttle import Grant, Throttle

COMMIT_S = 0.005


class Writer:
    """A journal's writer that keeps what it is told; durable 5 ms later. `is_lost` makes it swallow everything."""

    def __init__(self) -> None:
        self.results: dict[int, Result] = {}
        self.ledger: dict[tuple[int, int], Attempt] = {}
        self.durable: set[tuple[int, int]] = set()
        self.is_lost = False
        self._waiting: list[Any] = []
        self._intents: list[tuple[int, int]] = []
        self.engine: Engine

    def intend(self, attempt: Attempt, key: bytes | None, cells: bytes | None, token: Any) -> None:
        self.ledger[attempt[:2]] = attempt
        self._intents.append(attempt[:2])
        self._add(token)

    def settle(self, attempt: Attempt, result: Result | None, token: Any) -> None:
        self.ledger[attempt[:2]] = attempt
        if result is not None:
            assert result.row_id not in self.results or self.results[result.row_id].status == "deferred"
            self.results[result.row_id] = result
        self._add(token)

    def finish(self, result: Result, key: bytes | None, cells: bytes | None, token: Any) -> None:
        self.results[result.row_id] = result
        self._add(token)

    def withdraw(self, attempt: Attempt) -> None:
        self.ledger.pop(attempt[:2])

    def _add(self, token: Any) -> None:
        if not self._waiting and not self.is_lost:
            asyncio.get_running_loop().call_later(COMMIT_S, self._commit)
        self._waiting.append(token)

    def _commit(self) -> None:
        tokens, self._waiting = self._waiting, []
        self.durable.update(self._intents)
        self._intents.clear()
        self.engine.on_commit(tokens)


@dataclass
class Story:
    """What became of one run: `sends` are (time, row, was its intent durable) in order."""

    stop: StopReason | None
    counters: Counters
    writer: Writer
    ended_s: float
    sends: list[tuple[float, int, bool]] = field(default_factory=list)
    most_in_flight: int = 0

    @property
    def statuses(self) -> dict[str, int]:
        """Rows by status, as counted."""
        return dict(self.counters.by_status())


def drive(
    rows: int,
    answer: Callable[[int, int, float], tuple[float, Reply]],
    *,
    concurrency: int = 16,
    ceilings: tuple[Ceiling, ...] = (),
    policy: RetryPolicy | None = None,
    then: Callable[[Engine, asyncio.AbstractEventLoop], None] | None = None,
    connect_s: Callable[[float], float] = lambda now: 0.0,
    **rules: Any,
) -> Story:
    """Run so many rows. `answer(row, its n-th request, time)` gives how long the answer takes, and the answer.

    `connect_s(time)` is how long a request that is granted then waits for its connection.
    """
    random.seed(7)

    async def main() -> Story:
        loop = asyncio.get_running_loop()
        writer, counters = Writer(), Counters(rows)
        seen: dict[int, int] = {}
        story = Story(None, counters, writer, 0.0)
        in_flight = 0

        async def attempt(request: Request, grant: Grant) -> Reply:
            nonlocal in_flight
            row = int(request.model)
            if wait_s := connect_s(loop.time()):
                throttle.hold(grant)
                await asyncio.sleep(wait_s)
                if not throttle.leave(grant):
                    raise HeldBackError("held back")
            seen[row] = seen.get(row, 0) + 1
            numbers = [number for row_id, number in writer.durable if row_id == row]
            story.sends.append((loop.time(), row, len(numbers) >= seen[row]))
            in_flight += 1
            story.most_in_flight = max(story.most_in_flight, in_flight)
            try:
                delay_s, reply = answer(row, seen[row], loop.time())
                reply.latency_s = delay_s
                await asyncio.sleep(delay_s)
            finally:
                in_flight -= 1
            return reply

        throttle = Throttle(ceilings, concurrency, rng=random.Random(7))
        engine = Engine(
            attempt, throttle, Rules(policy or RetryPolicy(), concurrency, **rules), counters, run=1
        )

        async def read(function: Callable[..., Any], *arguments: Any) -> Any:
            return function(*arguments)

        engine._read = read  # type: ignore[assignment]
        writer.engine = engine
        if then is not None:
            then(engine, loop)
        story.stop = await engine.run(_batches(rows), writer)  # type: ignore[arg-type]
        story.ended_s = loop.time()
        await asyncio.sleep(10 * COMMIT_S)
        return story

    return virtual_time.run(main())


def _batches(rows: int) -> Iterator[Batch]:
    for start in range(0, rows, 256):
        works = [
            Work(row, Request("chat", str(row), hash_hex="00" * 16), b"key")
            for row in range(start, min(rows, start + 256))
        ]
        yield Batch(works)


def ok() -> Reply:
    """A usable answer."""
    return Reply(Answer.OK, response="yes", http_status=200)


def error(http_status: int = 500) -> Reply:
    """A server's error."""
    return Reply(Answer.TRANSIENT, error_type="server", message="boom", http_status=http_status)


def unanswered() -> Reply:
    """Nothing within the timeout."""
    return Reply(Answer.TRANSIENT, error_type="timeout", message="no answer", delivery="unknown")


def refusal(retry_after_s: float | None = None) -> Reply:
    """A 429."""
    return Reply(
        Answer.REFUSAL,
        error_type="rate_limit",
        message="slow down",
        http_status=429,
        retry_after_s=retry_after_s,
    )


def outage() -> Reply:
    """No connection."""
    return Reply(Answer.OUTAGE, error_type="connection", message="refused", delivery="not_sent")


def fatal() -> Reply:
    """A 401."""
    return Reply(Answer.FATAL, error_type="auth", message="no", http_status=401)
