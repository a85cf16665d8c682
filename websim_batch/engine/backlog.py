"""Rows that wait to be sent, in the order in which they may go. Synchronous, and knows no clock.

    refused ──> front ─┐                                                       ┌── called back
    reader  ──> queue ─┼─> arming (its intent is on the way to the disk) ──> armed ──> sent
    failed  ──> later ─┘   (when its delay is over, to the back of the queue)

A row is armed once the intent to send it is durable, so that no request can be billed that the ledger does not know.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count

from websim_batch.engine.work import Work


class Backlog:
    """The rows between the reader and the throttle, first come first served; refused ones before all others."""

    def __init__(self) -> None:
        self._front: deque[Work] = deque()
        self._queue: deque[Work] = deque()
        self._later: list[tuple[float, int, Work]] = []
        self._serial = count()
        self._armed_front: deque[Work] = deque()
        self._armed: deque[Work] = deque()
        self._arming: set[Work] = set()
        self.ahead = 0
        """Rows armed, or about to be."""

    def __repr__(self) -> str:
        arming, later = len(self._arming), len(self._later)
        return f"<Backlog waiting={self.waiting} arming={arming} armed={self.armed} later={later}>"

    @property
    def waiting(self) -> int:
        """Rows that could be armed now."""
        return len(self._front) + len(self._queue)

    @property
    def armed(self) -> int:
        """Rows that could be sent now."""
        return len(self._armed_front) + len(self._armed)

    def append(self, work: Work) -> None:
        """Put a row at the back of the queue."""
        self._queue.append(work)

    def put_first(self, work: Work) -> None:
        """Put a refused row before all that were not refused, behind those refused before it."""
        work.is_urgent = True
        self._front.append(work)

    def put_later(self, work: Work, due: float) -> None:
        """Keep a row until `due`; `move_due` then puts it at the back of the queue."""
        heapq.heappush(self._later, (due, next(self._serial), work))

    def next_due(self) -> float | None:
        """When the first of the delayed rows is due."""
        return self._later[0][0] if self._later else None

    def move_due(self, now: float) -> None:
        """Put the delayed rows that are due by `now` at the back of the queue."""
        while self._later and self._later[0][0] <= now:
            self._queue.append(heapq.heappop(self._later)[2])

    def start_arming(self) -> Work:
        """Take the row whose intent is to be written next."""
        work = (self._front or self._queue).popleft()
        self._arming.add(work)
        self.ahead += 1
        return work

    def finish_arming(self, work: Work) -> None:
        """The row's intent is durable: it may be sent."""
        self._arming.discard(work)
        if work.is_urgent:
            work.is_urgent = False
            self._armed_front.append(work)
        else:
            self._armed.append(work)

    def pop_armed(self) -> Work:
        """The row to be sent now."""
        self.ahead -= 1
        return (self._armed_front or self._armed).popleft()

    def put_back(self, work: Work) -> None:
        """The row was not sent after all, and is still armed: it goes next."""
        self.ahead += 1
        self._armed_front.append(work)

    def take_unsent(self) -> list[Work]:
        """Take out every row whose intent is written, or about to be, and that was not sent: at the run's end."""
        unsent = [*self._arming, *self._armed_front, *self._armed]
        self._arming.clear()
        self._armed_front.clear()
        self._armed.clear()
        self.ahead = 0
        return unsent
