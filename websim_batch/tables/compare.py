"""Is every input row in the output once, in order, unchanged? Told from the two tables alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websim_batch.errors import InputError, UsageError
from websim_batch.jsontext import clean_text
from websim_batch.records import STATUSES, Problem
from websim_batch.tables.base import OUR_NAMES, ReadOptions, Source, TableInfo, Texts, our_prefix
from websim_batch.tables.jsonlines import split_object
from websim_batch.tables.opening import open_source

if TYPE_CHECKING:
    import pyarrow as pa

_OURS = len(OUR_NAMES)
_MOST_SHOWN = 200
_MOST_TOLD = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not what it should be; `row` counts data rows from 1, None for the whole."""

    row: int | None
    column: str | None
    message: str

    def __str__(self) -> str:
        place = "" if self.row is None else f"row {self.row}"
        if self.column is not None:
            place += f"{', ' if place else ''}column {self.column!r}"
        return f"{place}: {self.message}" if place else self.message


@dataclass(slots=True)
class Comparison:
    """What `verify` found: rows, statuses, the first differences in full and the number of all."""

    output: str
    input: str | None
    rows: int = 0
    input_rows: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    difference_count: int = 0

    @property
    def is_proven(self) -> bool:
        """Whether nothing differs."""
        return not self.difference_count

    def __str__(self) -> str:
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        counts = ", ".join(f"{count:,} {status}" for status, count in self.counts.items())
        if self.is_proven:
            proven = (
                "each with one status"
                if self.input is None
                else "every input row once, in order, cells equal"
            )
            return f"{rows}: {counts}; {proven}" if counts else f"{rows}; {proven}"
        number = self.difference_count
        told = "; ".join(map(str, self.differences[:_MOST_TOLD]))
        more = f"; and {number - _MOST_TOLD:,} more" if number > _MOST_TOLD else ""
        return f"{self.output}: {number:,} difference{'' if number == 1 else 's'}: {told}{more}"

    def differ(self, message: str, row: int | None = None, column: str | None = None, most: int = 20) -> None:
        """Note one difference."""
        self.difference_count += 1
        if len(self.differences) < most:
            self.differences.append(Difference(row, column, message))


def verify(
    output: Path,
    table: object | None = None,
    options: ReadOptions | None = None,
    output_options: ReadOptions | None = None,
) -> Comparison:
    """Compare the output with the input `table` (None: only look at the output itself).

    `options` are those the run read its input with (a limit too). Raises UsageError for an output that is
    none of ours, InputError for tables that cannot be read.
    """
    out, out_info = _opened(output, output_options or ReadOptions())
    report = Comparison(str(output), None)
    if table is None:
        _compare(out, out_info, None, None, report)
    else:
        source, info = _opened(table, options or ReadOptions())
        report.input, report.input_rows = source.display, info.rows
        try:
            _compare(out, out_info, source, info, report)
        finally:
            source.close()
    return report


def _opened(table: object, options: ReadOptions) -> tuple[Source, TableInfo]:
    source = open_source(table, options)
    problems: list[Problem] = []
    info = source.scan(problems)
    if problems:
        raise InputError(problems)
    return source, info


def _compare(
    out: Source, out_info: TableInfo, source: Source | None, info: TableInfo | None, report: Comparison
) -> None:
    report.rows = out_info.rows
    if info is not None and info.rows != out_info.rows:
        report.differ(f"the input has {info.rows} rows, the output {out_info.rows}")
    if out.format == "jsonl":
        statuses = _compare_jsonl(out, source, report)
    else:
        if our_prefix(out_info.columns) is None:
            raise UsageError(f"{out.display}: was not written by websim-batch: its last columns are not ours")
        if info is not None and out_info.columns[:-_OURS] != info.columns:
            report.differ(
                f"the columns are {list(out_info.columns[:-_OURS])}, in the input {list(info.columns)}"
            )
            source = None
        statuses = (
            _compare_csv(out, source, report) if out.format == "csv" else _compare_arrow(out, source, report)
        )
    counts = Counter[Any](statuses)
    report.counts = {status: counts[status] for status in STATUSES if counts[status]}


def _compare_csv(out: Source, source: Source | None, report: Comparison) -> Iterator[str]:
    """The statuses; on the way every cell is compared with the input's rendering."""
    names = _names(out)
    expected = _flat(source.text_rows()) if source else None
    for number, (row, wanted) in enumerate(_beside(_flat(out.text_rows()), expected), 1):
        if wanted is not None:
            _compare_texts(row[:-_OURS], wanted, names, number, report)
        yield _checked_status(row[-_OURS], number, report)


