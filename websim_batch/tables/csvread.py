"""CSV in: the csv module over decoded text, checked row by row.

The csv module reads any cell unchanged when it gets its lines with their own line ends (`newline=""`): ten
million rows in seconds and no memory. `strict` makes it refuse a misplaced quote instead of dropping it.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from websim_batch.errors import InputChangedError
from websim_batch.records import Problem, PromptRow
from websim_batch.tables.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    Format,
    ProblemList,
    ReadOptions,
    TableInfo,
    Texts,
    default_delimiter,
    duplicates,
)
from websim_batch.tables.files import DamagedError, InputFile, changed
from websim_batch.tables.quotes import MOST_CHARACTERS, explain_quote
from websim_batch.tables.texts import TextInput, reading_errors

if TYPE_CHECKING:
    import pyarrow as pa

_Ragged: TypeAlias = Callable[[int, int, int, int], None]
"""Told of a row of another width: its line, its number from 1, its cells, the header's."""

_OTHER_DELIMITERS = ";\t|,"


class Batch(NamedTuple):
    """Some rows in order: the position of the first, the line on which each begins, their cells."""

    position: int
    lines: Sequence[int]
    rows: list[list[str]]


class BrokenCsvError(ValueError):
    """The csv module cannot go on; `line` is where the row began, `row` its number from 1."""

    def __init__(self, line: int, row: int) -> None:
        super().__init__(line, row)
        self.line = line
        self.row = row


