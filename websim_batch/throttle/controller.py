"""Decides when a request may be sent, from what earlier ones met. Pure: no clock, no sleep, no I/O.

                 first refusal                    cool-down over: one probe
      RAMP ────────────────────────> CLOSED ────────────────────────────────> HALF_OPEN
       ^                            ^  ^  ^     probe refused: streak + 1        │
       │                 refusal,   │  │  └──────────────────────────────────────┤
       │ no capacity     outage or  │  │ refusal, outage, 5 errors               │ probe accepted, or not
       │ known yet       5 errors   │  │                                         │ refused within its patience
       │                            │  └─────────────── OPEN <───────────────────┤
       └────────────────────────────┴────────────────────────────────────────────┘

One gate for all requests. Its states, and when a send may go (always: fewer than `concurrency` in flight):

RAMP       no capacity known: `ramp.py`. After an outage; and after the first Retry-After, if fewer than 20
           were let in before it: 1 in 5 s may be a server of 0.2/s, or one that takes a thousand a second
           and had a bad moment. Asking again costs a slow server one refusal; only then is G measured.
CLOSED     at `closed_until`. Cool-down, with s = failed probes in a row:
           - Retry-After R: R * 2^s, plus 10 ms and up to 5 % of it (most 1 s); never less. 4 s: 4.01 … 4.21
           - without: clip(1/G, 0.1, 5) * 2^s, at most 60 s; 0.25 * 2^s while G is unknown. 10/s: 0.1, 0.2
           - outage or errors: 2^s, at most 15 s.
HALF_OPEN  the probe is out, nothing else may go. Refusals are fast and answers slow: a probe that is not
           refused within `max(0.1 s, 3 * the slowest refusal seen)` counts as accepted; after an outage only
           an answer does.
OPEN       at the pace of `pace.py`, fewer than the limit of `slots.py` in flight. Paced by whoever calls.

A refusal of a request that was sent before the last closure is an echo: its Retry-After may lengthen the
wait, it never cuts again. A request whose connection stood only after a closure is not sent any more: it
waits for a new grant. Errors leave G as it is. A rate that the server states in headers is G, and the
pace keeps to it, until the server refuses all the same.
"""

from __future__ import annotations

import random
from enum import Enum
from math import inf, isfinite

from websim_batch.records import RateHint
from websim_batch.throttle.pace import Pace
from websim_batch.throttle.ramp import Ramp
from websim_batch.throttle.signals import Grant, Signal
from websim_batch.throttle.slots import Slots

PATIENCE_LEAST_S = 0.1
REFUSAL_S_MOST = 10.0
COOL_DOWN_UNKNOWN_S = 0.25
COOL_DOWN_LEAST_S = 0.1
COOL_DOWN_FIRST_MOST_S = 5.0
COOL_DOWN_MOST_S = 60.0
OUTAGE_MOST_S = 15.0
ERRORS_TO_CLOSE = 5
SCANT_SENDS = 20


class Phase(Enum):
    """Where the gate stands."""

    RAMP = "ramp"
    CLOSED = "closed"
    HALF_OPEN = "half open"
    OPEN = "open"


_RAMP, _CLOSED, _HALF_OPEN, _OPEN = Phase
"""By themselves: before Python 3.12 a member looked up in its Enum costs ten times as much, for every request."""


