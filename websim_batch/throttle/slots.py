"""Is it a cap on requests at once? A limit in flight beside the pace, kept only as long as the levels agree.

The level of a request is how many others were in flight when it was sent. A server that takes C at once
refuses at levels >= C and accepts below C, always. So the limit is set to the level of each refusal; and
once a request was accepted clearly above a level that was refused (or refused with nothing else in
flight), there is no such cap, the limit is dropped for good, and the pace alone holds the rate. Levels
are noisy by what is on the wire: 15 % above is clear.

The limit tries one more after `rounds` answers per slot: at once after the first refusal, which may not have
been about slots at all, then after 1, 2, 4 … 16 rounds as refusals confirm it. Confirmed twice, it is what
explains a refusal, and the pace goes on as it was: once may be chance, as a climb to a rate that was refused
before has as many in flight as it had then.
"""

from __future__ import annotations

from math import inf

ROUNDS_MOST = 16
NOISE = 1.15
CONFIRMED = 2


class Slots:
    """A limit on requests in flight that follows the refusals."""

    __slots__ = ("_accepted", "_answers", "_confirmed", "_is_ruled_out", "_refused", "_rounds", "limit")

    def __init__(self) -> None:
        self.limit = inf
        self._accepted, self._refused = 0, inf  # the highest level accepted, the lowest refused
        self._is_ruled_out = False
        self._confirmed = 0
        self._rounds = 0
        self._answers = 0

    def on_accepted(self, level: int) -> None:
        """A request sent at `level` was let in."""
        if self.limit == inf:
            return
        self._accepted = max(self._accepted, level)
        self._answers += 1
        if self._is_contradicted():
            self._rule_out()
        elif self._answers >= self._rounds * self.limit:
            self._answers = 0
            self.limit += 1

    def on_refused(self, level: int) -> bool:
        """A request sent at `level` was refused; whether the slots explain it, not the pace."""
        if self._is_ruled_out:
            return False
        self._refused = min(self._refused, level)
        if level == 0 or self._is_contradicted():
            self._rule_out()
            return False
        if self.limit < inf:
            self._confirmed += 1
            self._rounds = min(max(1, 2 * self._rounds), ROUNDS_MOST)
        self.limit, self._answers = level, 0
        return self._confirmed >= CONFIRMED

    def _is_contradicted(self) -> bool:
        return self._accepted > NOISE * self._refused

    def _rule_out(self) -> None:
        self.limit, self._is_ruled_out = inf, True
