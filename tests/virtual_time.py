"""An event loop whose time jumps to the next timer: minutes of waiting pass in milliseconds.

`run(main())` is `asyncio.run` on such a loop. It ticks a microsecond a turn, because aiolimiter 1.3.0 spins
for ever on a rounding residue if time stands still, and raises `DeadlockError` when nothing is scheduled.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
TICK_S = 1e-6


class DeadlockError(RuntimeError):
    """Nothing is ready and no timer is set: the program would wait for ever."""


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for a timer, moves the loop's clock to it."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise DeadlockError(f"nothing is scheduled at {self.loop.time():.6f} s")
        self.loop.now_s += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with its own time, which starts at 0; for programs without real I/O and threads."""

    def __init__(self) -> None:
        self.now_s = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        self.now_s += TICK_S
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, T]) -> T:
    """The result of `main`, run to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
