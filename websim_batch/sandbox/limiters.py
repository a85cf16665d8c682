"""The rate limits a server may keep, as pure functions of the time they are told.

Every model answers `admit(now, factor)`: 0.0 takes the request, a positive number refuses it and says in how
many seconds one could be taken. `now` is any clock in seconds that does not go back; windows are aligned to
its zero. `factor` multiplies the capacity from this call on, so a schedule of changing capacity needs no
state here. A refused request takes nothing away, except from a `Ban`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple, Protocol

_EPSILON = 1e-9  # a request that is early by a rounding error is on time
_CONCURRENCY_WAIT_S = 1.0  # nobody knows when one of the running requests ends


class LimitState(NamedTuple):
    """What rate headers tell: `limit` per `window_s`, how many `remaining`, and in how long all are back."""

    limit: int
    window_s: float
    remaining: int
    reset_s: float


class Limiter(Protocol):
    """One limit on all requests together."""

    def admit(self, now: float, factor: float = 1.0) -> float:
        """0.0: the request is taken; else refused, and the seconds until one could be taken."""

    def release(self) -> None:
        """A request that was taken has been answered."""

    def state(self, now: float) -> LimitState:
        """What the limit would say of itself in headers."""


class Unlimited:
    """Takes everything."""

    def admit(self, now: float, factor: float = 1.0) -> float:
        """Always 0.0."""
        return 0.0

    def release(self) -> None:
        """Nothing is counted."""

    def state(self, now: float) -> LimitState:
        """A limit so high that it says nothing."""
        return LimitState(1_000_000_000, 1.0, 1_000_000_000, 0.0)


class TokenBucket:
    """`rate_per_s` tokens a second fall into a bucket that holds `burst`; it begins full."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._tokens = float(burst)
        self._last: float | None = None
        self._factor = 1.0

    def admit(self, now: float, factor: float = 1.0) -> float:
        """Takes one token, or says when the next one is there."""
        self._fill(now)
        self._factor = factor
        if self._tokens >= 1.0 - _EPSILON:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / (self._rate * factor)

    def release(self) -> None:
        """Tokens come back with time only."""

    def state(self, now: float) -> LimitState:
        """The bucket's content; it is full again after `reset_s`."""
        self._fill(now)
        rate = self._rate * self._factor
        limit, window_s = _per_window(rate)
        return LimitState(limit, window_s, int(max(0.0, self._tokens)), (self._burst - self._tokens) / rate)

    def _fill(self, now: float) -> None:
        if self._last is not None:
            grown = self._tokens + (now - self._last) * self._rate * self._factor
            self._tokens = min(self._burst, grown)
        self._last = now


class Gcra:
    """Requests `1 / rate_per_s` apart, of which `depth` may come at once (generic cell rate algorithm)."""

    def __init__(self, rate_per_s: float, depth: int) -> None:
        self._rate = rate_per_s
        self._depth = depth
        self._theoretical = -math.inf  # when the next one is due if all came evenly
        self._factor = 1.0

    def admit(self, now: float, factor: float = 1.0) -> float:
        """Taken unless it is more than `depth - 1` steps ahead of its due time."""
        self._factor = factor
        step = 1.0 / (self._rate * factor)
        due = max(self._theoretical, now)
        early = due - now - (self._depth - 1) * step
        if early > _EPSILON:
            return early
        self._theoretical = due + step
        return 0.0

    def release(self) -> None:
        """Steps come back with time only."""

    def state(self, now: float) -> LimitState:
        """How many could come at once now."""
        rate = self._rate * self._factor
        ahead = max(0.0, self._theoretical - now)
        limit, window_s = _per_window(rate)
        return LimitState(limit, window_s, max(0, int(self._depth - ahead * rate + _EPSILON)), ahead)


