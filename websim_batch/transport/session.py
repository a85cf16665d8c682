"""Requests by aiohttp's ClientSession: any method, any size, through a proxy; aiohttp's documented way."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from io import BytesIO
from typing import Any

import aiohttp
from aiohttp import client_exceptions as foreign
from multidict import CIMultiDict
from yarl import URL

from websim_batch.errors import HeldBackError, OutageError
from websim_batch.records import WireRequest
from websim_batch.transport import bodies
from websim_batch.transport.bodies import Heard
from websim_batch.transport.failures import one_line
from websim_batch.transport.gate import Sending

_AUTOMATIC = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


class Session:
    """One session; the connector is the caller's, and stays open."""

    def __init__(
        self,
        connector: aiohttp.BaseConnector,
        headers: Mapping[str, str],
        connect_timeout_s: float,
        proxy: str | None,
    ) -> None:
        self._proxy = None if proxy is None else URL(proxy)
        self._session = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=CIMultiDict(headers),
            skip_auto_headers=_AUTOMATIC,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout_s),
            auto_decompress=False,
            trust_env=False,
            request_class=_MarkedRequest,
        )

    @property
    def shown_proxy(self) -> str:
        """The proxy's address without user and password; empty if there is none."""
        return "" if self._proxy is None else str(self._proxy.with_user(None))

    async def close(self) -> None:
        """Send no more."""
        await self._session.close()

    async def post(self, wire: WireRequest, sending: Sending) -> Heard:
        """One POST and its whole answer.

        Raises what aiohttp raises, OutageError for a proxy that refuses, and HeldBackError.
        """
        return await self._exchange("POST", wire, sending, BytesIO(wire.body))  # written piece by piece

    async def get(self, wire: WireRequest, sending: Sending) -> Heard:
        """One GET, else as `post`."""
        return await self._exchange("GET", wire, sending)

    async def _exchange(
        self, method: str, wire: WireRequest, sending: Sending, body: BytesIO | None = None
    ) -> Heard:
        _SENDING.set(sending)
        sending.hold()  # aiohttp alone knows whether there is a connection
        try:
            response = await self._session.request(
                method, wire.url, data=body, headers=wire.headers, allow_redirects=False, proxy=self._proxy
            )
            return await _whole(response)
        except foreign.ClientHttpProxyError as error:
            return self._of_proxy(error)

    def _of_proxy(self, error: foreign.ClientHttpProxyError) -> Heard:
        """A proxy that refuses the tunnel: its 407 is the run's affair, anything else is no connection."""
        if error.status != 407:
            raise OutageError(
                f"the proxy {self.shown_proxy} refuses the tunnel: HTTP {error.status}"
            ) from error
        return Heard(407, _small_names(error.headers), one_line(error.message).encode())


_SENDING: ContextVar[Sending] = ContextVar("sending")
"""What the present task sends."""


class _MarkedRequest(aiohttp.ClientRequest):
    """aiohttp's request, which asks and notes when it is about to be written."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Write the request; if it may not leave any more, its connection is there for the next one."""
        try:
            _SENDING.get().leave()
        except HeldBackError:
            conn.release()
            raise
        return await super().send(conn)


async def _whole(response: aiohttp.ClientResponse) -> Heard:
    """The answer with its body as sent. A cut body raises if the answer was good; a refusal keeps what came of it."""
    stream = response.content
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in stream.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > bodies.MOST_BYTES:
                return Heard(response.status, _small_names(response.headers), b"", bodies.too_large())
    except (aiohttp.ClientError, OSError):
        if 200 <= response.status < 300:
            raise
    finally:
        if stream.is_eof() and stream.exception() is None:
            response.release()
        else:
            response.close()
    return Heard(response.status, _small_names(response.headers), b"".join(chunks))


def _small_names(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The fields by their names in small letters; of equal ones the first counts."""
    named: dict[str, str] = {}
    for name, value in (headers or {}).items():
        named.setdefault(name.lower(), value)
    return named
