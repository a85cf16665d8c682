"""Outputs read back with good types: for `wb.load`, and for a result's table."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from websim_batch.errors import InputError, UsageError
from websim_batch.records import STATUSES, Attempt, Problem
from websim_batch.tables.arrowbuild import build, our_fields
from websim_batch.tables.base import OUR_NAMES, ReadOptions, Source, Texts, our_prefix
from websim_batch.tables.columntypes import jsonl_batch, jsonl_schema
from websim_batch.tables.jsonlread import JsonlSource
from websim_batch.tables.opening import open_source

if TYPE_CHECKING:
    import pandas as pd

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OURS = len(OUR_NAMES)

RUN_DATE = "run_date"
"""The column that `load` adds: the day, in UTC, on which the run began that finished the row."""


def load(
    path: str | Path, status: str | Sequence[str] | None = None, options: ReadOptions | None = None
) -> pd.DataFrame:
    """An output, or all that a pattern matches in the order of names, as a DataFrame with Arrow's types.

    Input columns keep their types (text in CSV); ours have those of the design, the status is a category.
    `status` keeps only rows that ended so. The last column is RUN_DATE, unless the input has one of that name.
    Raises UsageError when nothing matches or a table is not ours.
    """
    import pandas as pd

    wanted = [status] if isinstance(status, str) else status
    if unknown := [each for each in wanted or () if each not in STATUSES]:
        raise UsageError(f"status {unknown[0]!r} is none; use one of {', '.join(STATUSES)}")
    tables = [_dated(read_table(each, options)) for each in _matches(path)]
    frames = [_with_status(as_frame(table, has_index=False), _status_name(table), wanted) for table in tables]
    if len(frames) == 1:
        return frames[0]
    joined = pd.concat(frames, ignore_index=True)
    for name in dict.fromkeys(_status_name(table) for table in tables):
        joined[name] = pd.Categorical(joined[name], categories=list(STATUSES))
    return joined


def read_table(path: Path, options: ReadOptions | None = None) -> pa.Table:
    """An output as an Arrow table: input columns as they are, our columns in their own types.

    Raises UsageError if it is no output of ours, InputError if it is damaged.
    """
    source = open_source(path, options or ReadOptions())
    problems: list[Problem] = []
    info = source.scan(problems)
    if problems:
        raise InputError(problems)
    if source.format == "jsonl" and not info.columns:
        return pa.schema(our_fields(OUR_NAMES)).empty_table()
    if our_prefix(info.columns) is None and source.format != "jsonl":
        raise UsageError(f"{path}: was not written by websim-batch: its last columns are not ours")
    if source.format == "parquet":
        return pa.Table.from_batches(source.arrow_batches(), source.arrow_schema())
    return _typed(source, info.columns)


def parquet_table(file: bytes) -> pa.Table:
    """The table that a Parquet file in memory holds."""
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(file))


def _matches(path: str | Path) -> list[Path]:
    if Path(path).exists() or not glob.has_magic(str(path)):
        return [Path(path)]
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (patterns may be absolute)
    if not found:
        raise UsageError(f"{path}: matches no file")
    return [Path(each) for each in found]


def as_frame(table: pa.Table, *, has_index: bool = True) -> pd.DataFrame:
    """An output as a DataFrame with Arrow's types, which lose nothing, and a category for the status.

    The index of a frame that was the input is the index again, unless `has_index` says that it is to be columns.
    """
    import pandas as pd

    frame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=not has_index)
    name = _status_name(table)
    frame[name] = pd.Categorical(frame[name], categories=list(STATUSES))
    return frame


def ledger_frame(lines: Sequence[tuple[int | None, str, Attempt]]) -> pd.DataFrame:
    """Requests as a DataFrame with Arrow's types: (row of the table, run_id, attempt) for each."""
    import pandas as pd

    columns: dict[str, tuple[list[Any], pa.DataType]] = {
        "row": ([row for row, _, _ in lines], pa.int64()),
        "number": ([a.number for _, _, a in lines], pa.int32()),
        "run_id": ([run_id for _, run_id, _ in lines], pa.string()),
        "started_at": ([a.started_us for _, _, a in lines], pa.timestamp("us", "UTC")),
        "elapsed_ms": (
            [None if a.elapsed_us is None else a.elapsed_us / 1000 for _, _, a in lines],
            pa.float64(),
        ),
        "http_status": ([a.http_status for _, _, a in lines], pa.int16()),
        "error_type": ([a.error_type for _, _, a in lines], pa.string()),
        "delivery": ([a.delivery for _, _, a in lines], pa.string()),
    }
    table = pa.table({name: build(values, kind) for name, (values, kind) in columns.items()})
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def _with_status(frame: pd.DataFrame, name: str, wanted: Sequence[str] | None) -> pd.DataFrame:
    return frame if wanted is None else frame[frame[name].isin(wanted)].reset_index(drop=True)


def _dated(table: pa.Table) -> pa.Table:
    """The table with the day of each row's run, which the run's id begins with."""
    ours = _our_names(table.column_names)
    name = ours[0].removesuffix(OUR_NAMES[0]) + RUN_DATE
    if name in table.column_names:
        return table
    import pyarrow.compute as pc

    days = pc.utf8_slice_codeunits(table.column(ours[-1]), 0, 8)
    dates = pc.cast(pc.strptime(days, "%Y%m%d", "s", error_is_null=True), pa.date32())
    return table.append_column(name, dates)


def _status_name(table: pa.Table) -> str:
    return str(_our_names(table.column_names)[0])


def _our_names(columns: Sequence[str]) -> Sequence[str]:
    """The names of our columns: the last ones, in JSON Lines those that stand together."""
    if our_prefix(columns) is not None:
        return columns[-_OURS:]
    for end in range(len(columns), _OURS - 1, -1):
        if our_prefix(columns[:end]) is not None:
            return columns[end - _OURS : end]
    raise UsageError("the table was not written by websim-batch: our columns are not in it")


def _typed(source: Source, columns: Sequence[str]) -> pa.Table:
    """A text output with our columns read back from their texts, last."""
    ours = list(_our_names(columns))
    theirs = [name for name in columns if name not in set(ours)]
    places = [columns.index(name) for name in theirs], [columns.index(name) for name in ours]
    inputs = source.arrow_schema()
    if isinstance(source, JsonlSource):
        inputs = jsonl_schema(theirs, source.kinds())
    else:
        inputs = pa.schema([inputs.field(place) for place in places[0]])
    schema = pa.schema([*inputs, *our_fields(ours)])
    empty = "" if source.format == "csv" else None  # CSV has no other null
    batches = (_typed_batch(rows, places, inputs, schema, empty) for rows in source.text_rows())
    return pa.Table.from_batches(batches, schema)


def _typed_batch(
    rows: list[Texts],
    places: tuple[list[int], list[int]],
    inputs: pa.Schema,
    schema: pa.Schema,
    empty: str | None,
) -> pa.RecordBatch:
    theirs = jsonl_batch(inputs, [[row[place] for place in places[0]] for row in rows]).columns
    ours = [
        _our_array([None if row[place] == empty else row[place] for row in rows], field.type)
        for place, field in zip(places[1], list(schema)[len(inputs) :], strict=True)
    ]
    return pa.RecordBatch.from_arrays([*theirs, *ours], schema=schema)


def _our_array(texts: Iterable[str | None], kind: pa.DataType) -> Any:
    read: Callable[[str], Any] = str
    if pa.types.is_integer(kind):
        read = int
    elif pa.types.is_timestamp(kind):
        read = _microseconds
    return build([None if text is None else read(text) for text in texts], kind)


def _microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)
