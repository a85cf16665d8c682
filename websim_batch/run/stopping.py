"""Signals of the outside: one drains the run, a second one stops it at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from websim_batch.engine import Engine
from websim_batch.records import StopReason

INTERRUPTED = StopReason(130, "interrupted", "interrupted (SIGINT); the same command continues")
TERMINATED = StopReason(143, "terminated", "terminated (SIGTERM); the same command continues")


class Stopper:
    """Stops a run from outside, also from another thread; before the run began, it then ends at once.

    With `handles_signals` SIGINT and SIGTERM are its own while the run goes on (in the main thread only).
    """

    def __init__(self, *, handles_signals: bool = False) -> None:
        self._handles_signals = handles_signals and threading.current_thread() is threading.main_thread()
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reason: StopReason | None = None

    def stop(self, reason: StopReason = INTERRUPTED) -> None:
        """Drain the run; the second call ends it at once. Safe to call from any thread."""
        is_second, self._reason = self._reason is not None, self._reason or reason
        if self._loop is not None and self._engine is not None:
            self._loop.call_soon_threadsafe(self._engine.stop, self._reason, 0.0 if is_second else None)

    @contextmanager
    def watching(self, engine: Engine) -> Iterator[None]:
        """Pass stops on to `engine` for the time of the block, inside its event loop."""
        self._engine, self._loop = engine, asyncio.get_running_loop()
        if self._reason is not None:
            engine.stop(self._reason, 0.0)
        signals = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED} if self._handles_signals else {}
        for number, reason in signals.items():
            self._loop.add_signal_handler(number, self.stop, reason)
        try:
            yield
        finally:
            for number in signals:
                self._loop.remove_signal_handler(number)
            self._loop = None
