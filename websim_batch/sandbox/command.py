"""The command `websim-batch sandbox`, and the same as a child process of `run --sandbox`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from websim_batch.sandbox.options import SandboxOptions
from websim_batch.sandbox.server import HOST, StandIn


def serve(options: SandboxOptions, ends_with_stdin: bool = False) -> None:
    """Serves until SIGINT or SIGTERM, or, if so asked, until stdin ends; then returns.

    The first line of stdout is the base URL alone, written once the port takes connections.
    Raises UsageError if the port is taken.
    """
    asyncio.run(_serve(options, ends_with_stdin))


async def _serve(options: SandboxOptions, ends_with_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    server = StandIn(options)
    port = await server.start()
    if ends_with_stdin:
        loop.add_reader(sys.stdin.fileno(), _read_stdin, end.set)
    sys.stdout.write(f"http://{HOST}:{port}\n")
    sys.stdout.flush()
    await end.wait()
    await server.stop()


def _read_stdin(on_end: Callable[[], None]) -> None:
    """The parent writes nothing: when stdin can be read, the parent is gone, however it ended."""
    if not os.read(sys.stdin.fileno(), 4096):
        on_end()
