"""Measures the throttle over real HTTP against rate-limited servers, beside three simple strategies.

    python benchmarks/throttle.py                    all of the table, three seeds (about eight minutes)
    python benchmarks/throttle.py --only window      the servers whose names hold this word
    python benchmarks/throttle.py --seeds 1 --ours   one seed, and the throttle alone

The servers are the simulator's models behind a small HTTP server in a process of its own. Time runs faster
on both sides where the table says so: the loop's clock is scaled, and with it every timer, the limiter's too.

Goodput is the ideal time for the rows over the time from the first send to the last admission: what comes
after that is the server's own latency. `finish` counts to the last answer. 429s are counted by the server.
"""

# ruff: noqa: E402 - the path to the simulator comes before its import

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

from simulator.scenarios import SCENARIOS, Scenario
from simulator.servers import FAST, Server, Unlimited

from websim_batch.records import Ceiling, RateHint
from websim_batch.throttle import Signal, Throttle
from websim_batch.throttle.signals import Grant

# ---- time that runs faster


class _FastSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits only a share of the time that the loop asks for."""

    speed = 1.0

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / self.speed if timeout else timeout)


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs `speed` times as fast as the real one."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began = time.monotonic()
        selector = _FastSelector()
        selector.speed = speed
        super().__init__(selector)

    def time(self) -> float:
        return (time.monotonic() - self._began) * self._speed


def run_fast(speed: float, main: Any) -> Any:
    """`asyncio.run` at a speed."""
    with asyncio.Runner(loop_factory=lambda: FastLoop(speed)) as runner:
        return runner.run(main)


# ---- the server, in its own process


@dataclass
class Tally:
    """What a server saw; times since its first request."""

    arrivals: list[float] = field(default_factory=list)
    admitted_at: float = 0.0
    refused: int = 0


class Site(asyncio.Protocol):
    """One connection: every request is a GET without a body, answered by the model."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._host.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            after_s, answer = self._host.answer()
            asyncio.get_running_loop().call_later(after_s, self._write, answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


class Host:
    """One model server on a port of its own; its clock begins with the first request."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server = name, server
        self.tally = Tally()
        self.connections: set[asyncio.Transport] = set()
        self._began: float | None = None
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def listen(self) -> int:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Site(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self.port

    def answer(self) -> tuple[float, bytes]:
        """How long until the answer leaves, and its bytes."""
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
            if self.server.outage_kind == "outage" and self.server.outage[0] < 1e9:
                loop.call_later(self.server.outage[0], self._go_down)
        now = loop.time() - self._began
        answered = self.server.arrive(now)
        self.tally.arrivals.append(now)
        self.tally.refused += answered.kind == "refused"
        if answered.kind == "accepted":
            self.tally.admitted_at = now
        status = {"accepted": "200 OK", "refused": "429 Too Many Requests"}.get(answered.kind, "503 Down")
        head = [f"HTTP/1.1 {status}", "Content-Length: 2"]
        if answered.retry_after_s is not None:
            head.append(f"Retry-After: {answered.retry_after_s:.3f}")
        if answered.rate_hint is not None:
            head.append(f"X-Rate: {answered.rate_hint.limit};{answered.rate_hint.window_s}")
        return answered.after_s, ("\r\n".join(head) + "\r\n\r\nok").encode()

    def _go_down(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for transport in list(self.connections):
            transport.abort()
        start, end = self.server.outage
        asyncio.get_running_loop().call_later(end - start, self._come_up)

    def _come_up(self) -> None:
        task = asyncio.get_running_loop().create_task(self._relisten())
        self._tasks.add(task)

    async def _relisten(self) -> None:
        await self.listen()


async def _serve(pipe: Connection) -> None:
    """Start a server for each (name, seed) that comes, tell its tally when asked for a port, end at None."""
    loop = asyncio.get_running_loop()
    hosts: dict[int, Host] = {}
    wishes: asyncio.Queue[Any] = asyncio.Queue()

    def read() -> None:
        try:
            wishes.put_nowait(pipe.recv())
        except EOFError:  # the client is gone
            loop.remove_reader(pipe.fileno())
            wishes.put_nowait(None)

    loop.add_reader(pipe.fileno(), read)
    while (wish := await wishes.get()) is not None:
        if isinstance(wish, int):
            host = hosts[wish]
            pipe.send((host.tally, host.server.ideal_s(BENCHES_BY_NAME[host.name].scenario.rows)))
        else:
            name, seed = wish
            server = BENCHES_BY_NAME[name].scenario.server()
            server.rng = random.Random(seed)
            host = Host(name, server)
            pipe.send(await host.listen())
            hosts[host.port] = host


def serve(pipe: Connection, speed: float) -> None:
    """The server process."""
    run_fast(speed, _serve(pipe))


class Servers:
    """The server process, seen from the client; one wish at a time."""

    def __init__(self, speed: float) -> None:
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(theirs, speed), daemon=True
        )
        self._process.start()

    def start(self, name: str, seed: int) -> int:
        """The port of a new server."""
        self._pipe.send((name, seed))
        port: int = self._pipe.recv()
        return port

    def tally(self, port: int) -> tuple[Tally, float]:
        """What it saw, and the ideal time for its rows."""
        self._pipe.send(port)
        tally: tuple[Tally, float] = self._pipe.recv()
        return tally

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(5)


# ---- the client


@dataclass
class Met:
    """What one request met."""

    kind: str
    retry_after_s: float | None
    rate_hint: RateHint | None
    latency_s: float


class Client:
    """Sends single requests to one server and says what they met."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/"
        self._clock = asyncio.get_running_loop().time

    async def send(self) -> Met:
        """One request."""
        began = self._clock()
        try:
            async with self._session.get(self._url) as response:
                await response.read()
        except aiohttp.ClientConnectorError:
            return Met("outage", None, None, self._clock() - began)
        except (aiohttp.ClientError, OSError):
            return Met("error", None, None, self._clock() - began)
        kind = {200: "accepted", 429: "refused"}.get(response.status, "error")
        told, rate = response.headers.get("Retry-After"), response.headers.get("X-Rate")
        hint = None
        if rate:
            limit, window_s = rate.split(";")
            hint = RateHint(int(limit), float(window_s))
        return Met(kind, float(told) if told else None, hint, self._clock() - began)


@dataclass
class Job:
    """The rows of one run and what became of them."""

    rows: int
    concurrency: int
    ceilings: tuple[Ceiling, ...]
    finished: int = 0
    failed: int = 0
    inside_retry_after: int = 0
    sends: list[float] = field(default_factory=list)


async def with_throttle(job: Job, client: Client, seed: int) -> None:
    """One dispatcher asks the throttle; every grant is a task, as a worker would be."""
    throttle = Throttle(job.ceilings, job.concurrency, rng=random.Random(seed))
    backlog = Backlog(job.rows)
    floor = 0.0

    async def attempt(row: int, grant: Grant, is_fresh: bool) -> None:
        nonlocal floor
        met = await client.send()
        throttle.settle(grant, Signal(met.kind, met.retry_after_s, met.rate_hint, is_fresh, met.latency_s))
        if met.retry_after_s is not None:
            floor = max(floor, asyncio.get_running_loop().time() + met.retry_after_s)
        backlog.settle(row, met.kind)
        job.finished += met.kind == "accepted"

    async with asyncio.TaskGroup() as tasks:
        while (row := await backlog.take()) is not None:
            grant = await throttle.acquire()
            job.inside_retry_after += grant.sent_at < floor
            job.sends.append(grant.sent_at)
            tasks.create_task(attempt(row, grant, row not in backlog.failed_before))


class Backlog:
    """Rows to send: refused ones first, failed ones last."""

    def __init__(self, rows: int) -> None:
        self._rows = deque(range(rows))
        self._open = rows
        self._news = asyncio.Event()
        self.failed_before: set[int] = set()

    async def take(self) -> int | None:
        """The next row; None when all are finished."""
        while not self._rows:
            if not self._open:
                return None
            self._news.clear()
            await self._news.wait()
        return self._rows.popleft()

    def settle(self, row: int, kind: str) -> None:
        """A row's attempt ended."""
        if kind == "accepted":
            self._open -= 1
        elif kind == "refused":
            self._rows.appendleft(row)
        else:
            self.failed_before.add(row)
            self._rows.append(row)
        self._news.set()


async def _workers(job: Job, work: Callable[[], Any]) -> None:
    rows = iter(range(job.rows))

    async def worker() -> None:
        for _ in rows:
            is_finished = await work()
            job.finished += is_finished
            job.failed += not is_finished

    async with asyncio.TaskGroup() as tasks:
        for _ in range(job.concurrency):
            tasks.create_task(worker())


TRIES = 6


async def with_backoff(job: Job, client: Client, seed: int) -> None:
    """Each row by itself: 1, 2, 4 … s after a refusal; six tries."""

    async def work() -> bool:
        for attempt in range(TRIES):
            if (await client.send()).kind == "accepted":
                return True
            await asyncio.sleep(2.0**attempt)
        return False

    await _workers(job, work)


async def with_pause(job: Job, client: Client, seed: int) -> None:
    """Each row by itself: 15 s after a refusal; six tries."""

    async def work() -> bool:
        for _ in range(TRIES):
            if (await client.send()).kind == "accepted":
                return True
            await asyncio.sleep(15.0)
        return False

    await _workers(job, work)


async def with_aimd(job: Job, client: Client, seed: int) -> None:
    """One rate for all: from 1/s, 0.1/s more for each answer, half after a refusal, once for all that were
    in flight then; as many tries as it takes.
    """
    loop = asyncio.get_running_loop()
    rate, halved_at = 1.0, 0.0
    turn = asyncio.Lock()

    async def work() -> bool:
        nonlocal rate, halved_at
        while True:
            async with turn:
                await asyncio.sleep(1 / rate)
                sent_at = loop.time()
            met = await client.send()
            if met.kind == "accepted":
                rate += 0.1
                return True
            if sent_at >= halved_at:
                rate, halved_at = max(rate / 2, 0.01), loop.time()

    await _workers(job, work)


async def without(job: Job, client: Client, seed: int) -> None:
    """The same loop as `with_throttle`, held by a semaphore alone."""
    slots = asyncio.Semaphore(job.concurrency)
    backlog = Backlog(job.rows)

    async def attempt(row: int) -> None:
        met = await client.send()
        slots.release()
        backlog.settle(row, met.kind)
        job.finished += met.kind == "accepted"

    async with asyncio.TaskGroup() as tasks:
        while (row := await backlog.take()) is not None:
            await slots.acquire()
            tasks.create_task(attempt(row))


STRATEGIES = {"ours": with_throttle, "backoff": with_backoff, "pause": with_pause, "AIMD": with_aimd}


# ---- the table


@dataclass(frozen=True)
class Bench:
    """One line of the table: a scenario, how fast time runs, and a further bound."""

    name: str
    scenario: Scenario
    speed: float = 20.0
    further: str = ""


def _bench(name: str, scenario: str, speed: float = 10.0, further: str = "") -> Bench:
    bounds = BOUNDS.get(name, {})
    return Bench(name, replace(SCENARIOS[scenario], **bounds), speed, further)


BOUNDS: dict[str, dict[str, Any]] = {
    "1/min": {"goodput": (0.85, 0.75)},
    "sliding log 500/60 s": {"goodput": (0.85, 0.75)},
    "10 s ban that knocking extends": {"goodput": (0.55, 0.55), "refused_per_row": (0.01, 0.01)},
    "user ceiling 60/min on 50/s": {"goodput": (0.93, 0.93)},
}
"""Where the table's line differs from the simulator's scenario."""


BENCHES = [
    _bench("token bucket 10/s, burst 20", "bucket 10/s, LLM"),
    _bench("token bucket 1/s, burst 5", "bucket 1/s, LLM", 20.0),
    _bench("1/min", "1/min", 100.0),
    _bench("fixed window 60/60 s", "window 60/60 s, LLM", 20.0),
    _bench("fixed window 500/60 s, Retry-After", "window 500/60 s, Retry-After", further="inside"),
    _bench("sliding log 500/60 s", "sliding log 500/60 s"),
    _bench("GCRA 5/s, depth 2", "GCRA 5/s, LLM"),
    _bench("at most 16 at once", "at most 16 at once"),
    _bench("at most 64 at once", "at most 64 at once"),
    _bench("rate headers", "headers, window"),
    _bench("capacity x 0.3 in the middle", "capacity x 0.3 in the middle"),
    _bench("capacity x 3 in the middle", "capacity x 3 in the middle"),
    _bench("60 s outage", "60 s outage", further="outage"),
    _bench("10 s ban that knocking extends", "10 s ban, 1500 rows", further="ban"),
    _bench("user ceiling 60/min on 50/s", "ceiling 60/min", 5.0, further="ceiling"),
]
BENCHES_BY_NAME = {bench.name: bench for bench in BENCHES}
UNLIMITED = [
    Bench(
        f"unlimited, N = {rows}",
        Scenario(lambda: Server(Unlimited(), FAST), rows, (bound, bound), (0, 0)),
        1.0,
    )
    for rows, bound in ((50_000, 0.90), (2_000, 0.70))
]
BENCHES_BY_NAME |= {bench.name: bench for bench in UNLIMITED}


@dataclass
class Figures:
    """What one run came to."""

    goodput: float
    finish: float
    refused_per_row: float
    further: float
    failed: int


async def one_run(servers: Servers, bench: Bench, strategy: str, seed: int) -> Figures:
    """One strategy against a fresh server."""
    scenario = bench.scenario
    port = servers.start(bench.name, seed)
    job = Job(scenario.rows, scenario.concurrency, scenario.ceilings)
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        began = loop.time()
        await STRATEGIES[strategy](job, Client(session, port), seed)
        elapsed_s = loop.time() - began
    tally, ideal_s = servers.tally(port)
    if scenario.ceilings:
        ideal_s = scenario.rows / (scenario.ceilings[0].limit / scenario.ceilings[0].window_s)
    share = job.finished / job.rows
    counted_s = elapsed_s if job.failed else tally.admitted_at  # who gave rows up was busy to the end
    return Figures(
        share * ideal_s / max(counted_s, 1e-9),
        share * ideal_s / elapsed_s,
        tally.refused / job.rows,
        _further(bench, job, tally),
        job.failed,
    )


def _further(bench: Bench, job: Job, tally: Tally) -> float:
    if bench.further == "inside":
        return job.inside_retry_after
    if bench.further == "outage":
        start = job.sends[0] + bench.scenario.server().outage[0] + 5 if job.sends else 0.0
        return sum(start < at < start + 55 for at in job.sends)
    if bench.further == "ban":
        return tally.refused
    if bench.further == "ceiling":
        arrivals = tally.arrivals
        return max(sum(at <= later < at + 59.98 for later in arrivals) for at in arrivals)
    return 0.0


FURTHER_BOUND = {"inside": (0, "sent inside Retry-After"), "outage": (10, "sends in the outage after 5 s")}
FURTHER_BOUND |= {"ban": (5, "ban hits"), "ceiling": (60, "most in a window")}


def judge(bench: Bench, ours: list[Figures]) -> tuple[str, bool]:
    """The line's figures, bounds and whether they are met."""
    goodputs = [figures.goodput for figures in ours]
    refusals = [figures.refused_per_row for figures in ours]
    scenario = bench.scenario
    met = median(goodputs) >= scenario.goodput[0] and min(goodputs) >= scenario.goodput[1]
    met = met and median(refusals) <= scenario.refused_per_row[0]
    met = met and max(refusals) <= scenario.refused_per_row[1]
    text = f"{median(goodputs):.2f} / {min(goodputs):.2f} (finish {median(f.finish for f in ours):.2f})"
    text += f" | {median(refusals):.4f} / {max(refusals):.4f}"
    text += f" | {scenario.goodput[0]:.2f} / {scenario.goodput[1]:.2f}, "
    text += f"{scenario.refused_per_row[0]:.3f} / {scenario.refused_per_row[1]:.3f}"
    if bench.further:
        most, words = FURTHER_BOUND[bench.further]
        worst = max(figures.further for figures in ours)
        met = met and worst <= most
        text += f", {words} {worst:.0f} <= {most}"
    return text, met


async def _measure(servers: Servers, bench: Bench, seeds: int, is_ours_alone: bool) -> bool:
    ours = await asyncio.gather(*(one_run(servers, bench, "ours", seed) for seed in range(seeds)))
    text, met = judge(bench, ours)
    others = []
    if not is_ours_alone:
        names = [name for name in STRATEGIES if name != "ours"]
        figures = await asyncio.gather(*(one_run(servers, bench, name, 0) for name in names))
        others = [
            f"{f.goodput:.2f} / {f.refused_per_row:.2f}, failed {f.failed / bench.scenario.rows:.0%}"
            for f in figures
        ]
    print(
        f"| {bench.name} | x{bench.speed:.0f} | {text} | {'yes' if met else 'NO'} | {' | '.join(others)} |",
        flush=True,
    )
    return met


async def _compare(servers: Servers, bench: Bench, rounds: int) -> bool:
    """With and without the throttle in turn; rows a second of the better half of each."""
    scenario = bench.scenario
    rates: dict[str, list[float]] = {"with": [], "without": []}
    refused = 0
    for _ in range(rounds):
        for name, strategy in (("with", with_throttle), ("without", without)):
            port = servers.start(bench.name, 0)
            job = Job(scenario.rows, scenario.concurrency, ())
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                began = time.perf_counter()
                await strategy(job, Client(session, port), 0)
                rates[name].append(job.rows / (time.perf_counter() - began))
            refused += servers.tally(port)[0].refused
    ratio = median(rates["with"]) / median(rates["without"])
    met = ratio >= scenario.goodput[0] and not refused
    print(
        f"| {bench.name} | x1 | {ratio:.3f} of the same loop without ({median(rates['with']):.0f} and "
        f"{median(rates['without']):.0f} rows/s) | {refused} | {scenario.goodput[0]:.2f}, 0 | "
        f"{'yes' if met else 'NO'} | | | |",
        flush=True,
    )
    return met


def main() -> int:
    """Print the table; 1 if a bound is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help="leave out the simple strategies")
    options = parser.parse_args()
    print(
        "| server | speed | goodput median / worst | 429s per row | bounds | met | backoff | pause | AIMD |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    all_met = True
    for bench in BENCHES + UNLIMITED:
        if options.only not in bench.name:
            continue
        servers = Servers(bench.speed)
        if bench in UNLIMITED:
            all_met &= asyncio.run(_compare(servers, bench, options.seeds))
        else:
            all_met &= run_fast(bench.speed, _measure(servers, bench, options.seeds, options.ours))
        servers.close()
    return 0 if all_met else 1


if __name__ == "__main__":
    raise SystemExit(main())
