"""The server's capacity as measured, and how far above it we dare to send.

Between two re-openings of the gate the server's store of permits is in the same state: it had just refused,
and then let one through. So accepted / elapsed between them, closed time included, is its long-run capacity
G, whatever it counts with. Two corrections: when G rose by more than a quarter, it was an average over a
climb, and the truth lies between it and the pace that was refused: G is their geometric mean (6/s after 4/s,
refused at 13.5/s: 9/s). And one measurement takes G down to a quarter at most: it may be a bad moment.

From G on, the pace is held and then climbs; x is the time since the re-opening in units of the hold time H:

    x <= 1        pace = G
    1 < x <= X    pace = G * (1 + 0.05 (x - 1)^3)      X = 1 + 16^(1/3) = 3.52, where it reaches 1.8 G
    x > X         pace = G * 1.8 * 2^(x - X)

H is 0.6 of the time that G was measured over, but no less than 5 sends and no more than 100 sends at G: who
knows little tries soon, who knows much rests long, and all of it scales from 1/min to 2000/s. G = 10/s over
5 s: H = 3 s. A refusal that the server punishes with a long Retry-After is provoked seldom: H is then at
least eight times that wait, except at the first measurement and after a fall by half or more, which are not
to be trusted for so long.
"""

from __future__ import annotations

from math import sqrt

X_DOUBLES: float = 1 + 16 ** (1 / 3)
HOLD_SHARE = 0.6
HOLD_SENDS_LEAST = 5
HOLD_SENDS_MOST = 100
TOLD_REST = 8.0
TOLD_REST_FALL = 2.0
FALL = 4.0
RISE = 1.25
"""A measurement this much above the last one is a climb that went on, and not noise."""


def climb(x: float) -> float:
    """The pace as a multiple of the capacity, `x` hold times after the gate opened."""
    if x <= 1:
        return 1.0
    if x <= X_DOUBLES:
        return 1.0 + 0.05 * (x - 1) ** 3
    return 1.8 * float(2.0 ** min(x - X_DOUBLES, 60.0))


class Pace:
    """The capacity estimate and the climb from it; knows no clock, is told how time passes."""

    __slots__ = ("_hold_s", "_x", "capacity_per_s")

    def __init__(self) -> None:
        self.capacity_per_s: float | None = None
        self._hold_s = 1.0
        self._x = 0.0

    def per_s(self, since_s: float) -> float | None:
        """The pace `since_s` seconds after the last `advance`; None while no capacity was measured."""
        if self.capacity_per_s is None:
            return None
        return self.capacity_per_s * climb(self._x + since_s / self._hold_s)

    def advance(self, elapsed_s: float) -> None:
        """Time passed with the gate open."""
        self._x += elapsed_s / self._hold_s

    def begin(self, is_pace_innocent: bool = False) -> None:
        """The gate opened: hold, then climb. A pace that was not to blame goes on at 1.8 G."""
        self._x = X_DOUBLES if is_pace_innocent else 0.0

    def state(self, capacity_per_s: float) -> None:
        """Take a capacity from elsewhere: the server's headers, an earlier run."""
        self.capacity_per_s = capacity_per_s
        self._hold_s = HOLD_SENDS_LEAST / capacity_per_s

    def measure(
        self, accepted: int, elapsed_s: float, told_s: float, refused_pace_per_s: float | None
    ) -> None:
        """Take the capacity from what was accepted between two re-openings; the last `told_s` were a told wait."""
        measured = max(accepted, 1) / max(elapsed_s, 1e-3)
        before = self.capacity_per_s
        rest_s = 0.0
        if before is not None:
            measured = max(measured, before / FALL)
            rest_s = TOLD_REST * told_s if measured > before / TOLD_REST_FALL else 0.0
        hold_sends = min(max(HOLD_SHARE * elapsed_s * measured, HOLD_SENDS_LEAST), HOLD_SENDS_MOST)
        self._hold_s = max(hold_sends / measured, rest_s)
        self.capacity_per_s = measured
        if before is not None and refused_pace_per_s is not None and measured > RISE * before:
            self.capacity_per_s = max(measured, sqrt(measured * refused_pace_per_s))
