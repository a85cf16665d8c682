"""The throttle in (virtual) time: pacing, order, cancellation, waking, and what the user is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest
import virtual_time
from simulator.scenarios import LLM
from simulator.servers import FAST, Hiccup, Server, TokenBucket, Unlimited

from websim_batch.records import Ceiling, RateHint
from websim_batch.throttle import Grant, Signal, Throttle
from websim_batch.throttle.signals import SignalKind
from websim_batch.throttle.throttle import limiter_depth, rate_text

ACCEPTED = Signal("accepted", latency_s=0.02)


def make(*ceilings: Ceiling, concurrency: int = 64, found: float | None = None) -> Throttle:
    """A throttle with a fixed seed; only inside a running loop."""
    return Throttle(ceilings, concurrency, rng=random.Random(1), found_capacity_per_s=found)


class Run:
    """`rows` rows through a throttle to a model server, by one dispatcher, in virtual time."""

    def __init__(self, throttle: Throttle, server: Server, rows: int) -> None:
        self.throttle, self.server, self.open = throttle, server, rows
        self.backlog = asyncio.Queue[int]()
        for row in range(rows):
            self.backlog.put_nowait(row)
        self.sent_at: list[float] = []
        self.refused = 0
        self.throttled_s = 0.0
        self.done = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def __call__(self) -> None:
        dispatcher = asyncio.create_task(self._dispatch())
        await self.done.wait()
        dispatcher.cancel()

    async def _dispatch(self) -> None:
        while True:
            row = await self.backlog.get()
            grant = await self.throttle.acquire()
            self.sent_at.append(grant.sent_at)
            self.throttled_s += grant.throttled_s
            task = asyncio.create_task(self._attempt(row, grant))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _attempt(self, row: int, grant: Grant) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        answered = self.server.arrive(loop.time())
        await asyncio.sleep(answered.after_s + 0.01)
        latency_s = loop.time() - grant.sent_at
        self.throttle.settle(grant, Signal(answered.kind, answered.retry_after_s, None, True, latency_s))
        if answered.kind == "accepted":
            self.open -= 1
            if not self.open:
                self.done.set()
        else:
            self.refused += 1
            self.backlog.put_nowait(row)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """The result of `main` in virtual time."""
    return virtual_time.run(main)


def test_a_ceiling_is_used_up_and_never_exceeded() -> None:
    """60/min over ten minutes: at least 93 % of it, and no closed minute holds more than 60 sends."""

    async def main() -> list[float]:
        job = Run(make(Ceiling(60, 60.0)), Server(Unlimited(), FAST), 600)
        await job()
        return job.sent_at

    sent_at = run(main())

    assert 599 / (sent_at[-1] - sent_at[0]) >= 0.93
    assert all(sum(at <= later <= at + 60 for later in sent_at) <= 60 for at in sent_at[::7])


def test_a_ceiling_is_paced_not_burst() -> None:
    """Under 60/min the server is never met by two sends within half a second."""

    async def main() -> list[float]:
        job = Run(make(Ceiling(60, 60.0)), Server(Unlimited(), FAST), 120)
        await job()
        return job.sent_at

    sent_at = run(main())

    assert min(later - at for at, later in pairwise(sent_at)) >= 0.45


def test_sends_of_an_earlier_run_count() -> None:
    """One send 20 s ago under 1/min: the next waits the other 40 s."""

    async def main() -> float:
        throttle = make(Ceiling(1, 60.0))
        throttle.remember([20.0])
        return (await throttle.acquire()).throttled_s

    assert run(main()) == pytest.approx(40.06, abs=0.01)


def test_the_real_limiter_does_what_the_simulator_says() -> None:
    """A bucket of 10/s: goodput >= 0.9 and 429s per row <= 0.04, with aiolimiter and timers in the way."""

    async def main() -> Run:
        job = Run(make(concurrency=128), Server(TokenBucket(10, 20), LLM), 1000)
        await job()
        return job

    job = run(main())

    assert 100 / (job.sent_at[-1] - job.sent_at[0]) >= 0.9
    assert job.refused <= 40


def test_a_slow_server_is_used_as_the_simulator_says() -> None:
    """1/min, 40 rows: 95 % of its capacity, since no probe waits for the pace, and twelve refusals at most."""

    async def main() -> Run:
        job = Run(make(), Server(TokenBucket(1 / 60, 1), FAST), 40)
        await job()
        return job

    job = run(main())

    assert 40 * 60 / (job.sent_at[-1] - job.sent_at[0]) >= 0.95
    assert job.refused <= 12


def test_a_probe_does_not_wait_for_the_pace_and_counts_for_it() -> None:
    """Somebody waits for 1/min: a refusal lets the probe out after 5 s; the next is a whole slot of 36 s behind it.

    Two were let in between 0 s and the probe at 36 s, one of them refused.
    """

    async def main() -> list[float]:
        throttle = make(found=1 / 60)
        first = await throttle.acquire()
        throttle.settle(await throttle.acquire(), ACCEPTED)
        waiter = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(1)
        refused_at = asyncio.get_running_loop().time()
        throttle.settle(first, Signal("refused", latency_s=0.01))
        probe = await waiter
        throttle.settle(probe, ACCEPTED)
        return [probe.sent_at - refused_at, (await throttle.acquire()).sent_at - probe.sent_at]

    probed, followed = run(main())

    assert probed == pytest.approx(5, abs=0.1)
    assert followed == pytest.approx(36, abs=0.1)


def test_who_waits_for_the_pace_goes_earlier_when_the_server_states_a_faster_one() -> None:
    """Headers that tell 10/s end a wait for 1/min."""

    async def main() -> float:
        throttle = make(found=1 / 60)
        first = await throttle.acquire()
        await throttle.acquire()
        waiter = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(1)
        throttle.settle(first, ACCEPTED._replace(rate_hint=RateHint(limit=10, window_s=1.0)))
        return (await waiter).throttled_s

    assert run(main()) < 2


def test_after_a_reopening_nobody_rushes() -> None:
    """In the first 100 ms after a re-opening at most rate x 0.1 + 1 sends."""

    async def main() -> list[float]:
        throttle = make(found=50.0)
        grants = [await throttle.acquire() for _ in range(20)]
        throttle.settle(grants[0], Signal("refused", retry_after_s=2.0, latency_s=0.01))
        for grant in grants[1:]:
            throttle.settle(grant, ACCEPTED)
        throttle.settle(await throttle.acquire(), ACCEPTED)  # the probe
        return [(await throttle.acquire()).sent_at for _ in range(50)]

    sent_at = run(main())

    pace = 50 * 1.8
    assert sum(at < sent_at[0] + 0.1 for at in sent_at) <= pace * 0.1 + 1


def test_one_early_429_does_not_make_a_run_crawl() -> None:
    """2000 rows, the second refused with Retry-After 5: done in 15 s, and nobody rushes after the pause."""

    async def main() -> list[float]:
        server = Server(Hiccup(Unlimited(), 2, 2, 5.0), FAST, retry_after=lambda wait_s: wait_s)
        job = Run(make(), server, 2000)
        await job()
        return job.sent_at

    sent_at = run(main())

    back_at = next(later for at, later in pairwise(sent_at) if later - at > 4)
    assert sent_at[-1] - sent_at[0] <= 15
    assert sum(back_at <= at < back_at + 0.1 for at in sent_at) <= 2


def test_the_fast_path_does_not_suspend() -> None:
    """When nothing binds, acquire returns without giving up the loop's turn."""

    async def main() -> None:
        throttle = make()
        with pytest.raises(StopIteration) as stopped:
            throttle.acquire().send(None)
        assert isinstance(stopped.value.value, Grant)

    run(main())


