"""From a path, `-` or a table in memory to a source."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from websim_batch.errors import UsageError
from websim_batch.records import Problem
from websim_batch.tables.base import ReadOptions, Source, format_of
from websim_batch.tables.csvread import CsvSource
from websim_batch.tables.files import InputFile, SpooledInput

STDIN = "-"


def open_source(table: object, options: ReadOptions | None = None, stdin: BinaryIO | None = None) -> Source:
    """A source over a path, `-` for standard input, or an Arrow table or DataFrame.

    Raises UsageError for a file that is missing, a folder, unreadable, or of no known kind.
    """
    options = options or ReadOptions()
    if isinstance(table, (str, Path)):
        if str(table) == STDIN:
            return _open_stream(stdin or sys.stdin.buffer, options)
        return _open_path(Path(table), options)
    from websim_batch.tables.arrowread import frame_source

    return frame_source(table, options)


def column_names(path: Path, options: ReadOptions | None = None) -> Sequence[str] | None:
    """The column names of a table, from its first row alone; None if it is no such table."""
    problems: list[Problem] = []
    options = options or ReadOptions()
    source = open_source(path, ReadOptions(options.encoding, options.delimiter, limit=1))
    info = source.scan(problems, 1)
    return info.columns if not problems else None


def _open_path(path: Path, options: ReadOptions) -> Source:
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a table in it")
    kind, compression = format_of(path)
    file = InputFile(path, compression)
    if kind == "csv":
        return CsvSource(file, options)
    _refuse_csv_options(path, kind, options)
    if kind == "jsonl":
        from websim_batch.tables.jsonlread import JsonlSource

        return JsonlSource(file, options)
    from websim_batch.tables.arrowread import ParquetSource

    return ParquetSource(file, options)


def _open_stream(stream: BinaryIO, options: ReadOptions) -> Source:
    """Standard input, spooled to disk: JSON Lines if it begins with a brace, else CSV."""
    spooled = SpooledInput(stream, "standard input")
    if spooled.head(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        from websim_batch.tables.jsonlread import JsonlSource

        return JsonlSource(spooled, options)
    return CsvSource(spooled, options)


def _refuse_csv_options(path: Path, kind: str, options: ReadOptions) -> None:
    if options.delimiter is not None:
        raise UsageError(f"{path}: --delimiter is for CSV, and this is {kind}; leave it out")
    if options.encoding is not None and kind == "parquet":
        raise UsageError(f"{path}: --encoding is for text tables, and this is Parquet; leave it out")
