"""What whoever stands behind the throttle's interface promises; every kind of throttle runs it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
import virtual_time

from websim_batch.records import Ceiling
from websim_batch.throttle import Grant, Signal, Throttle, ThrottleState

MAKERS: dict[str, Callable[[], Throttle]] = {
    "free": lambda: Throttle((), 8),
    "one slot": lambda: Throttle((), 1, rng=random.Random(0)),
    "ceiling": lambda: Throttle((Ceiling(5, 1.0),), 8, rng=random.Random(0)),
    "two ceilings": lambda: Throttle((Ceiling(5, 1.0), Ceiling(100, 60.0)), 8, rng=random.Random(0)),
    "found capacity": lambda: Throttle((), 8, rng=random.Random(0), found_capacity_per_s=3.0),
    "own clock": lambda: Throttle((), 8, clock=asyncio.get_running_loop().time),
}
SIGNALS = (
    Signal("accepted", latency_s=0.1),
    Signal("refused", retry_after_s=0.5),
    Signal("refused"),
    Signal("error", is_fresh_row=False),
    Signal("error"),
    Signal("outage"),
)


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Throttle]:
    """One kind of throttle."""
    return MAKERS[request.param]


def test_a_grant_says_when_it_was_given(make: Callable[[], Throttle]) -> None:
    """`sent_at` is the loop's time of this turn, `throttled_s` what was waited, never negative."""

    async def main() -> None:
        throttle = make()
        for _ in range(10):
            asked_at = asyncio.get_running_loop().time()
            grant = await throttle.acquire()
            assert isinstance(grant, Grant)
            assert grant.sent_at == pytest.approx(asyncio.get_running_loop().time(), abs=1e-4)
            assert grant.throttled_s == pytest.approx(grant.sent_at - asked_at, abs=1e-3)
            throttle.settle(grant, SIGNALS[0])

    virtual_time.run(main())


def test_a_snapshot_counts_what_is_out(make: Callable[[], Throttle]) -> None:
    """In flight after acquire, not after settle or release."""

    async def main() -> list[int]:
        throttle = make()
        counts = [throttle.snapshot().in_flight]
        throttle.release(await throttle.acquire())
        grant = await throttle.acquire()
        counts.append(throttle.snapshot().in_flight)
        throttle.settle(grant, SIGNALS[0])
        counts.append(throttle.snapshot().in_flight)
        return counts

    assert virtual_time.run(main()) == [0, 1, 0]


def test_a_held_grant_is_in_flight_until_it_is_given_back(make: Callable[[], Throttle]) -> None:
    """Held, left, settled; or held and released."""

    async def main() -> list[int]:
        throttle = make()
        counts = []
        for is_sent in (True, False):
            grant = await throttle.acquire()
            throttle.hold(grant)
            counts.append(throttle.snapshot().in_flight)
            if is_sent:
                assert throttle.leave(grant)
                throttle.settle(grant, SIGNALS[0])
            else:
                throttle.release(grant)
            counts.append(throttle.snapshot().in_flight)
        return counts

    assert virtual_time.run(main()) == [1, 0, 1, 0]


@pytest.mark.parametrize("signal", SIGNALS, ids=repr)
def test_every_signal_is_survived(make: Callable[[], Throttle], signal: Signal) -> None:
    """Whatever a request met, the next grant comes, and the state can be told in a few words."""

    async def main() -> ThrottleState:
        throttle = make()
        for _ in range(3):
            throttle.settle(await throttle.acquire(), signal)
        state = throttle.snapshot()
        throttle.settle(await asyncio.wait_for(throttle.acquire(), 100), SIGNALS[0])
        return state

    state = virtual_time.run(main())

    assert 0 < len(state.text) < 60
    assert state.refusals == 3 * (signal.kind == "refused")


def test_a_cancelled_acquire_leaves_nothing(make: Callable[[], Throttle]) -> None:
    """Cancelled in its wait, it holds no slot; the next one is served."""

    async def main() -> int:
        throttle = make()
        grant = await throttle.acquire()
        throttle.settle(grant, Signal("refused", retry_after_s=10.0))
        waiter = asyncio.create_task(throttle.acquire())
        await asyncio.sleep(1)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        in_flight = throttle.snapshot().in_flight
        throttle.settle(await asyncio.wait_for(throttle.acquire(), 20), SIGNALS[0])
        return in_flight

    assert virtual_time.run(main()) == 0
