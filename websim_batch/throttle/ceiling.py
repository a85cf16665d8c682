"""The user's own ceiling, held exactly: at most N sends in any sliding window of W seconds.

A log of the last N sends decides: send k may go at `t_(k-N) + W + margin`, with `margin = max(0.001 W, 25
ms)` because the network can squeeze two sends together. 60/min: 60.06 s after the 60th send before it.
"""

from __future__ import annotations

from array import array

from websim_batch.records import Ceiling


class CeilingLog:
    """The last N sends of one ceiling, in a ring of at most N floats."""

    __slots__ = ("_limit", "_next", "_sends", "_span_s", "pace_per_s")

    def __init__(self, ceiling: Ceiling) -> None:
        self._limit = ceiling.limit
        self._span_s = ceiling.window_s + max(0.001 * ceiling.window_s, 0.025)
        self._sends = array("d")
        self._next = 0  # where the ring's oldest send stands, once it is full
        self.pace_per_s = ceiling.limit / self._span_s

    def next_send_at(self) -> float:
        """When the ceiling allows the next send; -inf if it allows it at any time."""
        if len(self._sends) < self._limit:
            return float("-inf")
        return self._sends[self._next] + self._span_s

    def record(self, now: float) -> None:
        """Count one send at `now`; times never go back."""
        if len(self._sends) < self._limit:
            self._sends.append(now)
            return
        self._sends[self._next] = now
        self._next = (self._next + 1) % self._limit