class Controller:
    """The throttle's decisions: told every send and every reply, asked when the next may go.

    Times are seconds on any one clock and never go back. Counters: sends = answers + refusals + errors +
    in_flight.
    """

    def __init__(
        self, concurrency: int, rng: random.Random, found_capacity_per_s: float | None = None
    ) -> None:
        self.concurrency = concurrency
        self.phase = _RAMP
        self.epoch = 0
        self.in_flight = self.sends = self.answers = self.refusals = self.errors = 0
        self.closed_s = 0.0
        self.closed_at = self.closed_until = 0.0
        self.why_closed = ""
        self.slots = Slots()
        self._pace = Pace()
        self._ramp = Ramp()
        self._rng = rng
        self._streak = 0
        self._error_run = 0
        self._probe: Grant | None = None
        self._needs_answer = False
        self._worst_refusal_s = 0.0
        self._marked_at: float | None = None  # when the present measurement began
        self._let_in = 0  # sent and not refused since then
        self._sent_at: float | None = None
        self._was_full = False  # the last send took the last slot
        self._is_stated = False
        self._trusts_headers = True
        self._is_pace_innocent = False
        self._refused_pace_per_s: float | None = None
        if found_capacity_per_s:
            self._pace.state(found_capacity_per_s)
            self.phase = _OPEN

    @property
    def capacity_per_s(self) -> float | None:
        """The server's capacity as measured or stated; None while it refused nothing."""
        return self._pace.capacity_per_s

    @property
    def ramp_window(self) -> float:
        """How many requests in flight the ramp allows."""
        return self._ramp.window

    def next_send_at(self, now: float) -> float:
        """When the next send may go: a time up to `now` means at once, inf only after a further reply.

        Time passes here: a probe whose patience is over by `now` opens the gate.
        """
        if self.phase is _HALF_OPEN and now >= self._probe_decided_at():
            self._reopen(now)
        if self.in_flight >= self.concurrency:
            return inf
        if self.phase is _RAMP:
            return self._ramp.next_send_at(self.in_flight)
        if self.phase is _OPEN:
            return -inf if self.in_flight < self.slots.limit else inf
        return self.closed_until if self.phase is _CLOSED else self._probe_decided_at()

    def pace_per_s(self, now: float) -> float | None:
        """The rate at which sends are to be spread; None: as they come."""
        if self.phase is not _OPEN:
            return None
        return self._pace.per_s(self._climbed_s(now))

    def on_send(self, now: float) -> Grant:
        """One request is sent at `now`, when `next_send_at` allows it."""
        if self._marked_at is None:
            self._marked_at = now
        if self.phase is _RAMP:
            self._ramp.on_send(now)
        elif self.phase is _OPEN:
            self._pace.advance(self._climbed_s(now))
        grant = Grant(now, self.epoch, self.in_flight, is_probe=self.phase is _CLOSED)
        if grant.is_probe:
            self.phase, self._probe = _HALF_OPEN, grant
        self.in_flight += 1
        self.sends += 1
        self._let_in += 1
        self._sent_at = now
        self._was_full = self.in_flight >= self.concurrency or self.in_flight >= self.slots.limit
        return grant

    def on_hold(self, grant: Grant) -> None:
        """The grant's request cannot go yet: its connection has to be made. A probe's patience has not begun."""
        grant.sent_at, grant.was_held = inf, True
        self._let_in -= 1  # it counts in the measurement during which it leaves, if it does

    def on_leave(self, now: float, grant: Grant) -> bool:
        """Whether a request that was held may go now: not if the gate has closed since its grant."""
        if grant.epoch < self.epoch:
            return False
        grant.sent_at = now
        self._let_in += 1
        return True

    def on_release(self, grant: Grant) -> None:
        """The grant's request was never sent after all."""
        self.in_flight -= 1
        self.sends -= 1
        self._let_in -= not grant.was_held
        if grant is self._probe:
            self._probe_again()

    def on_reply(self, now: float, grant: Grant, signal: Signal) -> None:
        """The grant's request met `signal`."""
        self.in_flight -= 1
        if signal.rate_hint is not None:
            self._on_hint(signal.rate_hint)
        if signal.kind == "accepted":
            self._on_accepted(now, grant, signal)
        elif signal.kind == "refused":
            self._on_refused(now, grant, signal)
        else:
            self._on_error(now, grant, signal)

    def _on_accepted(self, now: float, grant: Grant, signal: Signal) -> None:
        self.answers += 1
        self._error_run = 0
        self.slots.on_accepted(grant.level if grant.epoch else 0)
        if grant is self._probe:
            self._reopen(now)
        elif self.phase is _RAMP:
            self._ramp.on_accepted(signal.latency_s, is_first=self.answers == 1)

    def _on_refused(self, now: float, grant: Grant, signal: Signal) -> None:
        self.refusals += 1
        self._let_in -= 1
        self._worst_refusal_s = min(max(self._worst_refusal_s, signal.latency_s), REFUSAL_S_MOST)
        if grant.epoch < self.epoch:
            self._on_echo(now, signal)
            return
        if grant is not self._probe:
            self._is_pace_innocent = self.slots.on_refused(grant.level)
        self._is_stated = self._trusts_headers = False
        why = "rate limit" if signal.retry_after_s is None else "Retry-After"
        self._close(now, self._cool_down_s(signal), why)

    def _on_echo(self, now: float, signal: Signal) -> None:
        if signal.retry_after_s is not None and self.phase is _CLOSED:
            self.closed_until = max(self.closed_until, now + signal.retry_after_s)

    def _on_error(self, now: float, grant: Grant, signal: Signal) -> None:
        self.errors += 1
        if not self.answers:
            self._ramp.hold()
        if grant.epoch < self.epoch:
            return
        is_outage = signal.kind == "outage"
        if grant is self._probe and not is_outage and not signal.is_fresh_row:
            self._probe_again()
            return
        self._error_run += signal.is_fresh_row
        is_long_run = self._error_run >= ERRORS_TO_CLOSE and self.answers > 0
        if is_outage or is_long_run or grant is self._probe:
            self._needs_answer = True
            self._error_run = 0
            cool_down_s = min(2.0 ** self._failed_probes(), OUTAGE_MOST_S)
            self._close(now, cool_down_s, "no connection" if is_outage else "server errors")

    def _on_hint(self, hint: RateHint) -> None:
        if not self._trusts_headers or not hint.limit or not hint.window_s:
            return
        stated_per_s = hint.limit / hint.window_s
        if stated_per_s > 0 and isfinite(stated_per_s):
            self._pace.state(stated_per_s)
            self._is_stated = True
            if self.phase is _RAMP:
                self.phase = _OPEN

    def _cool_down_s(self, signal: Signal) -> float:
        growth = 2.0 ** self._failed_probes()
        if signal.retry_after_s is not None:
            wait_s = signal.retry_after_s * growth
            return wait_s + 0.01 + self._rng.uniform(0.0, min(0.05 * wait_s, 1.0))
        if self.capacity_per_s is None:
            return min(COOL_DOWN_UNKNOWN_S * growth, COOL_DOWN_MOST_S)
        base_s = min(max(1 / self.capacity_per_s, COOL_DOWN_LEAST_S), COOL_DOWN_FIRST_MOST_S)
        return min(base_s * growth, COOL_DOWN_MOST_S)

    def _probe_again(self) -> None:
        """The probe told nothing (never sent; or its row failed before): the next send is one, without a wait."""
        self.phase, self._probe = _CLOSED, None

    def _failed_probes(self) -> int:
        return self._streak if self.phase is _HALF_OPEN else 0

    def _close(self, now: float, cool_down_s: float, why: str) -> None:
        if self.phase is _HALF_OPEN:
            self._streak += 1
        else:
            self._streak = 1
            self.closed_at = now
            self._refused_pace_per_s = self.pace_per_s(now)
        self.phase, self._probe = _CLOSED, None
        self.epoch += 1
        self.closed_until = now + cool_down_s
        self.why_closed = why

    def _reopen(self, now: float) -> None:
        probe = self._probe
        assert probe is not None and self._marked_at is not None
        if not self._needs_answer and not self._is_stated and not self._is_scant():
            elapsed_s = probe.sent_at - self._marked_at
            told_s = probe.sent_at - self.closed_at if self.why_closed == "Retry-After" else 0.0
            self._pace.measure(self._let_in - 1, elapsed_s, told_s, self._refused_pace_per_s)
        self._pace.begin(self._is_pace_innocent)
        self._marked_at, self._let_in = probe.sent_at, 1
        self._sent_at, self._was_full = probe.sent_at, False
        self._probe, self._needs_answer, self._is_pace_innocent = None, False, False
        self.closed_s += now - self.closed_at
        self.phase = _OPEN if self.capacity_per_s else _RAMP
        self._ramp.restart()

    def _is_scant(self) -> bool:
        """Whether a measurement would rest on a handful of sends and the run's first Retry-After alone."""
        is_first = self.capacity_per_s is None and self.epoch == self._streak
        return is_first and self.why_closed == "Retry-After" and self._let_in <= SCANT_SENDS

    def _climbed_s(self, now: float) -> float:
        """For how long the pace has climbed since the last send.

        A stated pace stays, and so does one that did not hold the sends back, as all slots were taken.
        """
        if self._sent_at is None or self._is_stated or self._was_full:
            return 0.0
        return now - self._sent_at

    def _probe_decided_at(self) -> float:
        if self._needs_answer or self._probe is None:
            return inf
        return self._probe.sent_at + max(PATIENCE_LEAST_S, 3 * self._worst_refusal_s)
