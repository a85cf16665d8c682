"""The moment at which a request leaves: until its connection stands it may be called back, and its timeout waits."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, Protocol

from websim_batch.errors import HeldBackError
from websim_batch.transport.deadlines import Deadlines


class Gate(Protocol):
    """Who granted a request, and is asked again before one that had to wait for its connection is written."""

    def hold(self, permit: Any) -> None:
        """The request with this permit goes later than now."""

    def leave(self, permit: Any) -> bool:
        """Whether it may go now."""


class Sending:
    """One request on its way out. `is_sent`: what fails before cannot have been acted upon.

    `started_s` is when it was written, by `perf_counter`; before that, when it was asked for.
    """

    __slots__ = ("_deadlines", "_gate", "_permit", "_task", "is_sent", "started_s")

    def __init__(
        self, deadlines: Deadlines, task: asyncio.Task[Any], gate: Gate | None = None, permit: object = None
    ) -> None:
        self._deadlines = deadlines
        self._task = task
        self._gate = gate
        self._permit = permit
        self.is_sent = False
        self.started_s = perf_counter()  # the loop's own clock goes in steps of a millisecond

    def hold(self) -> None:
        """A connection has to be had first."""
        if self._gate is not None:
            self._gate.hold(self._permit)

    def leave(self) -> None:
        """It is written now, after it was held. Raises HeldBackError if it may not."""
        if self._gate is not None and not self._gate.leave(self._permit):
            raise HeldBackError("held back")
        self.is_sent = True
        self.started_s = perf_counter()
        self._deadlines.restart(self._task)
