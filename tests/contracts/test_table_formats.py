"""The contract of a table source, run by every format; no format is known here but by its maker."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from websim_batch.errors import InputChangedError, InputError, InternalError
from websim_batch.records import OutputCells, Problem
from websim_batch.tables import (
    OUR_NAMES,
    OutputSpec,
    ReadOptions,
    Source,
    TableInfo,
    open_source,
    write_output,
)
from websim_batch.tables.compare import verify
from websim_batch.tables.load import load, read_table

ROWS = [{"id": f"{number:03d}", "prompt": f'Say {number},\r\n"twice"'} for number in range(600)]
TABLE = pa.Table.from_pylist(ROWS)


def csv_of(rows: list[dict[str, str]]) -> bytes:
    lines = ["id,prompt"] + ['{},"{}"'.format(row["id"], row["prompt"].replace('"', '""')) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def jsonl_of(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zst_of(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def parquet_of(rows: list[dict[str, str]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, TABLE.schema), sink, row_group_size=170)
    return sink.getvalue()


FILES: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    ".csv": csv_of,
    ".csv.gz": lambda rows: gzip.compress(csv_of(rows)),
    ".csv.zst": lambda rows: zst_of(csv_of(rows)),
    ".tsv": lambda rows: csv_of(rows).replace(b"id,", b"id\t").replace(b',"Say', b'\t"Say'),
    ".jsonl": jsonl_of,
    ".jsonl.gz": lambda rows: gzip.compress(jsonl_of(rows)),
    ".jsonl.zst": lambda rows: zst_of(jsonl_of(rows)),
    ".parquet": parquet_of,
}
FRAMES: dict[str, Callable[[], Any]] = {
    "arrow": lambda: TABLE,
    "pandas": lambda: pd.DataFrame(ROWS),
    "polars": lambda: pl.DataFrame(ROWS),
}
STREAMS: dict[str, Callable[[], bytes]] = {
    "stdin csv": lambda: csv_of(ROWS),
    "stdin jsonl": lambda: jsonl_of(ROWS),
    "stdin zst": lambda: zst_of(csv_of(ROWS)),
}


def opened(name: str, folder: Path, limit: int | None = None) -> Source:
    options = ReadOptions(limit=limit)
    if name in FRAMES:
        return open_source(FRAMES[name](), options)
    if name in STREAMS:
        return open_source("-", options, io.BytesIO(STREAMS[name]()))
    path = folder / f"in{name}"
    path.write_bytes(FILES[name](ROWS))
    return open_source(path, options)


@pytest.fixture(params=[*FILES, *FRAMES, *STREAMS])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    source = opened(request.param, tmp_path)
    yield source
    source.close()


@pytest.fixture(params=list(FILES))
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def scanned(source: Source) -> TableInfo:
    problems: list[Problem] = []
    info = source.scan(problems)
    assert problems == []
    return info


def test_scan_tells_columns_and_rows(source: Source) -> None:
    """The structure pass gives the columns in order, the number of rows, and a fingerprint that stays."""
    info = scanned(source)

    assert (info.columns, info.rows, info.problem_counts) == (("id", "prompt"), 600, {})
    assert info.fingerprint == scanned(source).fingerprint


def test_rows_come_in_order_with_the_named_columns(source: Source) -> None:
    """Rows come in batches of at most 256, in order, with exactly the cells asked for."""
    batches = list(source.rows(["prompt"]))

    rows = [row for batch in batches for row in batch]
    assert max(map(len, batches)) <= 256
    assert [row.position for row in rows] == list(range(600))
    assert [row.cells for row in rows] == [{"prompt": row["prompt"]} for row in ROWS]


@pytest.mark.parametrize("start", [1, 256, 599, 600])
def test_rows_may_start_anywhere(source: Source, start: int) -> None:
    """Reading from a position gives the same rows as reading all and dropping the first."""
    rows = [row for batch in source.rows(["id", "prompt"], start) for row in batch]

    assert [(row.position, row.cells) for row in rows] == list(enumerate(ROWS))[start:]


def test_rows_without_columns_are_still_rows(source: Source) -> None:
    """A template that uses no column still gets every row."""
    assert [row.cells for batch in source.rows([]) for row in batch] == [{}] * 600


def test_a_line_is_where_the_row_begins(source: Source) -> None:
    """Text formats tell the line on which a row begins, others tell none."""
    lines = [row.line for batch in source.rows(["id"]) for row in batch]

    expected = {"csv": list(range(2, 1202, 2)), "jsonl": list(range(1, 601))}
    assert lines == expected.get(source.format, [None] * 600)


@pytest.mark.parametrize("name", [*FILES, *FRAMES])
@pytest.mark.parametrize("limit", [1, 256, 300, 600, 601])
def test_a_limit_keeps_the_first_rows(name: str, limit: int, tmp_path: Path) -> None:
    """With a limit the source is the table of its first rows, in the output too."""
    source = opened(name, tmp_path, limit)
    count = min(limit, 600)

    info = scanned(source)
    write_output(source, info, iter([OutputCells("pending")] * count), OutputSpec(tmp_path / "out.csv"))

    assert info.rows == count
    assert [row.cells["id"] for batch in source.rows(["id"]) for row in batch] == [
        row["id"] for row in ROWS[:count]
    ]
    assert load(tmp_path / "out.csv")["id"].tolist() == [row["id"] for row in ROWS[:count]]


@pytest.mark.parametrize(
    "target", [".csv", ".csv.gz", ".csv.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]
)
def test_every_format_goes_into_every_format(source: Source, target: str, tmp_path: Path) -> None:
    """Every row is in the output once, in order, with its own cells beside it."""
    cells = (OutputCells("ok", f"answer {number}", requests=1, http_status=200) for number in range(600))
    output = tmp_path / f"out{target}"

    write_output(source, scanned(source), cells, OutputSpec(output))

    table = read_table(output)
    assert table.select(["id", "prompt"]).to_pylist() == ROWS
    assert table.column("response").to_pylist() == [f"answer {number}" for number in range(600)]
    assert verify(
        output, TABLE if source.format in ("arrow", "parquet") else source.path or TABLE
    ).counts == {"ok": 600}


def test_too_few_or_too_many_results_are_our_fault(source: Source, tmp_path: Path) -> None:
    """A join that does not end on both sides together raises and leaves nothing behind."""
    for count in (599, 601):
        with pytest.raises(InternalError):
            write_output(
                source, scanned(source), iter([OutputCells("ok")] * count), OutputSpec(tmp_path / "out.jsonl")
            )

    assert not list(tmp_path.glob("*out*"))


def test_a_change_before_reading_is_refused(suffix: str, tmp_path: Path) -> None:
    """A file with a row more than the structure pass saw is refused before its first row."""
    source = opened(suffix, tmp_path)
    scanned(source)
    (tmp_path / f"in{suffix}").write_bytes(FILES[suffix]([*ROWS, ROWS[0]]))

    with pytest.raises(InputChangedError, match="changed while it was read"):
        next(source.rows(["prompt"]))


def test_a_change_while_reading_is_refused(suffix: str, tmp_path: Path) -> None:
    """A file that is touched between two batches is refused at the next one."""
    source = opened(suffix, tmp_path)
    batches = source.rows(["prompt"])
    next(batches)
    os.utime(tmp_path / f"in{suffix}", ns=(1, 1))

    with pytest.raises(InputChangedError):
        list(batches)


def test_a_file_that_vanished_is_refused(suffix: str, tmp_path: Path) -> None:
    """A file that is gone at the end is an input that changed, not a crash; the old output stays."""
    source = opened(suffix, tmp_path)
    info = scanned(source)
    (tmp_path / f"in{suffix}").unlink()
    (tmp_path / "out.csv").write_text("old")

    with pytest.raises(InputChangedError):
        write_output(source, info, iter([OutputCells("ok")] * 600), OutputSpec(tmp_path / "out.csv"))

    assert (tmp_path / "out.csv").read_text() == "old"


def test_a_cut_file_is_refused(suffix: str, tmp_path: Path) -> None:
    """A file that lost its end is told as a problem, never read as if it were whole."""
    path = tmp_path / f"in{suffix}"
    path.write_bytes(FILES[suffix](ROWS)[:-2])
    problems: list[Problem] = []

    open_source(path).scan(problems)

    assert [problem.is_structural for problem in problems] == [True]


def test_no_rows_give_an_empty_table(suffix: str, tmp_path: Path) -> None:
    """A table without rows, or without anything at all, gives a valid output with all our columns."""
    for data in (FILES[suffix]([]), b""):
        path = tmp_path / f"none{suffix}"
        path.write_bytes(data)
        source = open_source(path)
        info = scanned(source)
        for target in (".csv", ".parquet", ".jsonl"):
            write_output(source, info, iter([]), OutputSpec(tmp_path / f"out{target}"))
            table = read_table(tmp_path / f"out{target}")
            assert table.num_rows == 0
            assert tuple(table.column_names[-len(OUR_NAMES) :]) == OUR_NAMES


def test_damage_in_the_middle_is_never_read_over(suffix: str, tmp_path: Path) -> None:
    """Bytes that are broken inside a compressed file or a Parquet page end in an error, not in other rows."""
    data = bytearray(FILES[suffix](ROWS))
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    path = tmp_path / f"in{suffix}"
    path.write_bytes(data)
    problems: list[Problem] = []
    source = open_source(path)
    source.scan(problems)

    if not problems:
        with pytest.raises(InputError):
            list(source.rows(["id", "prompt"]))
