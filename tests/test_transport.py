"""The transport: what every answer and every failure becomes, on real connections."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from raw_server import HANG, RawServer, answer
from yarl import URL

from websim_batch.errors import ConnectionFailedError, OutageError, RequestTimeoutError, TransportError
from websim_batch.records import Answer, WireRequest, WireResponse
from websim_batch.transport import (
    Transport,
    TransportSettings,
    bodies,
    failures,
    lines,
    map_error,
    reply_of_failure,
    sending,
)

T = TypeVar("T")
BODY = b'{"messages":[]}'


def use(settings: TransportSettings, work: Callable[[Transport], Awaitable[T]], is_quick: bool = True) -> T:
    """What `work` gives with a transport of its own."""

    async def run() -> T:
        async with Transport(settings) as sender:
            if not is_quick:
                sender._post_small = sender._session.post
            return await work(sender)

    return asyncio.run(run())


def send(url: str, is_quick: bool = True, **settings: Any) -> WireResponse:
    """One POST."""
    return use(TransportSettings(**settings), lambda sender: sender.send(WireRequest(url, BODY)), is_quick)


def failure(url: str, is_quick: bool = True, **settings: Any) -> TransportError:
    """The error that one POST ends in."""
    with pytest.raises(TransportError) as caught:
        send(url, is_quick, **settings)
    return caught.value


both_ways = pytest.mark.parametrize("is_quick", [True, False], ids=["quick", "documented"])


@both_ways
def test_a_post_arrives_as_it_was_built(is_quick: bool) -> None:
    """Our headers and no others, the body's bytes, the path and the host."""
    headers = {"accept": "*/*", "websim-flags": "", "content-type": "text/plain;charset=UTF-8"}
    with RawServer(lambda n: answer()) as server:
        response = send(server.url, is_quick, headers=headers)

        head, body = server.requests[0]
    assert (response.status, response.body, response.url) == (200, b'{"content":"hello"}', server.url)
    assert body == BODY
    lines = head.strip().split("\r\n")
    assert lines[0] == "POST /api/run HTTP/1.1"
    assert {line.partition(":")[0].lower() for line in lines[1:]} == {
        "host", "accept", "websim-flags", "content-type", "content-length",
    }  # fmt: skip
    assert f"Host: 127.0.0.1:{server.port}" in lines
    assert "websim-flags: " in head


@both_ways
def test_the_headers_of_one_request_lie_over_the_sessions(is_quick: bool) -> None:
    """And are gone with the next request."""

    async def two(sender: Transport) -> None:
        await sender.send(WireRequest(server.url, BODY, {"X-Key": "one", "Accept": "a/b"}))
        await sender.send(WireRequest(server.url, BODY))

    with RawServer(lambda n: answer()) as server:
        use(TransportSettings(headers={"accept": "*/*"}), two, is_quick)

        first, second = (head.lower() for head, _ in server.requests)
    assert "x-key: one" in first
    assert "accept: a/b" in first
    assert "*/*" not in first
    assert "x-key" not in second
    assert "accept: */*" in second


@both_ways
def test_a_header_cannot_smuggle_another(is_quick: bool) -> None:
    """A line break in a value is never written."""
    with RawServer(lambda n: answer()) as server, pytest.raises(ValueError, match="header"):
        use(
            TransportSettings(),
            lambda sender: sender.send(WireRequest(server.url, BODY, {"a": "b\r\nc: d"})),
            is_quick,
        )
    assert server.requests == []


@both_ways
def test_one_connection_serves_request_after_request(is_quick: bool) -> None:
    """A session per run, not per row."""

    async def many(sender: Transport) -> None:
        for _ in range(20):
            await sender.send(WireRequest(server.url, BODY))

    with RawServer(lambda n: answer()) as server:
        use(TransportSettings(), many, is_quick)

    assert (len(server.requests), server.connections) == (20, 1)


@pytest.mark.parametrize("size", [10, 60_000, 70_000, 3_000_000])
def test_a_body_of_any_size_arrives_whole(size: int) -> None:
    """Small ones go out in one write, large ones piece by piece."""
    body = b"x" * size
    with RawServer(lambda n: answer(b"y" * size)) as server:
        response = use(TransportSettings(), lambda sender: sender.send(WireRequest(server.url, body)))

    assert server.requests[0][1] == body
    assert response.body == b"y" * size


