"""JSON Lines columns in Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from websim_batch.tables.arrowbuild import build
from websim_batch.tables.base import Texts
from websim_batch.tables.columnkinds import Kinds

_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
_READERS: dict[Any, Any] = {pa.int64(): int, pa.float64(): float, pa.bool_(): "true".__eq__}


def jsonl_schema(names: Sequence[str], kinds: Kinds) -> pa.Schema:
    """One type per column: int64, double, bool, else large_string."""
    return pa.schema([pa.field(name, _TYPES.get(kinds.of(name), pa.large_string())) for name in names])


def jsonl_batch(schema: pa.Schema, rows: Sequence[Texts]) -> pa.RecordBatch:
    """Rows of texts in these types."""
    if not schema.names:  # rows of `{}`: only a struct knows how many they are
        return pa.RecordBatch.from_struct_array(_rows_of_nothing(len(rows)))
    columns: Any = zip(*rows, strict=True)
    arrays = [_column(texts, kind) for texts, kind in zip(columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _rows_of_nothing(count: int) -> Any:
    return pa.Array.from_buffers(pa.struct([]), count, [None])


def _column(texts: Sequence[str | None], kind: pa.DataType) -> Any:
    read = _READERS.get(kind)
    if read is None:
        return build(texts, kind)
    return build([None if text is None else read(text) for text in texts], kind)
