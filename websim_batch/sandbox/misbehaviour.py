"""What a stand-in can do wrong beyond its options, each by a name; for tests.

Misbehaviour(by_prompt={"slow": "hang", "flaky": ["500", "reset", None]})      None: the usual answer
Misbehaviour(factor=steps((30, 0.3)), time_scale=20)        0.3 of the capacity from then on
Misbehaviour(outages=(Outage("refused", start_s=5, for_s=60),))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["answer", "hang", "drop", "reset", "cut", "too_long", "too_short", "bad_gzip"]
"""How an answer reaches the wire. answer: whole. hang: never. drop: the connection is closed without a word;
reset: with a TCP reset. cut: half of the body, then closed. too_long: Content-Length says more than is there,
then closed; too_short: less. bad_gzip: labelled gzip and is none."""

RateHeaders: TypeAlias = Literal["x-ratelimit", "openai", "ratelimit", "ratelimit-03"]

_JSON = {"Content-Type": "application/json"}
_HTML = {"Content-Type": "text/html; charset=utf-8"}
_PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Wait</body></html>"


@dataclass(frozen=True, slots=True)
class Scripted:
    """One answer word for word; `delay_s` is server seconds before it."""

    status: int = 200
    body: bytes = b'{"content": "scripted"}'
    headers: Mapping[str, str] = field(default_factory=lambda: _JSON)
    mode: Mode = "answer"
    delay_s: float = 0.0


def _error(status: int, message: str, **headers: str) -> Scripted:
    return Scripted(status, b'{"error": "%s"}' % message.encode(), _JSON | headers)


_STATUSES = (400, 401, 402, 403, 404, 407, 408, 413, 422, 425, 429, 500, 502, 503, 504, 520, 524, 529)

NAMED: Mapping[str, Scripted] = {
    **{str(status): _error(status, f"scripted {status}") for status in _STATUSES},
    "hang": Scripted(mode="hang", status=0),
    "drop": Scripted(mode="drop", status=0),
    "reset": Scripted(mode="reset", status=0),
    "cut": Scripted(mode="cut"),
    "too_long": Scripted(mode="too_long"),
    "too_short": Scripted(mode="too_short"),
    "bad_gzip": Scripted(mode="bad_gzip"),
    "empty": Scripted(body=b""),
    "html": Scripted(body=_PAGE, headers=_HTML),
    "challenge": Scripted(403, _PAGE, _HTML | {"cf-mitigated": "challenge"}),
    "cut_json": Scripted(body=b'{"content": "half an ans'),
    "error_in_200": Scripted(body=b'{"error": "it went wrong"}'),
    "limit_in_words": _error(403, "Rate limit exceeded"),
    "no_content": Scripted(body=b'{"id": 1}'),
    "null_content": Scripted(body=b'{"content": null, "url": null}'),
    "number_content": Scripted(body=b'{"content": 7, "url": 7}'),
    "list": Scripted(body=b'["content"]'),
    "plain_text": Scripted(body=b"  a plain answer \n", headers={"Content-Type": "text/plain"}),
    "surrogate": Scripted(body=b'{"content": "lone \\ud800 surrogate"}'),
    "broken_error": Scripted(500, b'{"error": {"message', _JSON),
    "error_object": Scripted(400, b'{"error": {"message": "no such thing", "code": "bad"}}', _JSON),
    "error_list": Scripted(400, b'["no", "such", "thing"]', _JSON),
    "policy": Scripted(
        400, b'{"error": {"message": "rejected by our safety system", "code": "content_policy"}}'
    ),
    "quota": Scripted(429, b'{"error": {"message": "your quota is used up", "code": "insufficient_quota"}}'),
    "redirect": Scripted(301, b"", {"Location": "https://elsewhere.invalid/api"}),
}
"""Scripted answers by name."""

Script: TypeAlias = str | Scripted | None
"""A name out of NAMED, an answer, or None for what the server would do anyhow."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without service, `start_s` server seconds after the first request, or after the n-th.

    503: every request is answered so. refused: the port is closed and standing connections break. reset:
    requests are answered with a TCP reset. hang: never.
    """

    kind: Literal["503", "refused", "reset", "hang"]
    for_s: float
    start_s: float = 0.0
    after_requests: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """All of a stand-in's misbehaviours; times are server seconds, which pass `time_scale` times as fast as
    ours.

    `factor` multiplies the capacity, by the seconds since the first arrival. `ban_s`: who is refused is
    banned that long, and longer by knocking. `retry_after` is a fixed text for refusals; `refusal` replaces
    the 429 itself. `headers` come with every answer. `every` answers all requests, `from_nth` those from the
    n-th on (n, what), `by_prompt` those about a prompt: always, or attempt by attempt and then as usual;
    `script` decides by (prompt, attempt).
    """

    time_scale: float = 1.0
    factor: Callable[[float], float] | None = None
    ban_s: float | None = None
    outages: tuple[Outage, ...] = ()
    rate_headers: RateHeaders | None = None
    retry_after: str | None = None
    refusal: Script = None
    headers: Mapping[str, str] = field(default_factory=dict)
    every: Script = None
    from_nth: tuple[int, Script] | None = None
    by_prompt: Mapping[str, Script | Sequence[Script]] = field(default_factory=dict)
    script: Callable[[str, int], Script] | None = None

    def scripted(self, prompt: str, attempt: int) -> Scripted | None:
        """What this attempt (from 1) is answered by script, or None."""
        found = self.by_prompt.get(prompt)
        if found is not None and not isinstance(found, str | Scripted):
            found = found[attempt - 1] if attempt <= len(found) else None
        if found is None and self.script is not None:
            found = self.script(prompt, attempt)
        return named(found if found is not None else self.every)


def named(script: Script) -> Scripted | None:
    """The answer a script means. Raises KeyError for a name that is not in NAMED."""
    return NAMED[script] if isinstance(script, str) else script


def steps(*changes: tuple[float, float]) -> Callable[[float], float]:
    """A capacity factor that is 1.0 first and `factor` from each (seconds, factor) on; in order of time."""

    def factor(elapsed_s: float) -> float:
        now = 1.0
        for start_s, value in changes:
            if elapsed_s >= start_s:
                now = value
        return now

    return factor


def drift(start_s: float, end_s: float, last: float) -> Callable[[float], float]:
    """A capacity factor that goes evenly from 1.0 at `start_s` to `last` at `end_s`."""

    def factor(elapsed_s: float) -> float:
        share = min(1.0, max(0.0, (elapsed_s - start_s) / (end_s - start_s)))
        return 1.0 + share * (last - 1.0)

    return factor
