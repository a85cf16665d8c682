"""A chat server that is no bottleneck: uvloop and httptools, nothing looked at but the end of each request.

    python benchmarks/server.py --port 0 --latency-ms 50        prints its base URL first, alone on a line

Every POST is answered with the same chat answer; GET /__stats tells how many came and when the first one did
(by the machine's monotonic clock), GET /__reset tells it and forgets. Ends on SIGINT, SIGTERM, or, with
--with-parent, on the end of stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from typing import cast

import httptools
import uvloop

CONTENT = (
    "This is the answer of the benchmark server: two hundred characters, more or less, so that an answer "
    "weighs about as much as the question that it answers, and both are short enough to fit one packet."
)


def _response(body: bytes, content_type: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (content_type, len(body))
    return head + body


CHAT = _response(json.dumps({"content": CONTENT}).encode())


class Counts:
    """What the server saw since its start or the last reset."""

    def __init__(self) -> None:
        self.requests = 0
        self.first_at: float | None = None

    def as_json(self) -> bytes:
        """Both counts as a JSON object."""
        return json.dumps({"requests": self.requests, "first_at": self.first_at}).encode()


class Connection(asyncio.Protocol):
    """One client; httptools calls on_url and on_message_complete, and skips what has no method here."""

    def __init__(self, counts: Counts, latency_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._counts = counts
        self._latency_s = latency_s
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._url = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way back."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; a client that does not speak HTTP is shown the door."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        """The path of the request that begins."""
        self._url = url

    def on_message_complete(self) -> None:
        """A whole request is here: answer it now, or after the latency."""
        if self._url.startswith(b"/__"):
            self._transport.write(_response(self._about_us()))
            return
        counts = self._counts
        if counts.first_at is None:
            counts.first_at = time.monotonic()
        counts.requests += 1
        if self._latency_s:
            self._loop.call_later(self._latency_s, self._answer)
        else:
            self._transport.write(CHAT)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(CHAT)

    def _about_us(self) -> bytes:
        told = self._counts.as_json()
        if self._url == b"/__reset":
            self._counts.__init__()  # type: ignore[misc]
        return told


async def serve(port: int, latency_s: float, is_with_parent: bool) -> None:
    """Serves until told to end."""
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    if is_with_parent:
        loop.add_reader(sys.stdin.fileno(), end.set)
    counts = Counts()
    listener = await loop.create_server(
        lambda: Connection(counts, latency_s, loop), "127.0.0.1", port, backlog=4096
    )
    print(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", flush=True)
    await end.wait()


def main() -> None:
    """Reads the options and serves."""
    parser = argparse.ArgumentParser(description="A very fast chat server on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--with-parent", action="store_true", help="end when stdin does")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.port, options.latency_ms / 1000, options.with_parent))


if __name__ == "__main__":
    main()
