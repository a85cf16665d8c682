"""Small POSTs on connections that are kept: the run's usual way, at about a third of a session's CPU.

aiohttp's connector makes a connection (names, addresses, TLS, all errors); then it is ours: a request is one
write, and llhttp (httptools) reads the answer. `connect` stands in aiohttp's reference, but not what a request
needs for it, hence versions that were not tested take the documented way of `session`; so does everybody
whose tests or tracers have put something in the place of aiohttp's session.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import aiohttp.client
import httptools
from aiohttp import client_exceptions as foreign
from yarl import URL

from websim_batch.errors import ConnectionFailedError, HeldBackError, OutageError
from websim_batch.records import WireRequest
from websim_batch.transport import bodies
from websim_batch.transport.bodies import Heard
from websim_batch.transport.failures import one_line
from websim_batch.transport.gate import Sending
from websim_batch.transport.heads import post_head

MOST_HEAD_BYTES = 64 * 1024
"""Largest head of an answer, as far as it does not arrive at once."""

_VERSIONS = frozenset({"3.14"})


def are_usable() -> bool:
    """Whether this aiohttp was tested, and is as its authors made it (aioresponses and tracers put theirs in)."""
    is_as_made = getattr(aiohttp.ClientSession._request, "__globals__", None) is vars(aiohttp.client)
    return is_as_made and aiohttp.__version__.rpartition(".")[0] in _VERSIONS


@dataclass(slots=True)
class _Place:
    """An address that is posted to, the head of every request to it, and its connections that are free."""

    url: URL
    head: bytes
    free: deque[Line] = field(default_factory=deque)


class Lines:
    """The connections of one run. The connector is the caller's, who closes it, and with it all of them."""

    def __init__(
        self,
        connector: aiohttp.BaseConnector,
        headers: Mapping[str, str],
        connect_timeout_s: float,
        keepalive_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = connector
        self._headers = headers
        self._connect_timeout_s = connect_timeout_s
        self._keepalive_s = keepalive_s
        self._places: dict[str, _Place] = {}

    async def post(self, wire: WireRequest, sending: Sending) -> Heard:
        """One POST and its whole answer.

        Raises what aiohttp raises where no connection can be made, and ConnectionFailedError, OutageError,
        HeldBackError.
        """
        place = self._places.get(wire.url) or self._new_place(wire.url)
        head = post_head(place.url, self._headers, wire.headers) if wire.headers else place.head
        line = self._free(place)
        if line is None:
            sending.hold()
            line = await self._open(place.url)
            try:
                sending.leave()
            except HeldBackError:
                self._keep(line, place)
                raise
        body = wire.body
        sending.is_sent = True
        try:
            heard = await line.ask(b"%s%d\r\n\r\n%s" % (head, len(body), body))
        except BaseException:
            line.close()  # whatever comes yet is the answer to this request
            raise
        if line.is_reusable:
            self._keep(line, place)
        else:
            line.close()
        return heard

    def _keep(self, line: Line, place: _Place) -> None:
        line.free_since = self._loop.time()
        place.free.append(line)

    def _new_place(self, url: str) -> _Place:
        parsed = URL(url)
        place = self._places[url] = _Place(parsed, post_head(parsed, self._headers))
        for other in self._places.values():
            if other.url.origin() == parsed.origin():
                place.free = other.free
                break
        return place

    def _free(self, place: _Place) -> Line | None:
        """The connection that was used last; those that were free for long are closed, as servers close them too."""
        free = place.free
        too_old = self._loop.time() - self._keepalive_s
        while free:
            if free[0].free_since < too_old:
                free.popleft().close()
            elif not (line := free.pop()).is_closing():
                return line
        return None

    async def _open(self, url: URL) -> Line:
        request = aiohttp.ClientRequest("POST", url, loop=self._loop)
        timeout = aiohttp.ClientTimeout(total=None, connect=self._connect_timeout_s)
        try:
            opened = await self._connector.connect(request, [], timeout)
        except TimeoutError as error:
            place = f"{url.host}:{url.port}"
            raise OutageError(f"no connection to {place} within {self._connect_timeout_s:g} s") from error
        if opened.transport is None or opened.transport.is_closing():
            opened.close()
            raise foreign.ClientConnectionResetError("the connection was closed before it was used")
        return Line(opened, self._loop)


class Line(asyncio.Protocol):
    """One connection, asked for one answer at a time; the methods `on_…` are llhttp's, in the order of their calls."""

    def __init__(self, opened: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.free_since = 0.0
        self.is_reusable = False
        self._opened = opened  # aiohttp's Connection, and below its protocol: both keep the connector's books
        self._handler = opened.protocol
        self._transport: asyncio.Transport = opened.transport
        self._loop = loop
        self._waiter: asyncio.Future[Heard] | None = None
        self._parser = httptools.HttpResponseParser(self)
        # What aiohttp reads too: such servers exist, and a paid answer must not be lost to a blank.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._begin()
        self._transport.set_protocol(self)

    def is_closing(self) -> bool:
        """Whether it was closed by either side."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Hang up."""
        self._opened.close()

    def ask(self, request: bytes) -> asyncio.Future[Heard]:
        """Write the request; its answer, or ConnectionFailedError."""
        self.is_reusable = False
        self._begin()  # nothing of the last answer may pass for this one's
        waiter = self._waiter = self._loop.create_future()
        self._transport.write(request)
        return waiter

    def data_received(self, data: bytes) -> None:
        """Read on; what comes unasked ends the connection."""
        if self._waiter is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the answer is no valid HTTP: {one_line(str(error))}")
        if not self._is_head_whole:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._fail("the answer is no valid HTTP: its head does not end")

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        self._head_bytes = 0
        self._is_head_whole = False

    def on_message_begin(self) -> None:
        """An answer begins: the one asked for, perhaps after others that only announced it; or one of no request."""
        if self._waiter is None:
            self.is_reusable = False
        elif self._is_head_whole:
            self._begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head; of equal ones the first counts, and what trails a body none."""
        if self._is_head_whole:
            return
        self._headers.setdefault(name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_head_whole = True

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > bodies.MOST_BYTES and self._waiter is not None:
            self._finish(Heard(self._parser.get_status_code(), self._headers, b"", bodies.too_large()))

    def on_message_complete(self) -> None:
        """The answer is whole; one that only says to wait for another (1xx) is none."""
        status = self._parser.get_status_code()
        if self._waiter is not None and (status >= 200 or status == 101):
            self.is_reusable = self._parser.should_keep_alive()
            chunks = self._chunks
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._finish(Heard(status, self._headers, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: the end of an answer that has no other, else a failure."""
        self._handler.connection_lost(exc)
        self._opened.close()
        if self._waiter is None:
            return
        status = self._parser.get_status_code() if self._is_head_whole else 0
        if status < 200:
            reason = "the server closed the connection without an answer"
            self._fail(reason if exc is None else f"the connection broke: {one_line(str(exc))}")
            return
        is_chunked = "chunked" in self._headers.get("transfer-encoding", "").lower()
        is_whole = exc is None and not is_chunked and "content-length" not in self._headers
        if is_whole or not 200 <= status < 300:  # of a cut refusal counts what came
            self._finish(Heard(status, self._headers, b"".join(self._chunks)))
        else:
            length = self._headers.get("content-length")
            self._fail(
                "the answer was cut" + (f": received {self._size} of {length} bytes" if length else "")
            )

    def _finish(self, heard: Heard) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(heard)

    def _fail(self, reason: str) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionFailedError(reason))
        self.close()