class CsvSource:
    """A CSV file as a source; cells are text, always."""

    format: Format = "csv"

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        self.path: Path | None = file.path
        self.display = file.display
        self.delimiter = options.delimiter or default_delimiter(file.path)
        self._file = file
        self._text = TextInput(file, options.encoding)
        self._limit = options.limit
        self._info: TableInfo | None = None

    def scan(self, problems: list[Problem], most: int = 50) -> TableInfo:
        """Read everything once; append structural problems, the first `most` in full."""
        found = ProblemList(problems, most, self.display)
        before = self._file.fingerprint()
        columns: list[str] = []
        count = 0

        def read() -> None:
            nonlocal count
            if self._text.foreign_content(found):
                return
            for batch in self._batches(columns, self._ragged(found)):
                count = batch.position + len(batch.rows)

        try:
            reading_errors(read, self._text, found)
        except BrokenCsvError as exc:
            explain_quote(self._text, self.delimiter, exc.line, exc.row, found)
        _check_header(columns, found)
        self._file.require_unchanged(before)
        hint = _delimiter_hint(columns, self.delimiter)
        self._info = TableInfo(tuple(columns), count, before, dict(found.counts), hint)
        return self._info

    def rows(self, columns: Sequence[str], start: int = 0) -> Iterator[list[PromptRow]]:
        """Batches of at most 256 rows from position `start`, with only `columns` in their cells."""
        info = self._scanned()
        pick = _picker(info.columns, columns)
        for position, lines, rows in self._checked_batches(info):
            skip = max(start - position, 0)
            positions = range(position + skip, position + len(rows))
            if positions:
                yield list(map(PromptRow, positions, lines[skip:], pick(rows[skip:])))

    def text_rows(self) -> Iterator[list[Texts]]:
        """Every row as it stands."""
        for batch in self._checked_batches(self._scanned()):
            yield batch.rows  # type: ignore[misc]  # a list of str is never written to

    def json_lines(self) -> Iterator[list[bytes]]:
        """Every row as a JSON object of strings, without its closing brace."""
        from websim_batch.tables.jsonlines import dump_open

        names = self._scanned().columns
        for batch in self._checked_batches(self._scanned()):
            yield [dump_open(dict(zip(names, row, strict=True))) for row in batch.rows]

    def arrow_schema(self) -> pa.Schema:
        """Every column is text."""
        from websim_batch.tables.arrowbuild import text_schema

        return text_schema(self._scanned().columns)

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Every row as text columns."""
        from websim_batch.tables.arrowbuild import text_batch

        schema = self.arrow_schema()
        for batch in self._checked_batches(self._scanned()):
            yield text_batch(schema, list(zip(*batch.rows, strict=True)))

    def close(self) -> None:
        """Let go of what a spooled input holds."""
        self._file.close()

    def _scanned(self) -> TableInfo:
        return self._info if self._info is not None else self.scan([])

    def _ragged(self, found: ProblemList) -> _Ragged:
        def note(line: int, row: int, cells: int, width: int) -> None:
            sign = repr(self.delimiter)
            much = f"put the cell that holds {sign} in double quotes"
            few = f"every row needs {width - 1} of {sign}, also where cells are empty"
            many = f"{cells} cell{'s' * (cells != 1)}"
            message = f"the row has {many}, the header {width}; {much if cells > width else few}"
            found.add("ragged_row", message, line, row)

        return note

    def _checked_batches(self, info: TableInfo) -> Iterator[Batch]:
        """The scanned rows again; InputChangedError as soon as the file or its structure is another."""
        self._file.require_unchanged(info.fingerprint)
        header: list[str] = []
        count = 0
        try:
            for batch in self._batches(header, self._moved):
                self._file.require_unchanged(info.fingerprint)
                if tuple(header) != info.columns:
                    raise changed(self.display)
                count = batch.position + len(batch.rows)
                yield batch
        except (BrokenCsvError, UnicodeError, DamagedError) as exc:
            raise changed(self.display) from exc
        if count != info.rows:
            raise changed(self.display)

    def _moved(self, line: int, row: int, cells: int, width: int) -> None:
        raise InputChangedError(
            f"{changed(self.display)} (line {line} now has {cells} cells instead of {width})"
        )

    def _batches(self, header: list[str], ragged: _Ragged) -> Iterator[Batch]:
        """The rows in batches; fills `header` first, and tells `ragged` of unequal rows."""
        with self._text.open(newline="") as (text, raw):
            csv.field_size_limit(MOST_CHARACTERS)
            reader = csv.reader(text, delimiter=self.delimiter, strict=True)
            line = _read_header(reader, header)
            if header:
                yield from _group(reader, line, header, ragged, raw, self._limit)


if TYPE_CHECKING:
    from websim_batch.tables.files import CountedReader, UnpackedReader


def _read_header(reader: Any, header: list[str]) -> int:
    """Put the first row that is not blank into `header`; gives the line after it."""
    line = 1
    try:
        for row in reader:
            line += _lines_of(row)
            if row:
                header.extend(row)
                break
    except csv.Error as exc:
        raise BrokenCsvError(line, 0) from exc
    return line


def _group(
    reader: Any,
    line: int,
    header: list[str],
    ragged: _Ragged,
    raw: CountedReader | UnpackedReader,
    limit: int | None,
) -> Iterator[Batch]:
    """Batches of equal rows; a batch ends by its number of rows or once the file moved on by many bytes."""
    position = 0
    left = limit if limit is not None else sys.maxsize
    while left:
        number, rows = reader.line_num, list[list[str]]()
        fault = _read_rows(reader, min(left, BATCH_ROWS), raw, rows)
        if not rows and fault is None:
            return
        lines: Sequence[int] = range(line, line + len(rows))
        # The usual batch: every row has all its cells and takes one line.
        if reader.line_num - number == len(rows) == [*map(len, rows)].count(len(header)):
            line += len(rows)
        else:
            line, lines, rows = _sound_rows(rows, line, len(header), position, ragged)
        if fault is not None:
            raise BrokenCsvError(line, position + len(rows) + 1) from fault
        if rows:
            yield Batch(position, lines, rows)
        position += len(rows)
        left -= len(rows)


def _read_rows(
    reader: Any, most: int, raw: CountedReader | UnpackedReader, rows: list[list[str]]
) -> csv.Error | None:
    """Add rows to `rows`, until there are enough, or they are heavy; gives what the csv module refused."""
    mark = raw.count + BATCH_BYTES
    try:
        for row in islice(reader, most):
            rows.append(row)
            if raw.count > mark:
                break
    except csv.Error as exc:
        return exc
    return None


def _sound_rows(
    rows: list[list[str]], line: int, width: int, position: int, ragged: _Ragged
) -> tuple[int, list[int], list[list[str]]]:
    """The rows of `width` cells and their lines, after the line that follows them all; tells `ragged` of others."""
    lines: list[int] = []
    sound: list[list[str]] = []
    for row in rows:
        first = line
        line += _lines_of(row)
        if not row and width == 1:
            row = [""]  # a blank line of a one-column file is a row
        if len(row) == width:
            lines.append(first)
            sound.append(row)
        elif row:
            ragged(first, position + len(sound) + 1, len(row), width)
    return line, lines, sound


def _lines_of(row: list[str]) -> int:
    """How many lines of the file a row takes, as `sed` and editors count them."""
    return 1 + sum(cell.count("\n") for cell in row)


def _picker(
    names: Sequence[str], wanted: Sequence[str]
) -> Callable[[list[list[str]]], Iterable[dict[str, str]]]:
    """A function from rows to their cells of the wanted columns."""
    places = [names.index(name) for name in wanted]
    if len(places) == 1:
        (name,), (place,) = wanted, places
        return lambda rows: [{name: row[place]} for row in rows]
    if not places:
        return lambda rows: [{} for _ in rows]
    take = itemgetter(*places)
    return lambda rows: [dict(zip(wanted, take(row), strict=True)) for row in rows]


def _check_header(columns: list[str], found: ProblemList) -> None:
    for name in duplicates(columns):
        times = columns.count(name)
        message = f"the column {name!r} stands {times} times in the header; rename all but one"
        found.add("duplicate_column", message, 1)
    if columns and not any(columns):
        found.add("empty_header", "the header names no column; write the column names into the first line", 1)


def _delimiter_hint(columns: list[str], delimiter: str) -> str | None:
    """Another separator that the only column's name is full of."""
    if len(columns) != 1:
        return None
    counts = {char: columns[0].count(char) for char in _OTHER_DELIMITERS if char != delimiter}
    best = max(counts, key=lambda char: counts[char])
    return best if counts[best] else None
