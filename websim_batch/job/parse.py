"""Turn what a user wrote into a typed value: one parser per kind of option, for all doors.

Each parser takes text (command line), TOML values or Python values, takes its own result too, and raises
ValueError with what was found and what to write instead.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, time, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from websim_batch.records import ERROR_TYPES, Ceiling, Json, Share

_RATE = re.compile(r"(\d+)\s*/\s*(s|min|h)")
_WINDOWS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SHARE = re.compile(r"(\d+)|(\d+(?:\.\d+)?)\s*%")
_TIME_OF_DAY = re.compile(r"\d?\d:\d\d")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def text(value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    if not value:
        raise ValueError("is empty; leave it out to say nothing")
    return value


def any_text(value: object) -> str:
    """A text, which may be empty."""
    return "" if value == "" else text(value)


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def count(value: object) -> int:
    """A whole number from 1."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a whole number from 1 on")
    return value


def duration(value: object) -> float:
    """Seconds, more than none, from `90`, `90s`, `2h`, `1h30m`, `1d` or a number."""
    seconds = wait(value)
    if seconds <= 0:
        raise ValueError(f"{value!r} is no time at all")
    return seconds


def wait(value: object) -> float:
    """Seconds, perhaps none, in the forms of `duration`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    if isinstance(value, timedelta):
        return wait(value.total_seconds())
    written = value.strip().lower() if isinstance(value, str) else ""
    if _NUMBER.fullmatch(written):
        return float(written)
    found = _DURATION.fullmatch(written)
    if not found or not any(found.groups()):
        raise ValueError(f"{value!r} is not a duration; write seconds, or like 90s, 2h, 1h30m")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def deadline(value: object, now: datetime | None = None) -> datetime:
    """A moment with its zone: `HH:MM` is the next one in local time, else ISO 8601; `now` is for tests."""
    now = (now or datetime.now()).astimezone()
    moment = _clock_time(value, now) or _iso_time(value)
    if moment <= now:
        raise ValueError(f"{value!s} is in the past")
    return moment


def _clock_time(value: object, now: datetime) -> datetime | None:
    if isinstance(value, str):
        try:
            value = time.fromisoformat(value.zfill(5)) if _TIME_OF_DAY.fullmatch(value) else None
        except ValueError:
            raise ValueError(f"{value!r} is not a time of day; write HH:MM") from None
    if not isinstance(value, time):
        return None
    # The wall clock decides, not 24 h from now: a day with a change of the hour has 23 or 25.
    today = datetime.combine(now.date(), value).astimezone()
    return today if today > now else datetime.combine(now.date() + timedelta(days=1), value).astimezone()


def _iso_time(value: object) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone()
    try:
        return datetime.fromisoformat(str(value)).astimezone()
    except ValueError:
        raise ValueError(
            f"{value!r} is not a time; write HH:MM (the next one) or ISO 8601 as 2030-01-31T06:30"
        ) from None


def share(value: object) -> Share:
    """A number of rows, `5`, or a share of them, `5%`."""
    if isinstance(value, Share):
        return value
    found = None if isinstance(value, (bool, float)) else _SHARE.fullmatch(str(value).strip())
    if not found or float(found[2] or 0) > 100:
        raise ValueError(f"{value!r} is neither a number of rows (5) nor a share of them (5%)")
    return Share(count=int(found[1])) if found[1] else Share(percent=float(found[2]))


def rates(value: object) -> tuple[Ceiling, ...]:
    """One ceiling or several of different windows, each like `10/s`, `60/min`, `500/h`."""
    found = tuple(_rate(item) for item in items(value))
    if len({ceiling.window_s for ceiling in found}) < len(found):
        told = " and ".join(str(ceiling) for ceiling in found)
        raise ValueError(f"{told} limit the same window; give the smaller one alone")
    return found


def _rate(value: object) -> Ceiling:
    if isinstance(value, Ceiling):
        return value
    found = _RATE.fullmatch(str(value).strip())
    if not found or int(found[1]) == 0:
        hint = f"; perhaps {value}/s or {value}/min" if str(value).isdigit() and value != "0" else ""
        raise ValueError(f"{value!r} is not a rate; write N/s, N/min or N/h with a whole N from 1 on{hint}")
    return Ceiling(limit=int(found[1]), window_s=_WINDOWS_S[found[2]])


def items(value: object) -> tuple[object, ...]:
    """One value or several, as a tuple."""
    return tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)


def names(value: object) -> tuple[str, ...]:
    """One name or several, each once."""
    return tuple(dict.fromkeys(text(item) for item in items(value)))


def error_types(value: object) -> tuple[str, ...] | None:
    """The error types to retry: True or an empty text for all of them (), False for none at all (None)."""
    if value is False or value is None:
        return None
    if value is True or value == "":
        return ()
    written = [part.strip() for item in items(value) for part in text(item).split(",")]
    for name in written:
        if name not in ERROR_TYPES:
            raise ValueError(f"{name!r} is no error type{nearest(name, ERROR_TYPES)}")
    return tuple(dict.fromkeys(written))


def params(value: object) -> dict[str, Json]:
    """Request fields by name, from a mapping or from texts `NAME=JSON`."""
    if isinstance(value, Mapping):
        return {text(name): item for name, item in value.items()}
    found: dict[str, Json] = {}
    for item in items(value):
        name, sign, written = text(item).partition("=")
        if not sign or not name:
            raise ValueError(f"{item!r} is not NAME=JSON; write like seed=7")
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = _json_value(name, written)
    return found


def _json_value(name: str, written: str) -> Json:
    try:
        return json.loads(written, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError(
            f"{written!r} is not JSON; a text needs its quotes: {name}='{json.dumps(written)}'"
        ) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def headers(value: object) -> tuple[tuple[str, str], ...]:
    """Headers from a mapping or from texts `Name: value`; an empty value takes ours away."""
    pairs: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        pairs = value.items()
    else:
        pairs = [item if isinstance(item, tuple) else _split_header(item) for item in items(value)]
    found = tuple(_header(name, written) for name, written in pairs)
    seen = [name.lower() for name, _ in found]
    twice = next((name for name in seen if seen.count(name) > 1), None)
    if twice:
        raise ValueError(f"the header {twice!r} is given twice")
    return found


def _split_header(item: object) -> tuple[str, str]:
    name, colon, written = text(item).partition(":")
    if not colon:
        raise ValueError(f"{item!r} is not 'Name: value'")
    return name, written


def _header(name: object, written: object) -> tuple[str, str]:
    name, value = text(name).strip(), any_text(written).strip()
    if not _TOKEN.fullmatch(name):
        hint = "; leave out the semicolon, it is curl's notation" if name.endswith(";") else ""
        raise ValueError(f"{name!r} is no legal header name{hint}")
    if any(ord(letter) < 32 and letter != "\t" for letter in value):
        raise ValueError(f"the value of the header {name!r} holds a line break or control character")
    return name, value


def header_name(value: object) -> str:
    """One legal header name."""
    return _header(value, "")[0]


def http_url(value: object) -> str:
    """An absolute http or https URL without query, without a slash at its end."""
    written = text(value)
    if not _is_http(written):
        raise ValueError(f"{_scheme(written)} is not an http:// or https:// URL with a host")
    if "?" in written or "#" in written:
        raise ValueError("holds a query or a fragment; give the address alone")
    return written.rstrip("/")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False


def _scheme(url: str) -> str:
    # A URL may hold a password, so a message shows its scheme alone.
    scheme, sign, _ = url.partition("://")
    return f"'{scheme}://…'" if sign else repr(url)


def delimiter(value: object) -> str:
    """One character that parts the cells of a line; `\\t` and `tab` mean a tabulator."""
    written = {"\\t": "\t", "tab": "\t"}.get(text(value).lower(), text(value))
    if len(written) != 1 or written in '"\r\n':
        raise ValueError(f"{value!r} is not one character such as ',' ';' or '\\t'")
    return written


def encoding(value: object) -> str:
    """The name of a text encoding that Python knows."""
    import codecs

    try:
        is_text = codecs.lookup(text(value))._is_text_encoding
    except LookupError:
        is_text = False
    if not is_text:
        raise ValueError(f"{value!r} is no text encoding; write like utf-8, cp1251, latin-1, utf-16")
    return text(value)


def choice(*allowed: str) -> Callable[[object], str]:
    """A parser that takes one of the `allowed` words."""

    def parse(value: object) -> str:
        if value not in allowed:
            raise ValueError(f"{value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}")
        return str(value)

    return parse


def path(value: object, base: Path) -> Path:
    """A path, counted from the folder `base` if it is relative."""
    written = value if isinstance(value, Path) else Path(text(value)).expanduser()
    if "\0" in str(written):
        raise ValueError("holds a NUL character")
    # `jobs/../out` is told as `out`: from the folder's name as the user wrote it, links or not.
    return Path(os.path.normpath(base / written)) if base.parts else written


def template(value: object, base: Path) -> str:
    """The text of a template; `@FILE` is read as UTF-8, counted from `base`."""
    written = text(value)
    if not written.startswith("@"):
        return written
    file = path(written[1:], base)
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ValueError(f"{file} is not UTF-8 (byte {exc.start})") from None
    except OSError as exc:
        raise ValueError(f"{file} cannot be read: {(exc.strerror or 'failed').lower()}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'X'?` for the known name that is most like `name`, or nothing."""
    import difflib

    known = list(known)
    folded = {other.casefold(): other for other in reversed(known)}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""
