"""HTTP over aiohttp: one session per run, one answer or one error of our own tree per request.

Nothing above this module has heard of aiohttp. What is special here, and why:

- No redirects, no cookies, no retries: each request is one attempt that the caller counts.
- The timeout is our own. All requests of a run have the same one, so the first sent is the first due, and
  one timer serves them all; aiohttp makes a timer, a handle and a context for each.
- The body is decompressed here, so that a broken one does not hide the answer's status.
- `_QuickRequest` writes a prebuilt head and the body in one go. It leans on inner parts of aiohttp, hence
  it serves only versions it was tested with; `_MarkedRequest` does the same through documented parts.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from time import perf_counter
from types import TracebackType
from typing import Any, Final

import aiohttp
from aiohttp import client_exceptions as foreign
from multidict import CIMultiDict
from yarl import URL

from websim_batch.errors import ConnectionFailedError, OutageError, RequestTimeoutError, TransportError
from websim_batch.records import Answer, Reply, WireRequest, WireResponse

CONNECT_TIMEOUT_S: Final = 10.0
"""Longest that a connection may take to stand, in seconds."""

KEEPALIVE_S: Final = 4.0
"""How long an idle connection is kept; many servers close theirs after 5 s, just when a request is sent."""

MOST_BYTES: Final = 256 * 1024 * 1024
"""Largest body of an answer, also after decompression."""

_QUICK_VERSIONS = frozenset({"3.14"})
_QUICK_BODY = (
    64 * 1024
)  # a longer one may be refused before it is all sent; aiohttp's own writer handles that
_AUTOMATIC = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


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
    """Sends requests; use it as an asynchronous context manager, inside the loop that sends."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._proxy = None if settings.proxy is None else URL(settings.proxy)
        self._urls: dict[str, URL] = {}
        self._heads: dict[str, bytes] = {}
        self._is_quick = self._proxy is None and aiohttp.__version__.rpartition(".")[0] in _QUICK_VERSIONS

    async def __aenter__(self) -> Transport:
        self._loop = asyncio.get_running_loop()
        self._deadlines = _Deadlines(self._loop, self._settings.timeout_s)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=300)
        self._connector = connector
        self._session = self._new_session(_MarkedRequest)
        self._quick_session = self._new_session(_QuickRequest)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.close()
        await self._session.close()
        await self._quick_session.close()
        await self._connector.close()
        await asyncio.sleep(0)  # closed sockets say goodbye in the next turn of the loop

    def __repr__(self) -> str:
        return f"<Transport timeout={self._settings.timeout_s:g}s>"

    async def send(self, wire: WireRequest) -> WireResponse:
        """One POST and its whole answer, whatever its status.

        Raises TransportError: OutageError if no connection could be made, RequestTimeoutError after the
        timeout (counted from here to the last byte), ConnectionFailedError if the connection broke. Its
        `delivery` says whether the server may have acted on the request.
        """
        if not self._is_quick or len(wire.body) > _QUICK_BODY:
            large = _LargeBody(wire.body) if len(wire.body) > _QUICK_BODY else _Body(wire.body)
            return await self._exchange(self._session, "POST", wire, large)
        body = _Body(wire.body)
        if not wire.headers:
            body.head = self._heads.get(wire.url) or self._new_head(wire.url)
        return await self._exchange(self._quick_session, "POST", wire, body)

    async def get(self, url: str) -> WireResponse:
        """One GET, else as `send`."""
        return await self._exchange(self._session, "GET", WireRequest(url, b""), None)

    async def _exchange(
        self, session: aiohttp.ClientSession, method: str, wire: WireRequest, body: _Body | _LargeBody | None
    ) -> WireResponse:
        task = asyncio.current_task(self._loop)  # without the loop it asks the system who we are
        assert task is not None, "send runs inside a task"
        cancelling, url = task.cancelling(), self._url(wire.url)
        started = perf_counter()  # the loop's own clock goes in steps of a millisecond
        self._deadlines.start(task, self._loop.time())
        try:
            response = await session.request(
                method, url, data=body, headers=wire.headers, allow_redirects=False, proxy=self._proxy
            )
            content = await _read_body(response)
        except asyncio.CancelledError:
            if not self._deadlines.has_expired(task) or task.uncancel() > cancelling:
                raise
            raise self._timed_out(body, perf_counter() - started) from None
        except foreign.ClientHttpProxyError as error:
            return self._proxy_answer(error, wire.url, perf_counter() - started)
        except (aiohttp.ClientError, OSError) as error:
            failure = self._failure(error, body)
            failure.elapsed_s = perf_counter() - started
            raise failure from error
        finally:
            self._deadlines.finish(task)
        headers = response.headers
        encoding = headers.get("content-encoding")
        if encoding:
            content = _decompressed(content, encoding)
        return WireResponse(
            response.status, headers, content.data, perf_counter() - started, wire.url, content.defect
        )

    def _new_session(self, request_class: type[aiohttp.ClientRequest]) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=CIMultiDict(self._settings.headers),
            skip_auto_headers=_AUTOMATIC,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=min(self._settings.connect_timeout_s, self._settings.timeout_s)
            ),
            auto_decompress=False,
            trust_env=False,
            request_class=request_class,
        )

    def _url(self, text: str) -> URL:
        url = self._urls.get(text)
        if url is None:
            url = self._urls[text] = URL(text)
        return url

    def _new_head(self, url: str) -> bytes:
        """The head of every POST to `url`, up to the value of Content-Length; made once."""
        head = self._heads[url] = _head_bytes(self._url(url), CIMultiDict(self._settings.headers))
        return head

    def _timed_out(self, body: _Body | _LargeBody | None, elapsed_s: float) -> TransportError:
        error: TransportError
        if body is not None and not body.is_sent:
            error = OutageError(f"no connection within {self._settings.timeout_s:g} s")
        else:
            error = RequestTimeoutError(f"no answer within {self._settings.timeout_s:g} s")
        error.elapsed_s = elapsed_s
        return error

    def _failure(self, error: Exception, body: _Body | _LargeBody | None) -> TransportError:
        return map_error(error, is_sent=body is None or body.is_sent, proxy=self._shown_proxy())

    def _shown_proxy(self) -> str:
        """The proxy's address without user and password."""
        return "" if self._proxy is None else str(self._proxy.with_user(None))

    def _proxy_answer(self, error: foreign.ClientHttpProxyError, url: str, elapsed_s: float) -> WireResponse:
        """A proxy that refuses the tunnel: its 407 is the run's affair, anything else is no connection."""
        if error.status != 407:
            failure = OutageError(f"the proxy {self._shown_proxy()} refuses the tunnel: HTTP {error.status}")
            failure.elapsed_s = elapsed_s
            raise failure from error
        return WireResponse(407, error.headers or {}, _one_line(error.message).encode(), elapsed_s, url)


