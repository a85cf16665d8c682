"""JSON Lines in: each line's text is kept for JSON Lines out, and taken apart for tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from websim_batch.errors import InputChangedError
from websim_batch.records import NumberText, Problem, PromptRow
from websim_batch.tables.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    Format,
    ProblemList,
    ReadOptions,
    TableInfo,
    Texts,
)
from websim_batch.tables.columnkinds import Kinds, column_text
from websim_batch.tables.files import DamagedError, InputFile, changed
from websim_batch.tables.jsonlines import Member, split_object
from websim_batch.tables.texts import TextInput, reading_errors

if TYPE_CHECKING:
    import pyarrow as pa

_SPACE = b" \t\r\n"
_SPACED_COLON = re.compile(rb'"[ \t\r\n]+:')
_NAMES = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}


class Batch(NamedTuple):
    """Some lines in order: the position of the first, their line numbers, their texts without space."""

    position: int
    numbers: list[int]
    lines: list[bytes]


class JsonlSource:
    """A JSON Lines file as a source; a missing key is null, blank lines are no rows."""

    format: Format = "jsonl"

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        self.path: Path | None = file.path
        self.display = file.display
        self._file = file
        self._text = TextInput(file, options.encoding)
        self._limit = options.limit
        self._info: TableInfo | None = None
        self._kinds: Kinds | None = None

    def scan(self, problems: list[Problem], most: int = 50) -> TableInfo:
        """Read everything once; append structural problems, the first `most` in full."""
        found = ProblemList(problems, most, self.display)
        before = self._file.fingerprint()
        columns: dict[str, None] = {}
        count = 0

        def read() -> None:
            nonlocal count
            if self._text.foreign_content(found):
                return
            for position, numbers, lines in self._batches():
                for row, (number, line) in enumerate(zip(numbers, lines, strict=True), position + 1):
                    _check_line(line, number, row, columns, found)
                count = position + len(lines)

        reading_errors(read, self._text, found)
        self._file.require_unchanged(before)
        self._info = TableInfo(tuple(columns), count, before, dict(found.counts))
        return self._info

    def rows(self, columns: Sequence[str], start: int = 0) -> Iterator[list[PromptRow]]:
        """Batches of at most 256 rows from position `start`; numbers come as the file wrote them."""
        for position, numbers, lines in self._checked_batches():
            skip = max(start - position, 0)
            pairs = zip(numbers[skip:], lines[skip:], strict=True)
            if batch := [
                PromptRow(at, number, self._cells(line, columns))
                for at, (number, line) in enumerate(pairs, position + skip)
            ]:
                yield batch

    def json_lines(self) -> Iterator[list[bytes]]:
        """Every line as it stands, without its closing brace."""
        for batch in self._checked_batches():
            yield [line[:-1].rstrip(_SPACE) for line in batch.lines]

    def text_rows(self) -> Iterator[list[Texts]]:
        """Every row as text: JSON text in columns of several kinds, numbers as the file wrote them."""
        names = self._scanned().columns
        kinds = self.kinds()
        as_json = {name for name in names if kinds.of(name) == "json"}
        for batch in self._checked_batches():
            yield [_row_texts(self._members(line), names, as_json) for line in batch.lines]

    def arrow_schema(self) -> pa.Schema:
        """One type per column over all rows."""
        from websim_batch.tables.columntypes import jsonl_schema

        return jsonl_schema(self._scanned().columns, self.kinds())

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Every row in `arrow_schema`."""
        from websim_batch.tables.columntypes import jsonl_batch

        schema = self.arrow_schema()
        for batch in self.text_rows():
            yield jsonl_batch(schema, batch)

    def kinds(self) -> Kinds:
        """Which kinds of values each column has; a pass of its own, taken once and only for tables."""
        if self._kinds is None:
            kinds = Kinds()
            for batch in self._checked_batches():
                for line in batch.lines:
                    kinds.see(self._members(line))
            self._kinds = kinds
        return self._kinds

    def close(self) -> None:
        """Let go of what a spooled input holds."""
        self._file.close()

    def _scanned(self) -> TableInfo:
        return self._info if self._info is not None else self.scan([])

    def _members(self, line: bytes) -> list[Member]:
        try:
            members = split_object(line.decode())
        except ValueError as exc:
            raise changed(self.display) from exc
        if members is None:
            raise changed(self.display)
        return members

    def _cells(self, line: bytes, columns: Sequence[str]) -> dict[str, Any]:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:  # an escaped lone surrogate, or nested deeply
            row = {member.key: member.value for member in self._members(line)}
        if type(row) is not dict:
            raise changed(self.display)
        cells = {name: row.get(name) for name in columns}
        if any(type(value) in (int, float) for value in cells.values()):
            for member in self._members(line):
                if member.key in cells and type(member.value) in (int, float):
                    cells[member.key] = NumberText(member.text)
        return cells

    def _checked_batches(self) -> Iterator[Batch]:
        """The scanned lines again; InputChangedError as soon as the file is another."""
        info = self._scanned()
        self._file.require_unchanged(info.fingerprint)
        count = 0
        try:
            for batch in self._batches():
                self._file.require_unchanged(info.fingerprint)
                count = batch.position + len(batch.lines)
                yield batch
        except (UnicodeError, DamagedError) as exc:
            raise changed(self.display) from exc
        if count != info.rows:
            raise InputChangedError(f"{changed(self.display)} ({count} rows instead of {info.rows})")

    def _batches(self) -> Iterator[Batch]:
        """The lines that are not blank, in batches by number and by bytes."""
        position = 0
        numbers: list[int] = []
        lines: list[bytes] = []
        size = 0
        for number, line in enumerate(self._lines(), 1):
            line = line.strip(_SPACE)
            if not line:
                continue
            if position + len(lines) == self._limit:
                break
            numbers.append(number)
            lines.append(line)
            size += len(line)
            if len(lines) == BATCH_ROWS or size > BATCH_BYTES:
                yield Batch(position, numbers, lines)
                position += len(lines)
                numbers, lines, size = [], [], 0
        if lines:
            yield Batch(position, numbers, lines)

    def _lines(self) -> Iterator[bytes]:
        """The lines as UTF-8, without a byte order mark."""
        if self._text.encoding != "utf-8-sig":
            with self._text.open(newline="\n") as (text, _):
                yield from (line.encode("utf-8", "surrogatepass") for line in text)
            return
        with self._file.open()[0] as binary:
            first = binary.readline()
            yield first.removeprefix(b"\xef\xbb\xbf")
            yield from binary


