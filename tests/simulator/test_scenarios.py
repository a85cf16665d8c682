"""The controller against simulated servers: bounds, exact invariants, and a scenario for every rule it has.

The simulation itself asserts the invariants I1 to I7 at every send and every reply.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise
from math import inf
from statistics import median
from typing import Any

import pytest

from simulator.scenarios import SCENARIOS, SEEDS, SHORT, Scenario, random_scenario
from simulator.servers import FAST, Hiccup, Latency, Policy, Server, Unlimited
from simulator.simulation import Outcome, Simulation
from simulator.summary import LINES
from websim_batch.records import Ceiling
from websim_batch.throttle import controller, pace, ramp, slots
from websim_batch.throttle.ceiling import CeilingLog
from websim_batch.throttle.controller import Controller
from websim_batch.throttle.pace import Pace
from websim_batch.throttle.ramp import Ramp
from websim_batch.throttle.signals import Grant, Signal
from websim_batch.throttle.slots import Slots


def outcomes(name: str) -> list[Outcome]:
    """One run for each seed."""
    return [SCENARIOS[name].run(seed) for seed in SEEDS]


def misses(scenario: Scenario, runs: list[Outcome]) -> list[str]:
    """Which bounds the runs miss."""
    goodput = [run.goodput for run in runs]
    refused = [run.refused_per_row for run in runs]
    start, end = scenario.server().outage
    most = 10 if start == inf else max(10.0, (end - start) / 15 + 4)  # one probe every 15 s
    found = {
        f"median goodput {median(goodput):.3f}": median(goodput) < scenario.goodput[0],
        f"worst goodput {min(goodput):.3f}": min(goodput) < scenario.goodput[1],
        f"median 429s per row {median(refused):.4f}": median(refused) > scenario.refused_per_row[0],
        f"worst 429s per row {max(refused):.4f}": max(refused) > scenario.refused_per_row[1],
        "rows were lost": any(run.finished < run.rows for run in runs),
        "sends inside Retry-After": any(run.sent_inside_retry_after for run in runs),
        "too many sends in an outage": any(sends_in_outage(scenario, run) > most for run in runs),
        "a rush after a pause": any(rush(run) > scenario.rush for run in runs),
    }
    return [miss for miss, is_so in found.items() if is_so]


def sends_in_outage(scenario: Scenario, run: Outcome) -> int:
    """Sends after the first 5 s of the server's outage, until its end."""
    start, end = scenario.server().outage
    return sum(start + 5 < at < end for at in run.send_times)


def rush(run: Outcome) -> int:
    """Sends in the first 100 ms after the first pause of half a second or more."""
    back_at = next((later for at, later in pairwise(run.send_times) if later - at >= 0.5), inf)
    return sum(back_at <= at < back_at + 0.1 for at in run.send_times)


@pytest.mark.parametrize("name", SCENARIOS)
def test_bounds_hold(name: str) -> None:
    """Near the server's capacity, with few refusals, and every row finishes."""
    runs = outcomes(name)

    goodput, refused = [run.goodput for run in runs], [run.refused_per_row for run in runs]
    LINES.append(
        f"{name:42s} {median(goodput):5.2f} {min(goodput):5.2f}   {median(refused):.4f} {max(refused):.4f}"
    )
    assert misses(SCENARIOS[name], runs) == []


def test_random_servers() -> None:
    """Over 100 random servers the median goodput is >= 0.90, the median of 429s per row <= 0.02."""
    runs = [random_scenario(seed).run(seed) for seed in range(100)]

    goodput, refused = median(run.goodput for run in runs), median(run.refused_per_row for run in runs)
    LINES.append(
        f"{'100 random servers':42s} {goodput:5.2f} {min(run.goodput for run in runs):5.2f}   "
        f"{refused:.4f} {max(run.refused_per_row for run in runs):.4f}"
    )
    assert all(run.finished == run.rows for run in runs)
    assert goodput >= 0.90
    assert refused <= 0.02


@pytest.mark.parametrize("name", ["10 s ban", "10 s ban, 1500 rows"])
def test_a_ban_is_hit_at_most_five_times(name: str) -> None:
    """No run of 30 meets more than five refusals that ban everyone for 10 s."""
    runs = [SCENARIOS[name].run(seed) for seed in range(30)]

    assert max(run.refused for run in runs) <= 5
    assert min(run.goodput for run in runs) >= 0.55


HICCUPS = [
    *((number, number, told_s) for number in (1, 2, 5, 10) for told_s in (1.0, 5.0, 30.0)),
    *((1, 2, told_s) for told_s in (1.0, 5.0, 30.0)),
    *((1000, 1000, told_s) for told_s in (1.0, 5.0)),
    *((number, number, None) for number in (1, 2, 5, 1000)),
]
"""The requests that are refused, first and last, and their Retry-After."""


