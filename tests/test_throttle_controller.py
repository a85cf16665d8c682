"""The controller's decisions one at a time, as tables of numbers."""

from __future__ import annotations

import random
from math import inf, nan

import pytest

from websim_batch.records import RateHint
from websim_batch.throttle.controller import Controller, Phase
from websim_batch.throttle.pace import X_DOUBLES, Pace, climb
from websim_batch.throttle.signals import Grant, Signal

REFUSED = Signal("refused", latency_s=0.01)
ACCEPTED = Signal("accepted", latency_s=1.0)
ERROR = Signal("error", latency_s=1.0)
OUTAGE = Signal("outage")


def make(concurrency: int = 16) -> Controller:
    """A controller with a fixed seed."""
    return Controller(concurrency, random.Random(1))


def closed(signal: Signal = REFUSED, now: float = 1.0) -> Controller:
    """One that met `signal` at `now`, after one accepted request."""
    controller = make()
    first, second = controller.on_send(0.0), controller.on_send(0.5)
    controller.on_reply(0.9, first, ACCEPTED)
    controller.on_reply(now, second, signal)
    return controller


def opened(now: float = 2.0) -> tuple[Controller, float]:
    """One that was refused, probed and opened again, and when."""
    controller = closed(now=now)
    at = controller.next_send_at(now)
    controller.on_reply(at + 0.05, controller.on_send(at), ACCEPTED)
    assert controller.phase is Phase.OPEN
    return controller, at + 0.05


@pytest.mark.parametrize("wait_s", [0.0, 0.5, 2.0, 61.0, 3600.0, 86400.0])
def test_retry_after_is_a_floor_with_jitter_added(wait_s: float) -> None:
    """The gate stays closed for Retry-After and a little more, at most 1.01 s."""
    controller = closed(Signal("refused", retry_after_s=wait_s), now=1.0)

    at = controller.next_send_at(1.0)

    assert 1.0 + wait_s < at <= 1.0 + wait_s + 1.02


def test_a_failed_probe_doubles_the_wait() -> None:
    """0.25 s, then 0.5, 1 and 2 s while nothing was measured."""
    controller, now, waits = closed(now=1.0), 1.0, []
    for _ in range(4):
        at = controller.next_send_at(now)
        waits.append(at - now)
        now = at
        controller.on_reply(now, controller.on_send(now), REFUSED)

    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0])


def test_retry_after_doubles_with_failed_probes_too() -> None:
    """A server whose Retry-After was too short is asked later each time."""
    told = Signal("refused", retry_after_s=4.0)
    controller = closed(told, now=1.0)
    at = controller.next_send_at(1.0)

    controller.on_reply(at, controller.on_send(at), told)

    assert controller.next_send_at(at) >= at + 8.0


def test_half_open_lets_one_probe_out() -> None:
    """Between the probe and its fate nothing else may go."""
    controller = closed(now=1.0)
    at = controller.next_send_at(1.0)

    probe = controller.on_send(at)

    assert probe.is_probe
    assert controller.next_send_at(at) == pytest.approx(at + 0.1)
    controller.next_send_at(at + 0.1)
    assert controller.phase is Phase.OPEN


def test_patience_learns_from_slow_refusals() -> None:
    """A probe counts as accepted only after three times the slowest refusal."""
    controller = closed(Signal("refused", latency_s=0.5), now=1.0)
    at = controller.next_send_at(1.0)
    controller.on_send(at)

    assert controller.next_send_at(at) == pytest.approx(at + 1.5)


def test_an_echo_lengthens_the_wait_and_does_not_cut() -> None:
    """A refusal sent before the closure counts, and its longer Retry-After holds; the epoch stays."""
    controller = make()
    first, second, third = (controller.on_send(0.1 * n) for n in range(3))
    controller.on_reply(0.3, first, ACCEPTED)
    controller.on_reply(1.0, second, Signal("refused", retry_after_s=1.0))

    epoch = controller.epoch
    controller.on_reply(1.1, third, Signal("refused", retry_after_s=5.0))

    assert controller.epoch == epoch
    assert controller.refusals == 2
    assert controller.next_send_at(1.1) >= 6.1


def test_an_echo_never_shortens_the_wait() -> None:
    """An echo with a shorter Retry-After changes nothing."""
    controller = make()
    first, second = controller.on_send(0.0), controller.on_send(0.1)
    controller.on_reply(1.0, first, Signal("refused", retry_after_s=9.0))
    at = controller.next_send_at(1.0)

    controller.on_reply(1.1, second, Signal("refused", retry_after_s=0.0))

    assert controller.next_send_at(1.1) == at


