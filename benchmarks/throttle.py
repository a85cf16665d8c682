"""Measures the throttle over real HTTP against rate-limited servers, beside three simple strategies.

    python benchmarks/throttle.py                    all of the table, three seeds (about twenty minutes)
    python benchmarks/throttle.py --only window      the servers whose names hold this word
    python benchmarks/throttle.py --seeds 1 --ours   one seed, and the throttle alone

The servers stand in `limited_servers.py`. Time runs faster on both sides where the table says so: the loop's clock
is scaled, and with it every timer, the limiter's too.

Goodput is the ideal time for the rows over the time from the first send to the last admission: what comes
after that is the server's own latency. `finish` counts to the last answer. 429s are counted by the server.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import aiohttp
from limited_servers import BENCHES, UNLIMITED, Bench, Servers, Tally, run_fast

from websim_batch.records import Ceiling, RateHint
from websim_batch.throttle import Signal, Throttle
from websim_batch.throttle.signals import Grant

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
