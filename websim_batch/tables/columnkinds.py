"""Which kinds of values the columns of a JSON Lines file have, and so how they stand in a table.

A column of one kind keeps it; one of several kinds is JSON text. Numbers keep their digits: a column is
int64 or double only if every number in it is written back as it was read (an integer up to 2^53 may stand
among fractions).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, TypeAlias

from websim_batch.tables.jsonlines import Member

TableKind: TypeAlias = Literal["text", "int", "float", "number", "bool", "json"]

_INT64 = 1 << 63
_EXACT_IN_DOUBLE = 1 << 53


class Kinds:
    """What was seen in each column."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, set[str]] = defaultdict(set)

    def see(self, members: Iterable[Member]) -> None:
        """Note the values of one row."""
        for member in members:
            self._seen[member.key].add(_kind_of(member))

    def of(self, name: str) -> TableKind:
        """How the column stands in a table."""
        seen = self._seen.get(name, set()) - {"null"}
        if seen <= {"text"}:
            return "text"
        if seen == {"bool"}:
            return "bool"
        if seen <= {"int", "long"}:
            return "int"
        if seen <= {"int", "float"}:
            return "float"
        if seen <= {"int", "long", "float", "number"}:
            return "number"
        return "json"


def column_text(member: Member, is_json: bool) -> str | None:
    """The text of a value in a table: null is None, a text itself, all else as the file has it."""
    if member.value is None:
        return None
    if isinstance(member.value, str) and not is_json:
        return member.value
    return member.text


def _kind_of(member: Member) -> str:
    value = member.value
    if value is None:
        return "null"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if str(value) != member.text or not -_INT64 <= value < _INT64:
            return "number"
        return "int" if abs(value) <= _EXACT_IN_DOUBLE else "long"
    if isinstance(value, float):
        return "float" if repr(value) == member.text else "number"
    return "nested"
