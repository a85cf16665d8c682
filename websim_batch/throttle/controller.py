"""Decides when a request may be sent, from what earlier ones met. Pure: no clock, no sleep, no I/O.

First version: a window that grows with answers, one shared gate, one probe after a cool-down.

              refused                    cool-down over, one probe
    RAMP ───────────────> CLOSED <──────────────────────────────> HALF_OPEN
                             ^              probe refused             │ probe accepted
                             │ refused                                v
                             └────────────────────────────────────── OPEN
"""

from __future__ import annotations

import random
from enum import Enum
from math import inf

from websim_batch.throttle.signals import Grant, Signal


class Phase(Enum):
    """Where the gate stands."""

    RAMP = "ramp"
    CLOSED = "closed"
    HALF_OPEN = "half open"
    OPEN = "open"


class Controller:
    """The throttle's decisions. Callers tell it every send and every reply, and ask when the next may go."""

    def __init__(self, concurrency: int, rng: random.Random) -> None:
        self.concurrency = concurrency
        self.phase = Phase.RAMP
        self.epoch = 0
        self.in_flight = 0
        self.sends = self.answers = self.refusals = self.errors = 0
        self.window = min(2.0, concurrency)
        self.capacity_per_s: float | None = None
        self.closed_s = 0.0
        self.closed_at = 0.0
        self.closed_until = 0.0
        self.why_closed: str | None = None
        self._rng = rng
        self._streak = 0
        self._error_run = 0
        self._probe: Grant | None = None
        self._probe_needs_answer = False
        self._worst_refusal_s = 0.0
        self._mark_at: float | None = None
        self._accepted = 0

    def next_send_at(self, now: float) -> float:
        """When the next send may go: a time up to `now` means at once, inf only after a further reply."""
        if self.in_flight >= self.concurrency:
            return inf
        if self.phase is Phase.CLOSED:
            return self.closed_until
        if self.phase is Phase.HALF_OPEN:
            return inf if self._probe_needs_answer or self._probe is None else self._patience_ends_at()
        if self.phase is Phase.RAMP:
            return now if self.in_flight < self.window else inf
        return now

    def pace_per_s(self, now: float) -> float | None:
        """The rate at which sends should be spread while the gate is open; None: as they come."""
        return self.capacity_per_s if self.phase is Phase.OPEN else None

    def on_send(self, now: float) -> Grant:
        """One request is sent at `now`, when `next_send_at` allowed it."""
        if self.phase is Phase.HALF_OPEN:
            self._reopen(now)
        grant = Grant(now, self.epoch, self.in_flight, is_probe=self.phase is Phase.CLOSED)
        if grant.is_probe:
            self.phase, self._probe = Phase.HALF_OPEN, grant
        if self._mark_at is None:
            self._mark_at = now
        self.in_flight += 1
        self.sends += 1
        self._accepted += 1
        return grant

    def on_release(self, now: float, grant: Grant) -> None:
        """The grant's request was never sent after all."""
        self.in_flight -= 1
        self.sends -= 1
        self._accepted -= 1
        if grant is self._probe:
            self.phase, self._probe = Phase.CLOSED, None

    def on_reply(self, now: float, grant: Grant, signal: Signal) -> None:
        """The grant's request met `signal`."""
        self.in_flight -= 1
        if signal.kind == "accepted":
            self._on_accepted(now, grant)
        elif signal.kind == "refused":
            self._on_refused(now, grant, signal)
        else:
            self._on_error(now, grant, signal)

    def _on_accepted(self, now: float, grant: Grant) -> None:
        self.answers += 1
        self._error_run = 0
        if grant is self._probe:
            self._reopen(now)
        elif self.phase is Phase.RAMP and self.window < self.concurrency:
            self.window += 1

    def _on_refused(self, now: float, grant: Grant, signal: Signal) -> None:
        self.refusals += 1
        self._accepted -= 1
        self._worst_refusal_s = max(self._worst_refusal_s, signal.latency_s)
        if grant.epoch < self.epoch:
            if signal.retry_after_s is not None and self.phase is Phase.CLOSED:
                self.closed_until = max(self.closed_until, now + signal.retry_after_s)
            return
        why = "refused" if signal.retry_after_s is None else "Retry-After"
        self._close(now, self._cool_down_s(signal), why)
        self._probe_needs_answer = False

    def _on_error(self, now: float, grant: Grant, signal: Signal) -> None:
        self.errors += 1
        if signal.kind == "outage":
            must_close = grant.epoch == self.epoch
        else:
            self._error_run += signal.is_fresh_row
            must_close = grant is self._probe or (self._error_run >= 5 and self.answers > 0)
            must_close = must_close and grant.epoch == self.epoch
        if must_close:
            self._close(now, min(2.0**self._streak, 15.0), "outage")
            self._probe_needs_answer = True
            self._error_run = 0

    def _cool_down_s(self, signal: Signal) -> float:
        if signal.retry_after_s is not None:
            wait_s = signal.retry_after_s * 2.0**self._streak
            return wait_s + self._rng.uniform(0.01, 0.01 + min(0.05 * wait_s, 1.0))
        rate = self.capacity_per_s or 4.0
        base = min(max(1 / rate, 0.25), 5.0)
        return min(base * 2.0**self._streak * self._rng.uniform(1.0, 1.15), 60.0)

    def _close(self, now: float, cool_down_s: float, why: str) -> None:
        if self.phase in (Phase.RAMP, Phase.OPEN):
            self.closed_at = now
        self.phase, self._probe = Phase.CLOSED, None
        self.epoch += 1
        self._streak += 1
        self.closed_until = now + cool_down_s
        self.why_closed = why

    def _reopen(self, now: float) -> None:
        assert self._probe is not None and self._mark_at is not None
        elapsed_s = self._probe.sent_at - self._mark_at
        self.capacity_per_s = max(self._accepted - 1, 1) / max(elapsed_s, 0.001)
        self._mark_at, self._accepted = self._probe.sent_at, 1
        self.closed_s += now - self.closed_at
        self.phase, self._probe, self._streak, self.why_closed = Phase.OPEN, None, 0, None
        self._probe_needs_answer = False

    def _patience_ends_at(self) -> float:
        assert self._probe is not None
        return self._probe.sent_at + max(0.25, 3 * self._worst_refusal_s)
