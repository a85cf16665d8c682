"""Drives a controller against a server model, event by event, and looks at the invariants at every step.

I1 a closed window never holds more sends than the ceiling. I2 in flight never above the user's cap. I3, I4
while the gate is closed nothing is sent, and half open only the one probe; a send that had to wait for its
connection counts when it leaves. I5 no row fails by rate limiting.
I6 one cut per epoch. I7 sends = answers + refusals + errors + in flight. (I8, cancellation, is tested on the
Throttle.)
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf

from simulator.servers import Answered, Server
from websim_batch.records import Ceiling
from websim_batch.throttle.ceiling import CeilingLog
from websim_batch.throttle.controller import Controller, Phase
from websim_batch.throttle.signals import Grant, Signal
from websim_batch.throttle.throttle import limiter_depth


class Pacer:
    """The arithmetic of the throttle's AsyncLimiter: a leaky bucket, rebuilt when the pace moved by 5 %."""

    def __init__(self) -> None:
        self._pace, self._depth, self._level, self._last = inf, 1.0, 0.0, -inf

    def next_at(self, now: float, pace: float) -> float:
        if pace == inf:
            self._pace = inf
            return now
        if abs(pace / self._pace - 1) > 0.05 or self._pace == inf:
            self._depth = limiter_depth(pace)
            self._level = max(0.0, self._depth - (now - self._last) * pace)
            self._pace, self._last = pace, now
        level = max(0.0, self._level - (now - self._last) * self._pace)
        return now + max(0.0, level + 1 - self._depth) / self._pace

    def take(self, now: float) -> None:
        if self._pace < inf:
            self._level = max(0.0, self._level - (now - self._last) * self._pace) + 1
        self._last = now


@dataclass
class Outcome:
    """What a simulated run came to."""

    rows: int
    finished: int
    elapsed_s: float
    """From the first send to the last admission: the throttle's part; the tail of answers is the server's."""
    finish_s: float
    ideal_s: float
    sends: int
    refused: int
    errors: int
    most_attempts: int
    capacity_per_s: float | None
    send_times: list[float] = field(repr=False, default_factory=list)
    refused_times: list[float] = field(repr=False, default_factory=list)
    sent_inside_retry_after: int = 0

    @property
    def goodput(self) -> float:
        return self.ideal_s / max(self.elapsed_s, 1e-9)

    @property
    def finish_goodput(self) -> float:
        return self.ideal_s / max(self.finish_s, 1e-9)

    @property
    def refused_per_row(self) -> float:
        return self.refused / self.rows


