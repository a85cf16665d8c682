"""Single lines of JSON: objects that stay open at the end, and taking them apart without losing a digit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json import decoder
from typing import Any, NamedTuple, cast

import orjson

from websim_batch import jsontext
from websim_batch.records import Json

_SPACE = " \t\n\r"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


# The C functions behind json.loads: (text, place) -> (value, place after it).
_scan = cast(Any, json.JSONDecoder(parse_constant=_no_constant)).scan_once
_scan_string = cast(Any, decoder).scanstring


class Member(NamedTuple):
    """One member of a JSON object: its key, its value, and the value's text as the line has it."""

    key: str
    value: Json
    text: str


def dump_open(row: Mapping[str, Json]) -> bytes:
    """`row` as compact JSON without the closing brace; lone surrogates become U+FFFD."""
    try:
        return orjson.dumps(row)[:-1]
    except TypeError:
        cleaned = {jsontext.clean_text(key): _clean(value) for key, value in row.items()}
        return jsontext.dumps(cleaned)[:-1]


def _clean(value: Json) -> Json:
    return jsontext.clean_text(value) if isinstance(value, str) else value


def split_object(text: str) -> list[Member] | None:
    """The members of the object that `text` spells, in order, repeated keys too; None if it is no object.

    Raises ValueError if it is no JSON.
    """
    try:
        at = _after_space(text, 0)
        if text[at : at + 1] != "{":
            _, at = _scan(text, at)
            members = None
        else:
            members, at = _members(text, at + 1)
    except StopIteration as exc:
        raise ValueError(f"no value at character {exc.value + 1}") from exc
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if _after_space(text, at) != len(text):
        raise ValueError("more text after the value")
    return members


def _members(text: str, at: int) -> tuple[list[Member], int]:
    members: list[Member] = []
    at = _after_space(text, at)
    if text[at : at + 1] == "}":
        return members, at + 1
    while True:
        key, at = _scan_string(text, _expect(text, at, '"'), True)
        start = _after_space(text, _expect(text, _after_space(text, at), ":"))
        value, end = _scan(text, start)
        members.append(Member(key, value, text[start:end]))
        at = _after_space(text, end)
        if text[at : at + 1] == "}":
            return members, at + 1
        at = _after_space(text, _expect(text, at, ","))


def _expect(text: str, at: int, char: str) -> int:
    if text[at : at + 1] != char:
        raise ValueError(f"{char} expected at character {at + 1}")
    return at + 1


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at
