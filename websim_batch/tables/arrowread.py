"""Parquet files and tables in memory as sources; types stay what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import types

from websim_batch.errors import InputError, UsageError
from websim_batch.records import NumberText, Problem, PromptRow
from websim_batch.tables import rendering
from websim_batch.tables.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    Format,
    ProblemList,
    ReadOptions,
    TableInfo,
    Texts,
    duplicates,
)
from websim_batch.tables.files import InputFile, changed
from websim_batch.tables.jsonlines import dump_open

_WRITE_ROWS = 4096
_READ_BUFFER = 1 << 18


class ArrowBased:
    """What Parquet files and tables in memory have in common: all comes from batches of Arrow."""

    path: Path | None
    display: str
    format: Format
    _limit: int | None = None
    _info: TableInfo | None = None

    def arrow_schema(self) -> pa.Schema:
        """The table's own schema, with its metadata."""
        raise NotImplementedError

    def _read(self, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
        """Batches of at most `rows` rows, with these columns (None: all); before any limit."""
        raise NotImplementedError

    def scan(self, problems: list[Problem], most: int = 50) -> TableInfo:
        """Look at the structure; append its problems, the first `most` in full."""
        raise NotImplementedError

    def rows(self, columns: Sequence[str], start: int = 0) -> Iterator[list[PromptRow]]:
        """Batches of at most 256 rows from `start`: text, numbers and bools as such, all else rendered."""
        position = 0
        for batch in self._limited(list(columns), BATCH_ROWS):
            end = position + batch.num_rows
            if end > start:
                skip = max(start - position, 0)
                cells = [_prompt_cells(column.slice(skip)) for column in batch.columns]
                whole = zip(*cells, strict=True) if cells else iter([()] * (end - position - skip))
                yield [
                    PromptRow(at, None, dict(zip(columns, row, strict=True)))
                    for at, row in enumerate(whole, position + skip)
                ]
            position = end

    def text_rows(self) -> Iterator[list[Texts]]:
        """Every row in the documented rendering."""
        for batch in self._limited(None, BATCH_ROWS):
            yield [list(row) for row in zip(*map(rendering.csv_texts, batch.columns), strict=True)]

    def json_lines(self) -> Iterator[list[bytes]]:
        """Every row as a JSON object without its closing brace."""
        names = [dump_open({name: None})[1:-4].decode() for name in self.arrow_schema().names]
        for batch in self._limited(None, BATCH_ROWS):
            rows = zip(*map(rendering.json_texts, batch.columns), strict=True)
            yield [("{" + ",".join(map(str.__add__, names, row))).encode() for row in rows]

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Every row as it is."""
        yield from self._limited(None, _WRITE_ROWS)

    def _limited(self, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
        left = self._limit if self._limit is not None else -1
        if not left:
            return
        for batch in self._read(columns, rows):
            if 0 <= left <= batch.num_rows:
                yield batch.slice(0, left)
                return
            left -= batch.num_rows
            yield batch

    def _scanned(self) -> TableInfo:
        return self._info if self._info is not None else self.scan([])

    def _check_names(self, names: Sequence[str], found: ProblemList) -> None:
        for name in duplicates(names):
            message = f"the column {name!r} stands {names.count(name)} times; rename all but one"
            found.add("duplicate_column", message)

    def _counted(self, rows: int) -> int:
        return rows if self._limit is None else min(rows, self._limit)


class ParquetSource(ArrowBased):
    """A Parquet file as a source; row groups of any size are read page by page."""

    format: Format = "parquet"

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        self.path = file.path
        self.display = file.display
        self._file = file
        self._limit = options.limit
        self._schema: pa.Schema | None = None

    def scan(self, problems: list[Problem], most: int = 50) -> TableInfo:
        """Look at the footer; append structural problems."""
        found = ProblemList(problems, most, self.display)
        before = self._file.fingerprint()
        names: list[str] = []
        rows = 0
        try:
            with self._open() as parquet:
                self._schema = parquet.schema_arrow
                names = list(self._schema.names)
                rows = self._counted(parquet.metadata.num_rows)
        except (pa.ArrowException, OSError) as exc:
            if self._file.head(1):
                found.add(
                    "unreadable", f"is no whole Parquet file ({_first_line(exc)}); make or copy it again"
                )
            self._schema = pa.schema([])
        self._check_names(names, found)
        self._info = TableInfo(tuple(names), rows, before, dict(found.counts))
        return self._info

    def arrow_schema(self) -> pa.Schema:
        """The file's own schema, with its metadata."""
        self._scanned()
        assert self._schema is not None
        return self._schema

    def close(self) -> None:
        """Nothing is held open."""

    def _open(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(str(self.path), pre_buffer=False, buffer_size=_READ_BUFFER, memory_map=False)

    def _read(self, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
        info = self._scanned()
        self._file.require_unchanged(info.fingerprint)
        if not info.rows:
            return
        schema = self.arrow_schema()
        try:
            with self._open() as parquet:
                if parquet.schema_arrow != schema:
                    raise changed(self.display)
                # A dot in a name also means a member: then all columns are read and picked afterwards.
                by_name = (
                    None if columns is None or any("." in name for name in schema.names) else list(columns)
                )
                size = _batch_rows(parquet.metadata, rows)
                for batch in parquet.iter_batches(size, columns=by_name, use_threads=False):
                    self._file.require_unchanged(info.fingerprint)
                    yield batch if columns is None else batch.select(list(columns))
        except (pa.ArrowException, OSError) as exc:
            self._file.require_unchanged(info.fingerprint)
            message = f"the data cannot be read ({_first_line(exc)}); make or copy the file again"
            raise InputError([Problem("unreadable", message, self.display)]) from exc


class ArrowSource(ArrowBased):
    """A table in memory as a source."""

    format: Format = "arrow"

    def __init__(self, table: pa.Table, display: str, options: ReadOptions) -> None:
        self.path = None
        self.display = display
        self.table = table
        self._limit = options.limit

    def scan(self, problems: list[Problem], most: int = 50) -> TableInfo:
        """Look at the structure; the fingerprint is a hash of names, types and values."""
        found = ProblemList(problems, most, self.display)
        self._check_names(self.table.column_names, found)
        rows = self._counted(self.table.num_rows)
        fingerprint = "" if found.counts else self._hash()
        self._info = TableInfo(tuple(self.table.column_names), rows, fingerprint, dict(found.counts))
        return self._info

    def fingerprint(self) -> str:
        """A hash of names, types and values; empty for a table whose structure is refused."""
        return self._scanned().fingerprint

    def arrow_schema(self) -> pa.Schema:
        """The table's own schema, with its metadata."""
        return self.table.schema

    def close(self) -> None:
        """The table belongs to the caller."""

    def _read(self, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
        table = self.table if columns is None else self.table.select(list(columns))
        per_row = max(table.nbytes // max(table.num_rows, 1), 1)
        yield from table.to_batches(max_chunksize=max(1, min(rows, 4 * BATCH_BYTES // per_row)))

    def _hash(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr([(field.name, str(field.type)) for field in self.table.schema]).encode())
        for batch in self._limited(None, _WRITE_ROWS):
            for column in batch.columns:
                for text in rendering.csv_texts(column):
                    digest.update(b"\0" if text is None else b"\1%d:" % len(text))
                    digest.update((text or "").encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def frame_source(table: object, options: ReadOptions) -> ArrowSource:
    """A source over an Arrow table or stream, a DataFrame, or the table of such a source; else UsageError."""
    if options.delimiter is not None or options.encoding is not None:
        raise UsageError(
            "--delimiter and --encoding are for text tables, and this is a table in memory; leave them out"
        )
    if isinstance(table, ArrowSource):
        return ArrowSource(table.table, table.display, options)
    name = f"the {type(table).__name__}"
    if isinstance(table, pa.Table):
        return ArrowSource(table, name, options)
    frame: Any = table
    is_pandas = type(table).__module__.partition(".")[0] == "pandas"
    if not is_pandas and not hasattr(table, "__arrow_c_stream__"):
        raise UsageError(f"{name} is no table; give a path, a DataFrame or an Arrow table")
    try:
        whole = pa.Table.from_pandas(frame) if is_pandas else pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as exc:
        raise UsageError(
            f"{name} does not fit into Arrow: {_first_line(exc)}; give each column one type"
        ) from exc
    return ArrowSource(whole, name, options)


def _prompt_cells(values: Any) -> list[Any]:
    """Values as a request takes them: text, int, float, bool, lists and dicts; all else as its rendering."""
    values = rendering.plain(values)
    kind = values.type
    if rendering.is_text(kind) or types.is_integer(kind) or types.is_boolean(kind) or types.is_float64(kind):
        return list(values.to_pylist())
    if rendering.is_nested(kind):
        return [orjson.loads(text) for text in rendering.json_texts(values)]
    texts = rendering.csv_texts(values)
    if types.is_decimal(kind) or types.is_floating(kind):
        return [None if text is None else NumberText(text) for text in texts]
    return list(texts)


def _batch_rows(metadata: Any, most: int) -> int:
    """How many rows weigh about BATCH_BYTES, at most `most`, by the heaviest row group."""
    weights = [1]
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        weights.append(group.total_byte_size // max(group.num_rows, 1))
    return max(1, min(most, BATCH_BYTES // max(max(weights), 1)))


def _first_line(exc: BaseException) -> str:
    return str(exc).partition("\n")[0].strip().rstrip(".") or type(exc).__name__
