"""What every table format has in common: options, facts, problems, our columns, and the protocol of a source.

Standard library only, so that naming a format costs no import of its library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from websim_batch.errors import UsageError
from websim_batch.records import OUTPUT_COLUMNS, Problem, PromptRow

if TYPE_CHECKING:
    import pyarrow as pa

Format: TypeAlias = Literal["csv", "jsonl", "parquet", "arrow"]
Compression: TypeAlias = Literal["gz", "zst"]

SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
KNOWN_SUFFIXES = ".csv, .jsonl, .parquet, .csv.gz, .csv.zst, .jsonl.gz, .jsonl.zst"

BATCH_ROWS = 256
"""Most rows that are handed on at once."""

BATCH_BYTES = 4 << 20
"""Rows are handed on earlier once they weigh about this much, so that 50 MB cells do not pile up."""

OUR_NAMES: tuple[str, ...] = tuple(name for name, _ in OUTPUT_COLUMNS)

Texts: TypeAlias = list[str | None]
"""One row as CSV has it; None is null."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a table is read; None means by its name and content. `limit` keeps the first rows only."""

    encoding: str | None = None
    delimiter: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", checked_delimiter(self.delimiter))
        if self.encoding is not None:
            check_encoding(self.encoding)


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What the structure pass found.

    `rows` counts data rows (at most the limit). `fingerprint` moves when the file does. `problem_counts`
    counts every structural problem by kind, also those beyond the listed ones. `delimiter_hint` is the
    separator that the header seems to be written with, when it is not the one in use.
    """

    columns: tuple[str, ...]
    rows: int
    fingerprint: str
    problem_counts: Mapping[str, int] = field(default_factory=dict)
    delimiter_hint: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a header nor a row: a valid table of nothing."""
        return not self.columns and not self.rows and not self.problem_counts


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Where and how the output is written; `metadata` goes into Parquet as JSON, under `websim_batch`."""

    path: Path
    prefix: str = ""
    bom: bool = False
    csv_safe: bool = False
    delimiter: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """The names of our columns in this output."""
        return tuple(self.prefix + name for name in OUR_NAMES)


class Source(Protocol):
    """A table to read, as often as wanted, always in the same order; the contract suite says what holds.

    After `scan` every reading raises InputChangedError when the file is no longer the one that was scanned.
    `text_rows`, `json_lines` and `arrow_batches` give whole rows in the rendering of the target format.
    """

    path: Path | None
    display: str
    format: Format

    def scan(self, problems: list[Problem], most: int = 50) -> TableInfo:
        """Read everything once; append structural problems, the first `most` in full."""

    def rows(self, columns: Sequence[str], start: int = 0) -> Iterator[list[PromptRow]]:
        """Batches of at most 256 rows from position `start`, with only `columns` in their cells."""

    def text_rows(self) -> Iterator[list[Texts]]:
        """Every row as CSV has it, in batches."""

    def json_lines(self) -> Iterator[list[bytes]]:
        """Every row as the text of one JSON object without its closing brace, in batches."""

    def arrow_schema(self) -> pa.Schema:
        """The types of the input columns in Parquet."""

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Every row as Arrow has it, in `arrow_schema`."""

    def close(self) -> None:
        """Let go of what a spooled input holds."""


class ProblemList:
    """Collects problems: every one is counted, the first `most` are kept in full."""

    def __init__(self, problems: list[Problem], most: int, path: str) -> None:
        self._problems = problems
        self._room = most - len(problems)
        self._path = path
        self.counts: Counter[str] = Counter()

    def add(
        self,
        kind: str,
        message: str,
        line: int | None = None,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        """Note one structural problem."""
        self.counts[kind] += 1
        if self._room > 0:
            self._room -= 1
            self._problems.append(Problem(kind, message, self._path, line, row, column))


def format_of(path: Path) -> tuple[Format, Compression | None]:
    """The format and compression that a file's name says; UsageError for a name we do not know."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression: Compression | None = None
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        compression = "gz" if suffixes.pop() == ".gz" else "zst"
    known = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if known is None or (known == "parquet" and compression):
        raise UsageError(
            f"{path}: the name does not say which kind of table it is; use one of {KNOWN_SUFFIXES}"
        )
    return known, compression


def default_delimiter(path: Path | None) -> str:
    """The separator that a file's name says: a tab for `.tsv`, else a comma."""
    is_tsv = path is not None and ".tsv" in (suffix.lower() for suffix in path.suffixes[-2:])
    return "\t" if is_tsv else ","


def checked_delimiter(text: str) -> str:
    """`text` as one separator character (`tab` and `\\t` mean a tab); UsageError for anything else."""
    char = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(char) != 1 or char.isalnum() or char in '_"\r\n\ufeff\0':
        raise UsageError(
            f"--delimiter {text!r} is not one sign that can separate; use for example ';' or '\\t'"
        )
    return char


def check_encoding(name: str) -> None:
    """Raise UsageError unless `name` is a text encoding that Python knows."""
    try:
        "a".encode(name)
    except (LookupError, ValueError) as exc:
        raise UsageError(
            f"--encoding {name!r} is not known; use for example utf-8, cp1252 or utf-16"
        ) from exc


def clashes(columns: Sequence[str], prefix: str = "") -> tuple[str, ...]:
    """The input columns that bear a name of ours, in our order."""
    present = set(columns)
    return tuple(prefix + name for name in OUR_NAMES if prefix + name in present)


def our_prefix(columns: Sequence[str]) -> str | None:
    """The prefix of our columns if `columns` are those of an output of ours (it may be empty), else None."""
    tail = columns[-len(OUR_NAMES) :]
    if not tail or not tail[-1].endswith(OUR_NAMES[-1]):
        return None
    prefix = tail[-1][: -len(OUR_NAMES[-1])]
    return prefix if tuple(tail) == tuple(prefix + name for name in OUR_NAMES) else None


def duplicates(columns: Sequence[str]) -> list[str]:
    """The names that stand more than once, by first appearance."""
    return [name for name, count in Counter(columns).items() if count > 1]