def test_every_status_is_an_answer() -> None:
    """Redirects are not followed, refusals are not raised."""
    for status in ("301 Moved", "404 Not Found", "429 Too Many", "500 Oops", "599 Odd"):
        with RawServer(
            lambda n, s=status: answer(b"words", s, "Location: http://127.0.0.1:1/\r\n")
        ) as server:
            response = send(server.url)
        assert response.status == int(status[:3])
        assert (response.headers["location"], response.body) == ("http://127.0.0.1:1/", b"words")
        assert len(server.requests) == 1


def test_headers_are_found_in_any_case() -> None:
    """As HTTP has it."""
    with RawServer(lambda n: answer(headers="RETRY-after: 7\r\n")) as server:
        assert send(server.url).headers["retry-after"] == "7"


def test_cookies_are_not_kept() -> None:
    """Rows know nothing of one another."""

    async def two(sender: Transport) -> None:
        for _ in range(2):
            await sender.send(WireRequest(server.url, BODY))

    with RawServer(lambda n: answer(headers="Set-Cookie: a=b\r\n")) as server:
        use(TransportSettings(), two)

    assert "cookie" not in server.requests[1][0].lower()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("GZip", gzip.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")[2:-4]),
        ("identity", b"hello"),
    ],
)
def test_compressed_answers_are_unpacked(encoding: str, packed: bytes) -> None:
    """gzip, and deflate with and without its frame."""
    with RawServer(lambda n: answer(packed, headers=f"Content-Encoding: {encoding}\r\n")) as server:
        response = send(server.url)

    assert (response.body, response.defect) == (b"hello", "")


@pytest.mark.parametrize(
    ("encoding", "packed", "defect"),
    [
        ("gzip", b"no gzip at all", "broken gzip"),
        ("gzip", gzip.compress(b"hello" * 99)[:-9], "cut gzip"),
        ("deflate", b"xx", "broken deflate"),
        ("br", b"xx", "content-encoding br was not asked for"),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "429 Too Many"])
def test_broken_compression_is_a_defect_and_hides_no_status(
    encoding: str, packed: bytes, defect: str, status: str
) -> None:
    """The answer keeps its status and says what is wrong with its body."""
    with RawServer(lambda n: answer(packed, status, f"Content-Encoding: {encoding}\r\n")) as server:
        response = send(server.url)

    assert (response.status, response.body, response.defect) == (int(status[:3]), b"", defect)


