"""The user's own ceiling, held exactly: at most N sends in any sliding window of W seconds.

A log of the last N sends decides: send k may go at `t_(k-N) + W + margin`, with `margin = max(0.001 W, 25
ms)` because the network can squeeze two sends together. 60/min: 60.06 s after the 60th send before it.

What counts is when a request leaves. One that is held back until its connection stands may leave at any time,
so it lies in every window until then: with H of them, send k may go at `t_(k-N+H) + W + margin`.
"""

from __future__ import annotations

from array import array
from math import inf

from websim_batch.records import Ceiling


class CeilingLog:
    """The last N sends of one ceiling, in a ring of at most N floats, and how many are held."""

    __slots__ = ("_count", "_held", "_limit", "_next", "_sends", "_span_s", "pace_per_s")

    def __init__(self, ceiling: Ceiling) -> None:
        self._limit = ceiling.limit
        self._span_s = ceiling.window_s + max(0.001 * ceiling.window_s, 0.025)
        self._sends = array("d")
        self._next = 0  # where the ring takes the next send
        self._count = 0
        self._held = 0
        self.pace_per_s = ceiling.limit / self._span_s

    def next_send_at(self) -> float:
        """When the ceiling allows the next send; -inf if at any time, inf if only after one that is held."""
        free = self._limit - self._held
        if self._count < free:
            return -inf
        return self._sends[self._next - free] + self._span_s if free else inf

    def record(self, now: float) -> None:
        """Count one send at `now`; times never go back."""
        if self._next == len(self._sends):
            self._sends.append(now)
        else:
            self._sends[self._next] = now
        self._next = (self._next + 1) % self._limit
        if self._count < self._limit:
            self._count += 1

    def hold(self, at: float) -> None:
        """The send recorded at `at` is put off: nobody knows until when."""
        self.forget(at)
        self._held += 1

    def leave(self, now: float) -> None:
        """One of those that were held is sent at `now`."""
        self._held -= 1
        self.record(now)

    def forget(self, at: float) -> None:
        """The send recorded at `at` will never be; inf: it was held."""
        if at == inf:
            self._held -= 1
            return
        place = self._next - 1  # it is one of the last; below 0 the ring goes on at its end
        while self._sends[place] != at:
            place -= 1
        for later in range(place + 1, self._next):
            self._sends[later - 1] = self._sends[later]
        self._next = (self._next - 1) % self._limit
        self._count -= 1