class FixedWindow:
    """`limit` requests between two multiples of `window_s` on the server's clock."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._window = -1
        self._taken = 0
        self._factor = 1.0

    def admit(self, now: float, factor: float = 1.0) -> float:
        """Counts within the window, or waits for its end."""
        self._factor = factor
        self._turn(now)
        if self._taken < _whole(self._limit * factor):
            self._taken += 1
            return 0.0
        return self._end_of_window() - now

    def release(self) -> None:
        """The count falls at the window's end only."""

    def state(self, now: float) -> LimitState:
        """What is left of this window."""
        self._turn(now)
        limit = _whole(self._limit * self._factor)
        return LimitState(limit, self._window_s, max(0, limit - self._taken), self._end_of_window() - now)

    def _turn(self, now: float) -> None:
        window = math.floor(now / self._window_s + _EPSILON)
        if window != self._window:
            self._window = window
            self._taken = 0

    def _end_of_window(self) -> float:
        return (self._window + 1) * self._window_s


class SlidingWindow:
    """`limit` requests in any stretch of `window_s`: a log of the last ones taken."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._taken: deque[float] = deque()
        self._factor = 1.0

    def admit(self, now: float, factor: float = 1.0) -> float:
        """Taken if the window behind `now` has room, else waits for the oldest to leave it."""
        self._factor = factor
        self._forget(now)
        limit = _whole(self._limit * factor)
        if len(self._taken) < limit:
            self._taken.append(now)
            return 0.0
        return self._taken[len(self._taken) - limit] + self._window_s - now

    def release(self) -> None:
        """The log forgets with time only."""

    def state(self, now: float) -> LimitState:
        """What the window behind `now` has room for."""
        self._forget(now)
        limit = _whole(self._limit * self._factor)
        reset_s = self._taken[-1] + self._window_s - now if self._taken else 0.0
        return LimitState(limit, self._window_s, max(0, limit - len(self._taken)), reset_s)

    def _forget(self, now: float) -> None:
        edge = now - self._window_s + _EPSILON
        while self._taken and self._taken[0] <= edge:
            self._taken.popleft()


class Concurrency:
    """At most `limit` requests at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._factor = 1.0

    def admit(self, now: float, factor: float = 1.0) -> float:
        """Taken while fewer than `limit` run; else a guess of one second."""
        self._factor = factor
        if self._running < _whole(self._limit * factor):
            self._running += 1
            return 0.0
        return _CONCURRENCY_WAIT_S

    def release(self) -> None:
        """One of the running requests has been answered."""
        self._running -= 1

    def state(self, now: float) -> LimitState:
        """How many more could run."""
        limit = _whole(self._limit * self._factor)
        return LimitState(limit, 1.0, max(0, limit - self._running), _CONCURRENCY_WAIT_S)


class Ban:
    """Any limit, and whoever goes beyond it is banned for `ban_s`, again from the start at every knock."""

    def __init__(self, inner: Limiter, ban_s: float) -> None:
        self._inner = inner
        self._ban_s = ban_s
        self._until = -math.inf
        self.hits = 0
        """Requests that came while the ban held."""

    def admit(self, now: float, factor: float = 1.0) -> float:
        """As the limit within, but a refusal begins a ban, and a request during one makes it longer."""
        if now < self._until - _EPSILON:
            self.hits += 1
        elif self._inner.admit(now, factor) == 0.0:
            return 0.0
        self._until = now + self._ban_s
        return self._ban_s

    def release(self) -> None:
        """Passed on to the limit within."""
        self._inner.release()

    def state(self, now: float) -> LimitState:
        """Of the limit within; nothing remains during a ban."""
        state = self._inner.state(now)
        if now >= self._until:
            return state
        return state._replace(remaining=0, reset_s=self._until - now)


def _whole(capacity: float) -> int:
    """A capacity as a count; it never falls to nothing."""
    return max(1, math.floor(capacity + _EPSILON))


def _per_window(rate_per_s: float) -> tuple[int, float]:
    """A rate as headers tell it: a whole number per second, or per minute where that is too coarse."""
    if rate_per_s >= 1 and abs(rate_per_s - round(rate_per_s)) < _EPSILON:
        return round(rate_per_s), 1.0
    return max(1, round(rate_per_s * 60)), 60.0
