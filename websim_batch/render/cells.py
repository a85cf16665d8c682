"""Values of cells: what they say as a text, and as a request field of a given type."""

from __future__ import annotations

import json
import math
import re
from datetime import date, time
from decimal import Decimal
from typing import Any

from websim_batch.providers import FieldType
from websim_batch.records import Json, NumberText

_INTEGER = re.compile(r"[+-]?[0-9]+")


class BadCellError(ValueError):
    """A cell that no request can be made of; `kind` is short and stable.

    The row fails, or, if it is structural, the file is refused.
    """

    def __init__(
        self, kind: str, message: str, column: str | None = None, is_structural: bool = False
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.column = column
        self.is_structural = is_structural


def text_of(value: Any) -> str:
    """The text that a cell says, as its file wrote it; "" for null; raises BadCellError for no text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(finite(value)))
    if isinstance(value, (int, Decimal)):
        return str(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    raise BadCellError("not_text", f"holds {_a(value)}, where a text is wanted")


def finite(value: float) -> float:
    """The same number; raises BadCellError for NaN and the infinities, which JSON does not know."""
    if not math.isfinite(value):
        raise BadCellError("not_a_number", f"holds {value}, which JSON cannot say; leave the cell empty")
    return value


def is_empty(value: Any) -> bool:
    """Whether a cell says nothing: null or the empty text; a blank says something."""
    return value is None or (isinstance(value, str) and not value)


def field_of(value: Any, kind: FieldType | None) -> Json:
    """A cell that is not empty as a request field; None as type: JSON if it is JSON, else text.

    Raises BadCellError for a value that is not of the type.
    """
    if isinstance(value, float):
        finite(value)
    if kind is None:
        return _guess(value)
    if kind == "text":
        return text_of(value)
    if kind == "json":
        return json_of(value) if _is_plain_text(value) else value
    found = {"int": _integer, "number": _number, "bool": _boolean}[kind](value)
    if found is None:
        wanted = {"int": "a whole number", "number": "a number", "bool": "true or false"}[kind]
        raise BadCellError("bad_field", f"holds {_a(value)}, where {wanted} is wanted")
    return found


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    return int(value) if value == int(value) else None


def _number(value: Any) -> int | float | None:
    whole = _integer(value)
    if whole is not None and not isinstance(value, float):
        return whole
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())


def json_of(text: str) -> Json:
    """The value that a JSON text spells, numbers with all their digits; raises BadCellError."""
    try:
        return json.loads(text, parse_float=NumberText, parse_constant=_refuse)
    except RecursionError:
        raise BadCellError("bad_json", "holds JSON that is nested too deeply") from None
    except ValueError as exc:
        raise BadCellError("bad_json", f"is not JSON: {exc}") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _guess(value: Any) -> Json:
    if not _is_plain_text(value):
        return value if isinstance(value, (bool, int, float, list, dict, NumberText)) else text_of(value)
    try:
        return json_of(value)
    except BadCellError:
        return value


def _is_plain_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, NumberText)


def _a(value: Any) -> str:
    """What a value is, for a message: short texts themselves, else their type."""
    if isinstance(value, (str, int, float)) and len(str(value)) <= 40:
        return repr(value)
    named = ((str, "a long text"), (list, "a list"), (dict, "an object"), (bytes, "bytes"))
    return next((name for kind, name in named if isinstance(value, kind)), "something else")