def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, packed or not."""
    monkeypatch.setattr(bodies, "MOST_BYTES", 100_000)
    bomb = gzip.compress(b"\0" * 10_000_000)
    for reply in (answer(b"x" * 1_000_000), answer(bomb, headers="Content-Encoding: gzip\r\n")):
        with RawServer(lambda n, r=reply: r) as server:
            response = send(server.url)
        assert (response.body, response.defect) == (b"", "more than 100000 bytes")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nabc", "received 3 of 10 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nab", "was cut"),
        (b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Le", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nConnection: close\r\n\r\n", "no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000 + b"\r\nConnection: close\r\n\r\n", "no valid HTTP"),
    ],
)
@both_ways
def test_a_broken_answer_is_a_broken_connection(reply: bytes, words: str, is_quick: bool) -> None:
    """The request was sent, and nobody knows what became of it."""
    with RawServer(lambda n: reply) as server:
        error = failure(server.url, is_quick)

    assert type(error) is ConnectionFailedError
    assert (error.error_type, error.delivery) == ("connection", "unknown")
    assert words in str(error)
    assert "\n" not in str(error)


def test_a_cut_refusal_is_still_that_refusal() -> None:
    """The status is known; only its words are lost."""
    cut = b'HTTP/1.1 429 Slow\r\nContent-Length: 99\r\nRetry-After: 3\r\nConnection: close\r\n\r\n{"er'
    with RawServer(lambda n: cut) as server:
        response = send(server.url)

    assert (response.status, response.headers["retry-after"], response.body) == (429, "3", b'{"er')


def test_a_connection_is_not_reused_after_a_broken_answer() -> None:
    """What is left on the line of one answer is not taken for the next one."""

    async def two(sender: Transport) -> bytes:
        with pytest.raises(TransportError):
            await sender.send(WireRequest(server.url, BODY))
        return (await sender.send(WireRequest(server.url, BODY))).body

    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + answer(b"wrong")
    with RawServer(lambda n: broken if n == 1 else answer(b"right")) as server:
        assert use(TransportSettings(), two) == b"right"


@both_ways
def test_a_connection_that_breaks_says_nothing_of_the_answer_before(is_quick: bool) -> None:
    """A second request on the same connection that is never answered has no status."""

    async def two(sender: Transport) -> TransportError:
        assert (await sender.send(WireRequest(server.url, BODY))).status == 500
        with pytest.raises(TransportError) as caught:
            await sender.send(WireRequest(server.url, BODY))
        return caught.value

    with RawServer(lambda n: answer(b"oops", "500 Oops") if n == 1 else b"") as server:
        error = use(TransportSettings(), two, is_quick)

        assert server.connections == 1
    assert (type(error), error.delivery) == (ConnectionFailedError, "unknown")


@both_ways
@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), b'{"content":"hello"}'),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b"late"), b"late"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\nok", b"ok"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
            b"Content-Encoding: gzip\r\n\r\n",
            b"ok",
        ),
    ],
    ids=[
        "continue",
        "hints",
        "chunked",
        "until closed",
        "empty",
        "line feeds",
        "folded",
        "control",
        "blanks",
        "identity",
        "trailer",
    ],
)
def test_a_body_is_read_to_its_end_however_it_is_told(reply: bytes, body: bytes, is_quick: bool) -> None:
    """By length, in chunks, by the connection's end; answers that announce another one are passed over."""
    with RawServer(lambda n: reply) as server:
        response = send(server.url, is_quick, timeout_s=5)

    assert (response.status, response.body) == (200, body)


def test_a_change_of_protocol_is_an_answer_and_no_fault_of_ours() -> None:
    """101 and bytes of another protocol: its status is told, and nothing is thrown into the event loop."""
    faults: list[object] = []

    async def one(sender: Transport) -> int:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        return (await sender.send(WireRequest(server.url, BODY))).status

    reply = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nother words"
    with RawServer(lambda n: reply) as server:
        assert use(TransportSettings(), one) == 101
    assert faults == []


@both_ways
def test_what_was_not_asked_for_is_no_answer(is_quick: bool) -> None:
    """A second answer behind the first, at once or later, is not taken for the next request's."""

    async def two(sender: Transport) -> list[bytes]:
        first = (await sender.send(WireRequest(server.url, BODY))).body
        await asyncio.sleep(0.05)
        return [first, (await sender.send(WireRequest(server.url, BODY))).body]

    with RawServer(lambda n: answer(b"%d" % n) + (answer(b"stray") if n == 1 else b"")) as server:
        assert use(TransportSettings(), two, is_quick) == [b"1", b"2"]

        assert server.connections == 2


def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers close theirs after some seconds, perhaps in the very moment in which a request is sent."""
    monkeypatch.setattr(sending, "KEEPALIVE_S", 0.1)

    async def three(sender: Transport) -> None:
        for pause_s in (0.0, 0.15, 0.0):
            await asyncio.sleep(pause_s)
            await sender.send(WireRequest(server.url, BODY))

    with RawServer(lambda n: answer()) as server:
        use(TransportSettings(), three)

        assert server.connections == 2


def test_one_connection_serves_both_routes_of_a_server() -> None:
    """Chats and images share the connections."""

    async def two(sender: Transport) -> None:
        for route in ("", "/other"):
            await sender.send(WireRequest(server.url + route, BODY))

    with RawServer(lambda n: answer()) as server:
        use(TransportSettings(), two)

        assert server.connections == 1


@pytest.mark.parametrize(
    "reply", [HANG, b"HTTP/1.1 200 OK\r\n" + HANG, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc" + HANG]
)
@both_ways
def test_a_server_that_says_no_more_times_out(reply: bytes, is_quick: bool) -> None:
    """Before the head, inside it, inside the body: the timeout is the whole request's."""
    with RawServer(lambda n: reply) as server:
        error = failure(server.url, is_quick, timeout_s=0.1)

    assert type(error) is RequestTimeoutError
    assert (error.error_type, error.delivery) == ("timeout", "unknown")
    assert "0.1 s" in str(error)
    assert 0.09 < error.elapsed_s < 5


