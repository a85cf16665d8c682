"""Saving in one step, proving outputs again, loading them, and telling what other tools would change."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_tables_kit import DONE, PENDING, csv_bytes, joined, packed, read_parquet

from websim_batch.errors import DiskFullError, InputError, UsageError
from websim_batch.records import OUTPUT_COLUMNS, STATUSES, OutputCells
from websim_batch.tables import OUR_NAMES, ReadOptions, atomic_write, open_source, require_writable
from websim_batch.tables.compare import verify
from websim_batch.tables.hazards import hazards
from websim_batch.tables.load import load, read_table

OUTPUTS = [".csv", ".csv.gz", ".csv.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]
ROWS = [[str(number), f"say {number}"] for number in range(1000)]


# --- saving


def names_in(folder: Path) -> list[str]:
    """The names of all files in a folder."""
    return sorted(each.name for each in folder.iterdir())


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Until the last moment the old file stands; an error leaves it and nothing else."""
    path = tmp_path / "out.csv"
    path.write_text("old")

    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write(b"half")
        raise KeyError

    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["out.csv"]
    with path.open() as reader:
        with atomic_write(path) as file:
            file.write(b"new")
            assert path.read_text() == "old"
        assert reader.read() == "old"  # whoever has it open keeps the old one, whole
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["out.csv"]