def _compare_texts(
    row: Texts, wanted: Texts, names: tuple[str, ...], number: int, report: Comparison
) -> None:
    if row == wanted:
        return
    for name, found, expected in zip(names, row, wanted, strict=False):
        if found != (plain := clean_text(expected or "")):
            report.differ(f"is {_shown(found)}, in the input {_shown(plain)}", number, name)


def _compare_jsonl(out: Source, source: Source | None, report: Comparison) -> Iterator[str]:
    """The statuses; on the way every key and the text of every value is compared."""
    expected = _flat(source.json_lines()) if source else None
    for number, (line, wanted) in enumerate(_beside(_flat(out.json_lines()), expected), 1):
        members = split_object(line.decode() + "}") or []
        if our_prefix([member.key for member in members]) is None:
            raise UsageError(f"{out.display}: was not written by websim-batch: row {number} lacks our keys")
        if wanted is not None:
            theirs = [(member.key, member.text) for member in members[:-_OURS]]
            given = [(member.key, member.text) for member in split_object(wanted.decode() + "}") or []]
            _compare_members(theirs, given, number, report)
        yield _checked_status(members[-_OURS].value, number, report)


def _compare_members(
    found: list[tuple[str, str]], wanted: list[tuple[str, str]], number: int, report: Comparison
) -> None:
    if found == wanted:
        return
    if [key for key, _ in found] != [key for key, _ in wanted]:
        report.differ(
            f"the keys are {[key for key, _ in found]}, in the input {[key for key, _ in wanted]}", number
        )
        return
    for (key, text), (_, expected) in zip(found, wanted, strict=True):
        if text != expected:
            report.differ(f"is {_shown(text)}, in the input {_shown(expected)}", number, key)


def _compare_arrow(out: Source, source: Source | None, report: Comparison) -> Iterator[str]:
    """The statuses; on the way types and values are compared."""
    names = _names(out)
    fields = list(out.arrow_schema())[:-_OURS]
    if source is not None:
        for name, found, wanted in zip(names, fields, source.arrow_schema(), strict=True):
            if not found.equals(wanted):
                report.differ(f"has the type {found.type}, in the input {wanted.type}", None, name)
    if source is None:
        pairs: Iterable[tuple[pa.RecordBatch, pa.RecordBatch | None]] = (
            (batch, None) for batch in out.arrow_batches()
        )
    else:
        pairs = _aligned(out.arrow_batches(), source.arrow_batches())
    number = 1
    for batch, wanted_batch in pairs:
        if wanted_batch is not None:
            for place, name in enumerate(names):
                _compare_columns(batch.column(place), wanted_batch.column(place), number, name, report)
        for offset, status in enumerate(batch.column(len(names)).to_pylist()):
            yield _checked_status(status, number + offset, report)
        number += batch.num_rows


def _compare_columns(found: Any, wanted: Any, number: int, name: str, report: Comparison) -> None:
    if found.equals(wanted):
        return
    from websim_batch.tables.rendering import json_texts  # NaN is not equal to itself, but its text is

    for offset, (text, expected) in enumerate(zip(json_texts(found), json_texts(wanted), strict=True)):
        if text != expected:
            report.differ(f"is {_shown(text)}, in the input {_shown(expected)}", number + offset, name)


def _aligned(
    left: Iterator[pa.RecordBatch], right: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
    """Batches of both sides cut to equal lengths; the left side's surplus stands alone."""
    mine: pa.RecordBatch | None = None
    other: pa.RecordBatch | None = None
    while True:
        mine = mine if mine else next(left, None)
        if mine is None:
            return
        other = other if other else next(right, None)
        if other is None:
            yield mine, None
            mine = None
            continue
        size = min(mine.num_rows, other.num_rows)
        if size:
            yield mine.slice(0, size), other.slice(0, size)
        mine, other = _rest(mine, size), _rest(other, size)


def _rest(batch: pa.RecordBatch, size: int) -> pa.RecordBatch | None:
    return batch.slice(size) if batch.num_rows > size else None


def _beside(found: Iterator[Any], wanted: Iterator[Any] | None) -> Iterator[tuple[Any, Any]]:
    """Each row of the output beside the input's row, None where there is none."""
    if wanted is None:
        yield from ((row, None) for row in found)
        return
    missing = object()
    for row, expected in zip_longest(found, wanted, fillvalue=missing):
        if row is missing:  # their number was told already
            return
        yield row, None if expected is missing else expected


def _checked_status(status: str | None, number: int, report: Comparison) -> str:
    if status not in STATUSES:
        report.differ(f"the status is {_shown(status)}, which is none", number)
    return status or ""


def _names(out: Source) -> tuple[str, ...]:
    return out.scan([]).columns[:-_OURS]


def _flat(batches: Iterator[list[Any]]) -> Iterator[Any]:
    for batch in batches:
        yield from batch


def _shown(text: str | None) -> str:
    shown = repr(text)
    return shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + "…"
