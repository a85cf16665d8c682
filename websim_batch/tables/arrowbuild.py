"""Arrow arrays out of Python values by their buffers.

`pa.array` imports pandas at its first call, half a second and 50 MB; buffers need nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import pyarrow as pa

from websim_batch.jsontext import clean_text
from websim_batch.records import OUTPUT_COLUMNS, OutputCells

Values: TypeAlias = Sequence[Any]

_OUR_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "timestamp": pa.timestamp("us", "UTC"),
}
_CODES = {
    pa.int16(): "h",
    pa.int32(): "i",
    pa.int64(): "q",
    pa.timestamp("us", "UTC"): "q",
    pa.float64(): "d",
}
_SPANS = {"h": 1 << 15, "i": 1 << 31, "q": 1 << 63}


def our_fields(names: Sequence[str]) -> list[Any]:
    """The fields of our columns under `names`: one schema from the first row to the last."""
    return [pa.field(name, _OUR_TYPES[kind]) for name, (_, kind) in zip(names, OUTPUT_COLUMNS, strict=True)]


def our_arrays(rows: Sequence[OutputCells]) -> list[Any]:
    """Our columns of these rows."""
    types = (_OUR_TYPES[kind] for _, kind in OUTPUT_COLUMNS)
    return [build(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]


def text_schema(names: Sequence[str]) -> pa.Schema:
    """Columns that are all text."""
    return pa.schema([pa.field(name, pa.large_string()) for name in names])


def text_batch(schema: pa.Schema, columns: Sequence[Values]) -> pa.RecordBatch:
    """Columns of str as a batch."""
    return pa.RecordBatch.from_arrays([build(values, pa.large_string()) for values in columns], schema=schema)


def build(values: Values, kind: pa.DataType) -> Any:
    """An array of `values`, None being null; numbers beyond the type's range become its end."""
    nulls = values.count(None)
    mask = _mask(values) if nulls else None
    if kind == pa.bool_():
        return pa.Array.from_buffers(kind, len(values), [mask, _bits(list(map(bool, values)))], nulls)
    if kind in (pa.string(), pa.large_string()):
        return _text(values, kind, mask, nulls)
    filled = [0 if value is None else value for value in values] if nulls else values
    return pa.Array.from_buffers(
        kind, len(values), [mask, pa.py_buffer(_numbers(filled, _CODES[kind]))], nulls
    )


def _text(values: Values, kind: pa.DataType, mask: pa.Buffer | None, nulls: int) -> Any:
    if nulls == len(values):
        parts: list[bytes] = [b""] * nulls
    else:
        parts = [_encoded(value) if value else b"" for value in values]
    offsets = array("q" if kind == pa.large_string() else "i", accumulate(map(len, parts), initial=0))
    buffers = [mask, pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))]
    return pa.Array.from_buffers(kind, len(values), buffers, nulls)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return clean_text(text).encode()


def _numbers(values: Values, code: str) -> array[Any]:
    try:
        return array(code, values)
    except OverflowError:
        span = _SPANS[code]
        return array(code, [max(-span, min(span - 1, value)) for value in values])


def _mask(values: Values) -> pa.Buffer:
    return _bits([value is not None for value in values])


def _bits(flags: Sequence[bool]) -> pa.Buffer:
    """A bitmap, the first flag in the lowest bit."""
    digits = "".join(["1" if flag else "0" for flag in reversed(flags)]) or "0"
    return pa.py_buffer(int(digits, 2).to_bytes((len(flags) + 7) // 8, "little"))