def test_trying_overtakes_nobody() -> None:
    """try_acquire gives nothing while someone waits, nor before there is a limiter for the pace."""

    async def main() -> list[bool]:
        free, narrow, ceiled, paced = make(), make(concurrency=1), make(Ceiling(60, 60.0)), make(found=9.0)
        await narrow.acquire()
        waiter = asyncio.create_task(narrow.acquire())
        await asyncio.sleep(0)
        tried = [throttle.try_acquire() is not None for throttle in (free, narrow, ceiled, paced)]
        waiter.cancel()
        return tried

    assert run(main()) == [True, False, False, False]


def test_trying_keeps_to_the_ceiling_and_to_the_pace() -> None:
    """Without any waiting: as many at once as the limiter holds, as many in a window as the ceiling says."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        throttle = make(Ceiling(1000, 1.0), concurrency=10_000)
        throttle.settle(await throttle.acquire(), ACCEPTED)
        for _ in range(3000):  # until the ramp's answers allow any number
            throttle.settle(await throttle.acquire(), ACCEPTED)
        await asyncio.sleep(2.0)
        granted: list[float] = []
        while loop.time() < 8.0:
            while (grant := throttle.try_acquire()) is not None:
                granted.append(grant.sent_at)
            await asyncio.sleep(0.001)
        return granted

    granted = run(main())

    depth = limiter_depth(1000 / 1.025)
    assert 0.9 * 1000 < len(granted) / (granted[-1] - granted[0]) <= 1000
    assert max(sum(at <= later < at + 0.0005 for later in granted) for at in granted[::50]) <= depth + 1
    assert all(later - at >= 1.0 for at, later in zip(granted, granted[1000:], strict=False))


def test_what_a_wide_ceiling_let_through_is_no_burst_after_a_refusal() -> None:
    """The limiter was asked for many sends at once; after a pause the measured pace holds, from the first send on."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        throttle = make(Ceiling(1_000_000, 1.0))
        for _ in range(200):
            throttle.settle(await throttle.acquire(), ACCEPTED)
        await asyncio.sleep(10.0)  # 200 in 12 s: about 17/s
        throttle.settle(await throttle.acquire(), Signal("refused", retry_after_s=2.0, latency_s=0.005))
        throttle.settle(await throttle.acquire(), ACCEPTED)  # the probe
        opened, granted = loop.time(), []
        while loop.time() < opened + 2.0:
            grant = await throttle.acquire()
            granted.append(grant.sent_at - opened)
            throttle.settle(grant, ACCEPTED)
        return granted

    granted = run(main())

    assert sum(at <= 0.1 for at in granted) <= 3
    assert len(granted) <= 2 * 17 + 2


