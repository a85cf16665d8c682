"""The user's ceiling: an exact log, in little memory."""

from __future__ import annotations

from array import array
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websim_batch.records import Ceiling
from websim_batch.throttle.ceiling import CeilingLog


def sends_of(ceiling: Ceiling, waits_s: list[float]) -> list[float]:
    """When sends go that each want to go some time after the one before, and wait for the ceiling."""
    log, now, sends = CeilingLog(ceiling), 0.0, []
    for wait_s in waits_s:
        now = max(now + wait_s, log.next_send_at())
        log.record(now)
        sends.append(now)
    return sends


@given(
    st.integers(1, 20),
    st.sampled_from([1.0, 60.0, 3600.0]),
    st.lists(st.floats(0, 40), min_size=1, max_size=200),
)
def test_no_closed_window_holds_more_than_the_ceiling(
    limit: int, window_s: float, waits_s: list[float]
) -> None:
    """However sends are asked for, a closed window of W never holds more than N of them."""
    sends = sends_of(Ceiling(limit, window_s), waits_s)

    assert all(sum(at <= later <= at + window_s for later in sends) <= limit for at in sends)


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["send", "hold", "leave", "give up"])), max_size=200),
)
def test_what_is_held_counts_until_it_leaves_and_then_anew(
    limit: int, steps: list[tuple[float, str]]
) -> None:
    """However long sends are held, and whether they leave or not, no closed window holds more than N that left."""
    log, now, held = CeilingLog(Ceiling(limit, 1.0)), 0.0, 0
    sends: list[float] = []
    for wait_s, step in steps:
        now += wait_s
        if step in ("send", "hold") and (at := log.next_send_at()) < inf:
            now = max(now, at)
            log.record(now)
            if step == "hold":
                log.hold(now)
                held += 1
            else:
                sends.append(now)
        elif step == "leave" and held:
            log.leave(now)
            held -= 1
            sends.append(now)
        elif step == "give up" and held:
            log.forget(inf)
            held -= 1

    assert all(sum(at <= later <= at + 1.0 for later in sends) <= limit for at in sends)


def test_held_sends_take_their_places_whatever_the_time() -> None:
    """Of three a second: with one held two go, with three held none does until one leaves, or never was."""
    log = CeilingLog(Ceiling(3, 1.0))
    for at in (0.0, 0.1, 0.2):
        log.record(at)
    log.hold(0.1)
    waits = [log.next_send_at()]
    log.hold(0.0)
    log.hold(0.2)
    waits.append(log.next_send_at())
    log.leave(5.0)
    waits.append(log.next_send_at())
    log.forget(inf)
    waits.append(log.next_send_at())

    assert waits == [pytest.approx(1.025), inf, pytest.approx(6.025), -inf]


def test_a_send_that_never_was_counts_no_more() -> None:
    """Of two in a full ring, the one that was given back makes place at once."""
    log = CeilingLog(Ceiling(2, 60.0))
    for at in (0.0, 100.0, 200.0):
        log.record(at)

    log.forget(100.0)

    assert log.next_send_at() == -inf


def test_sends_before_the_ceiling_is_full_may_go_at_any_time() -> None:
    """The first N sends are free."""
    assert sends_of(Ceiling(3, 60.0), [0.0, 0.0, 0.0]) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("window_s", "margin_s"), [(1.0, 0.025), (60.0, 0.06), (3600.0, 3.6)])
def test_the_margin(window_s: float, margin_s: float) -> None:
    """Send k goes at the earliest at t_(k-N) + W + max(0.001 W, 25 ms)."""
    sends = sends_of(Ceiling(1, window_s), [0.0, 0.0])

    assert sends[1] == pytest.approx(window_s + margin_s)


def test_memory_is_a_ring_of_n_floats() -> None:
    """A million sends under a ceiling of 100 keep 100 floats."""
    log = CeilingLog(Ceiling(100, 1.0))

    for at in range(10_000):
        log.record(float(at))

    assert isinstance(log._sends, array)
    assert len(log._sends) == 100


def test_an_unused_ceiling_allows_a_send_at_any_time() -> None:
    """Nothing sent, nothing to wait for."""
    assert CeilingLog(Ceiling(1, 3600.0)).next_send_at() == -inf
