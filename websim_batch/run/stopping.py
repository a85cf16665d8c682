"""Signals of the outside: one drains the run, a second one stops it at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from websim_batch.engine import Engine
from websim_batch.records import StopReason

INTERRUPTED = StopReason(130, "interrupted", "interrupted (SIGINT); the same command continues")
TERMINATED = StopReason(143, "terminated", "terminated (SIGTERM); the same command continues")


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Outside the event loop: SIGTERM ends the process by `SystemExit`, so that files and locks are put in order."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED.exit_code)


class Stopper:
    """Stops a run from outside, also from another thread; before the run began, it then ends at once.

    With `handles_signals` SIGINT and SIGTERM are its own while the run goes on (in the main thread only).
    """

    def __init__(self, *, handles_signals: bool = False) -> None:
        self._handles_signals = handles_signals and threading.current_thread() is threading.main_thread()
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reason: StopReason | None = None
        self._tell: Callable[[str], None] | None = None
        self.is_hurried = False
        """Whether a second signal asked for an end at once."""

    def stop(self, reason: StopReason = INTERRUPTED) -> None:
        """Drain the run; the second call ends it at once. Safe to call from any thread."""
        self.is_hurried, self._reason = self._reason is not None, self._reason or reason
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_engine, reason)

    def _stop_engine(self, reason: StopReason) -> None:
        assert self._engine is not None
        if self._tell is not None and not self.is_hurried:
            name = reason.message.partition(";")[0]
            self._tell(f"{name}: what is in flight may still be answered; a second time stops at once")
        self._engine.stop(reason, 0.0 if self.is_hurried else None)

    @contextmanager
    def watching(self, engine: Engine, tell: Callable[[str], None] | None = None) -> Iterator[None]:
        """Pass stops on to `engine` for the time of the block, inside its event loop; `tell` says so to the user."""
        self._engine, self._loop, self._tell = engine, asyncio.get_running_loop(), tell
        if self._reason is not None:
            engine.stop(self._reason, 0.0)
        signals = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED} if self._handles_signals else {}
        before = {number: signal.getsignal(number) for number in signals}
        for number, reason in signals.items():
            self._loop.add_signal_handler(number, self.stop, reason)
        try:
            yield
        finally:
            for number, handler in before.items():
                self._loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._loop = None
