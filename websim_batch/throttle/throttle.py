"""Asks before every send: the controller when, the user's ceilings whether, the limiter how smoothly.

The limiter (aiolimiter) spreads sends evenly in time but keeps no count of any window; the exact log holds
the ceiling in every window but would let it out in bursts: so the one paces, and the other decides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf

from aiolimiter import AsyncLimiter

from websim_batch.records import Ceiling
from websim_batch.throttle.ceiling import CeilingLog
from websim_batch.throttle.controller import Controller, Phase
from websim_batch.throttle.signals import Grant, LimitedBy, Signal, ThrottleState

RATE_STEP = 0.05
"""A new limiter is built when the pace moved by more than this share."""


class Throttle:
    """One gate for all requests of a run; made inside the running event loop and used in it alone.

    `ceilings` and `concurrency` are the user's limits. `clock` gives seconds as the loop's time does (its
    default). `found_capacity_per_s` is what an earlier run measured: then there is no ramp. Every grant is
    given back exactly once, by `settle` or by `release`.
    """

    def __init__(
        self,
        ceilings: Sequence[Ceiling],
        concurrency: int,
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] | None = None,
        found_capacity_per_s: float | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._controller = Controller(concurrency, rng or random.Random(), found_capacity_per_s)
        self._logs = [CeilingLog(ceiling) for ceiling in ceilings]
        self._tightest = min(ceilings, key=lambda c: c.limit / c.window_s, default=None)
        self._ceiling_pace_per_s = min((log.pace_per_s for log in self._logs), default=inf)
        self._turn = asyncio.Lock()
        self._queued = 0
        self._waker: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._limiter: AsyncLimiter | None = None
        self._limiter_pace_per_s = inf
        self._limiter_wait: asyncio.Timeout | None = None
        self._paced = 0  # so many sends the limiter has let through already
        self._granted_at = -inf
        self._is_shut = False

    def try_acquire(self) -> Grant | None:
        """A grant, if one can be had at once and nobody waits for one; else None."""
        if self._queued:
            return None
        now = self._clock()
        if self._next_send_at(now) > now or not self._is_within_pace(now):
            return None
        return self._grant(now)

    async def acquire(self) -> Grant:
        """Wait until one request may be sent now; the caller sends it in the same turn of the loop, or holds it.

        First come, first served. A cancelled wait takes nothing.
        """
        if (at_once := self.try_acquire()) is not None:
            return at_once
        now = self._clock()
        self._queued += 1
        try:
            async with self._turn:
                grant = await self._acquire_in_turn()
        finally:
            self._queued -= 1
        grant.throttled_s = grant.sent_at - now
        return grant

    def hold(self, grant: Grant) -> None:
        """Its connection has to be made first: the request goes later than now, when `leave` says so.

        Until then it takes one of N under every ceiling, whatever the time; and its window begins when it leaves.
        """
        for log in self._logs:
            log.hold(grant.sent_at)
        self._controller.on_hold(grant)

    def leave(self, grant: Grant) -> bool:
        """Whether a request that was held may go; the caller writes its first byte at once. False: give it back."""
        now = self._clock()
        if self._is_shut or not self._controller.on_leave(now, grant):
            return False
        for log in self._logs:
            log.leave(now)
        self._look_again()
        return True

    def settle(self, grant: Grant, signal: Signal) -> None:
        """Tell what the grant's request met; exactly once for each grant that was not released.

        One that was held and was answered has left, whether anybody noticed or not; a failure was no send.
        """
        now = self._clock()
        if grant.is_held:
            self._end_hold(now, grant, was_answered=signal.kind in ("accepted", "refused"))
        self._controller.on_reply(now, grant, signal)
        if self._queued:
            self._look_again()

    def _end_hold(self, now: float, grant: Grant, was_answered: bool) -> None:
        for log in self._logs:
            log.leave(now) if was_answered else log.forget(inf)
        if was_answered:
            self._controller.on_leave(now, grant)
        else:  # it takes no part of the pace either: at 2/min nobody could try again before 15 s
            self._limiter, self._granted_at, self._paced = None, -inf, 0
        grant.sent_at = now

    def release(self, grant: Grant) -> None:
        """Give back a grant whose request was never sent."""
        for log in self._logs:
            log.forget(grant.sent_at)
        self._controller.on_release(grant)
        self._look_again()

    def shut(self) -> None:
        """The run stops: requests that are held must not leave any more."""
        self._is_shut = True

    def remember(self, ages_s: Iterable[float]) -> None:
        """Count sends of an earlier run, `ages_s` seconds ago, under the ceilings; oldest first."""
        now = self._clock()
        for age_s in ages_s:
            for log in self._logs:
                log.record(now - age_s)

    def snapshot(self) -> ThrottleState:
        """What holds the rate right now."""
        now = self._clock()
        controller = self._controller
        is_closed = controller.phase in (Phase.CLOSED, Phase.HALF_OPEN)
        wait_s = max(controller.closed_until - now, 0.0) if is_closed else None
        pace_per_s = self._pace_per_s(now)
        limited_by, text = self._binding(pace_per_s, wait_s)
        return ThrottleState(
            rate_per_s=None if pace_per_s == inf else pace_per_s,
            limited_by=limited_by,
            text=text,
            wait_s=wait_s,
            wait_reason=controller.why_closed if is_closed else None,
            capacity_per_s=controller.capacity_per_s,
            refusals=controller.refusals,
            closed_s=controller.closed_s + (now - controller.closed_at if is_closed else 0.0),
            in_flight=controller.in_flight,
            is_closed=is_closed,
        )

    def _binding(self, pace_per_s: float, wait_s: float | None) -> tuple[LimitedBy, str]:
        """The tightest limit and its words; the first of these that binds."""
        controller = self._controller
        if wait_s is not None:
            return "waiting", f"waiting {wait_s:.0f} s ({controller.why_closed})"
        if controller.in_flight >= controller.concurrency:
            return "concurrency", f"concurrency {controller.concurrency}"
        if controller.in_flight >= controller.slots.limit:
            return "server limit", f"server limit {controller.slots.limit:.0f} at once"
        if self._tightest is not None and pace_per_s == self._ceiling_pace_per_s:
            return "your ceiling", f"your ceiling {self._tightest}"
        if controller.phase is Phase.RAMP:
            is_over = controller.ramp_window >= controller.concurrency
            return ("nothing", "nothing") if is_over else ("ramp", "ramping up")
        return "server limit", f"server limit ≈ {rate_text(controller.capacity_per_s or pace_per_s)}"

    async def _acquire_in_turn(self) -> Grant:
        while True:
            now = self._clock()
            at = self._next_send_at(now)
            if at > now:
                await self._wait_until(at)
            elif self._is_within_pace(now):
                return self._grant(now)
            else:
                await self._wait_for_limiter(now)  # then look again: the gate may have closed meanwhile

    def _grant(self, now: float) -> Grant:
        if self._paced:
            self._paced -= 1
        self._granted_at = now
        for log in self._logs:
            log.record(now)
        return self._controller.on_send(now)

    def _next_send_at(self, now: float) -> float:
        at = self._controller.next_send_at(now)
        for log in self._logs:
            at = max(at, log.next_send_at())
        return at

    def _pace_per_s(self, now: float) -> float:
        pace = self._controller.pace_per_s(now)
        return self._ceiling_pace_per_s if pace is None else min(pace, self._ceiling_pace_per_s)

    def _is_within_pace(self, now: float) -> bool:
        """Whether the limiter lets the next send through at once.

        It is asked for what falls due in about a millisecond, so that a pace far away costs nothing for each send.
        """
        pace = self._pace_per_s(now)
        if pace == inf:
            self._limiter = None  # it would not count this send
            return True
        limiter = self._limiter
        if limiter is None or self._has_moved(pace):
            return False
        if not self._paced:
            some = max(1, int(pace / 1000))
            if not limiter.has_capacity(some):
                return False
            with suppress(StopIteration):  # with capacity left it waits for nothing, so one step is all of it
                limiter.acquire(some).send(None)
            self._paced = some
        return True

    def _has_moved(self, pace: float) -> bool:
        return pace != self._limiter_pace_per_s and abs(pace / self._limiter_pace_per_s - 1) > RATE_STEP

    async def _wait_for_limiter(self, now: float) -> None:
        """Have one send let through, unless the gate closes or the pace changes meanwhile: no probe waits for it.

        A new limiter starts as full as the last grant left it: no burst.
        """
        pace = self._pace_per_s(now)
        if self._limiter is None or self._has_moved(pace):
            depth = limiter_depth(pace)
            self._limiter, self._limiter_pace_per_s, self._paced = AsyncLimiter(depth, depth / pace), pace, 0
            await self._limiter.acquire(max(0.0, depth - (now - self._granted_at) * pace))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as self._limiter_wait:
                    await self._limiter.acquire()
                    self._paced = 1
        finally:
            self._limiter_wait = None

    async def _wait_until(self, at: float) -> None:
        self._waker = self._loop.create_future()
        try:
            self._set_timer(at)
            await self._waker
        finally:
            self._waker = None
            self._set_timer(inf)

    def _look_again(self) -> None:
        """A reply may let the waiting sender go earlier, or later."""
        now = self._clock()
        at = self._next_send_at(now)
        wait = self._limiter_wait
        if wait is not None and (at > now or self._has_moved(self._pace_per_s(now))):
            wait.reschedule(-inf)
            self._limiter_wait = None  # it ends in the loop's next turn, and can be ended once
        if self._waker is None or self._waker.done():
            return
        if at <= now:
            self._waker.set_result(None)
        else:
            self._set_timer(at)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at < inf:
            self._timer = self._loop.call_later(max(0.0, at - self._clock()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)


def limiter_depth(pace_per_s: float) -> float:
    """How many sends the limiter lets through at once: what falls due in 10 ms, at least one and a half.

    At a depth of 1 a late timer is lost for ever (97/s at 100/s); half a send in hand makes up for it.
    """
    return max(1.5, pace_per_s / 100)


def rate_text(per_s: float) -> str:
    """A rate in the unit that gives it a readable number: 9.8/s, 12/min, 3/h."""
    unit, seconds = next(
        (unit for unit in (("s", 1), ("min", 60)) if per_s * unit[1] >= 1),
        ("h", 3600),
    )
    rate = per_s * seconds
    return f"{rate:.0f}/{unit}" if rate >= 100 else f"{rate:.3g}/{unit}"