def test_a_ceiling_of_one_an_hour_is_survived() -> None:
    """The ramp's clock does not overflow over waits of hours."""

    async def main() -> float:
        throttle = make(Ceiling(1, 3600.0))
        for _ in range(4):
            grant = await throttle.acquire()
            throttle.settle(grant, ACCEPTED)
        return grant.sent_at

    assert run(main()) == pytest.approx(3 * 3603.6, rel=0.01)


def test_first_come_first_served() -> None:
    """Waiters get their grants in the order in which they asked, and newcomers do not overtake."""

    async def main() -> list[int]:
        throttle, order = make(Ceiling(1, 1.0)), []

        async def ask(number: int) -> None:
            throttle.settle(await throttle.acquire(), ACCEPTED)
            order.append(number)

        async with asyncio.TaskGroup() as tasks:
            for number in range(10):
                tasks.create_task(ask(number))
                await asyncio.sleep(0.3)
        return order

    assert run(main()) == list(range(10))


def test_concurrency_is_never_exceeded() -> None:
    """The 4th of three at once waits for an answer."""

    async def main() -> tuple[bool, int]:
        throttle = make(concurrency=3, found=1000.0)
        grants = [await throttle.acquire() for _ in range(3)]
        fourth = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(100)
        was_waiting = not fourth.done()
        throttle.settle(grants[0], ACCEPTED)
        await fourth
        return was_waiting, throttle.snapshot().in_flight

    assert run(main()) == (True, 3)


@pytest.mark.parametrize("after_s", [0.0, 0.0001, 0.5, 0.9999, 1.0, 1.0001, 1.7])
def test_a_cancelled_wait_takes_nothing(after_s: float) -> None:
    """However late a waiter is cancelled, nothing is in flight and the next one is served."""

    async def main() -> tuple[int, bool]:
        throttle = make(Ceiling(1, 1.0), concurrency=1)
        throttle.settle(await throttle.acquire(), ACCEPTED)
        waiter = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(after_s)
        waiter.cancel()
        result = (await asyncio.gather(waiter, return_exceptions=True))[0]
        if isinstance(result, Grant):
            throttle.release(result)
        in_flight = throttle.snapshot().in_flight
        grant = await asyncio.wait_for(throttle.acquire(), 5)
        return in_flight, grant.throttled_s < 5

    assert run(main()) == (0, True)


def test_random_cancellations_lose_no_permit() -> None:
    """A hundred waiters, half of them cancelled at random: the rest are served, none is left in flight."""

    async def main() -> tuple[int, int]:
        rng = random.Random(3)
        throttle = make(Ceiling(10, 1.0), concurrency=5)
        served = 0

        async def ask() -> None:
            nonlocal served
            grant = await throttle.acquire()
            try:
                await asyncio.sleep(0.2)
            finally:
                throttle.settle(grant, ACCEPTED)
            served += 1

        tasks = [asyncio.create_task(ask()) for _ in range(100)]
        for task in rng.sample(tasks, 50):
            await asyncio.sleep(rng.uniform(0, 0.05))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = sum(task.cancelled() for task in tasks)
        return served + cancelled, throttle.snapshot().in_flight

    assert run(main()) == (100, 0)


