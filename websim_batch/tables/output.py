"""The output table: every input row with our cells beside it, in input order, saved in one step."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from websim_batch.errors import ForeignFileError, InputChangedError, UsageError
from websim_batch.records import OutputCells
from websim_batch.tables.base import OutputSpec, Source, TableInfo, format_of, our_prefix
from websim_batch.tables.cells import CellStream
from websim_batch.tables.save import atomic_write


def write_output(source: Source, info: TableInfo, cells: Iterator[OutputCells], spec: OutputSpec) -> None:
    """Join the rows of `source` with `cells`, which come in input order, and save them at `spec.path`.

    The file appears whole or not at all. Raises DiskFullError, UsageError for a place that cannot be written,
    InputChangedError if the input is not what `info` says any more.
    """
    kind, compression = format_of(spec.path)
    stream = CellStream(cells)
    with atomic_write(spec.path) as file:
        if kind == "parquet":
            from websim_batch.tables.parquetwrite import write_parquet

            write_parquet(file, source, stream, spec)
        else:
            from websim_batch.tables.textwrite import packed, write_csv, write_jsonl

            with packed(file, compression) as text:
                if kind == "csv":
                    write_csv(text, source, info, stream, spec)
                else:
                    write_jsonl(text, source, stream, spec)
        stream.require_end()


def parquet_bytes(source: Source, cells: Iterator[OutputCells], spec: OutputSpec) -> bytes:
    """The same table as a Parquet file in memory, whatever the path of `spec` says."""
    from websim_batch.tables.parquetwrite import write_parquet

    stream, file = CellStream(cells), BytesIO()
    write_parquet(file, source, stream, spec)
    stream.require_end()
    return file.getvalue()


def require_types(source: Source, path: Path) -> None:
    """Raise UsageError if the output at `path` cannot hold a type of the input's columns, before anything is paid."""
    if format_of(path)[0] != "parquet" or source.format not in ("parquet", "arrow"):
        return
    from websim_batch.tables.parquetwrite import unwritable_columns

    refused = unwritable_columns(source.arrow_schema())
    if refused:
        told = "; ".join(f"column {name!r}: {why}" for name, why in refused)
        raise UsageError(
            f"{path}: Parquet cannot hold the input as it is ({told}); write .jsonl or .csv instead"
        )


def is_ours(path: Path) -> bool:
    """Whether the table at `path` may be replaced: an output of ours, or a file of no bytes.

    Raises UsageError for what cannot be read at all.
    """
    from websim_batch.tables.opening import column_names

    if path.stat().st_size == 0:
        return True
    try:
        columns = column_names(path)
    except InputChangedError:
        return False
    return columns is not None and our_prefix(columns) is not None


def require_ours(path: Path) -> None:
    """Raise ForeignFileError if `path` exists and is not an output of ours."""
    if not path.exists():
        return
    try:
        ours = is_ours(path)
    except UsageError:
        ours = False
    if not ours:
        raise ForeignFileError(
            f"{path}: is there already and was not written by websim-batch; use --overwrite or another -o"
        )
