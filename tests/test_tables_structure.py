"""The structure pass: every problem is found before anything is sent, with its place and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_tables_kit import csv_bytes, joined, packed, problems_of, prompts_of

from websim_batch.errors import ForeignFileError, UsageError
from websim_batch.tables import (
    OUR_NAMES,
    ReadOptions,
    clashes,
    format_of,
    is_ours,
    open_source,
    our_prefix,
    require_ours,
)
from websim_batch.tables.parquetwrite import unwritable_columns

CSV_PROBLEMS = [
    (
        b"a,b\n1,2\n3\n",
        "line 3",
        "ragged_row",
        "the row has 1 cell, the header 2; every row needs 1 of ',', also where cells are empty",
    ),
    (
        b"a,b\n1,2\n3,4,5\n",
        "line 3",
        "ragged_row",
        "the row has 3 cells, the header 2; put the cell that holds ',' in double quotes",
    ),
    (b'a,b\n1,"x\ny"\n\n3\n', "line 5", "ragged_row", "the row has 1 cell"),
    (b'a,b\n1,"x\ry"\n3\n', "line 3", "ragged_row", "the row has 1 cell"),
    (
        b'a,b\n1,2\n3,"open\n4,5\n',
        "line 3",
        "unterminated_quote",
        "a quote begins here and is never closed; close it",
    ),
    (b'a,b\n"l\nl","open\n4,5\n', "line 3", "unterminated_quote", "a quote begins here and is never closed"),
    (b'a,"b\n1,2\n', "line 1", "unterminated_quote", "a quote begins here and is never closed"),
    (
        b'a,b\n1,"open\n4,"c"\n',
        "line 2",
        "stray_quote",
        "the quoted cell that begins here ends on line 3, but text",
    ),
    (b'a,b\n1,"He said "hi""\n', "line 2", "stray_quote", "double each quote inside it"),
    (
        b"a,b,a\n1,2,3\n",
        "line 1",
        "duplicate_column",
        "the column 'a' stands 2 times in the header; rename all but one",
    ),
    (b",\n1,2\n", "line 1", "duplicate_column", "the column '' stands 2 times in the header"),
    (
        b'""\n1\n',
        "line 1",
        "empty_header",
        "the header names no column; write the column names into the first line",
    ),
    (
        "a,b\n1,é\n2,naïve café\n".encode("cp1252"),
        "line 2",
        "encoding",
        "0xe9 is not UTF-8; --encoding cp1252 reads it",
    ),
    ("a,b\n1,x\n2,Привет, как дела\n".encode("cp1251"), "line 3", "encoding", "--encoding cp1251 reads it"),
    (
        "id,a\n1,日本語のテキストです\n".encode("shift_jis"),
        "line 2",
        "encoding",
        "--encoding shift-jis reads it",
    ),
    (
        b"a,b\n1,\xe2\x82",
        "line 2",
        "encoding",
        "ends in the middle of a UTF-8 character; copy or make it again",
    ),
    ("a,b\n1,2\n".encode("utf-16"), "", "encoding", "the text is UTF-16; add --encoding utf-16"),
    ("a,b\n1,2\n".encode("utf-16-le"), "", "encoding", "the text is UTF-16-LE; add --encoding utf-16-le"),
    ("a,b\n1,2\n".encode("utf-16-be"), "", "encoding", "the text is UTF-16-BE; add --encoding utf-16-be"),
    (b"PK\x03\x04 a spreadsheet", "", "encoding", "is a zip or spreadsheet file; save it as CSV (UTF-8)"),
    (b"PAR1", "", "encoding", "is a Parquet file; give it the ending .parquet"),
    (b"\x1f\x8b\x08", "", "encoding", "is compressed with gzip; add .gz to its name"),
]


@pytest.mark.parametrize(("data", "place", "kind", "sentence"), CSV_PROBLEMS)
def test_csv_problems_are_told_with_place_and_remedy(
    tmp_path: Path, data: bytes, place: str, kind: str, sentence: str
) -> None:
    """Each fault of a CSV file has a sentence that says where it is and what to do."""
    path = packed(tmp_path / "in.csv", data)

    problem = problems_of(path)[0]

    assert (problem.kind, problem.is_structural) == (kind, True)
    assert str(problem).startswith(f"{path}, {place}: " if place else f"{path}: ")
    assert sentence in problem.message


JSONL_PROBLEMS = [
    (b'{"a": 1; "b": 2}\n', "line 1", "invalid_json", ", expected at character 8"),
    (b'{"a" 1}\n', "line 1", "invalid_json", ": expected at character 6"),
    (b'{"a" :1,"b":"\\":","a" :2}\n', "line 1", "duplicate_key", "the key 'a' stands 2 times"),
    (
        b'{"a": 1}\n\n{"a": }\n',
        "line 3",
        "invalid_json",
        "the line is no JSON (no value at character 7); write one",
    ),
    (b'{"a": NaN}\n', "line 1", "invalid_json", "the line is no JSON (NaN is no JSON)"),
    (b'{"a": 1} {"a": 2}\n', "line 1", "invalid_json", "more text after the value"),
    (
        b'[{"a": 1}]\n',
        "line 1",
        "not_an_object",
        "the line is a list, not an object; write one {…} on each line",
    ),
    (b'"text"\n', "line 1", "not_an_object", "the line is a text, not an object"),
    (
        b'{"a": 1, "b": 2, "a": 3}\n',
        "line 1",
        "duplicate_key",
        "the key 'a' stands 2 times in the line; rename all",
    ),
    (b'{"a" :1,"b":{"c":"\\":"},"a" :3}\n', "line 1", "duplicate_key", "the key 'a' stands 2 times"),
    (b'{"a": "\\u0062", "\\u0061": 1}\n', "line 1", "duplicate_key", "the key 'a' stands 2 times"),
    (
        b'{"a": "x"}\n{"a": "\xe9t\xe9"}\n',
        "line 2",
        "encoding",
        "the byte 0xe9 is not UTF-8; --encoding cp1252 reads it",
    ),
    (b"[" * 100_000 + b"\n", "line 1", "invalid_json", "the line is no JSON"),
]


@pytest.mark.parametrize(("data", "place", "kind", "sentence"), JSONL_PROBLEMS)
def test_jsonl_problems_are_told_with_place_and_remedy(
    tmp_path: Path, data: bytes, place: str, kind: str, sentence: str
) -> None:
    """Each fault of a JSON Lines file has a sentence that says where it is and what to do."""
    path = packed(tmp_path / "in.jsonl", data)

    problem = problems_of(path)[0]

    assert (problem.kind, problem.is_structural) == (kind, True)
    assert str(problem).startswith(f"{path}, {place}: ")
    assert sentence in problem.message


def test_every_problem_is_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    """A file with very many faults lists the first ones in full and counts all by kind."""
    path = packed(tmp_path / "in.csv", b"a,b\n" + b"1\n" * 1000)
    problems = problems_of(path, most=50)

    info = open_source(path).scan([], 50)

    assert [problem.line for problem in problems] == list(range(2, 52))
    assert info.problem_counts == {"ragged_row": 1000}


@pytest.mark.parametrize("name", ["in.csv.gz", "in.csv.zst", "in.jsonl.gz"])
def test_damaged_compression_is_a_problem(tmp_path: Path, name: str) -> None:
    """A compressed file that is cut off or garbage is told as such."""
    path = packed(tmp_path / name, b"a,b\n1,2\n" * 5000 if "csv" in name else b'{"a": 1}\n' * 5000)
    for data in (path.read_bytes()[:-4], b"\x1f\x8b\x08\x00garbage, garbage", b"no compression at all"):
        path.write_bytes(data)

        assert [problem.kind for problem in problems_of(path)] == ["compression"]


def test_a_parquet_file_without_its_footer_is_a_problem(tmp_path: Path) -> None:
    """What a killed writer leaves is told before anything is sent."""
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "in.parquet")
    (tmp_path / "in.parquet").write_bytes((tmp_path / "in.parquet").read_bytes()[:-20])

    (problem,) = problems_of(tmp_path / "in.parquet")

    assert (problem.kind, problem.message[:23]) == ("unreadable", "is no whole Parquet fil")


@pytest.mark.parametrize("data", [b"id;prompt\n1;a\n", b"id\tprompt\n1\ta\n", b"id|prompt\n1|a\n"])
def test_another_separator_is_hinted_at(tmp_path: Path, data: bytes) -> None:
    """A file with one column whose name holds another separator says which one."""
    info = open_source(packed(tmp_path / "in.csv", data)).scan([])

    assert info.delimiter_hint == data[2:3].decode()
    assert prompts_of(tmp_path / "in.csv", delimiter=info.delimiter_hint) == ["a"]


@pytest.mark.parametrize("text", [";;", "", "a", "\n", '"', "5"])
def test_a_separator_is_one_sign(text: str) -> None:
    """A separator of several characters, a letter or a quote is refused."""
    with pytest.raises(UsageError, match="not one sign"):
        ReadOptions(delimiter=text)


@pytest.mark.parametrize("name", ["rot13", "klingon", "base64"])
def test_an_unknown_encoding_is_refused(name: str) -> None:
    """An encoding that Python does not know, or that is none, is told at once."""
    with pytest.raises(UsageError, match="--encoding"):
        ReadOptions(encoding=name)


def test_an_encoding_reads_the_file(tmp_path: Path) -> None:
    """What the problem proposes works, with and without a byte order mark."""
    for encoding in ("cp1251", "utf-16", "utf-16-le", "utf-32-be", "utf-8", "UTF8"):
        for mark in ("", "\ufeff") if encoding.startswith("utf-16-") else ("",):
            path = packed(tmp_path / "in.csv", f"{mark}prompt,b\nЖизнь,2\n".encode(encoding))

            assert prompts_of(path, encoding=encoding) == ["Жизнь"]
    path = packed(tmp_path / "in.jsonl", '{"prompt": "Жизнь"}\n'.encode("utf-16"))
    assert prompts_of(path, encoding="utf-16") == ["Жизнь"]


def test_a_file_that_cannot_be_opened_is_wrong_usage(tmp_path: Path) -> None:
    """A missing file proposes the nearest name; folders, pipes and unknown endings are told as such."""
    packed(tmp_path / "prompts.csv", b"prompt\n")
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    packed(tmp_path / "in.xlsx", b"")

    for name, words in {
        "promts.csv": r"no such file; did you mean '.*prompts\.csv'",
        "folder.csv": "is a folder",
        "pipe.csv": "write '-' for the input",
        "in.xlsx": r"use one of \.csv, \.jsonl, \.parquet",
        "noending": "use one of",
        "in.parquet.gz": "use one of",
    }.items():
        with pytest.raises(UsageError, match=words):
            open_source(tmp_path / name)
    with pytest.raises(UsageError, match="is no table"):
        open_source(42)


def test_options_of_csv_are_refused_for_other_formats(tmp_path: Path) -> None:
    """A separator for Parquet is a mistake worth a word."""
    packed(tmp_path / "in.parquet", b"")
    for options in (ReadOptions(delimiter=";"), ReadOptions(encoding="cp1252")):
        with pytest.raises(UsageError, match="leave it out"):
            open_source(tmp_path / "in.parquet", options)


def test_duplicate_columns_in_memory_are_a_problem() -> None:
    """A frame may hold two columns of one name; we do not guess which is meant."""
    problems: list[object] = []

    open_source(pa.table([["a"], ["b"]], names=["x", "x"])).scan(problems)  # type: ignore[arg-type]

    assert "the column 'x' stands 2 times" in str(problems[0])


def test_a_type_that_parquet_cannot_hold_is_known_before() -> None:
    """What would fail at the end of a run can be told before it."""
    table = pa.table({"a": [1], "b": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})

    assert [name for name, _ in unwritable_columns(table.schema)] == ["b"]


def test_clashes_and_outputs_of_ours_are_recognised(tmp_path: Path) -> None:
    """Columns named like ours are found, and an output is told from a foreign file in every format."""
    assert clashes(["prompt", "status", "requests"]) == ("status", "requests")
    assert clashes(["prompt", "status"], "my_") == ()
    assert our_prefix(["prompt", *(f"my_{name}" for name in OUR_NAMES)]) == "my_"
    assert our_prefix(["prompt", *OUR_NAMES[:-1]]) is None
    source = packed(tmp_path / "in.csv", csv_bytes([["prompt"], ["a"]]))
    for suffix in (".csv", ".csv.gz", ".jsonl", ".parquet"):
        assert is_ours(joined(source, tmp_path / f"out{suffix}", prefix="our "))
    for name, data in {
        "a.csv": b"a,b\n1,2\n",
        "b.jsonl": b'{"a": 1}\n',
        "c.parquet": b"x",
        "d.csv": b"\xff",
    }.items():
        with pytest.raises(ForeignFileError, match="--overwrite"):
            require_ours(packed(tmp_path / name, data))
    require_ours(packed(tmp_path / "touched.csv", b""))
    require_ours(tmp_path / "absent.csv")


def test_endings_are_read_in_any_case() -> None:
    """`.CSV` is CSV."""
    assert format_of(Path("A.CSV.GZ")) == ("csv", "gz")
