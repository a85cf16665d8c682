"""How many rows are armed ahead of their sending: as few as keep the senders busy, a commit window at most."""

from __future__ import annotations

COMMIT_WINDOW_S = 0.05
COMMIT_WINDOW_ROWS = 256

_MEASURE_S = 0.1
_SHRINK = 0.9


class Lookahead:
    """`rows` to have armed, or about to be: what is sent within one commit window, and more if that was too few.

    After a kill, an armed row that was not sent yet counts as perhaps sent; so at one request a minute it is one row.
    A starved sender doubles it; otherwise it goes back by a tenth each 0.1 s.
    """

    __slots__ = ("_count", "_since", "rows")

    def __init__(self) -> None:
        self.rows = 1
        self._count = 0
        self._since = 0.0

    def on_send(self, now: float) -> None:
        """A row was sent at `now`, in seconds."""
        self._count += 1
        elapsed_s = now - self._since
        if elapsed_s < _MEASURE_S:
            return
        within_window = self._count * COMMIT_WINDOW_S / elapsed_s
        self.rows = min(COMMIT_WINDOW_ROWS, max(1, round(within_window), int(self.rows * _SHRINK)))
        self._count, self._since = 0, now

    def on_starved(self) -> None:
        """Something could have been sent, but nothing was armed."""
        self.rows = min(COMMIT_WINDOW_ROWS, 2 * self.rows)
