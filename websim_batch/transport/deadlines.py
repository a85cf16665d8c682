"""When requests are given up: all have the same timeout, so the first sent is the first due, and one timer does."""

from __future__ import annotations

import asyncio
from typing import Any


class Deadlines:
    """Cancels a task whose request lasts longer than `timeout_s`; one request for each task at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._started: dict[asyncio.Task[Any], float] = {}  # in the order of sending, hence of falling due
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._started)

    def start(self, task: asyncio.Task[Any]) -> None:
        """The task's request begins."""
        now = self._loop.time()
        self._started[task] = now
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._timeout_s, self._ring)

    def restart(self, task: asyncio.Task[Any]) -> None:
        """The task's request begins only now, if it was not too late before."""
        if self._started.pop(task, None) is not None:
            self._started[task] = self._loop.time()

    def has_expired(self, task: asyncio.Task[Any]) -> bool:
        """Was the task cancelled by us?"""
        return task in self._expired

    def finish(self, task: asyncio.Task[Any]) -> None:
        """The task's request has ended, one way or another."""
        self._started.pop(task, None)
        self._expired.discard(task)

    def close(self) -> None:
        """No more timeouts."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = []
        for task, started in self._started.items():
            if started + self._timeout_s > now:
                self._timer = self._loop.call_at(started + self._timeout_s, self._ring)
                break
            due.append(task)
        for task in due:
            del self._started[task]
            self._expired.add(task)
            task.cancel()
