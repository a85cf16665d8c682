"""How much a server on loopback can take: `python benchmarks/flood.py http://127.0.0.1:8765 --requests
100000`.

Raw connections on uvloop that send the next request as soon as an answer is there; it prints requests per
second. It shows that a server is no bottleneck; as a client it is no measure for anything (it parses next to
nothing).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop
from make_table import rows

PATH = "/api/v1/inference/run_chat_completion"


class Share:
    """The requests that are still to be sent, and the future that ends the run."""

    def __init__(self, requests: list[bytes], connections: int) -> None:
        self.left = requests
        self.running = connections
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Client(asyncio.Protocol):
    """One connection; an answer counts as whole when the body that its head announces is there."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Sends the next request once the answer is whole."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if found:
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(body) >= length:
                self._buffer = b""
                self._send()

    def _send(self) -> None:
        if self._share.left:
            self._transport.write(self._share.left.pop())
            return
        self._transport.close()
        self._share.running -= 1
        if not self._share.running:
            self._share.end.set_result(None)


def wire_requests(count: int, host: str) -> list[bytes]:
    """Whole HTTP requests in bytes."""
    made = []
    for _, prompt, _ in rows(count):
        messages = [{"role": "user", "content": prompt}]
        body = json.dumps({"project_id": "ke3_xh5gai3gjkmruomu", "messages": messages}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        made.append(head.encode() + body)
    return made


async def flood(base_url: str, requests: int, connections: int) -> float:
    """Requests per second."""
    place = urlsplit(base_url)
    assert place.hostname and place.port
    share = Share(wire_requests(requests, place.netloc), connections)
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(share), place.hostname, place.port)
    await share.end
    return requests / (time.monotonic() - began)


def main() -> None:
    """Reads the options and floods."""
    parser = argparse.ArgumentParser(description="How many requests per second a server takes.")
    parser.add_argument("base_url")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(f"{runner.run(flood(options.base_url, options.requests, options.connections)):.0f}")


if __name__ == "__main__":
    main()