def errors(controller: Controller, now: float, fresh: list[bool]) -> float:
    """One error after another; the time after the last."""
    for is_fresh in fresh:
        now = max(now, controller.next_send_at(now)) + 0.5
        controller.on_reply(now, controller.on_send(now), ERROR._replace(is_fresh_row=is_fresh))
    return now


@pytest.mark.parametrize(
    ("fresh", "closes"),
    [([True] * 5, True), ([True] * 4, False), ([False] * 50, False), ([True, False] * 4, False)],
)
def test_five_errors_of_fresh_rows_close_the_gate(fresh: list[bool], closes: bool) -> None:
    """Only rows that did not fail before tell of the server."""
    controller, now = opened()

    errors(controller, now, fresh)

    assert (controller.phase is Phase.CLOSED) == closes


def test_an_answer_in_between_starts_the_count_again() -> None:
    """Four errors, an answer, four errors: the gate stays open."""
    controller, now = opened()
    now = errors(controller, now, [True] * 4) + 1
    controller.on_reply(now, controller.on_send(now), ACCEPTED)

    errors(controller, now, [True] * 4)

    assert controller.phase is Phase.OPEN


def test_before_the_first_answer_errors_do_not_close_and_the_ramp_stays_at_two() -> None:
    """A server that only fails is met by two requests at a time."""
    controller = make()

    now = errors(controller, 0.0, [True] * 20)
    controller.on_send(now)
    controller.on_send(now)

    assert controller.phase is Phase.RAMP
    assert controller.next_send_at(now + 100.0) == inf


def test_an_outage_closes_at_once_and_probes_at_most_every_15_s() -> None:
    """1, 2, 4, 8, 15, 15 s; and only an answer opens."""
    controller, now, waits = closed(OUTAGE, now=1.0), 1.0, []
    for _ in range(6):
        at = controller.next_send_at(now)
        waits.append(at - now)
        probe = controller.on_send(at)
        assert controller.next_send_at(at + 1000.0) == inf
        now = at
        controller.on_reply(now, probe, OUTAGE)

    assert waits == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_after_an_outage_the_capacity_is_as_before() -> None:
    """The time without a connection does not count into the measurement."""
    controller, now = opened()
    before = controller.capacity_per_s
    controller.on_reply(now + 1, controller.on_send(now + 1), OUTAGE)
    at = controller.next_send_at(now + 1) + 600

    controller.on_reply(at + 1, controller.on_send(at), ACCEPTED)

    assert controller.phase is Phase.OPEN
    assert controller.capacity_per_s == before


def test_capacity_is_what_was_accepted_between_two_openings() -> None:
    """Ten accepted in five seconds, closed time included: 2/s."""
    controller, now = opened()
    began = now - 0.05  # the probe's send
    grants = [controller.on_send(now + 0.1 * n) for n in range(10)]
    for grant in grants[:-1]:
        controller.on_reply(now + 2, grant, ACCEPTED)
    controller.on_reply(now + 2, grants[-1], Signal("refused", retry_after_s=began + 5 - now - 2 - 0.06))
    probe = controller.on_send(began + 5)
    controller.on_reply(began + 5.1, probe, ACCEPTED)

    assert controller.capacity_per_s == pytest.approx(2.0)


def refused_early(controller: Controller, now: float) -> float:
    """One accepted, one refused with Retry-After 5, a probe accepted; when that was."""
    controller.on_reply(now + 0.1, controller.on_send(now), ACCEPTED)
    controller.on_reply(now + 0.3, controller.on_send(now + 0.2), Signal("refused", 5.0))
    at = controller.next_send_at(now + 0.3)
    controller.on_reply(at + 0.1, controller.on_send(at), ACCEPTED)
    return at + 0.1


def test_one_early_retry_after_measures_no_capacity() -> None:
    """A 429 with Retry-After 5 on the second request says nothing of 0.2/s; the ramp begins again, by its clock."""
    controller = make()

    now = refused_early(controller, 0.0)
    controller.on_send(now)

    assert (controller.phase, controller.capacity_per_s) == (Phase.RAMP, None)
    assert controller.next_send_at(now) == pytest.approx(now + 0.5)


def test_a_second_early_retry_after_measures_it() -> None:
    """The probe and one more in about five seconds, twice: 0.4/s."""
    controller = make()

    refused_early(controller, refused_early(controller, 0.0))

    assert controller.phase is Phase.OPEN
    assert controller.capacity_per_s == pytest.approx(2 / 5.4, rel=0.05)


