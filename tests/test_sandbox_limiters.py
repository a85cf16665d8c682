"""The stand-in's rate limits, as tables of numbers: (time, seconds to wait; 0 is taken)."""

from __future__ import annotations

import random

import pytest

from websim_batch.sandbox.limiters import (
    Ban,
    Concurrency,
    FixedWindow,
    Gcra,
    Limiter,
    SlidingWindow,
    TokenBucket,
    Unlimited,
)
from websim_batch.sandbox.misbehaviour import drift, steps

TABLES: dict[str, tuple[Limiter, list[tuple[float, float]]]] = {
    "token bucket 2/s, burst 3": (
        TokenBucket(2, 3),
        [
            (0, 0),
            (0, 0),
            (0, 0),
            (0, 0.5),
            (0.4, 0.1),
            (0.5, 0),
            (0.5, 0.5),
            (10, 0),
            (10, 0),
            (10, 0),
            (10, 0.5),
        ],
    ),
    "GCRA 2/s, depth 1": (Gcra(2, 1), [(0, 0), (0, 0.5), (0.3, 0.2), (0.5, 0), (0.6, 0.4), (5, 0), (5, 0.5)]),
    "GCRA 2/s, depth 2": (
        Gcra(2, 2),
        [(0, 0), (0, 0), (0, 0.5), (0.5, 0), (0.5, 0.5), (9, 0), (9, 0), (9, 0.5)],
    ),
    "fixed window 2 per 10 s": (
        FixedWindow(2, 10),
        [(3, 0), (9, 0), (9.5, 0.5), (10, 0), (10, 0), (11, 9), (40, 0)],
    ),
    "sliding window 2 per 10 s": (
        SlidingWindow(2, 10),
        [(3, 0), (9, 0), (9.5, 3.5), (12.9, 0.1), (13, 0), (13, 6), (19, 0), (50, 0), (50, 0), (50, 10)],
    ),
    "a ban of 5 s on one per 10 s": (
        Ban(FixedWindow(1, 10), 5),
        [(0, 0), (1, 5), (5, 5), (9.9, 5), (14.8, 5), (19.8, 0), (19.9, 5), (24.9, 0)],
    ),
    "no limit": (Unlimited(), [(0, 0)] * 50),
}


@pytest.mark.parametrize("name", TABLES)
def test_limits_take_and_refuse_by_the_table(name: str) -> None:
    """Each model takes exactly what it should, and names the time after which it would."""
    limiter, table = TABLES[name]

    waits = [limiter.admit(now) for now, _ in table]

    assert waits == pytest.approx([wait for _, wait in table])


@pytest.mark.parametrize(
    "make",
    [lambda: TokenBucket(7, 3), lambda: Gcra(7, 3), lambda: SlidingWindow(7, 1), lambda: FixedWindow(7, 1)],
)
def test_a_refused_request_is_taken_after_the_wait_it_was_told(make: object) -> None:
    """The wait is neither too short nor, by a thousandth, too long."""
    rng = random.Random(7)
    now = 100.0
    limiter = make()  # type: ignore[operator]
    for _ in range(2000):
        wait = limiter.admit(now)
        if wait > 0.001:
            assert limiter.admit(now + wait - 0.001) > 0
        if wait > 0:
            now += wait
            assert limiter.admit(now) == 0.0
        now += rng.expovariate(9)


@pytest.mark.parametrize("limit", [1, 5, 60])
def test_a_sliding_window_never_holds_more_than_its_limit(limit: int) -> None:
    """In any stretch of the window's length at most `limit` requests are taken, however they come."""
    rng = random.Random(limit)
    limiter, taken, now = SlidingWindow(limit, 1.0), [], 0.0
    for _ in range(5000):
        now += rng.expovariate(3 * limit)
        if limiter.admit(now) == 0.0:
            taken.append(now)

    spans = [later - earlier for earlier, later in zip(taken, taken[limit:], strict=False)]

    assert len(taken) > 3 * limit
    assert min(spans) >= 1.0 - 1e-9


@pytest.mark.parametrize(
    "make",
    [
        lambda: TokenBucket(50, 10),
        lambda: Gcra(50, 1),
        lambda: FixedWindow(50, 1),
        lambda: SlidingWindow(50, 1),
    ],
)
def test_a_factor_changes_the_capacity_from_then_on(make: object) -> None:
    """With a third of the capacity a third as many are taken in the long run."""
    limiter = make()  # type: ignore[operator]
    ticks = [tick / 1000 for tick in range(20_000)]
    factor = steps((10.0, 0.3))

    taken = [now for now in ticks if limiter.admit(now, factor(now)) == 0.0]

    before, after = (sum(start + 1 <= now < start + 9 for now in taken) for start in (0, 10))
    assert before == pytest.approx(400, abs=10)
    assert after == pytest.approx(120, abs=10)


def test_concurrency_counts_what_runs() -> None:
    """At most two at once; each one that ends makes room for one."""
    limiter = Concurrency(2)

    first = [limiter.admit(0), limiter.admit(0), limiter.admit(0)]
    limiter.release()
    second = [limiter.admit(0), limiter.admit(0)]

    assert [wait == 0 for wait in first] == [True, True, False]
    assert [wait == 0 for wait in second] == [True, False]


def test_a_ban_counts_the_knocks() -> None:
    """Requests during a ban are hits; the one that began it is not."""
    ban = Ban(TokenBucket(1, 1), 10)

    for now in (0, 0.1, 3, 9, 30):
        ban.admit(now)

    assert ban.hits == 2


@pytest.mark.parametrize(
    ("limiter", "expected"),
    [
        (TokenBucket(10, 20), (10, 1.0, 18, 0.2)),
        (Gcra(10, 5), (10, 1.0, 3, 0.2)),
        (FixedWindow(60, 60), (60, 60, 58, 20)),
        (SlidingWindow(60, 60), (60, 60, 58, 60)),
        (TokenBucket(0.5, 4), (30, 60.0, 2, 4.0)),
    ],
)
def test_limits_tell_their_state(limiter: Limiter, expected: tuple[float, ...]) -> None:
    """What headers say: the limit, its window, what remains, when all is back."""
    limiter.admit(100)
    limiter.admit(100)

    assert tuple(limiter.state(100)) == pytest.approx(expected)


def test_steps_and_drift_are_functions_of_the_time() -> None:
    """Steps hold from their time on; a drift goes evenly and then stays."""
    step, slope = steps((10, 0.5), (20, 2.0)), drift(10, 20, 0.5)

    assert [step(now) for now in (0, 9.9, 10, 19, 20, 99)] == [1.0, 1.0, 0.5, 0.5, 2.0, 2.0]
    assert [slope(now) for now in (0, 10, 15, 20, 99)] == [1.0, 1.0, 0.75, 0.5, 0.5]
