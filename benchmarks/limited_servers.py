"""Rate-limited servers for `throttle.py`: the simulator's models over real HTTP, in a process where time runs faster.

The clock of both event loops is scaled, and with it every timer.
"""

# ruff: noqa: E402 - the path to the simulator comes before its import

from __future__ import annotations

import asyncio
import multiprocessing
import random
import selectors
import sys
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

from simulator.scenarios import SCENARIOS, Scenario
from simulator.servers import FAST, Server, Unlimited

# ---- the lines of the table


@dataclass(frozen=True)
class Bench:
    """One line of the table: a scenario, how fast time runs, and a further bound."""

    name: str
    scenario: Scenario
    speed: float = 20.0
    further: str = ""


def _bench(name: str, scenario: str, speed: float = 10.0, further: str = "") -> Bench:
    bounds = BOUNDS.get(name, {})
    return Bench(name, replace(SCENARIOS[scenario], **bounds), speed, further)


BOUNDS: dict[str, dict[str, Any]] = {
    "1/min": {"goodput": (0.85, 0.75)},
    "sliding log 500/60 s": {"goodput": (0.85, 0.75)},
    "10 s ban that knocking extends": {"goodput": (0.55, 0.55), "refused_per_row": (0.01, 0.01)},
    "user ceiling 60/min on 50/s": {"goodput": (0.93, 0.93)},
}
"""Where the table's line differs from the simulator's scenario."""


BENCHES = [
    _bench("token bucket 10/s, burst 20", "bucket 10/s, LLM"),
    _bench("token bucket 1/s, burst 5", "bucket 1/s, LLM", 20.0),
    _bench("1/min", "1/min", 20.0),
    _bench("fixed window 60/60 s", "window 60/60 s, LLM", 20.0),
    _bench("fixed window 500/60 s, Retry-After", "window 500/60 s, Retry-After", further="inside"),
    _bench("sliding log 500/60 s", "sliding log 500/60 s"),
    _bench("GCRA 5/s, depth 2", "GCRA 5/s, LLM"),
    _bench("at most 16 at once", "at most 16 at once"),
    _bench("at most 64 at once", "at most 64 at once"),
    _bench("rate headers", "headers, window"),
    _bench("capacity x 0.3 in the middle", "capacity x 0.3 in the middle"),
    _bench("capacity x 3 in the middle", "capacity x 3 in the middle"),
    _bench("60 s outage", "60 s outage", further="outage"),
    _bench("10 s ban that knocking extends", "10 s ban, 1500 rows", further="ban"),
    _bench("user ceiling 60/min on 50/s", "ceiling 60/min", 5.0, further="ceiling"),
]
BENCHES_BY_NAME = {bench.name: bench for bench in BENCHES}
UNLIMITED = [
    Bench(
        f"unlimited, N = {rows}",
        Scenario(lambda: Server(Unlimited(), FAST), rows, (bound, bound), (0, 0)),
        1.0,
    )
    for rows, bound in ((50_000, 0.90), (2_000, 0.70))
]
BENCHES_BY_NAME |= {bench.name: bench for bench in UNLIMITED}


# ---- time that runs faster


class _FastSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits only a share of the time that the loop asks for."""

    speed = 1.0

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / self.speed if timeout else timeout)


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs `speed` times as fast as the real one."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began = time.monotonic()
        selector = _FastSelector()
        selector.speed = speed
        super().__init__(selector)

    def time(self) -> float:
        return (time.monotonic() - self._began) * self._speed


def run_fast(speed: float, main: Any) -> Any:
    """`asyncio.run` at a speed."""
    with asyncio.Runner(loop_factory=lambda: FastLoop(speed)) as runner:
        return runner.run(main)


# ---- the server, in its own process


@dataclass
class Tally:
    """What a server saw; times since its first request."""

    arrivals: list[float] = field(default_factory=list)
    admitted_at: float = 0.0
    refused: int = 0


class Site(asyncio.Protocol):
    """One connection: every request is a GET without a body, answered by the model."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._host.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            after_s, answer = self._host.answer()
            asyncio.get_running_loop().call_later(after_s, self._write, answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


class Host:
    """One model server on a port of its own; its clock begins with the first request."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server = name, server
        self.tally = Tally()
        self.connections: set[asyncio.Transport] = set()
        self._began: float | None = None
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def listen(self) -> int:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Site(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self.port

    def answer(self) -> tuple[float, bytes]:
        """How long until the answer leaves, and its bytes."""
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
            if self.server.outage_kind == "outage" and self.server.outage[0] < 1e9:
                loop.call_later(self.server.outage[0], self._go_down)
        now = loop.time() - self._began
        answered = self.server.arrive(now)
        self.tally.arrivals.append(now)
        self.tally.refused += answered.kind == "refused"
        if answered.kind == "accepted":
            self.tally.admitted_at = now
        status = {"accepted": "200 OK", "refused": "429 Too Many Requests"}.get(answered.kind, "503 Down")
        head = [f"HTTP/1.1 {status}", "Content-Length: 2"]
        if answered.retry_after_s is not None:
            head.append(f"Retry-After: {answered.retry_after_s:.3f}")
        if answered.rate_hint is not None:
            head.append(f"X-Rate: {answered.rate_hint.limit};{answered.rate_hint.window_s}")
        return answered.after_s, ("\r\n".join(head) + "\r\n\r\nok").encode()

    def _go_down(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for transport in list(self.connections):
            transport.abort()
        start, end = self.server.outage
        asyncio.get_running_loop().call_later(end - start, self._come_up)

    def _come_up(self) -> None:
        task = asyncio.get_running_loop().create_task(self._relisten())
        self._tasks.add(task)

    async def _relisten(self) -> None:
        await self.listen()


async def _serve(pipe: Connection) -> None:
    """Start a server for each (name, seed) that comes, tell its tally when asked for a port, end at None."""
    loop = asyncio.get_running_loop()
    hosts: dict[int, Host] = {}
    wishes: asyncio.Queue[Any] = asyncio.Queue()

    def read() -> None:
        try:
            wishes.put_nowait(pipe.recv())
        except EOFError:  # the client is gone
            loop.remove_reader(pipe.fileno())
            wishes.put_nowait(None)

    loop.add_reader(pipe.fileno(), read)
    while (wish := await wishes.get()) is not None:
        if isinstance(wish, int):
            host = hosts[wish]
            pipe.send((host.tally, host.server.ideal_s(BENCHES_BY_NAME[host.name].scenario.rows)))
        else:
            name, seed = wish
            server = BENCHES_BY_NAME[name].scenario.server()
            server.rng = random.Random(seed)
            host = Host(name, server)
            pipe.send(await host.listen())
            hosts[host.port] = host


def serve(pipe: Connection, speed: float) -> None:
    """The server process."""
    run_fast(speed, _serve(pipe))


class Servers:
    """The server process, seen from the client; one wish at a time."""

    def __init__(self, speed: float) -> None:
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(theirs, speed), daemon=True
        )
        self._process.start()

    def start(self, name: str, seed: int) -> int:
        """The port of a new server."""
        self._pipe.send((name, seed))
        port: int = self._pipe.recv()
        return port

    def tally(self, port: int) -> tuple[Tally, float]:
        """What it saw, and the ideal time for its rows."""
        self._pipe.send(port)
        tally: tuple[Tally, float] = self._pipe.recv()
        return tally

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(5)
