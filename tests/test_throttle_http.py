"""The throttle over real HTTP: counts and invariants, no speed."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from simulator.servers import ConcurrencyCap, FixedWindow, Latency, Policy, Server, TokenBucket, Unlimited

from websim_batch.records import Ceiling
from websim_batch.throttle import Grant, Signal, Throttle

QUICK = Latency(0.01, 0.03)


@dataclass
class Site(asyncio.Protocol):
    """A model server on a real port: every request is a GET without a body."""

    server: Server
    arrivals: list[float] = field(default_factory=list)
    refused: int = 0
    in_service: int = 0
    most_in_service: int = 0

    def protocol(self) -> asyncio.Protocol:
        return _Connection(self)

    def answer(self) -> tuple[float, bytes]:
        now = asyncio.get_running_loop().time()
        self.arrivals.append(now)
        answered = self.server.arrive(now - self.arrivals[0])
        self.refused += answered.kind == "refused"
        status = "429 Slow" if answered.kind == "refused" else "200 OK"
        told = "" if answered.retry_after_s is None else f"Retry-After: {answered.retry_after_s}\r\n"
        return answered.after_s, f"HTTP/1.1 {status}\r\n{told}Content-Length: 2\r\n\r\nok".encode()


class _Connection(asyncio.Protocol):
    def __init__(self, site: Site) -> None:
        self._site = site

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        after_s, answer = self._site.answer()
        self._site.in_service += 1
        self._site.most_in_service = max(self._site.most_in_service, self._site.in_service)
        asyncio.get_running_loop().call_later(after_s, self._write, answer)

    def _write(self, answer: bytes) -> None:
        self._site.in_service -= 1
        if not self._transport.is_closing():
            self._transport.write(answer)


@dataclass
class Job:
    """What the client counted."""

    throttle: Throttle
    sends: int = 0
    answered: int = 0
    refused: int = 0
    inside_retry_after: int = 0
    floor: float = 0.0


async def drive(site: Site, rows: int, concurrency: int, ceilings: tuple[Ceiling, ...] = ()) -> Job:
    """All rows through a throttle to the site."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(site.protocol, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    job = Job(Throttle(ceilings, concurrency, rng=random.Random(0)))
    backlog, news = deque(range(rows)), asyncio.Event()

    async def attempt(row: int, grant: Grant, session: aiohttp.ClientSession) -> None:
        began = loop.time()
        async with session.get(url) as response:
            await response.read()
        told = response.headers.get("Retry-After")
        is_refused = response.status == 429
        wait_s = float(told) if told else None
        kind = "refused" if is_refused else "accepted"
        job.throttle.settle(grant, Signal(kind, wait_s, latency_s=loop.time() - began))
        if is_refused:
            job.refused += 1
            backlog.appendleft(row)
            job.floor = max(job.floor, loop.time() + (wait_s or 0.0))
        else:
            job.answered += 1
        news.set()

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        while job.answered < rows:
            if not backlog:
                news.clear()
                await news.wait()
                continue
            grant = await job.throttle.acquire()
            job.inside_retry_after += grant.sent_at < job.floor
            job.sends += 1
            tasks.create_task(attempt(backlog.popleft(), grant, session))
    listener.close()
    return job


def exact(wait_s: float) -> float:
    """A right Retry-After."""
    return wait_s


@pytest.mark.parametrize(
    ("policy", "rows"),
    [
        (lambda: TokenBucket(100, 20), 250),
        (lambda: FixedWindow(40, 0.5), 160),
        (lambda: ConcurrencyCap(4, QUICK.mean_s), 200),
        (Unlimited, 500),
    ],
    ids=["bucket", "window", "at once", "unlimited"],
)
@pytest.mark.parametrize("retry_after", [lambda wait_s: None, exact], ids=["silent", "Retry-After"])
def test_every_row_is_answered_and_the_counts_agree(
    policy: Callable[[], Policy], rows: int, retry_after: object
) -> None:
    """Sends = answers + refusals on both sides, none inside Retry-After, and nothing stays in flight."""
    server = Server(policy(), QUICK, retry_after=retry_after, rng=random.Random(0))  # type: ignore[arg-type]
    site = Site(server)

    job = asyncio.run(drive(site, rows, concurrency=16))

    state = job.throttle.snapshot()
    assert job.answered == rows
    assert job.sends == job.answered + job.refused == len(site.arrivals)
    assert job.refused == site.refused == state.refusals
    assert job.inside_retry_after == 0
    assert state.in_flight == 0
    assert site.most_in_service <= 16


def test_the_ceiling_holds_at_the_server() -> None:
    """20/0.5 s: never more than 20 arrivals in any window, judged 20 ms shorter."""
    site = Site(Server(Unlimited(), QUICK, rng=random.Random(0)))

    job = asyncio.run(drive(site, 100, 16, (Ceiling(20, 0.5),)))

    assert job.refused == 0
    assert all(sum(at <= later <= at + 0.48 for later in site.arrivals) <= 20 for at in site.arrivals)