# ---- requests that wait for their connection


def test_a_held_request_counts_from_its_leaving() -> None:
    """One an hour: held for ten minutes, then an hour and its margin until the next."""

    async def main() -> tuple[bool, float]:
        throttle = make(Ceiling(1, 3600.0))
        grant = await throttle.acquire()
        throttle.hold(grant)
        waiter = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(600)
        may_leave = throttle.leave(grant)
        throttle.settle(grant, ACCEPTED)
        return may_leave, (await waiter).sent_at

    assert run(main()) == (True, pytest.approx(600 + 3603.6, abs=0.1))


def test_a_held_request_blocks_the_ceiling_however_long() -> None:
    """Nobody can say when it leaves; so with all of N held, none is granted."""

    async def main() -> bool:
        throttle = make(Ceiling(2, 1.0), concurrency=8)
        for _ in range(2):
            throttle.hold(await throttle.acquire())
        waiter = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(1000)
        is_waiting = not waiter.done()
        waiter.cancel()
        return is_waiting

    assert run(main())


@pytest.mark.parametrize(("end", "waits_s"), [(None, 1800), ("outage", 1), ("error", 0)], ids=str)
def test_a_held_request_that_never_leaves_is_no_send(end: SignalKind | None, waits_s: float) -> None:
    """Of one an hour: a failure takes nothing of the pace either; a call-back does, since that was right then."""

    async def main() -> float:
        throttle = make(Ceiling(1, 3600.0))
        grant = await throttle.acquire()
        throttle.hold(grant)
        if end is None:
            throttle.release(grant)
        else:
            throttle.settle(grant, Signal(end))
        return (await throttle.acquire()).throttled_s

    assert run(main()) == pytest.approx(waits_s, rel=0.01, abs=0.01)


def test_what_was_answered_has_left_whether_it_was_told_or_not() -> None:
    """A held request that is settled by an answer counts under the ceiling."""

    async def main() -> float:
        throttle = make(Ceiling(1, 3600.0))
        grant = await throttle.acquire()
        throttle.hold(grant)
        await asyncio.sleep(10)
        throttle.settle(grant, ACCEPTED)
        return (await throttle.acquire()).throttled_s

    assert run(main()) == pytest.approx(3603.6, abs=0.1)


def test_a_request_is_called_back_if_the_gate_closed_before_it_left() -> None:
    """Also if it is open again; the new grant may leave."""

    async def main() -> list[bool]:
        throttle = make(found=100.0)
        held, refused = await throttle.acquire(), await throttle.acquire()
        throttle.hold(held)
        throttle.settle(refused, Signal("refused", retry_after_s=2.0, latency_s=0.01))
        left = [throttle.leave(held)]
        throttle.settle(await throttle.acquire(), ACCEPTED)  # the probe
        left.append(throttle.leave(held))
        throttle.release(held)
        again = await throttle.acquire()
        throttle.hold(again)
        return [*left, throttle.leave(again)]

    assert run(main()) == [False, False, True]


def test_a_probe_is_waited_for_until_it_leaves() -> None:
    """While the probe's connection is made, nothing else goes; its patience begins when it leaves."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        throttle = make(found=1000.0)
        throttle.settle(await throttle.acquire(), Signal("refused", latency_s=0.01))
        probe = await throttle.acquire()
        throttle.hold(probe)
        waiter = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(5)
        waits = [float(waiter.done())]
        assert throttle.leave(probe)
        left_at = loop.time()
        return [*waits, (await waiter).sent_at - left_at]

    assert run(main()) == [0.0, pytest.approx(0.1, abs=0.01)]


def test_a_shut_throttle_lets_nothing_leave() -> None:
    """At a stop nothing new is sent."""

    async def main() -> bool:
        throttle = make()
        grant = await throttle.acquire()
        throttle.hold(grant)
        throttle.shut()
        return throttle.leave(grant)

    assert run(main()) is False


def test_a_waiting_throttle_does_not_poll() -> None:
    """An hour of Retry-After costs a handful of turns of the loop."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        throttle = make()
        throttle.settle(await throttle.acquire(), Signal("refused", retry_after_s=3600.0))
        before = loop.time()
        grant = await throttle.acquire()
        turns: float = loop.time() - before - grant.throttled_s
        return turns / virtual_time.TICK_S

    assert run(main()) < 20


