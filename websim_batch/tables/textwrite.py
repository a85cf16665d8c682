"""CSV and JSON Lines out: rows joined with our cells, streamed in pieces of a quarter of a megabyte."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from websim_batch.jsontext import clean_text
from websim_batch.records import Json, OutputCells
from websim_batch.tables.base import OUR_NAMES, Compression, OutputSpec, Source, TableInfo, default_delimiter
from websim_batch.tables.cells import CellStream, iso_times
from websim_batch.tables.jsonlines import dump_open

_FLUSH_CHARACTERS = 1 << 18
_STARTED = OUR_NAMES.index("started_at")
_FINISHED = OUR_NAMES.index("finished_at")
_FORMULA = ("=", "+", "-", "@")
_FOREIGN_TEXTS = (
    "response", "image_url", "error_message", "finish_reason", "request_model", "request_project_id", "run_id",
)  # fmt: skip


@contextmanager
def packed(file: BinaryIO, compression: Compression | None) -> Iterator[BinaryIO]:
    """`file`, or a stream that compresses into it; the same content gives the same bytes."""
    if compression == "gz":
        import gzip

        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as stream:
            yield cast(BinaryIO, stream)
    elif compression == "zst":
        import zstandard

        with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(
            file, closefd=False
        ) as stream:
            yield cast(BinaryIO, stream)
    else:
        yield file


def csv_quoter(delimiter: str) -> Callable[[str | None], str]:
    """A function that spells one cell; None is nothing.

    The csv module's writer leaves a lone carriage return bare before Python 3.11.9, and takes twice the time.
    """

    def quoted(text: str | None) -> str:
        if not text:
            return ""
        if '"' in text:
            return '"' + text.replace('"', '""') + '"'
        if delimiter in text or "\n" in text or "\r" in text:
            return f'"{text}"'
        return text

    return quoted


def our_csv_cells(spec: OutputSpec) -> Callable[[OutputCells], str]:
    """A function that spells our cells of one row, with the separators between them."""
    delimiter = _delimiter(spec)
    plain = csv_quoter(delimiter)
    # One for each column: rows that take long begin and end in different seconds.
    iso_started, iso_finished = iso_times(), iso_times()
    separators = len(OUR_NAMES) - 3  # in what stands behind status and response
    join = delimiter.join

    def spelled(row: OutputCells) -> str:
        (status, response, image_url, error_type, message, http, requests, latency, wait, prompt, completion,
         finish, kind, model, project, digest, started, finished, run) = row  # fmt: skip
        cells = (
            image_url or "", error_type or "", message or "",
            "" if http is None else str(http),
            str(requests),
            "" if latency is None else str(latency),
            "" if wait is None else str(wait),
            "" if prompt is None else str(prompt),
            "" if completion is None else str(completion),
            finish or "", kind or "", model or "", project or "", digest or "",
            iso_started(started) or "", iso_finished(finished) or "", run or "",
        )  # fmt: skip
        rest = join(cells)
        # The answer alone often needs quotes. Of the others, one look tells that none does.
        if rest.count(delimiter) != separators or _needs_quotes(rest):
            rest = join(map(plain, cells))
        return f"{status}{delimiter}{plain(response)}{delimiter}{rest}"

    return (lambda row: spelled(_without_formulas(row))) if spec.csv_safe else spelled


def _needs_quotes(text: str) -> bool:
    return '"' in text or "\n" in text or "\r" in text


def _without_formulas(row: OutputCells) -> OutputCells:
    """The same cells, but no text from outside begins like a formula."""
    told = {name: getattr(row, name) for name in _FOREIGN_TEXTS}
    safe: dict[str, Any] = {name: f"'{text}" for name, text in told.items() if text and text[0] in _FORMULA}
    return row._replace(**safe)


def write_csv(file: BinaryIO, source: Source, info: TableInfo, cells: CellStream, spec: OutputSpec) -> None:
    """The joined table as CSV: UTF-8, `\\n` between rows, quotes where needed, null as nothing."""
    delimiter = _delimiter(spec)
    quoted = csv_quoter(delimiter)
    ours_of = our_csv_cells(spec)
    lines = [delimiter.join(map(quoted, [*info.columns, *spec.names()]))]
    if spec.bom:
        file.write(b"\xef\xbb\xbf")
    size = 0
    for batch in source.text_rows():
        for row, ours in zip(batch, cells.take(len(batch)), strict=True):
            line = f"{delimiter.join(map(quoted, row))}{delimiter}{ours_of(ours)}" if row else ours_of(ours)
            lines.append(line)
            size += len(line)
            if size > _FLUSH_CHARACTERS:
                file.write(_encoded(lines))
                lines, size = [], 0
    file.write(_encoded(lines))


def _delimiter(spec: OutputSpec) -> str:
    return spec.delimiter or default_delimiter(spec.path)


def _encoded(lines: list[str]) -> bytes:
    """The lines as UTF-8, each with its end; a lone surrogate becomes U+FFFD and harms nothing else."""
    lines.append("")
    text = "\n".join(lines)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return clean_text(text).encode()


def write_jsonl(file: BinaryIO, source: Source, cells: CellStream, spec: OutputSpec) -> None:
    """The joined table as JSON Lines: each input object as its source spells it, then all our keys."""
    names = spec.names()
    iso = iso_times()
    buffer = io.BytesIO()
    for batch in source.json_lines():
        for line, ours in zip(batch, cells.take(len(batch)), strict=True):
            values: list[Json] = [*ours]
            values[_STARTED] = iso(ours.started_at)
            values[_FINISHED] = iso(ours.finished_at)
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