def test_what_a_killed_writer_left_is_taken_away(tmp_path: Path) -> None:
    """A part file of a dead process goes with the next save; that of a living one and foreign ones stay."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom websim_batch.tables import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as f:\n    f.write(b'x')\n    f.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "out.csv")], check=False)
    assert len(names_in(tmp_path)) == 1
    (tmp_path / f".out.csv.{os.getppid()}.part").touch()
    (tmp_path / ".other.csv.1.part").touch()

    with atomic_write(tmp_path / "out.csv") as file:
        file.write(b"new")

    assert names_in(tmp_path) == [".other.csv.1.part", f".out.csv.{os.getppid()}.part", "out.csv"]


def test_links_and_modes_stay(tmp_path: Path) -> None:
    """A link keeps leading to the file, and the file keeps its mode; a new one follows the umask."""
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "real.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to("real.csv")

    with atomic_write(tmp_path / "link.csv") as file:
        file.write(b"new")
    with atomic_write(tmp_path / "fresh.csv") as file:
        file.write(b"new")

    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real.csv").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "fresh.csv").stat().st_mode) == 0o666 & ~umask


def test_places_that_cannot_be_written_are_wrong_usage(tmp_path: Path) -> None:
    """A missing folder, a folder and a device are told as such, before anything is paid."""
    for path, words in {
        tmp_path / "missing" / "out.csv": "cannot be written",
        tmp_path: "no regular file",
        Path("/dev/null"): "no regular file",
        tmp_path / ("x" * 300): "cannot be written",
    }.items():
        with pytest.raises(UsageError, match=words):
            require_writable(path)
    require_writable(tmp_path / "out.csv")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_told_as_one(tmp_path: Path, code: int) -> None:
    """A disk that is full or fails is no fault of ours; the old file stands."""
    (tmp_path / "out.csv").write_text("old")

    with (
        pytest.raises(DiskFullError, match=r"out\.csv: the output cannot be written"),
        atomic_write(tmp_path / "out.csv"),
    ):
        raise OSError(code, os.strerror(code))

    assert (tmp_path / "out.csv").read_text() == "old"
    assert names_in(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_a_full_disk_under_every_writer_is_told_as_one(tmp_path: Path, suffix: str) -> None:
    """Each writer's own errors come out as a full disk: a limit on file sizes stands for it."""
    packed(tmp_path / "in.csv", csv_bytes([["id", "prompt"], *ROWS]))
    script = """
import os, resource, signal, sys
from pathlib import Path
from websim_batch.errors import DiskFullError
from websim_batch.records import OutputCells
from websim_batch.tables import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
source = open_source(Path(sys.argv[1]))
info = source.scan([])
cells = (OutputCells("ok", os.urandom(500).hex()) for _ in range(info.rows))
try:
    write_output(source, info, cells, OutputSpec(Path(sys.argv[2])))
except DiskFullError as exc:
    print(exc)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "in.csv"), str(tmp_path / f"out{suffix}")]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "the output cannot be written" in done.stdout
    assert names_in(tmp_path) == ["in.csv"]


# --- proving


def damaged(name: str) -> Callable[[list[list[str]]], list[list[str]]]:
    """Ways in which an output can be wrong."""
    ways: dict[str, Callable[[list[list[str]]], list[list[str]]]] = {
        "a row lost": lambda rows: rows[:500] + rows[501:],
        "a row doubled": lambda rows: rows[:500] + rows[499:],
        "rows swapped": lambda rows: [*rows[:10], rows[11], rows[10], *rows[12:]],
        "a cell changed": lambda rows: [*rows[:700], [rows[700][0], rows[700][1] + " "], *rows[701:]],
        "a cell emptied": lambda rows: [*rows[:999], ["999", ""]],
        "a zero dropped": lambda rows: [["00", rows[0][1]], *rows[1:]],
    }
    return ways[name]


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize(
    ("way", "place"),
    [
        ("a row lost", "the input has 1000 rows, the output 999"),
        ("a row doubled", "the input has 1000 rows, the output 1001"),
        ("rows swapped", "row 11, column 'id': is "),
        ("a cell changed", "row 701, column 'prompt': is "),
        ("a cell emptied", "row 1000, column 'prompt': is "),
        ("a zero dropped", "row 1, column 'id': is "),
    ],
)
def test_verify_finds_what_is_wrong(tmp_path: Path, suffix: str, way: str, place: str) -> None:
    """A lost, doubled, moved or changed row is found in every format and told with its place."""
    good = packed(tmp_path / "in.csv", csv_bytes([["id", "prompt"], *ROWS]))
    bad = packed(tmp_path / "bad.csv", csv_bytes([["id", "prompt"], *damaged(way)(ROWS)]))

    report = verify(joined(bad, tmp_path / f"out{suffix}"), good)

    assert not report.is_proven
    assert str(report.differences[0]).startswith(place)
    assert f": {report.difference_count:,} difference" in str(report)
    assert str(report.differences[0]) in str(report)


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_verify_says_in_one_line_that_all_is_well(tmp_path: Path, suffix: str) -> None:
    """A good output is proven, with its counts by status, with and without its input."""
    source = packed(tmp_path / "in.csv", csv_bytes([["id", "prompt"], *ROWS]))
    output = joined(source, tmp_path / f"out{suffix}", [DONE] * 900 + [PENDING] * 100)

    with_input, alone = verify(output, source), verify(output)

    told = "1,000 rows: 900 ok, 100 pending"
    assert str(with_input) == f"{told}; every input row once, in order, cells equal"
    assert str(alone) == f"{told}; each with one status"
    assert (
        verify(output, source, ReadOptions(limit=10)).differences[0].message
        == "the input has 10 rows, the output 1000"
    )


def test_verify_finds_a_changed_type_and_a_changed_name(tmp_path: Path) -> None:
    """An integer column that became text, and a column of another name, are differences."""
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "in.parquet")
    pq.write_table(pa.table({"n": ["1", "2"]}), tmp_path / "text.parquet")
    pq.write_table(pa.table({"m": [1, 2]}), tmp_path / "name.parquet")

    text = verify(joined(tmp_path / "text.parquet", tmp_path / "a.parquet"), tmp_path / "in.parquet")
    name = verify(joined(tmp_path / "name.parquet", tmp_path / "b.parquet"), tmp_path / "in.parquet")

    assert str(text.differences[0]) == "column 'n': has the type string, in the input int64"
    assert str(name.differences[0]) == "the columns are ['m'], in the input ['n']"


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_verify_wants_one_known_status_in_every_row(tmp_path: Path, suffix: str) -> None:
    """A status that is none, or none at all, is a difference."""
    source = packed(tmp_path / "in.csv", b"prompt\na\n")

    report = verify(joined(source, tmp_path / f"out{suffix}", [OutputCells("done")]))  # type: ignore[arg-type]

    assert str(report.differences[0]) == "row 1: the status is 'done', which is none"


def test_verify_refuses_foreign_tables(tmp_path: Path) -> None:
    """A table without our columns is no output; a broken one is told as broken."""
    for name, data in {"a.csv": b"prompt\na\n", "a.jsonl": b'{"prompt": 1}\n'}.items():
        with pytest.raises(UsageError, match="was not written by websim-batch"):
            verify(packed(tmp_path / name, data))
    with pytest.raises(InputError, match="line 2: the row has 2 cells"):
        verify(packed(tmp_path / "b.csv", b"prompt\na,b\n"))


# --- loading


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_load_gives_good_types(tmp_path: Path, suffix: str) -> None:
    """Our columns have the design's types in every format, the status is a category, nulls are nulls."""
    source = packed(tmp_path / "in.csv", csv_bytes([["id", "prompt"], *ROWS[:3]]))
    cells = [DONE, PENDING, DONE._replace(status="failed", prompt_tokens=7)]

    frame = load(joined(source, tmp_path / f"out{suffix}", cells, prefix="my_"))

    types = {"timestamp": "timestamp[us, tz=UTC]"}
    expected = {f"my_{name}": f"{types.get(kind, kind)}[pyarrow]" for name, kind in OUTPUT_COLUMNS[1:]}
    found = {name: str(frame[name].dtype) for name in expected}
    assert found == expected
    assert list(frame["my_status"].cat.categories) == list(STATUSES)
    assert frame["my_status"].tolist() == ["ok", "pending", "failed"]
    assert frame["my_prompt_tokens"].isna().tolist() == [True, True, False]
    assert frame["my_started_at"][0] == pd.Timestamp("2023-11-14T22:13:20.123456Z")
    assert frame["id"].tolist() == ["0", "1", "2"]


