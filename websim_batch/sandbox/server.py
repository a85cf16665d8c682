"""The stand-in server: aiohttp.web on the loopback interface, both providers' routes.

A request is counted, then meets in this order: an outage, an answer scripted from the n-th request on, the
limit, an answer scripted for it, a fault of its own, and at last its answer.
"""

from __future__ import annotations

import asyncio
import errno
import math
import time
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from aiohttp import web

from websim_batch.errors import UsageError
from websim_batch.sandbox import answers, wire
from websim_batch.sandbox.answers import Ask, BadRequest, Dialect, Route
from websim_batch.sandbox.clock import ServerClock
from websim_batch.sandbox.faults import FAIL_STATUSES, Fault, Faults
from websim_batch.sandbox.ledger import Arrival, Ledger
from websim_batch.sandbox.limiters import Ban, Limiter
from websim_batch.sandbox.misbehaviour import NAMED, Misbehaviour, Outage, Scripted, named
from websim_batch.sandbox.options import SandboxOptions

HOST = "127.0.0.1"
_BACKLOG = 4096
_KEEP_ALIVE_S = 3600.0
_LARGEST_BODY = 1 << 30
_GARBAGE = ("html", "empty", "cut_json", "error_in_200", "null_content")


class StandIn:
    """One server on one loop. `arrivals` is None unless every arrival is to be recorded."""

    def __init__(
        self, options: SandboxOptions, misbehaviour: Misbehaviour | None = None, is_recording: bool = False
    ) -> None:
        self._options = options
        self._misbehaviour = misbehaviour or Misbehaviour()
        self.clock = ServerClock(self._misbehaviour.time_scale)
        self.ledger = Ledger()
        self.arrivals: list[Arrival] | None = [] if is_recording else None
        self.limiter: Limiter = options.limiter()
        if self._misbehaviour.ban_s is not None:
            self.limiter = Ban(self.limiter, self._misbehaviour.ban_s)
        self._faults = Faults(options)
        self._outage: str | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._server: web.Server | None = None
        self._port = options.port

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Listens; gives the port. Raises UsageError if it is taken."""
        self._server = web.Server(
            self._handle,
            request_factory=_request,
            handler_cancellation=True,  # who goes away no longer counts as in flight
            access_log=None,
            keepalive_timeout=_KEEP_ALIVE_S,
        )
        await self._listen()
        assert self._listener is not None
        self._port = self._listener.sockets[0].getsockname()[1]
        return self._port

    async def stop(self) -> None:
        """Closes the port and every connection; requests that hang end without an answer."""
        for timer in self._timers:
            timer.cancel()
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            self._abort_connections()
            await self._server.shutdown(timeout=0.1)
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(0)

    async def begin_outage(self, kind: str) -> None:
        """From now on there is no service, in one of the ways of `Outage`."""
        self._outage = kind
        if kind == "refused" and self._listener is not None:
            self._listener.close()
            self._abort_connections()

    async def end_outage(self) -> None:
        """The service is back, on the same port."""
        if self._outage == "refused":
            await self._listen()
        self._outage = None

    async def _listen(self) -> None:
        assert self._server is not None
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(self._server, HOST, self._port, backlog=_BACKLOG)
        except OSError as exc:
            if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            what = "is taken" if exc.errno == errno.EADDRINUSE else "may not be opened by this user"
            remedy = "give another --port, or --port 0 for any free one"
            raise UsageError(f"Port {self._port} {what}: {remedy}") from exc

    def _abort_connections(self) -> None:
        assert self._server is not None
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    # -- requests --------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        route = answers.ROUTES.get(path)
        if route is None or request.method != "POST":
            return self._look(request, path, route)
        data = await request.read()
        try:
            ask: Ask | BadRequest = answers.understand(route, data)
        except BadRequest as exc:
            ask = exc
        digest = ask.hash if isinstance(ask, Ask) else blake2b(data, digest_size=8).digest()
        arrival = self._arrive(digest, ask.prompt if isinstance(ask, Ask) else "")
        status = 0
        try:
            scripted = self._decide(route, ask, digest, arrival)
            delay_s = scripted.delay_s if scripted else self._faults.latency_s(digest, arrival.attempt)
            if delay_s:
                await asyncio.sleep(self.clock.real(delay_s))
            response = await self._respond(request, ask, scripted)
            status = 0 if scripted is not None and scripted.status == 0 else response.status
        finally:
            arrival.status = status
            if arrival.attempt:
                self.limiter.release()
            self.ledger.leave(digest, status, status == 200 and scripted is None)
        return response

    def _arrive(self, digest: bytes, prompt: str) -> Arrival:
        at_s = self.clock.elapsed()
        sent = self.ledger.arrive(at_s, digest)
        for outage in self._misbehaviour.outages:
            if self.ledger.requests == (outage.after_requests or 1):
                self._plan(outage)
        arrival = Arrival(at_s, time.monotonic(), digest.hex(), prompt, sent)
        if self.arrivals is not None:
            self.arrivals.append(arrival)
        return arrival

    def _decide(
        self, route: Route, ask: Ask | BadRequest, digest: bytes, arrival: Arrival
    ) -> Scripted | None:
        """What the request gets instead of its answer, or None. Takes a permit if it lets it through."""
        plan = self._misbehaviour
        if self._outage is not None:
            return NAMED["reset" if self._outage == "refused" else self._outage]
        if plan.from_nth is not None and self.ledger.requests >= plan.from_nth[0]:
            return named(plan.from_nth[1])
        wait_s = self.limiter.admit(self.clock.now(), self._factor())
        if wait_s > 0:
            return self._refusal(route.dialect, wait_s)
        arrival.attempt = self.ledger.let_through(digest)
        if isinstance(ask, BadRequest):
            return Scripted(400, answers.error(route.dialect, 400, str(ask), ask.code))
        scripted = plan.scripted(ask.prompt, arrival.attempt)
        if scripted is not None:
            return scripted
        fault = self._faults.fault(digest, arrival.attempt)
        return self._faulty(fault, route.dialect, digest, arrival.attempt) if fault else None

    def _factor(self) -> float:
        factor = self._misbehaviour.factor
        if factor is None:
            return 1.0
        return factor(self.clock.elapsed() - (self.ledger.first_s or 0.0))

    def _refusal(self, dialect: Dialect, wait_s: float) -> Scripted:
        plan = self._misbehaviour
        base = named(plan.refusal)
        if base is None:
            body = answers.error(dialect, 429, "Rate limit exceeded", "rate_limit_exceeded")
            base = Scripted(429, body)
        if plan.retry_after is not None:
            extra = {"Retry-After": plan.retry_after}
        else:
            extra = wire.retry_after(self._options.retry_after, wait_s, self.clock.now())
            if dialect == "openai" and self._options.retry_after == "seconds":
                extra["Retry-After-Ms"] = str(math.ceil(wait_s * 1000))
        return replace(base, headers={**base.headers, **extra})

    def _faulty(self, fault: Fault, dialect: Dialect, digest: bytes, attempt: int) -> Scripted:
        """A drawn fault comes after the latency of the answer it replaces."""
        self.ledger.faults[fault] += 1
        if fault == "drop":
            scripted = NAMED["drop"]
        elif fault == "garbage":
            scripted = NAMED[_GARBAGE[self._faults.pick(len(_GARBAGE), digest, attempt)]]
        else:
            status = FAIL_STATUSES[self._faults.pick(len(FAIL_STATUSES), digest, attempt)]
            scripted = Scripted(status, answers.error(dialect, status, "Failed on purpose", "server_error"))
        return replace(scripted, delay_s=self._faults.latency_s(digest, attempt))

    async def _respond(
        self, request: web.BaseRequest, ask: Ask | BadRequest, scripted: Scripted | None
    ) -> web.Response:
        if scripted is not None:
            if scripted.mode == "hang":
                await asyncio.get_running_loop().create_future()  # ends with its connection
            return wire.respond(request, scripted, self._headers())
        assert isinstance(ask, Ask)
        body = answers.answer(ask, f"http://{request.host}")
        return web.Response(body=body, headers={**wire.JSON_HEADERS, **self._headers()})

    def _headers(self) -> dict[str, str]:
        """The headers that come with every answer."""
        plan = self._misbehaviour
        if plan.rate_headers is None:
            return dict(plan.headers)
        return {**wire.rate_headers(plan.rate_headers, self.limiter.state(self.clock.now())), **plan.headers}

    def _look(self, request: web.BaseRequest, path: str, route: Route | None) -> web.Response:
        """Everything but a request for an answer: never limited, never counted."""
        if route is not None:
            return _json(answers.error(route.dialect, 405, "Use POST", "method_not_allowed"), 405)
        if request.method in ("GET", "HEAD"):
            if path == "/__stats":
                return _json(answers.dumps(self.stats("brief" in request.query)))
            if path == "/v1/models":
                return _json(answers.models())
            if path.startswith(answers.IMAGE_PATH):
                picture = answers.image(path.removeprefix(answers.IMAGE_PATH))
                if picture is not None:
                    return web.Response(body=picture, content_type="image/png")
        return _json(
            answers.error("websim", 404, f"There is no {request.method} {path} here", "not_found"), 404
        )

    def stats(self, is_brief: bool = False) -> dict[str, Any]:
        """What `/__stats` tells; `first_arrival_at` is seconds since the epoch.

        Brief leaves out the counts per request and per 100 ms.
        """
        stats = self.ledger.summary() if is_brief else self.ledger.stats()
        first_s = self.ledger.first_s
        stats["first_arrival_at"] = None if first_s is None else self.clock.epoch + first_s
        if isinstance(self.limiter, Ban):
            stats["ban_hits"] = self.limiter.hits
        return stats

    # -- outages ---------------------------------------------------------------------------------------------

    def _plan(self, outage: Outage) -> None:
        loop = asyncio.get_running_loop()
        for delay_s, kind in ((outage.start_s, outage.kind), (outage.start_s + outage.for_s, None)):
            self._timers.append(loop.call_later(self.clock.real(delay_s), self._turn_outage, kind))

    def _turn_outage(self, kind: str | None) -> None:
        task = asyncio.ensure_future(self.end_outage() if kind is None else self.begin_outage(kind))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _request(*args: Any) -> web.BaseRequest:
    """A request whose body may be as large as prompts get; aiohttp's own limit is 1 MiB."""
    message, payload, protocol, writer, task = args
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_LARGEST_BODY)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, headers=wire.JSON_HEADERS)
