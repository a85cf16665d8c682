"""The start, until a capacity is known: a send may go if the answers allow it, or if the clock does.

By answers: fewer than w are in flight; w = 2 and a third more for each answer, so it grows by a third a
round trip. By clock: sends are granted at 2/s, a rate that doubles each second until the first answer,
and from then on each `clip(latency / 2, 0.25, 1)` s. The first finds a fast server's capacity, the second
a slow one's. After a pause it begins again with w = -1, by the clock alone until four answers came: nobody
rushes.
"""

from __future__ import annotations

from math import inf

WINDOW_START = 2.0
WINDOW_AGAIN = -1.0
WINDOW_STEP = 1 / 3
RATE_MOST_PER_S = 1e6


class Ramp:
    """How many may be in flight (`window`), or how fast they may follow, while nothing is known."""

    __slots__ = ("_doubling_s", "_granted_at", "_is_held", "_rate_per_s", "window")

    def __init__(self) -> None:
        self.restart()
        self.window = WINDOW_START

    def restart(self) -> None:
        """Begin again by the clock alone; the fourth answer allows one send."""
        self.window = WINDOW_AGAIN
        self._rate_per_s = 2.0
        self._doubling_s = 1.0
        self._granted_at = -inf
        self._is_held = False

    def next_send_at(self, in_flight: int) -> float:
        """-inf if the answers allow a send, else when the clock does."""
        if in_flight < self.window:
            return -inf
        return inf if self._is_held else self._granted_at + 1 / self._rate_per_s

    def on_send(self, now: float) -> None:
        """A request is sent; the clock's rate has grown since the last one."""
        if self._rate_per_s < RATE_MOST_PER_S and self._granted_at > -inf:
            # Under a ceiling of a few an hour, powers of the time between two sends leave what a float holds.
            doublings = min((now - self._granted_at) / self._doubling_s, 60.0)
            self._rate_per_s = min(self._rate_per_s * 2**doublings, RATE_MOST_PER_S)
        self._granted_at = now

    def on_accepted(self, latency_s: float, is_first: bool) -> None:
        """An answer came."""
        self.window += WINDOW_STEP
        self._is_held = False
        if is_first:
            self._doubling_s = min(max(latency_s / 2, 0.25), 1.0)

    def hold(self) -> None:
        """Errors and no answer yet: two at a time, whatever the clock says."""
        self._is_held = True
        self.window = WINDOW_START