def reply_of_failure(error: TransportError) -> Reply:
    """The reply that a request without an answer amounts to."""
    return Reply(
        Answer.OUTAGE if isinstance(error, OutageError) else Answer.TRANSIENT,
        error_type=error.error_type,
        message=str(error),
        delivery=error.delivery,
        latency_s=error.elapsed_s,
    )


class _Body(bytes):
    """A request's body, with a note of whether it went out, and its prebuilt head if there is one."""

    is_sent = False
    head: bytes | None = None


class _LargeBody(BytesIO):
    """A larger body, which aiohttp writes piece by piece."""

    is_sent = False


class _MarkedRequest(aiohttp.ClientRequest):
    """aiohttp's request, which notes on the body when it is about to be written."""

    def __init__(self, *arguments: Any, data: Any = None, **options: Any) -> None:
        super().__init__(*arguments, data=data, **options)
        self._marked = data

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Write the request."""
        if self._marked is not None:
            self._marked.is_sent = True
        return await super().send(conn)


class _Nothing:
    """Stands for aiohttp's stream writer, which a request that was written in one go needs no more."""

    output_size = 0


_NOTHING: Any = _Nothing()


class _QuickRequest(aiohttp.ClientRequest):
    """A small POST without proxy, authentication, cookies or compression: head and body in one write.

    Saves about a third of the CPU of a request: no copying of headers one by one, no payload object, no task.
    """

    proxy = proxy_auth = proxy_headers = auth = compress = chunked = length = server_hostname = None

    def __init__(self, method: str, url: URL, **options: Any) -> None:
        self.method = method
        self.original_url = self.url = url
        self.headers = options["headers"]
        self.loop = options["loop"]
        self.response_class = options["response_class"]
        self._timer = options["timer"]
        self._session = options["session"]
        self._ssl = options["ssl"]
        self._traces = options["traces"]
        self._quick_body: _Body = options["data"]

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Write the request."""
        body = self._quick_body
        head = body.head or _head_bytes(self.url, self.headers)
        transport = conn.protocol.transport
        if transport is None or transport.is_closing():
            raise foreign.ClientConnectionResetError("the connection was closed while it was idle")
        body.is_sent = True
        transport.write(b"%s%d\r\n\r\n%s" % (head, len(body), body))
        conn.protocol.start_timeout()
        return self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=self._traces,
            loop=self.loop,
            session=self._session,
            stream_writer=_NOTHING,
        )


def _head_bytes(url: URL, headers: CIMultiDict[str]) -> bytes:
    """The head of a POST, up to the value of Content-Length."""
    lines = [f"POST {url.raw_path_qs} HTTP/1.1"]
    if "host" not in headers:
        host = url.host_subcomponent or ""
        lines.append(f"Host: {host}" if url.is_default_port() else f"Host: {host}:{url.port}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any(map(_FORBIDDEN.search, lines)):
        raise ValueError("a header holds a line break or a control character")
    lines.append("Content-Length: ")
    return "\r\n".join(lines).encode()


class _Deadlines:
    """When each task's request is given up: one timer for all, since all have the same timeout."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._started: dict[asyncio.Task[Any], float] = {}  # in the order of sending, hence of falling due
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._started)

    def start(self, task: asyncio.Task[Any], now: float) -> None:
        """The task's request begins."""
        self._started[task] = now
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._timeout_s, self._ring)

    def has_expired(self, task: asyncio.Task[Any]) -> bool:
        """Was the task cancelled by us?"""
        return task in self._expired

    def finish(self, task: asyncio.Task[Any]) -> None:
        """The task's request has ended, one way or another."""
        self._started.pop(task, None)
        self._expired.discard(task)

    def close(self) -> None:
        """No more timeouts."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = []
        for task, started in self._started.items():
            if started + self._timeout_s > now:
                self._timer = self._loop.call_at(started + self._timeout_s, self._ring)
                break
            due.append(task)
        for task in due:
            del self._started[task]
            self._expired.add(task)
            task.cancel()


@dataclass(slots=True)
class _Content:
    data: bytes
    defect: str = ""


async def _read_body(response: aiohttp.ClientResponse) -> _Content:
    """The body as sent. A cut one raises if the answer was good; a refusal keeps what came of it."""
    stream = response.content
    if stream.is_eof():
        return _Content(await response.read())
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in stream.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                return _Content(b"", f"more than {MOST_BYTES} bytes")
    except (aiohttp.ClientError, OSError):
        if 200 <= response.status < 300:
            raise
        return _Content(b"".join(chunks))
    finally:
        if stream.is_eof() and stream.exception() is None:
            response.release()
        else:
            response.close()
    return _Content(b"".join(chunks))


def _decompressed(content: _Content, encoding: str) -> _Content:
    """The body without its content encoding; a broken one is a defect."""
    name = encoding.strip().lower()
    if name in ("identity", "") or content.defect or not content.data:
        return content
    if name not in ("gzip", "x-gzip", "deflate"):
        return _Content(b"", f"content-encoding {_one_line(name, 40)} was not asked for")
    is_raw = name == "deflate" and content.data[0] & 0x0F != 8
    inflater = zlib.decompressobj(wbits=-15 if is_raw else 47)
    try:
        data = inflater.decompress(content.data, MOST_BYTES)
    except zlib.error:
        return _Content(b"", f"broken {name}")
    if inflater.unconsumed_tail:
        return _Content(b"", f"more than {MOST_BYTES} bytes")
    return _Content(data) if inflater.eof else _Content(b"", f"cut {name}")


def _one_line(text: str, longest: int = 300) -> str:
    line = _BLANKS.sub(" ", text).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def map_error(error: Exception, is_sent: bool, proxy: str = "") -> TransportError:
    """The error of our own tree for one of aiohttp's or of the system's.

    `proxy` is the address of the proxy, for words.
    """
    kind = next((_KINDS[base] for base in type(error).__mro__ if base in _KINDS), "connection")
    if kind == "timeout" and is_sent:
        return RequestTimeoutError("no answer within the timeout")
    if kind in ("timeout", "no_connection"):
        return OutageError(_outage_words(error, proxy))
    if kind == "tls" and not is_sent:
        return OutageError(_tls_words(error), "tls")
    failure = ConnectionFailedError(_broken_words(error))
    failure.delivery = "unknown" if is_sent else "not_sent"
    return failure


_KINDS: dict[type[BaseException], str] = {
    # In the order of aiohttp's own list; the most specific class of an error's ancestry counts.
    foreign.ClientError: "connection",
    foreign.ClientConnectionError: "connection",
    foreign.ClientConnectionResetError: "connection",
    foreign.ClientOSError: "connection",
    foreign.ClientConnectorError: "no_connection",
    foreign.ClientProxyConnectionError: "no_connection",
    foreign.ClientSSLError: "tls",
    foreign.ClientConnectorDNSError: "no_connection",
    foreign.ClientConnectorSSLError: "tls",
    foreign.ClientConnectorCertificateError: "tls",
    foreign.ConnectionTimeoutError: "no_connection",
    foreign.SocketTimeoutError: "timeout",
    foreign.ServerConnectionError: "connection",
    foreign.ServerTimeoutError: "timeout",
    foreign.ServerDisconnectedError: "connection",
    foreign.ServerFingerprintMismatch: "tls",
    foreign.ClientResponseError: "connection",
    foreign.ClientHttpProxyError: "no_connection",
    foreign.ContentTypeError: "connection",
    foreign.ClientPayloadError: "connection",
    foreign.InvalidURL: "no_connection",
    foreign.InvalidUrlClientError: "no_connection",
    foreign.RedirectClientError: "connection",
    foreign.NonHttpUrlClientError: "no_connection",
    foreign.InvalidUrlRedirectClientError: "connection",
    foreign.NonHttpUrlRedirectClientError: "connection",
    foreign.TooManyRedirects: "connection",
    foreign.UnixClientConnectorError: "no_connection",
    ssl.SSLError: "tls",
    TimeoutError: "timeout",
    OSError: "connection",
}
if hasattr(foreign, "UploadAbortedError"):  # newer than the oldest aiohttp we take
    _KINDS[foreign.UploadAbortedError] = "connection"


def _outage_words(error: Exception, proxy: str) -> str:
    if isinstance(error, foreign.ClientProxyConnectionError):
        return f"cannot connect to the proxy {proxy}: {_system_words(error)}"
    if isinstance(error, foreign.ClientConnectorDNSError):
        return f"the host name {error.host} is not known ({_system_words(error)})"
    if isinstance(error, foreign.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {_system_words(error)}"
    if isinstance(error, foreign.ConnectionTimeoutError):
        return f"no connection in time: {_one_line(str(error))}"
    return _one_line(f"no connection: {error or type(error).__name__}")


def _system_words(error: foreign.ClientConnectorError) -> str:
    cause = error.os_error
    if cause.errno == 24:
        return "too many open files; lower --concurrency or raise `ulimit -n`"
    words = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror
    return _one_line(words or str(cause) or type(cause).__name__)


def _tls_words(error: Exception) -> str:
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    words = _one_line(str(cause) or type(cause).__name__)
    host = getattr(error, "host", None)
    hint = "; does the server speak plain http?" if "WRONG_VERSION_NUMBER" in words.upper() else ""
    return f"TLS with {host} failed: {words}{hint}" if host else f"TLS failed: {words}{hint}"


def _broken_words(error: Exception) -> str:
    if isinstance(error, foreign.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, foreign.ClientPayloadError):
        words = re.search(r"message=(['\"])(.*?)\1", str(error))
        return _one_line(f"the answer was cut: {words.group(2) if words else error}")
    if isinstance(error, foreign.ClientResponseError):
        return _one_line(f"the answer is no valid HTTP: {error.message}")
    return _one_line(f"the connection broke: {error or type(error).__name__}")
