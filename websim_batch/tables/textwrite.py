"""CSV and JSON Lines out: rows joined with our cells, streamed in pieces of about a megabyte."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, cast

from websim_batch.jsontext import clean_text
from websim_batch.tables.base import Compression, OutputSpec, Source, TableInfo, default_delimiter
from websim_batch.tables.cells import CellStream, iso_times, text_cells
from websim_batch.tables.jsonlines import dump_open

_FLUSH_CHARACTERS = 1 << 20
_BIG_CHARACTERS = 1 << 20
"""Cells from here on are quoted by hand: the csv module keeps four bytes per character of its longest row."""


@contextmanager
def packed(file: BinaryIO, compression: Compression | None) -> Iterator[BinaryIO]:
    """`file`, or a stream that compresses into it; the same content gives the same bytes."""
    if compression == "gz":
        import gzip

        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as stream:
            yield cast(BinaryIO, stream)
    elif compression == "zst":
        import zstandard

        with zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as stream:
            yield cast(BinaryIO, stream)
    else:
        yield file


class CsvLines:
    """Takes CSV lines and writes them as UTF-8; a lone surrogate becomes U+FFFD and harms nothing else.

    The csv module of Python 3.11.7 quotes a lone carriage return only if its line terminator has one: so rows come
    with `\\r\\n` and leave with `\\n`.
    """

    def __init__(self, file: BinaryIO, delimiter: str) -> None:
        self._file = file
        self._delimiter = delimiter
        self._lines: list[str] = []
        self._size = 0
        self.write_row = csv.writer(self, delimiter=delimiter, lineterminator="\r\n").writerow

    def write(self, line: str) -> None:
        """Take one line as the csv module makes it."""
        self._lines.append(line[:-2])
        self._size += len(line)
        if self._size > _FLUSH_CHARACTERS:
            self.flush()

    def write_big(self, row: Sequence[object]) -> None:
        """Take a row with huge cells."""
        quote = '"'
        texts = ("" if cell is None else str(cell) for cell in row)
        self.write(self._delimiter.join(f'"{text.replace(quote, quote * 2)}"' for text in texts) + "\r\n")

    def flush(self) -> None:
        """Write what was taken."""
        if self._lines:
            self._lines.append("")
            text = "\n".join(self._lines)
            self._lines, self._size = [], 0
            try:
                data = text.encode()
            except UnicodeEncodeError:
                data = clean_text(text).encode()
            self._file.write(data)


def write_csv(file: BinaryIO, source: Source, info: TableInfo, cells: CellStream, spec: OutputSpec) -> None:
    """The joined table as CSV: UTF-8, `\\n` between rows, quotes where needed, null as nothing."""
    lines = CsvLines(file, spec.delimiter or default_delimiter(spec.path))
    if spec.bom:
        file.write(b"\xef\xbb\xbf")
    lines.write_row([*info.columns, *spec.names()])
    ours_of = text_cells(spec.csv_safe)
    write_row, write_big = lines.write_row, lines.write_big
    for batch in source.text_rows():
        is_big = any(cell is not None and len(cell) > _BIG_CHARACTERS for row in batch for cell in row)
        for row, ours in zip(batch, cells.take(len(batch)), strict=True):
            if is_big or (ours.response is not None and len(ours.response) > _BIG_CHARACTERS):
                write_big([*row, *ours_of(ours)])
            else:
                write_row([*row, *ours_of(ours)])
    lines.flush()


def write_jsonl(file: BinaryIO, source: Source, cells: CellStream, spec: OutputSpec) -> None:
    """The joined table as JSON Lines: each input object as its source spells it, then all our keys."""
    names = spec.names()
    iso = iso_times()
    buffer = io.BytesIO()
    for batch in source.json_lines():
        for line, ours in zip(batch, cells.take(len(batch)), strict=True):
            values = ours._replace(started_at=iso(ours.started_at), finished_at=iso(ours.finished_at))  # type: ignore[arg-type]
            text = dump_open(dict(zip(names, values, strict=True)))
            buffer.write(line)
            if len(line) > 1:  # an object that is not empty
                buffer.write(b",")
            buffer.write(text[1:])
            buffer.write(b"}\n")
            if buffer.tell() > _FLUSH_CHARACTERS:
                file.write(buffer.getbuffer())
                buffer = io.BytesIO()
    file.write(buffer.getbuffer())