@pytest.mark.parametrize("latency", [FAST, SHORT], ids=["fast", "short"])
@pytest.mark.parametrize(("first", "last", "told_s"), HICCUPS)
def test_one_429_does_not_make_a_run_crawl(
    first: int, last: int, told_s: float | None, latency: Latency
) -> None:
    """A run of 5000 rows takes at most Retry-After and 20 s longer than one without the refusal."""

    def finish_s(policy: Policy) -> float:
        server = Server(policy, latency, retry_after=lambda wait_s: told_s)
        return Simulation(server, 5000).run().finish_s

    wait_s = told_s or 0.0

    assert finish_s(Hiccup(Unlimited(), first, last, wait_s)) <= finish_s(Unlimited()) + wait_s + 20


def test_several_ceilings_hold_at_once() -> None:
    """10/s and 120/min together: the tighter one decides at any time."""
    ceilings = (Ceiling(10, 1.0), Ceiling(120, 60.0))

    run = Simulation(Server(Unlimited(), FAST), 400, ceilings=ceilings).run()

    assert run.refused == 0
    assert run.elapsed_s == pytest.approx(399 / 2, rel=0.05)


def test_a_found_capacity_spares_the_search() -> None:
    """A run that knows the capacity from an earlier one is spared the refusals of the start."""
    scenario = SCENARIOS["1/min"]
    told = Controller(scenario.concurrency, random.Random(0), found_capacity_per_s=1 / 60)

    fresh = scenario.run(0)
    knowing = Simulation(scenario.server(), scenario.rows, controller=told).run()

    assert knowing.refused <= fresh.refused - 4


def test_after_an_outage_the_ramp_starts_again() -> None:
    """A server without a limit that comes back is not met by all slots at once."""
    run = Simulation(Server(Unlimited(), FAST, outage=(1.0, 10.0)), 5000).run()

    back_at = min(at for at in run.send_times if at >= 10.0)
    again = next(at for at in run.send_times if at > back_at)  # the first send after the probe
    assert sum(again <= at < again + 0.1 for at in run.send_times) <= 10


# ---- every rule is needed: without it, a scenario misses its bounds


def _no_streak(self: Controller) -> int:
    return 0


_cool_down_s = Controller._cool_down_s


def _no_streak_with_retry_after(self: Controller, signal: Signal) -> float:
    if signal.retry_after_s is not None:
        self._streak = 0
    return _cool_down_s(self, signal)


_on_refused = Controller._on_refused


def _echoes_cut(self: Controller, now: float, grant: Grant, signal: Signal) -> None:
    grant.epoch = self.epoch
    _on_refused(self, now, grant, signal)


_on_error = Controller._on_error


def _any_probe_opens(self: Controller, now: float, grant: Grant, signal: Signal) -> None:
    _on_error(self, now, grant, signal)
    self._needs_answer = False


_on_hint = Controller._on_hint


def _headers_always(self: Controller, hint: Any) -> None:
    self._trusts_headers = True
    _on_hint(self, hint)


def _stated_climbs(self: Controller, now: float) -> float:
    return 0.0 if self._sent_at is None or self._was_full else now - self._sent_at


def _climbs_unused(self: Controller, now: float) -> float:
    return 0.0 if self._sent_at is None or self._is_stated else now - self._sent_at


def _scant_ever(self: Controller) -> bool:
    return self.capacity_per_s is None and self._let_in <= controller.SCANT_SENDS


_restart = Ramp.restart


def _restart_with_two(self: Ramp) -> None:
    _restart(self)
    self.window = ramp.WINDOW_START


_on_level = Slots.on_refused


def _leave_any(self: Controller, now: float, grant: Grant) -> bool:
    grant.sent_at = now
    return True


_on_hold, _on_leave = Controller.on_hold, Controller.on_leave


def _hold_counted(self: Controller, grant: Grant) -> None:
    _on_hold(self, grant)
    self._let_in += 1


def _leave_uncounted(self: Controller, now: float, grant: Grant) -> bool:
    may_leave = _on_leave(self, now, grant)
    self._let_in -= may_leave
    return may_leave


def _capped_climb(x: float) -> float:
    return 1.0 if x <= 1 else min(1.8, 1 + 0.05 * (x - 1) ** 3)


