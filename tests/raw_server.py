"""A server that answers with the bytes it is told, on a thread: for answers that no HTTP library would send."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

HANG = b"\x00hang"
"""At the end of an answer: keep the connection open and say no more."""


def answer(
    body: bytes = b'{"content":"hello"}', status: str = "200 OK", headers: str = "", keep_alive: bool = True
) -> bytes:
    """One whole HTTP answer; `headers` are further lines, each with its line end."""
    kept = "" if keep_alive else "Connection: close\r\n"
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{kept}{headers}\r\n".encode() + body


@dataclass
class RawServer:
    """Answers the n-th request with `script(n)` (from 1); bytes after HANG are never sent; b"" closes at once.

    `requests` keeps each request's head and body, `arrivals` when its first bytes came, in seconds; `connections`
    counts the accepted ones. A TLS handshake begins only after `handshake_s`.
    """

    script: Callable[[int], bytes]
    tls: ssl.SSLContext | None = None
    handshake_s: float = 0.0
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> RawServer:
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """A URL on this server."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/api/run"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        await asyncio.sleep(0.02)  # asyncio trips over a server that is closed while it accepts someone
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # aborted sockets are closed in the next turns of the loop

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the one that asyncio makes complains loudly when it is cancelled at the end.
        self.connections += 1
        self._writers.append(writer)
        if self.tls is not None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # the greeting is for the TLS layer
        task = asyncio.create_task(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.tls is not None:
                await asyncio.sleep(self.handshake_s)
                await writer.start_tls(self.tls)
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        self.arrivals.append(self._loop.time())
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")), 0
        )
        self.requests.append((head, await reader.readexactly(length)))
        reply = self.script(len(self.requests))
        text, hang, _ = reply.partition(HANG)
        writer.write(text)
        await writer.drain()
        if hang:
            await self._stop.wait()
        return reply.startswith(b"HTTP/1.1") and b"connection: close" not in reply.lower() and not hang
