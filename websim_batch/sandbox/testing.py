"""A stand-in inside a test: real HTTP on a thread with its own loop, and a record of every arrival.

with Sandbox(SandboxOptions(capacity="10/s"), Misbehaviour(time_scale=20)) as sandbox:
    … sandbox.base_url …
    assert sandbox.stats()["by_status"] == {"200": 12}
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

from websim_batch.errors import WebsimBatchError
from websim_batch.sandbox.ledger import Arrival
from websim_batch.sandbox.misbehaviour import Misbehaviour
from websim_batch.sandbox.options import SandboxOptions
from websim_batch.sandbox.server import HOST, StandIn

_START_S = 10.0


class Sandbox:
    """A stand-in that runs while the `with` block does, on `port` or any free one (not on `options.port`)."""

    def __init__(
        self, options: SandboxOptions | None = None, misbehaviour: Misbehaviour | None = None, port: int = 0
    ) -> None:
        self._options = replace(options or SandboxOptions(), port=port)
        self._misbehaviour = misbehaviour or Misbehaviour()
        self._started: Future[tuple[StandIn, int]] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self.base_url = ""

    def __enter__(self) -> Sandbox:
        self._thread.start()
        self._stand_in, self.port = self._started.result(_START_S)
        self.base_url = f"http://{HOST}:{self.port}"
        self.openai_base_url = self.base_url + "/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_START_S)

    @property
    def arrivals(self) -> list[Arrival]:
        """Every request so far, in order of arrival."""
        return list(self._stand_in.arrivals or ())

    def stats(self) -> dict[str, Any]:
        """What `/__stats` tells."""
        return self._stand_in.stats()

    def status_count(self, status: int) -> int:
        """How many requests were answered with `status`; 0 asks for those without an answer."""
        return self._stand_in.ledger.by_status[str(status) if status else "none"]

    def sends_of(self, prompt: str) -> int:
        """How often a request about `prompt` arrived."""
        return sum(arrival.prompt == prompt for arrival in self.arrivals)

    def now_s(self) -> float:
        """Server seconds since its start, as in `Arrival.at_s`."""
        return self._stand_in.clock.elapsed()

    def begin_outage(self, kind: Literal["503", "refused", "reset", "hang"]) -> None:
        """No service from now on; returns when it is so."""
        self._do(self._stand_in.begin_outage(kind))

    def end_outage(self) -> None:
        """Service again, on the same port; returns when it is so."""
        self._do(self._stand_in.end_outage())

    def _do(self, action: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(action, self._loop).result(_START_S)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        stand_in = StandIn(self._options, self._misbehaviour, is_recording=True)
        try:
            port = await stand_in.start()
        except WebsimBatchError as exc:
            self._started.set_exception(exc)
            return
        self._started.set_result((stand_in, port))
        await self._end.wait()
        await stand_in.stop()