RULES: dict[str, tuple[Any, str, Any, str]] = {
    "climb": (pace, "climb", lambda x: 1.0, "bucket 1/s, LLM"),
    "doubling after the climb": (pace, "climb", _capped_climb, "10 s ban"),
    "a rise goes on": (pace, "RISE", inf, "10 s ban, 1500 rows"),
    "noise is no rise": (pace, "RISE", 1.03, "slow refusals"),
    "rest after a told wait": (pace, "TOLD_REST", 0.0, "10 s ban"),
    "no rest after a fall": (pace, "TOLD_REST_FALL", inf, "one 429 in the middle, bucket 100/s"),
    "no fall below a quarter": (pace, "FALL", inf, "one 429 in the middle, bucket 100/s"),
    "a handful measures nothing": (controller, "SCANT_SENDS", 0, "one early 429"),
    "nothing is measured once": (Controller, "_is_scant", _scant_ever, "1/min, Retry-After"),
    "after a pause the clock begins": (Ramp, "restart", _restart_with_two, "GCRA 30/s, Retry-After"),
    "shortest hold": (pace, "HOLD_SENDS_LEAST", 0.01, "1/min"),
    "longest hold": (pace, "HOLD_SENDS_MOST", inf, "sliding log 500/60 s"),
    "slots": (Slots, "on_refused", lambda self, level: False, "at most 16 at once"),
    "levels that disagree": (slots, "NOISE", inf, "GCRA 5/s, LLM"),
    "refused alone": (Slots, "on_refused", lambda self, level: _on_level(self, max(level, 1)), "1/min"),
    "slots are confirmed twice": (slots, "CONFIRMED", 1, "10 s ban, burst 40"),
    "rounds grow": (slots, "ROUNDS_MOST", 1, "at most 8 at once, short"),
    "rounds end": (slots, "ROUNDS_MOST", inf, "at most 8 at once, then 24"),
    "innocent pace": (
        Pace,
        "begin",
        lambda self, innocent=False: setattr(self, "_x", 0.0),
        "at most 8 at once, short",
    ),
    "ramp by the clock": (
        Ramp,
        "next_send_at",
        lambda self, in_flight: -inf if in_flight < self.window else inf,
        "window 60/60 s, LLM",
    ),
    "ramp by answers": (ramp, "WINDOW_STEP", 0.0, "unlimited"),
    "ramp by a third": (ramp, "WINDOW_STEP", 1.0, "window 60/60 s, not aligned"),
    "only an answer ends an outage": (Controller, "_on_error", _any_probe_opens, "60 s outage"),
    "echoes never cut": (Controller, "_on_refused", _echoes_cut, "window 60/60 s, not aligned"),
    "streak": (Controller, "_failed_probes", _no_streak, "window 60/60 s, LLM"),
    "streak with Retry-After": (
        Controller,
        "_cool_down_s",
        _no_streak_with_retry_after,
        "ban, Retry-After too short",
    ),
    "longest wait of an outage": (controller, "OUTAGE_MOST_S", inf, "10 min outage"),
    "longest first cool-down": (controller, "COOL_DOWN_FIRST_MOST_S", inf, "1/min"),
    "longest cool-down": (controller, "COOL_DOWN_MOST_S", inf, "window 500/10 min, silent"),
    "patience learns": (controller, "REFUSAL_S_MOST", 0.0, "slow refusals"),
    "headers": (Controller, "_on_hint", lambda self, hint: None, "headers, bucket"),
    "a stated pace stays": (Controller, "_climbed_s", _stated_climbs, "headers, bucket"),
    "headers that lie are dropped": (Controller, "_on_hint", _headers_always, "headers that lie"),
    "a closed gate calls back": (Controller, "on_leave", _leave_any, "10 s ban, slow handshakes"),
    "patience begins at the leaving": (
        Controller,
        "on_hold",
        lambda self, grant: None,
        "10 s ban, slow handshakes",
    ),
    "what is held is not let in": (Controller, "on_hold", _hold_counted, "bucket 10/s, slow handshakes"),
    "what leaves is let in": (Controller, "on_leave", _leave_uncounted, "bucket 10/s, slow handshakes"),
    "a window begins at the leaving": (
        CeilingLog,
        "leave",
        lambda self, now: self.forget(inf),
        "ceiling 5/s, slow handshakes",
    ),
    "an unused pace stays": (Controller, "_climbed_s", _climbs_unused, "capacity x 3 in the middle"),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rule switched off, its scenario misses a bound."""
    owner, name, without, scenario = RULES[rule]
    monkeypatch.setattr(owner, name, without)

    assert is_missed(SCENARIOS[scenario], SEEDS) or is_missed(SCENARIOS[scenario], range(3, 8))


def is_missed(scenario: Scenario, seeds: Iterable[int]) -> bool:
    """Whether bounds are missed, or an invariant breaks."""
    try:
        return bool(misses(scenario, [scenario.run(seed) for seed in seeds]))
    except AssertionError:
        return True
