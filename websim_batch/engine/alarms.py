"""Timers of one event loop by name: setting one again replaces it, and each says when it is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarms:
    """Named timers. When one is due it is taken out first and then acts, so the action may set it again.

    The times are kept here, since a timer of uvloop that went off no longer knows its own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}

    def set(self, name: str, when: float, action: Callable[[], object]) -> None:
        """Act at the loop's time `when`, in place of an earlier alarm of that name."""
        self.cancel(name)
        self._timers[name] = (when, self._loop.call_at(when, self._ring, name, action))

    def when(self, name: str) -> float | None:
        """When the alarm is due; None if there is none."""
        timer = self._timers.get(name)
        return None if timer is None else timer[0]

    def cancel(self, name: str) -> None:
        """Take the alarm back, if there is one."""
        if (timer := self._timers.pop(name, None)) is not None:
            timer[1].cancel()

    def clear(self) -> None:
        """Take all alarms back."""
        for name in list(self._timers):
            self.cancel(name)

    def _ring(self, name: str, action: Callable[[], object]) -> None:
        del self._timers[name]
        action()
