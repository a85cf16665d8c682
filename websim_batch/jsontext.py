"""JSON to and from bytes: orjson's speed, without what it loses in silence.

orjson writes NaN as `null`, and refuses integers beyond 64 bits and lone surrogates; it refuses to read an
escaped lone surrogate. Here NaN is an error, the others are written and read as JSON allows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import orjson

from websim_batch.records import Json, NumberText

_OPTIONS = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)


class _UnusualError(Exception):
    """A value that orjson cannot write faithfully; the slow encoder looks at it."""


def dumps(value: Json) -> bytes:
    """Compact UTF-8 JSON; a `NumberText` is written as the number it spells.

    Raises ValueError for NaN and infinities, TypeError for what is no JSON value.
    """
    try:
        text = orjson.dumps(value, default=_number_text, option=_OPTIONS)
    except TypeError:  # orjson.JSONEncodeError is one: big integers, lone surrogates, foreign types
        return _encode(value).encode()
    # NaN comes out as null; only a text that holds that word needs the second look.
    return _encode(value).encode() if b"null" in text else text


def _number_text(value: Any) -> orjson.Fragment:
    if isinstance(value, NumberText):
        return orjson.Fragment(str(value))
    raise _UnusualError


def _encode(value: Any) -> str:
    """The slow way, exact for every JSON value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        is_number = isinstance(value, NumberText)
        return str(value) if is_number else json.dumps(value, ensure_ascii=not _is_clean(value))
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no JSON number")
        return float.__repr__(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(name)}:{_encode(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_encode, value)) + "]"
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the key {name!r} of a JSON object is no text")
    return _encode(str(name))


def _is_clean(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def loads(body: bytes) -> Json:
    """The value that `body` spells.

    Lone surrogates and broken UTF-8 become U+FFFD. Raises ValueError for no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.decode("utf-8-sig", "replace")
    try:
        return _clean(json.loads(text))
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value if _is_clean(value) else clean_text(value)
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def clean_text(text: str) -> str:
    """`text` with every lone surrogate replaced by U+FFFD, so that it can be written as UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
