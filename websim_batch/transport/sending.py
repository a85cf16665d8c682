"""Sends requests, one attempt each: picks the way, holds the timeout, and gives failures our own names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Any, Final

import aiohttp

from websim_batch.errors import OutageError, RequestTimeoutError, TransportError
from websim_batch.records import WireRequest, WireResponse
from websim_batch.transport import lines
from websim_batch.transport.bodies import Heard, decompressed
from websim_batch.transport.deadlines import Deadlines
from websim_batch.transport.failures import map_error
from websim_batch.transport.gate import Gate, Sending
from websim_batch.transport.session import Session

CONNECT_TIMEOUT_S: Final = 10.0
"""Longest that a connection may take to stand, in seconds."""

KEEPALIVE_S: Final = 4.0
"""How long an idle connection is kept; many servers close theirs after 5 s, just when a request is sent."""

_SMALL_BYTES = 64 * 1024
"""A longer body may be refused before it is all sent, which aiohttp's own writer sees."""


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How to speak: the final headers, the timeout of one request in seconds, an HTTP proxy (checked before).

    `concurrency` is the most requests in flight. The caller holds it: the pool never makes a request wait.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    concurrency: int = 16
    timeout_s: float = 120.0
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    proxy: str | None = field(default=None, repr=False)


class Transport:
    """Sends requests; use it as an asynchronous context manager, inside the loop that sends.

    `gate` is asked once more before a request is written whose connection had to be made first.
    """

    def __init__(self, settings: TransportSettings, gate: Gate | None = None) -> None:
        self._settings = settings
        self._gate = gate

    async def __aenter__(self) -> Transport:
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop, settings.timeout_s)
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=300)
        connect_s = min(settings.connect_timeout_s, settings.timeout_s)
        self._session = Session(self._connector, settings.headers, connect_s, settings.proxy)
        self._post_small = self._session.post
        if settings.proxy is None and lines.are_usable():
            self._post_small = lines.Lines(self._connector, settings.headers, connect_s, KEEPALIVE_S).post
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.close()
        await self._session.close()
        await self._connector.close()
        await asyncio.sleep(0)  # closed sockets say goodbye in the next turn of the loop

    def __repr__(self) -> str:
        return f"<Transport timeout={self._settings.timeout_s:g}s>"

    def send(self, wire: WireRequest, permit: object = None) -> Coroutine[Any, Any, WireResponse]:
        """One POST and its whole answer, whatever its status; `permit` is what the gate knows it by.

        Raises TransportError: OutageError if no connection could be made, RequestTimeoutError after the
        timeout (counted from sending to the last byte), ConnectionFailedError if the connection broke. Its
        `delivery` says whether the server may have acted on the request. And HeldBackError if the gate closed
        before the connection stood; the next request finds it.
        """
        is_small = len(wire.body) <= _SMALL_BYTES
        return self._timed(wire, self._post_small if is_small else self._session.post, self._gate, permit)

    def get(self, url: str) -> Coroutine[Any, Any, WireResponse]:
        """One GET, else as `send`."""
        return self._timed(WireRequest(url, b""), self._session.get)

    async def _timed(
        self,
        wire: WireRequest,
        exchange: Callable[[WireRequest, Sending], Awaitable[Heard]],
        gate: Gate | None = None,
        permit: object = None,
    ) -> WireResponse:
        task = asyncio.current_task(self._loop)  # without the loop it asks the system who we are
        assert task is not None, "send runs inside a task"
        cancelling = task.cancelling()
        self._deadlines.start(task)
        sending = Sending(self._deadlines, task, gate, permit)
        try:
            heard = await exchange(wire, sending)
        except asyncio.CancelledError:
            if not self._deadlines.has_expired(task) or task.uncancel() > cancelling:
                raise
            timed_out = self._timed_out(sending)
            timed_out.elapsed_s = perf_counter() - sending.started_s
            raise timed_out from None
        except (TransportError, aiohttp.ClientError, OSError) as error:
            failure = map_error(error, sending.is_sent, self._session.shown_proxy)
            failure.elapsed_s = perf_counter() - sending.started_s
            raise failure from (error.__cause__ if failure is error else error)
        finally:
            self._deadlines.finish(task)
        if encoding := heard.headers.get("content-encoding"):
            heard = decompressed(heard, encoding)
        latency_s = perf_counter() - sending.started_s
        return WireResponse(heard.status, heard.headers, heard.body, latency_s, wire.url, heard.defect)

    def _timed_out(self, sending: Sending) -> TransportError:
        timeout = f"{self._settings.timeout_s:g} s"
        if not sending.is_sent:
            return OutageError(f"no connection within {timeout}")
        return RequestTimeoutError(f"no answer within {timeout}")