def test_a_timeout_ends_its_own_request_alone() -> None:
    """Others in flight are answered, and the transport goes on."""

    async def work(sender: Transport) -> list[object]:
        many = [sender.send(WireRequest(server.url, BODY)) for _ in range(10)]
        first = await asyncio.gather(*many, return_exceptions=True)
        return [*first, await sender.send(WireRequest(server.url, BODY))]

    with RawServer(lambda n: HANG if n == 4 else answer()) as server:
        results = use(TransportSettings(timeout_s=1.5), work)

    assert sum(isinstance(result, RequestTimeoutError) for result in results) == 1
    assert sum(isinstance(result, WireResponse) for result in results) == 10


def test_the_timeout_is_forgotten_when_the_answer_is_there() -> None:
    """A task that lives on after its request is not cancelled later."""

    async def work(sender: Transport) -> int:
        await sender.send(WireRequest(server.url, BODY))
        await asyncio.sleep(0.2)
        return len(sender._deadlines)

    with RawServer(lambda n: answer()) as server:
        assert use(TransportSettings(timeout_s=0.1), work) == 0


def test_a_cancelled_request_is_cancelled_and_no_timeout() -> None:
    """A drain must see its own cancellation."""

    async def work(sender: Transport) -> None:
        task = asyncio.create_task(sender.send(WireRequest(server.url, BODY)))
        while not server.requests:  # noqa: ASYNC110 -- the server counts on another thread
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(sender._deadlines) == 0

    with RawServer(lambda n: HANG) as server:
        use(TransportSettings(timeout_s=30), work)


def test_a_cancellation_at_the_moment_of_the_timeout_is_not_lost() -> None:
    """Both at once: the caller's wish counts."""

    async def work(sender: Transport) -> None:
        task = asyncio.create_task(sender.send(WireRequest(server.url, BODY)))
        await asyncio.sleep(0.05)
        sender._deadlines._expired.add(task)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with RawServer(lambda n: HANG) as server:
        use(TransportSettings(timeout_s=30), work)


def test_a_timeout_leaves_nothing_behind_in_its_task() -> None:
    """A later cancellation of the same task is no timeout."""

    async def twice(sender: Transport) -> None:
        with pytest.raises(RequestTimeoutError):
            await sender.send(WireRequest(server.url, BODY))
        await sender.send(WireRequest(server.url, BODY))

    async def work(sender: Transport) -> None:
        task = asyncio.create_task(twice(sender))
        while len(server.requests) < 2:  # noqa: ASYNC110 -- the server counts on another thread
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with RawServer(lambda n: HANG) as server:
        use(TransportSettings(timeout_s=0.3), work)


def test_waiting_for_one_another_is_no_timeout() -> None:
    """The pool makes nobody wait, and no wait counts as part of the timeout: 300 at once are 300 connections."""

    async def work(sender: Transport) -> int:
        answers = await asyncio.gather(*(sender.send(WireRequest(server.url, BODY)) for _ in range(300)))
        return sum(response.status == 200 for response in answers)

    with RawServer(lambda n: answer()) as server:
        assert use(TransportSettings(timeout_s=30, concurrency=300), work) == 300
    assert server.connections == 300


def test_a_refused_connection_is_an_outage() -> None:
    """Nothing was sent; the message names the place and the reason."""
    error = failure("http://127.0.0.1:1/x")

    assert type(error) is OutageError
    assert (error.error_type, error.delivery) == ("connection", "not_sent")
    assert str(error) == "cannot connect to 127.0.0.1:1: Connection refused"


def test_an_unknown_host_is_an_outage() -> None:
    """The message names it."""
    error = failure("http://no-such-host.invalid/x")

    assert (type(error), error.error_type) == (OutageError, "connection")
    assert "no-such-host.invalid is not known" in str(error)


def test_a_connection_that_does_not_stand_in_time_is_an_outage() -> None:
    """A server that accepts and never shakes hands: nothing was sent."""
    with RawServer(lambda n: HANG) as server:
        error = failure(server.url.replace("http:", "https:"), connect_timeout_s=0.1)

    assert (type(error), error.delivery) == (OutageError, "not_sent")