def test_load_keeps_a_status_and_takes_patterns(tmp_path: Path) -> None:
    """`status` keeps those rows, a pattern joins all files that match, and nothing found is told."""
    source = packed(tmp_path / "in.csv", csv_bytes([["id", "prompt"], *ROWS[:3]]))
    for name in ("out-1.csv", "out-2.jsonl", "out-3.parquet"):
        joined(source, tmp_path / name, [DONE, PENDING, DONE])

    assert load(tmp_path / "out-1.csv", status="ok")["id"].tolist() == ["0", "2"]
    assert load(tmp_path / "out-1.csv", status=["pending", "failed"])["id"].tolist() == ["1"]
    whole = load(str(tmp_path / "out-*"), status="ok")
    assert whole["id"].tolist() == ["0", "2"] * 3
    assert str(whole["status"].dtype) == "category"
    with pytest.raises(UsageError, match="matches no file"):
        load(tmp_path / "none-*.csv")
    with pytest.raises(UsageError, match="status 'good' is none; use one of ok, failed"):
        load(tmp_path / "out-1.csv", status="good")
    with pytest.raises(UsageError, match="was not written by websim-batch"):
        load(tmp_path / "in.csv")


def test_load_finds_our_columns_when_later_lines_bring_new_keys(tmp_path: Path) -> None:
    """In JSON Lines a key that first comes in the second row stands after ours; nothing is mixed up."""
    source = packed(tmp_path / "in.jsonl", b'{"prompt": "a"}\n{"prompt": "b", "n": 7}\n')

    table = read_table(joined(source, tmp_path / "out.jsonl"))

    assert table.column_names == ["prompt", "n", *OUR_NAMES]
    assert table.column("n").to_pylist() == [None, 7]


def test_types_of_parquet_come_back_from_load(tmp_path: Path) -> None:
    """Nested columns and integers with nulls keep their types in the frame."""
    table = pa.table({"prompt": ["a", None], "n": [1, None], "tags": [["x"], None]})

    frame = load(joined(table, tmp_path / "out.parquet"))

    assert [str(frame[name].dtype) for name in ("n", "tags")] == [
        "int64[pyarrow]",
        "list<item: string>[pyarrow]",
    ]
    assert read_parquet(tmp_path / "out.parquet").column("n").to_pylist() == [1, None]


# --- hazards


def test_hazards_name_what_other_tools_would_change(tmp_path: Path) -> None:
    """Each kind of hazard is counted by column with its first row; plain cells are none."""
    cells: dict[str, Any] = {
        "leading_zeros": "007",
        "missing_words": "NA",
        "long_integers": "1234567890123456",
        "trailing_zeros": "1.10",
        "lone_carriage_returns": "a\rb",
        "long_cells": "x" * 40_000,
        "formulas": "=1+1",
        "none": "plain -1.5 text",
    }
    rows = [["plain", "1"], *([text, "-1.5e3"] for text in cells.values()), ["-7", "0"]]
    source = open_source(packed(tmp_path / "in.csv", csv_bytes([["prompt", "n"], *rows])))

    found = hazards(source, source.scan([]))

    expected = [(kind, "prompt", 1, row) for row, kind in enumerate(list(cells)[:-1], 2)]
    assert [(each.kind, each.column, each.count, each.row) for each in found] == expected
    assert str(found[0]).endswith(
        "numbers with leading zeros: pandas and spreadsheets drop the zeros (first in row 2)"
    )