class Simulation:
    """One run: `rows` rows through a controller to a server."""

    def __init__(
        self,
        server: Server,
        rows: int,
        *,
        concurrency: int = 64,
        ceilings: Sequence[Ceiling] = (),
        seed: int = 0,
        controller: Controller | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        server.rng = random.Random(seed + 1)
        self.server, self.rows, self.concurrency = server, rows, concurrency
        self.controller = controller or Controller(concurrency, random.Random(seed + 2))
        self.ceilings = list(ceilings)
        self.logs = [CeilingLog(c) for c in ceilings]
        self.windows: list[deque[float]] = [deque() for _ in ceilings]
        self.ceiling_pace = min((log.pace_per_s for log in self.logs), default=inf)
        self.pacer = Pacer()
        self.backlog: deque[int] = deque(range(rows))
        self.attempts = [0] * rows
        self.failed_before: set[int] = set()
        self.events: list[tuple[float, int, str, tuple[object, ...]]] = []
        self.number = count()
        self.now = 0.0
        self.finished = 0
        self.last_admitted = self.last_finished = 0.0
        self.sends: list[float] = []
        self.refused: list[float] = []
        self.errors = 0
        self.in_flight: dict[Grant, int] = {}
        self.free_since: list[float] = []  # of each connection that stands and is not used
        self.retry_after_until = -inf
        self.sent_inside = 0

    def run(self, limit_s: float = 1e6) -> Outcome:
        while self.finished < self.rows and self.now < limit_s:
            self._send_what_may_go()
            assert len(self.sends) <= 20 * self.rows, "a storm: twenty sends for each row"
            at = self._next_send_at() if self.backlog else inf
            event_at = self.events[0][0] if self.events else inf
            assert min(at, event_at) < inf, "deadlock: nothing in flight and nothing may be sent"
            if at < event_at:
                self.now = max(at, self.now)
                continue
            self.now, _, kind, args = heapq.heappop(self.events)
            getattr(self, "_" + kind)(*args)
            self._check()
        return self._outcome()

    def _send_what_may_go(self) -> None:
        while self.backlog and self._next_send_at() <= self.now:
            self._send()

    def _next_send_at(self) -> float:
        at = max([self.controller.next_send_at(self.now), *(log.next_send_at() for log in self.logs)])
        if at > self.now:
            return at
        pace = min(self.controller.pace_per_s(self.now) or inf, self.ceiling_pace)
        at = self.pacer.next_at(self.now, pace)
        return at if at > self.now + 1e-9 else self.now

    def _send(self) -> None:
        row = self.backlog.popleft()
        self.pacer.take(self.now)
        for log in self.logs:
            log.record(self.now)
        c = self.controller
        assert self._is_open() or (c.phase is Phase.CLOSED and self.now >= c.closed_until)  # I3, I4
        grant = c.on_send(self.now)
        self.in_flight[grant] = row
        self.free_since = [since for since in self.free_since if since > self.now - self.server.keepalive_s]
        if self.free_since or not self.server.handshake_s:
            del self.free_since[-1:]
            self._leave(grant)
        else:
            for log in self.logs:
                log.hold(grant.sent_at)
            c.on_hold(grant)
            self._at(self.now + self.server.handshake_s, "connected", grant)

    def _connected(self, grant: Grant) -> None:
        if self.controller.on_leave(self.now, grant):
            for log in self.logs:
                log.leave(self.now)
            assert self._is_open() or grant.is_probe  # I3, I4
            self._leave(grant)
            return
        for log in self.logs:
            log.forget(grant.sent_at)
        self.controller.on_release(grant)
        self.free_since.append(self.now)
        self.backlog.appendleft(self.in_flight.pop(grant))

    def _leave(self, grant: Grant) -> None:
        self.sent_inside += self.now < self.retry_after_until - 1e-9
        self._check_ceilings()
        self.attempts[self.in_flight[grant]] += 1
        self.sends.append(self.now)
        self._at(self.now + self.rng.uniform(0.2, 1.0) * self.server.network_s, "arrive", grant)

    def _at(self, at: float, kind: str, *args: object) -> None:
        heapq.heappush(self.events, (at, next(self.number), kind, args))

    def _arrive(self, grant: Grant) -> None:
        answered = self.server.arrive(self.now)
        back_s = self.rng.uniform(0.2, 1.0) * self.server.network_s
        if answered.kind == "accepted":
            self.last_admitted = self.now
        self._at(self.now + answered.after_s + back_s, "reply", grant, answered)

    def _reply(self, grant: Grant, answered: Answered) -> None:
        row = self.in_flight.pop(grant)
        self.free_since.append(self.now)
        is_fresh = row not in self.failed_before
        latency_s = self.now - grant.sent_at
        epoch = self.controller.epoch
        self.controller.on_reply(
            self.now,
            grant,
            Signal(answered.kind, answered.retry_after_s, answered.rate_hint, is_fresh, latency_s),
        )
        assert self.controller.epoch - epoch <= (grant.epoch == epoch)  # I6
        if answered.kind == "accepted":
            self.finished += 1
            self.last_finished = self.now
        elif answered.kind == "refused":
            self.refused.append(self.now)
            self.backlog.appendleft(row)
            if answered.retry_after_s is not None:
                self.retry_after_until = max(self.retry_after_until, self.now + answered.retry_after_s)
        else:
            self.errors += 1
            self.backlog.append(row)
            self.failed_before.add(row)

    def _is_open(self) -> bool:
        return self.controller.phase in (Phase.RAMP, Phase.OPEN)

    def _check_ceilings(self) -> None:
        for ceiling, sends in zip(self.ceilings, self.windows, strict=True):  # I1
            while sends and sends[0] < self.now - ceiling.window_s:
                sends.popleft()
            sends.append(self.now)
            assert len(sends) <= ceiling.limit

    def _check(self) -> None:
        c = self.controller
        assert c.in_flight == len(self.in_flight) <= self.concurrency  # I2
        assert c.sends == c.answers + c.refusals + c.errors + c.in_flight  # I7

    def _outcome(self) -> Outcome:
        return Outcome(
            rows=self.rows,
            finished=self.finished,
            elapsed_s=self.last_admitted - self.sends[0],
            finish_s=self.last_finished - self.sends[0],
            ideal_s=self.server.ideal_s(self.rows),
            sends=len(self.sends),
            refused=len(self.refused),
            errors=self.errors,
            most_attempts=max(self.attempts),
            capacity_per_s=self.controller.capacity_per_s,
            send_times=self.sends,
            refused_times=self.refused,
            sent_inside_retry_after=self.sent_inside,
        )