def test_a_longer_retry_after_of_an_echo_puts_the_waiter_off() -> None:
    """Who already waits for the gate waits for the later time."""

    async def main() -> float:
        throttle = make(found=100.0)
        first, second = await throttle.acquire(), await throttle.acquire()
        throttle.settle(first, Signal("refused", retry_after_s=1.0))
        waiter = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(0.5)
        throttle.settle(second, Signal("refused", retry_after_s=30.0))
        return (await waiter).throttled_s

    assert run(main()) >= 30.5


def test_a_released_grant_gives_its_slot_back() -> None:
    """With one slot, release lets the next one go."""

    async def main() -> int:
        throttle = make(concurrency=1)
        throttle.release(await throttle.acquire())
        await asyncio.wait_for(throttle.acquire(), 1)
        return throttle.snapshot().in_flight

    assert run(main()) == 1


@pytest.mark.parametrize(("pace", "depth"), [(0.01, 1.5), (100.0, 1.5), (1000.0, 10.0), (5000.0, 50.0)])
def test_the_limiters_depth(pace: float, depth: float) -> None:
    """What falls due in 10 ms, at least one and a half sends."""
    assert limiter_depth(pace) == depth


@pytest.mark.parametrize("pace", [20.0, 500.0, 2000.0])
def test_a_known_capacity_is_reached(pace: float) -> None:
    """The limiter neither loses nor gains more than 2 % over its burst."""

    async def main() -> float:
        throttle = make(Ceiling(10**6, 10**6 / pace), concurrency=10**6, found=1e9)
        sends = [(await throttle.acquire()).sent_at for _ in range(1000)]
        return (len(sends) - limiter_depth(pace)) / (sends[-1] - sends[0])

    assert run(main()) == pytest.approx(pace, rel=0.02)


# ---- what the user is told


def told(*steps: str, **options: Any) -> Any:
    """The snapshot after the steps."""

    async def main() -> Any:
        throttle = make(*options.pop("ceilings", ()), **options)
        grants: list[Grant] = []
        for step in steps:
            if step == "send":
                grants.append(await throttle.acquire())
            else:
                throttle.settle(grants.pop(), Signal(step, retry_after_s=options.get("wait")))
        return throttle.snapshot()

    return run(main())


def test_it_tells_the_ramp() -> None:
    """At the start."""
    state = told("send")
    assert (state.limited_by, state.text, state.rate_per_s) == ("ramp", "ramping up", None)


def test_it_tells_the_ceiling() -> None:
    """The tightest of several, in the user's words."""
    state = told("send", ceilings=(Ceiling(10, 1.0), Ceiling(60, 60.0)))
    assert (state.limited_by, state.text) == ("your ceiling", "your ceiling 60/min")
    assert state.rate_per_s == pytest.approx(1.0, rel=0.01)


def test_it_tells_concurrency() -> None:
    """All slots taken."""
    state = told("send", "send", concurrency=2)
    assert (state.limited_by, state.text) == ("concurrency", "concurrency 2")


def test_it_tells_the_server_limit() -> None:
    """With the measured capacity."""
    state = told("send", found=9.8)
    assert (state.limited_by, state.text, state.capacity_per_s) == (
        "server limit",
        "server limit ≈ 9.8/s",
        9.8,
    )


def test_it_tells_the_wait() -> None:
    """How long, and why; and the time closed counts while it lasts."""

    async def main() -> Any:
        throttle = make()
        throttle.settle(await throttle.acquire(), Signal("refused", retry_after_s=4.0))
        before = throttle.snapshot()
        await asyncio.sleep(2)
        return before, throttle.snapshot()

    before, later = run(main())

    assert (before.limited_by, before.text) == ("waiting", "waiting 4 s (Retry-After)")
    assert (before.is_closed, before.wait_reason, before.refusals) == (True, "Retry-After", 1)
    assert later.wait_s == pytest.approx(before.wait_s - 2, abs=0.01)
    assert later.closed_s == pytest.approx(2, abs=0.01)


def test_it_tells_that_nothing_holds() -> None:
    """The ramp is over and slots are free."""
    state = told(*["send", "accepted"] * 8, concurrency=3)
    assert state.limited_by == "nothing"


@pytest.mark.parametrize(
    ("per_s", "text"), [(1234.5, "1234/s"), (9.84, "9.84/s"), (0.2, "12/min"), (1 / 1200, "3/h")]
)
def test_rates_are_told_in_a_unit_that_reads(per_s: float, text: str) -> None:
    """Per second, minute or hour."""
    assert rate_text(per_s) == text
