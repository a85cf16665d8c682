"""JSON Lines columns in Arrow."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from websim_batch.tables.arrowbuild import build
from websim_batch.tables.base import Texts
from websim_batch.tables.columnkinds import Kinds

_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
_READERS = {pa.int64(): int, pa.float64(): float, pa.bool_(): "true".__eq__}


def jsonl_schema(names: Sequence[str], kinds: Kinds) -> pa.Schema:
    """One type per column: int64, double, bool, else large_string."""
    return pa.schema([pa.field(name, _TYPES.get(kinds.of(name), pa.large_string())) for name in names])


def jsonl_batch(schema: pa.Schema, rows: Sequence[Texts]) -> pa.RecordBatch:
    """Rows of texts in these types."""
    columns = zip(*rows, strict=True) if schema.names else ()
    arrays = [_column(texts, kind) for texts, kind in zip(columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(texts: Texts, kind: pa.DataType) -> pa.Array:
    read = _READERS.get(kind)
    if read is None:
        return build(texts, kind)
    return build([None if text is None else read(text) for text in texts], kind)
