"""What the tests of tables share: making inputs, running them, reading outputs with foreign readers."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from websim_batch.records import OutputCells, Problem
from websim_batch.tables import OUR_NAMES, OutputSpec, ReadOptions, open_source, write_output

STARTED_US = 1_700_000_000_123_456
DONE = OutputCells(
    "ok", "An answer, \"quoted\"\r\nin lines", requests=1, http_status=200, latency_ms=51, wait_ms=0,
    finish_reason="stop", request_kind="chat", request_hash="0f" * 16, started_at=STARTED_US,
    finished_at=STARTED_US + 51_000, run_id="run-1",
)  # fmt: skip
PENDING = OutputCells("pending")


def packed(path: Path, data: bytes) -> Path:
    """Write `data`, compressed as the name says."""
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def unpacked(path: Path) -> bytes:
    """The bytes of a file, unpacked as the name says."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if path.suffix == ".zst" else data


def csv_bytes(rows: Iterable[Sequence[str]], delimiter: str = ",") -> bytes:
    """CSV with every cell quoted."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def problems_of(path: Path, most: int = 50, **options: Any) -> list[Problem]:
    """What the structure pass says of a file."""
    problems: list[Problem] = []
    open_source(path, ReadOptions(**options)).scan(problems, most)
    return problems


def prompts_of(path: Path, column: str = "prompt", **options: Any) -> list[Any]:
    """The cells of one column as requests get them."""
    source = open_source(path, ReadOptions(**options))
    return [row.cells[column] for batch in source.rows([column]) for row in batch]


def joined(
    table: object,
    output: Path,
    cells: Sequence[OutputCells] | None = None,
    options: ReadOptions | None = None,
    **spec: Any,
) -> Path:
    """Run a table through to `output`, with DONE beside every row unless `cells` are given."""
    source = open_source(table, options)
    problems: list[Problem] = []
    info = source.scan(problems)
    assert problems == []
    write_output(
        source, info, iter([DONE] * info.rows if cells is None else cells), OutputSpec(output, **spec)
    )
    return output


def read_csv(path: Path, delimiter: str = ",") -> tuple[list[str], list[list[str]]]:
    """Header and rows by the csv module alone."""
    csv.field_size_limit(1 << 30)
    header, *rows = csv.reader(io.StringIO(unpacked(path).decode(), newline=""), delimiter=delimiter)
    return header, rows


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """One dict per line by the json module alone."""
    return [json.loads(line) for line in unpacked(path).decode().split("\n") if line]


def read_parquet(path: Path) -> pa.Table:
    """The table by pyarrow alone."""
    with pq.ParquetFile(path) as file:
        return file.read()


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The input's columns of an output in any format; null and a missing key are None."""
    if ".parquet" in path.name:
        table = read_parquet(path)
        return {name: table.column(name).to_pylist() for name in table.column_names[: -len(OUR_NAMES)]}
    if ".jsonl" in path.name:
        rows = read_jsonl(path)
        names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in OUR_NAMES]
        return {name: [row.get(name) for row in rows] for name in names}
    header, lines = read_csv(path)
    return {name: [line[place] for line in lines] for place, name in enumerate(header[: -len(OUR_NAMES)])}


def test_the_kit_reads_what_it_writes(tmp_path: Path) -> None:
    """The tests' own readers undo the tests' own writers."""
    rows = [["prompt"], ["a\rb"], ['"'], [""]]

    path = packed(tmp_path / "in.csv.zst", csv_bytes(rows))

    assert read_csv(path) == (rows[0], rows[1:])
