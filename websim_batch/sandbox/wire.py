"""Writes answers, whole or broken on purpose, with aiohttp.web; and the headers that tell a limit."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web

from websim_batch.sandbox.limiters import LimitState
from websim_batch.sandbox.misbehaviour import RateHeaders, Scripted

JSON_HEADERS: Mapping[str, str] = {"Content-Type": "application/json"}
_CHUNK_MISSING = 64


def respond(request: web.BaseRequest, scripted: Scripted, headers: Mapping[str, str]) -> web.Response:
    """The answer as scripted, with `headers` beside its own; a broken one is written when this returns."""
    if scripted.mode == "answer":
        return web.Response(
            status=scripted.status, body=scripted.body, headers={**headers, **scripted.headers}
        )
    if scripted.mode == "bad_gzip":
        labelled = {**headers, **scripted.headers, "Content-Encoding": "gzip"}
        return web.Response(status=scripted.status, body=scripted.body, headers=labelled)
    if scripted.mode in ("drop", "hang", "reset"):
        return break_off(request, with_reset=scripted.mode == "reset")
    return _broken(request, scripted, headers)


def break_off(request: web.BaseRequest, with_reset: bool = False) -> web.Response:
    """Ends the connection without an answer; what is returned never reaches the wire."""
    transport = request.transport
    if transport is not None:
        if with_reset:
            peer = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


def _broken(request: web.BaseRequest, scripted: Scripted, headers: Mapping[str, str]) -> web.Response:
    """Bytes that no HTTP library would write; then the connection is closed."""
    body = scripted.body
    length = len(body)
    if scripted.mode == "cut":
        body = body[: length // 2]
    elif scripted.mode == "too_long":
        length += _CHUNK_MISSING
    else:
        length = max(0, length - length // 2)
    lines = [f"HTTP/1.1 {scripted.status} {HTTPStatus(scripted.status).phrase}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in {**headers, **scripted.headers}.items()]
    transport = request.transport
    if transport is not None:
        transport.write("\r\n".join((*lines, "", "")).encode() + body)
        transport.close()
    return web.Response()


def retry_after(form: str, wait_s: float, now: float) -> dict[str, str]:
    """The headers of a refusal that ends in `wait_s` seconds, in one of the option's forms."""
    if form == "seconds":
        return {"Retry-After": str(max(1, _ceil(wait_s)))}
    if form == "date":
        # Both are cut to the second, as on real servers.
        return {"Retry-After": http_date(now + wait_s), "Date": http_date(now)}
    return {}


def http_date(now: float) -> str:
    """Seconds since the epoch as an HTTP date, cut to the second."""
    return formatdate(int(now), usegmt=True)


def rate_headers(form: RateHeaders, state: LimitState) -> dict[str, str]:
    """A limit's state in one of the ways in which servers tell it."""
    limit, window_s, remaining, reset_s = state
    values = (str(limit), str(remaining), str(_ceil(reset_s)))
    if form == "x-ratelimit":
        names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    elif form == "ratelimit-03":
        names = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
    elif form == "openai":
        names = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
        values = (str(limit), str(remaining), _duration(reset_s))
    else:
        policy = f'"default";q={limit};w={_ceil(window_s)}'
        return {"RateLimit-Policy": policy, "RateLimit": f'"default";r={remaining};t={values[2]}'}
    return dict(zip(names, values, strict=True))


def _duration(seconds: float) -> str:
    """`6m0s`, `1.5s` or `20ms`, as the hosted OpenAI service writes it."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.0f}s" if minutes else f"{rest:.3g}s"


def _ceil(seconds: float) -> int:
    return int(-(-seconds // 1))
