"""What a server says of its limits: Retry-After and the rate headers. Pure; malformed values are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping

from websim_batch.records import RateHint

_SECONDS = re.compile(r"\d{1,15}(?:\.\d{0,12})?|\.\d{1,12}", re.ASCII)
_COUNT = re.compile(r"\d{1,15}", re.ASCII)
_DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII
)
_LONGEST_S = 31 * 86400.0
_EPOCH_FROM = 1e9  # a reset time beyond this is a date in seconds, beyond a thousand times it in milliseconds
_USUAL_WINDOWS_S = (1.0, 60.0, 3600.0, 86400.0)

_IETF = "ratelimit"
_IETF_LIMIT = "ratelimit-limit"
_IETF_POLICY = "ratelimit-policy"
_X_REQUESTS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
_X_PLAIN = (
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"),
)
_TELLING = frozenset({_IETF, _IETF_LIMIT, _IETF_POLICY, _X_REQUESTS[0], *(names[0] for names in _X_PLAIN)})


def retry_after_s(headers: Mapping[str, str], wall_clock_s: float) -> float | None:
    """Seconds to wait at least, from the answer's arrival; None if nothing sensible is said.

    `retry-after-ms` is finer and wins. An HTTP date is measured by the server's own clock (its `Date` header)
    where there is one; since both are cut to the second, one second is added. A past date means now.
    """
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and (value := _seconds(milliseconds)) is not None:
        return value / 1000
    text = headers.get("retry-after")
    if text is None:
        return None
    if (value := _seconds(text)) is not None:
        return value
    until = _date(text)
    if until is None:
        return None
    now = _date(headers.get("date", ""))
    left = until - (wall_clock_s if now is None else now)
    return left + 1.0 if left >= 0 else 0.0


def rate_hint(headers: Mapping[str, str], wall_clock_s: float) -> RateHint | None:
    """The rate limit that the answer's headers state, or None; the most specific family of headers wins."""
    if _TELLING.isdisjoint(headers):  # as nearly every answer
        return None
    if _IETF_LIMIT in headers or _IETF in headers or _IETF_POLICY in headers:
        return _checked(_ietf(headers))
    if _X_REQUESTS[0] in headers:
        return _checked(_x_requests(headers))
    for names in _X_PLAIN:
        if names[0] in headers:
            return _checked(_x_plain(headers, names, wall_clock_s))
    return None


def _checked(hint: RateHint) -> RateHint | None:
    """None for a hint that tells no limit and nothing left."""
    return None if hint.limit is None and hint.remaining is None else hint


def _ietf(headers: Mapping[str, str]) -> RateHint:
    """Any draft of the IETF's fields.

    `RateLimit-Limit: 60;w=60`; `RateLimit: limit=60, remaining=9, reset=5`; `RateLimit: "name";r=9;t=5` with
    `RateLimit-Policy: "name";q=60;w=60`.
    """
    policy = _pairs(headers.get(_IETF_POLICY, ""))
    state = _pairs(headers.get(_IETF, ""))
    limit_field = _pairs(headers.get(_IETF_LIMIT, ""))
    limit = _first(state.get("limit"), limit_field.get(""), policy.get("q"), policy.get(""))
    remaining = _first(state.get("r"), state.get("remaining"), headers.get("ratelimit-remaining"))
    reset = _first(state.get("t"), state.get("reset"), headers.get("ratelimit-reset"))
    return RateHint(
        limit=_limit(limit),
        window_s=_window(_first(policy.get("w"), limit_field.get("w"))),
        remaining=_count(remaining),
        reset_s=_seconds(reset),
    )


def _pairs(text: str) -> dict[str, str]:
    """The first value of each name; the first bare number, if there is one, under the empty name."""
    pairs: dict[str, str] = {}
    for part in re.split(r"[;,]", text[:500]):
        name, equals, value = part.strip().partition("=")
        if equals:
            pairs.setdefault(name.strip().lower(), value.strip().strip('"'))
        elif _COUNT.fullmatch(name):
            pairs.setdefault("", name)
    return pairs


def _x_requests(headers: Mapping[str, str]) -> RateHint:
    """The hosted OpenAI's fields, whose reset is the time until the whole limit is there again (`6m0s`)."""
    limit, remaining = _limit(headers.get(_X_REQUESTS[0])), _count(headers.get(_X_REQUESTS[1]))
    reset = _duration(headers.get(_X_REQUESTS[2], ""))
    return RateHint(limit, _refill_window(limit, remaining, reset), remaining, reset)


def _refill_window(limit: int | None, remaining: int | None, reset_s: float | None) -> float | None:
    """The window by limit / used * the time that refills what was used: 1 of 60 in 1 s is 60 a minute.

    Only where that comes close to a usual window: of a rounded time no rate can be made.
    """
    if limit is None or remaining is None or not reset_s or remaining >= limit:
        return None
    window = reset_s * limit / (limit - remaining)
    return next((usual for usual in _USUAL_WINDOWS_S if abs(window - usual) <= 0.2 * usual), None)


def _x_plain(headers: Mapping[str, str], names: tuple[str, str, str], wall_clock_s: float) -> RateHint:
    reset = _duration(headers.get(names[2], ""))
    if reset is None and (stamp := _number(headers.get(names[2]))) is not None:
        now = _date(headers.get("date", ""))
        seconds = stamp / 1000 if stamp > _EPOCH_FROM * 1000 else stamp
        reset = _bounded(max(0.0, seconds - (wall_clock_s if now is None else now)))
    return RateHint(
        limit=_limit(_pairs(headers.get(names[0], "")).get("")),
        window_s=_window(_pairs(headers.get(names[0], "")).get("w")),
        remaining=_count(headers.get(names[1])),
        reset_s=reset,
    )


def _first(*texts: str | None) -> str | None:
    return next((text for text in texts if text is not None), None)


def _number(text: str | None) -> float | None:
    """A plain number without a sign or an exponent."""
    text = (text or "").strip()
    return float(text) if _SECONDS.fullmatch(text) else None


def _seconds(text: str | None) -> float | None:
    value = _number(text)
    return None if value is None or value >= _EPOCH_FROM else value


def _duration(text: str) -> float | None:
    """`1s`, `6m0s`, `20ms`, `1d2h`, or plain seconds."""
    text = text.strip()
    match = _DURATION.fullmatch(text)
    if match is None or not text or len(text) > 40:
        value = _seconds(text)
    else:
        days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
        value = days * 86400 + hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    return None if value is None else _bounded(value)


def _bounded(value: float) -> float | None:
    return value if value <= _LONGEST_S else None


def _count(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if _COUNT.fullmatch(text) else None


def _limit(text: str | None) -> int | None:
    return _count(text) or None


def _window(text: str | None) -> float | None:
    value = _number(text)
    return value if value and value <= _LONGEST_S else None


def _date(text: str) -> float | None:
    """An HTTP date in any of its three forms, in seconds since the epoch."""
    from email.utils import mktime_tz, parsedate_tz  # here, because it takes 20 ms and few runs need it

    try:
        parts = parsedate_tz(text)
        return None if parts is None or parts[0] > 9999 else float(mktime_tz(parts))
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