def test_plain_http_behind_https_is_a_tls_outage() -> None:
    """A server that answers the TLS greeting in plain words; the message says what may be meant."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def work() -> TransportError:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Transport(TransportSettings(timeout_s=10)) as sender:
            with pytest.raises(TransportError) as caught:
                await sender.send(WireRequest(f"https://127.0.0.1:{port}/x", BODY))
        return caught.value

    error = asyncio.run(work())

    assert (type(error), error.error_type, error.delivery) == (OutageError, "tls", "not_sent")
    assert "does the server speak plain http?" in str(error)


def _example(kind: type[BaseException]) -> Exception:
    """An error of that class, as aiohttp would raise it."""
    key = ConnectionKey("host.example", 443, True, True, None, None, None, None)
    info = aiohttp.RequestInfo(URL("http://host.example"), "POST", {}, URL("http://host.example"))  # type: ignore[arg-type]
    if issubclass(kind, client_exceptions.UnixClientConnectorError):
        return kind("path", key, OSError(111, "refused"))
    if issubclass(kind, client_exceptions.ClientConnectorCertificateError):
        return kind(key, ssl.CertificateError("bad"))
    if issubclass(kind, client_exceptions.ClientConnectorError):
        return kind(key, OSError(111, "refused"))
    if issubclass(kind, client_exceptions.ClientResponseError):
        return kind(info, ())
    if issubclass(kind, client_exceptions.ServerFingerprintMismatch):
        return kind(b"a", b"b", "host", 1)
    if issubclass(kind, client_exceptions.InvalidURL):
        return kind("http://x")
    return kind()  # type: ignore[return-value]


FOREIGN = sorted(
    (
        kind
        for kind in vars(client_exceptions).values()
        if isinstance(kind, type) and issubclass(kind, aiohttp.ClientError) and "WS" not in kind.__name__
    ),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
def test_every_error_of_aiohttp_is_mapped_by_its_own_name(kind: type[BaseException]) -> None:
    """A class that a new aiohttp adds makes this fail, so that someone thinks about it."""
    assert kind in failures._KINDS

    for is_sent in (True, False):
        error = map_error(_example(kind), is_sent=is_sent)
        assert isinstance(error, TransportError)
        assert str(error)


@pytest.mark.parametrize(
    ("error", "is_sent", "expected", "error_type", "delivery"),
    [
        (client_exceptions.ServerDisconnectedError(), True, ConnectionFailedError, "connection", "unknown"),
        (
            client_exceptions.ClientConnectionResetError(),
            False,
            ConnectionFailedError,
            "connection",
            "not_sent",
        ),
        (client_exceptions.ClientPayloadError("cut"), True, ConnectionFailedError, "connection", "unknown"),
        (client_exceptions.SocketTimeoutError(), True, RequestTimeoutError, "timeout", "unknown"),
        (client_exceptions.SocketTimeoutError(), False, OutageError, "connection", "not_sent"),
        (client_exceptions.ConnectionTimeoutError("x"), False, OutageError, "connection", "not_sent"),
        (TimeoutError(), True, RequestTimeoutError, "timeout", "unknown"),
        (ConnectionResetError(104, "reset"), True, ConnectionFailedError, "connection", "unknown"),
        (ssl.SSLError(1, "bad record"), True, ConnectionFailedError, "connection", "unknown"),
        (ssl.SSLError(1, "bad record"), False, OutageError, "tls", "not_sent"),
        (client_exceptions.InvalidURL("x"), False, OutageError, "connection", "not_sent"),
    ],
)
def test_an_error_says_whether_the_server_may_have_acted(
    error: Exception, is_sent: bool, expected: type, error_type: str, delivery: str
) -> None:
    """Before the first byte nothing can have happened; after it nobody knows."""
    mapped = map_error(error, is_sent)

    assert (type(mapped), mapped.error_type, mapped.delivery) == (expected, error_type, delivery)


def test_too_many_open_files_names_the_remedy() -> None:
    """A limit of this machine, not of the server."""
    key = ConnectionKey("host", 80, False, True, None, None, None, None)

    assert "--concurrency" in str(
        map_error(client_exceptions.ClientConnectorError(key, OSError(24, "x")), False)
    )


@pytest.mark.parametrize(
    ("error", "answer_", "error_type"),
    [
        (OutageError("x"), Answer.OUTAGE, "connection"),
        (OutageError("x", "tls"), Answer.OUTAGE, "tls"),
        (RequestTimeoutError("x"), Answer.TRANSIENT, "timeout"),
        (ConnectionFailedError("x"), Answer.TRANSIENT, "connection"),
    ],
)
def test_a_failure_is_a_reply(error: TransportError, answer_: Answer, error_type: str) -> None:
    """A row that fails is a value."""
    reply = reply_of_failure(error)

    assert (reply.answer, reply.error_type, reply.message) == (answer_, error_type, "x")
    assert reply.delivery == ("not_sent" if answer_ is Answer.OUTAGE else "unknown")
    assert reply.http_status is None


def test_a_proxy_gets_the_whole_url_and_its_own_password() -> None:
    """And the server behind it does not get the password in the path."""
    with RawServer(lambda n: answer()) as proxy:
        response = send("http://far.example/api/run", proxy=f"http://user:secret@127.0.0.1:{proxy.port}")

    head = proxy.requests[0][0]
    assert response.status == 200
    assert head.startswith("POST http://far.example/api/run HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in head
    assert "secret" not in head


def test_a_proxy_that_is_not_there_is_an_outage_without_its_password() -> None:
    """The message names the proxy."""
    error = failure("http://far.example/", proxy="http://user:secret@127.0.0.1:1")

    assert type(error) is OutageError
    assert "cannot connect to the proxy http://127.0.0.1:1" in str(error)
    assert "secret" not in str(error) + repr(error)


def test_a_proxy_that_refuses_the_tunnel() -> None:
    """Its 407 is an answer that stops the run; anything else is no connection."""
    for status, expected in (("407 Auth Required", 407), ("403 Forbidden", None)):
        with RawServer(lambda n, s=status: answer(b"", s, keep_alive=False)) as proxy:
            url = f"http://user:secret@127.0.0.1:{proxy.port}"
            if expected:
                assert send("https://far.example/", proxy=url).status == expected
            else:
                error = failure("https://far.example/", proxy=url)
                assert type(error) is OutageError
                assert "refuses the tunnel: HTTP 403" in str(error)
                assert "secret" not in str(error)


def test_get_fetches_a_list() -> None:
    """Without a body."""
    with RawServer(lambda n: answer(b"[]")) as server:
        response = use(TransportSettings(headers={"a": "b"}), lambda sender: sender.get(server.url))

    assert response.body == b"[]"
    assert server.requests[0][0].startswith("GET /api/run HTTP/1.1\r\n")


def test_nothing_secret_is_in_a_repr() -> None:
    """Headers and proxy stay out."""
    settings = TransportSettings(headers={"authorization": "secret"}, proxy="http://u:secret@h")

    assert "secret" not in repr(settings) + repr(Transport(settings))


def test_the_quick_way_is_taken_unless_the_session_was_replaced(mocked: Any) -> None:
    """Who tests with aioresponses, or traces requests, has put something in the place of aiohttp's session."""
    assert not lines.are_usable()
    mocked.stop()
    assert lines.are_usable()
    mocked.start()


def test_mocked_answers_are_read_like_real_ones(mocked: Any) -> None:
    """aioresponses stands in for aiohttp's session."""
    mocked.post("http://x/y", status=503, body=b"busy", headers={"Retry-After": "3"})

    response = send("http://x/y", headers={"accept": "*/*"})

    assert (response.status, response.body, response.headers["retry-after"]) == (503, b"busy", "3")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (client_exceptions.ServerDisconnectedError(), ConnectionFailedError),
        (client_exceptions.ClientPayloadError("cut"), ConnectionFailedError),
        (TimeoutError(), OutageError),
        (ConnectionResetError(), ConnectionFailedError),
    ],
)
def test_mocked_errors_are_mapped(mocked: Any, raised: Exception, expected: type) -> None:
    """Whatever aiohttp raises ends in our own tree, with its cause."""
    mocked.post("http://x/y", exception=raised)

    error = failure("http://x/y")

    assert type(error) is expected
    assert error.__cause__ is raised