def test_errors_after_an_early_refusal_do_not_stop_the_ramp() -> None:
    """Refused, opened by patience, then nothing but errors: two may still be in flight."""
    controller = make()
    controller.on_reply(0.1, controller.on_send(0.0), Signal("refused", 5.0, latency_s=0.01))
    at = controller.next_send_at(0.1)
    probe = controller.on_send(at)
    assert controller.next_send_at(at + 1.0) <= at + 1.0

    controller.on_reply(at + 1.0, probe, ERROR._replace(is_fresh_row=False))

    assert controller.phase is Phase.RAMP
    assert controller.next_send_at(at + 1.0) <= at + 1.0


@pytest.mark.parametrize(
    ("accepted", "refused_at", "capacity"),
    [
        (50, 13.5, 5.0),  # noise
        (60, 13.5, 9.0),  # a climb went on: the geometric mean
        (60, None, 6.0),
        (60, 5.0, 6.0),
        (2, 13.5, 1.0),  # a quarter at most
    ],
)
def test_a_measurement_after_one_of_4_per_s(accepted: int, refused_at: float | None, capacity: float) -> None:
    """What `accepted` in 10 s make of 4/s; `refused_at` is the pace that was refused."""
    pace = Pace()
    pace.state(4.0)

    pace.measure(accepted, 10.0, 0.0, refused_at)

    assert pace.capacity_per_s == pytest.approx(capacity)


@pytest.mark.parametrize(
    ("accepted", "before", "hold_s"), [(45, 4.0, 80.0), (45, 10.0, 6.0), (45, None, 6.0)]
)
def test_a_told_wait_is_rested_on(accepted: int, before: float | None, hold_s: float) -> None:
    """Told to wait 10 s: 80 s at the pace; 0.6 of the time measured, if it fell by half or is the first."""
    pace = Pace()
    if before is not None:
        pace.state(before)

    pace.measure(accepted, 10.0, 10.0, None)
    pace.begin()

    assert pace.per_s(hold_s) == pace.per_s(0.0)
    assert pace.per_s(1.5 * hold_s) != pace.per_s(0.0)


@pytest.mark.parametrize(
    ("x", "share"),
    [(0.0, 1.0), (1.0, 1.0), (2.0, 1.05), (X_DOUBLES, 1.8), (X_DOUBLES + 1, 3.6), (1e9, 1.8 * 2**60)],
)
def test_the_climb(x: float, share: float) -> None:
    """Held, then gently up to 1.8, then doubling, and never beyond all bounds."""
    assert climb(x) == pytest.approx(share)


@pytest.mark.parametrize(
    "hint",
    [
        RateHint(),
        RateHint(limit=0, window_s=60.0),
        RateHint(limit=-5, window_s=60.0),
        RateHint(limit=5, window_s=0.0),
        RateHint(limit=5, window_s=-1.0),
        RateHint(limit=5, window_s=inf),
        RateHint(limit=5, window_s=nan),
    ],
)
def test_malformed_headers_are_ignored(hint: RateHint) -> None:
    """No sense in the numbers, no change."""
    controller = make()

    controller.on_reply(1.0, controller.on_send(0.0), ACCEPTED._replace(rate_hint=hint))

    assert controller.phase is Phase.RAMP
    assert controller.capacity_per_s is None


def test_a_stated_rate_is_the_pace() -> None:
    """600 a minute: 10/s, from the first answer on, without a climb."""
    controller = make()

    controller.on_reply(1.0, controller.on_send(0.0), ACCEPTED._replace(rate_hint=RateHint(600, 60.0)))

    assert controller.pace_per_s(1.0) == controller.pace_per_s(1000.0) == 10.0


def test_a_released_probe_leaves_the_gate_closed() -> None:
    """A probe that was never sent is no probe: the next send is one."""
    controller = closed(now=1.0)
    at = controller.next_send_at(1.0)

    controller.on_release(controller.on_send(at))

    assert controller.next_send_at(at) == at
    assert controller.on_send(at).is_probe


def test_counters_add_up() -> None:
    """Sends = answers + refusals + errors + in flight, with a release in between."""
    controller = make()
    grants: list[Grant] = [controller.on_send(0.1 * n) for n in range(5)]
    for grant, signal in zip(grants, (ACCEPTED, REFUSED, ERROR), strict=False):
        controller.on_reply(1.0, grant, signal)
    controller.on_release(grants[3])

    assert (controller.answers, controller.refusals, controller.errors, controller.in_flight) == (1, 1, 1, 1)
    assert controller.sends == 4