def _check_line(line: bytes, number: int, row: int, columns: dict[str, None], found: ProblemList) -> None:
    """Note what is wrong with one line, and the keys that it brings."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = None
    if type(value) is dict and line.count(b'":') == len(value) and not _SPACED_COLON.search(line):
        if not value.keys() <= columns.keys():
            columns.update(dict.fromkeys(value))
        return
    _check_slowly(line, number, row, columns, found)


def _check_slowly(line: bytes, number: int, row: int, columns: dict[str, None], found: ProblemList) -> None:
    """The same for lines of which the fast look cannot say that no key is there twice."""
    text = line.decode()
    try:
        members = split_object(text)
    except ValueError as exc:
        reason = str(exc).partition(": line ")[0]
        found.add(
            "invalid_json",
            f"the line is no JSON ({reason}); write one whole object on each line",
            number,
            row,
        )
        return
    if members is None:
        kind = _NAMES.get(type(json.loads(text)), "no object")
        found.add(
            "not_an_object", f"the line is {kind}, not an object; write one {{…}} on each line", number, row
        )
        return
    keys = [member.key for member in members]
    for key in {key for key in keys if keys.count(key) > 1}:
        message = f"the key {key!r} stands {keys.count(key)} times in the line; rename all but one"
        found.add("duplicate_key", message, number, row)
    columns.update(dict.fromkeys(keys))


def _row_texts(members: list[Member], names: Sequence[str], as_json: set[str]) -> Texts:
    texts = {member.key: column_text(member, member.key in as_json) for member in members}
    return [texts.get(name) for name in names]
