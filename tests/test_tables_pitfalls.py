"""Bugs that tools of this kind have had with tables, each by its number."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_tables_kit import (
    DONE,
    PENDING,
    csv_bytes,
    joined,
    packed,
    problems_of,
    prompts_of,
    read_columns,
    read_csv,
    read_jsonl,
    read_parquet,
)

from websim_batch.records import OUTPUT_COLUMNS, OutputCells
from websim_batch.tables import OUR_NAMES, open_source
from websim_batch.tables.compare import verify
from websim_batch.tables.files import BUFFER_BYTES
from websim_batch.tables.load import load

EDGES = [8192, BUFFER_BYTES]
"""Where the readers in use begin a new piece: the text layer's pieces, and the buffer below it."""

OUTPUTS = [".csv", ".csv.gz", ".csv.zst", ".jsonl", ".parquet"]

AWKWARD = [
    "a\rb",
    "a\r\nb",
    "\r",
    "\n",
    '"',
    '""',
    'a"b',
    "\0",
    "a\0b",
    "\u2028",
    "\x85",
    "😀",
    "'",
    " lead",
    "trail ",
    ",",
    ";",
    "\ufeff",
    "\t",
    "\\",
    "#",
    "",
    "=1+1",
]


def at_edge(edge: int, shift: int, text: str, before: str) -> str:
    """`before` filled up so that `text` begins `shift` bytes from the edge."""
    return before + "x" * (edge + shift - len(before)) + text


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("text", ["\r\n", "\r", '""', "é", "😀"])
def test_pitfall_1_nothing_is_lost_at_a_block_edge_of_csv(tmp_path: Path, edge: int, text: str) -> None:
    """Line ends, quotes and long characters in a cell survive ±64 bytes around every edge of the reader."""
    expected = text.replace('""', '"')
    path = tmp_path / "in.csv"
    for shift in range(-64, 65):
        path.write_bytes((at_edge(edge, shift, text, 'n,prompt\n1,"') + 'y"\r\n2,z\r\n').encode())

        first, second = prompts_of(path)

        assert first == "x" * (edge + shift - 12) + expected + "y", shift
        assert second == "z"


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_pitfall_1_rows_end_rightly_at_a_block_edge_of_csv(tmp_path: Path, edge: int, end: str) -> None:
    """A row's own line end survives ±64 bytes around every edge, without a row too many."""
    path = tmp_path / "in.csv"
    for shift in range(-64, 65):
        path.write_bytes(at_edge(edge, shift, f"{end}y{end}", f"prompt{end}").encode())

        assert [len(prompt) for prompt in prompts_of(path)] == [edge + shift - len(f"prompt{end}"), 1], shift


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("edge", [1 << 15, *EDGES])
def test_pitfall_1_nothing_is_lost_at_a_block_edge_of_packed_csv(
    tmp_path: Path, suffix: str, edge: int
) -> None:
    """The same in compressed files, whose pieces have edges of their own."""
    for shift in range(-64, 65, 4):
        path = packed(
            tmp_path / f"in.csv{suffix}", (at_edge(edge, shift, "\r\n", 'n,prompt\n1,"') + '😀"\n').encode()
        )

        assert prompts_of(path) == ["x" * (edge + shift - 12) + "\r\n😀"], shift


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_pitfall_1_nothing_is_lost_at_a_block_edge_of_jsonl(tmp_path: Path, edge: int, end: str) -> None:
    """Lines of JSON, long characters and line ends survive ±64 bytes around every edge of their reader."""
    path = tmp_path / "in.jsonl"
    for shift in range(-64, 65):
        text = at_edge(edge, shift, f'😀"}}{end}{{"prompt":"z"}}{end}', '{"prompt":"')
        path.write_bytes(text.encode())

        assert [len(prompt) for prompt in prompts_of(path)] == [edge + shift - 10, 1], shift


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_pitfall_2_awkward_cells_survive(tmp_path: Path, suffix: str) -> None:
    """Lone carriage returns, NUL, U+2028, emoji and 20 MB of text come out as they went in."""
    texts = [*AWKWARD, 'long, \r"text" ' * (140_000 if "." in suffix[1:] else 1_400_000)]
    path = packed(tmp_path / "in.csv", csv_bytes([["prompt", "n"], *([text, "1"] for text in texts)]))

    output = joined(path, tmp_path / f"out{suffix}", [DONE._replace(response=text) for text in texts])

    assert prompts_of(path) == texts
    assert read_columns(output)["prompt"] == texts
    answers = load(output)["response"].tolist()
    assert [None if pd.isna(answer) else answer for answer in answers] == [
        text if text or suffix[:4] != ".csv" else None for text in texts
    ]


@pytest.mark.parametrize("word", ["NA", "None", "null", "n/a", "nan", "NaN", "NULL", "#N/A", "<NA>"])
def test_pitfall_3_words_for_nothing_are_prompts(tmp_path: Path, word: str) -> None:
    """`NA` and its like are text, to the request and in every output."""
    path = packed(tmp_path / "in.csv", f"prompt,n\n{word},1\n".encode())

    outputs = [joined(path, tmp_path / f"out{suffix}") for suffix in OUTPUTS]

    assert prompts_of(path) == [word]
    assert [read_columns(output)["prompt"] for output in outputs] == [[word]] * len(outputs)
    assert [load(output)["prompt"].tolist() for output in outputs] == [[word]] * len(outputs)


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_pitfall_4_ids_keep_their_digits(tmp_path: Path, suffix: str) -> None:
    """`007`, `1.10`, an empty id, a long integer and `True` are what they were."""
    ids = ["1", "", "3", "9007199254740993", "007", "1.10", "True", "12345678901234567890", "1e5", "-0"]
    path = packed(tmp_path / "in.csv", csv_bytes([["id", "prompt"], *([each, "x"] for each in ids)]))

    output = joined(path, tmp_path / f"out{suffix}")

    assert read_columns(output)["id"] == ids
    assert load(output)["id"].tolist() == ids


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pitfall_4_parquet_integers_with_nulls_stay_integers(tmp_path: Path, suffix: str) -> None:
    """int64 with nulls does not become float on the way."""
    pq.write_table(pa.table({"id": [9007199254740993, None, 3]}), tmp_path / "in.parquet")

    found = read_columns(joined(tmp_path / "in.parquet", tmp_path / f"out{suffix}"))["id"]

    assert found == {".csv": ["9007199254740993", "", "3"]}.get(suffix, [9007199254740993, None, 3])


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["1.5", "2"], [1.5, 2.0]),
        (["1.10", "2"], ["1.10", "2"]),
        (["1e5"], ["1e5"]),
        (["12345678901234567890"], ["12345678901234567890"]),
        (["-0"], ["-0"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["true", "false"], [True, False]),
        (["1", "true"], ["1", "true"]),
        (["1", '"1"'], ["1", '"1"']),
        (["[1.10]"], ["[1.10]"]),
    ],
)
def test_pitfall_4_json_numbers_keep_their_digits(
    tmp_path: Path, numbers: list[str], expected: list[Any]
) -> None:
    """A JSON number becomes a number in Parquet only where no digit is lost; else its text is kept."""
    path = packed(tmp_path / "in.jsonl", "".join(f'{{"n": {number}}}\n' for number in numbers).encode())

    found = read_columns(joined(path, tmp_path / "out.parquet"))["n"]

    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))
    assert prompts_of(path, "n")[0] == {"true": True, "[1.10]": [1.1]}.get(numbers[0], numbers[0])


def test_pitfall_5_a_faulty_structure_is_an_error_with_its_line(tmp_path: Path) -> None:
    """A field too many, an open quote, a doubled column and another encoding are refused with the line."""
    for data, line in {
        b"id,prompt\n1,a\n2,b,c\n": 3,
        b'id,prompt\n1,a\n2,"b\n3,c\n': 3,
        b"id,id\n1,a\n": 1,
        "id,prompt\n1,a\n2,привет как дела\n".encode("cp1251"): 3,
    }.items():
        assert [problem.line for problem in problems_of(packed(tmp_path / "in.csv", data))] == [line]


def test_pitfall_6_limits_blank_lines_and_marks_of_csv(tmp_path: Path) -> None:
    """Cells beyond 131,072 characters, blank lines in one-column files, marks and UTF-16 are read."""
    long = "x" * 1_000_000
    assert prompts_of(packed(tmp_path / "long.csv", f"prompt,n\n{long},1\n".encode())) == [long]
    assert prompts_of(packed(tmp_path / "one.csv", b"prompt\na\n\nb\n \n")) == ["a", "", "b", " "]
    assert prompts_of(packed(tmp_path / "two.csv", b"\nprompt,n\na,1\n\nb,2\n\n")) == ["a", "b"]
    assert prompts_of(packed(tmp_path / "bom.csv", b"\xef\xbb\xbfprompt,n\n\xef\xbb\xbf,1\n")) == ["\ufeff"]
    assert prompts_of(packed(tmp_path / "bom.jsonl", b'\xef\xbb\xbf{"prompt":"a"}\n\n')) == ["a"]
    assert prompts_of(
        packed(tmp_path / "wide.csv", "prompt,n\na,1\n".encode("utf-16")), encoding="utf-16"
    ) == ["a"]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_pitfall_7_a_lone_surrogate_harms_only_itself(tmp_path: Path, suffix: str) -> None:
    """A lone surrogate in an answer becomes U+FFFD; its row and all others stay."""
    path = packed(tmp_path / "in.csv", b"prompt,n\na,1\nb,2\nc,3\n")
    cells = [DONE._replace(response=text) for text in ("one 😀", "two \ud83d!", "three")]

    output = joined(path, tmp_path / f"out{suffix}", cells)

    assert load(output)["response"].tolist() == ["one 😀", "two \ufffd!", "three"]
    assert read_columns(output)["prompt"] == ["a", "b", "c"]


def test_pitfall_7_an_escaped_lone_surrogate_stays_in_json_lines(tmp_path: Path) -> None:
    """A line that only Python's json reads keeps its text; in a table the character is replaced."""
    path = packed(tmp_path / "in.jsonl", b'{"prompt": "a\\ud83d", "n": 1}\n')

    assert (
        joined(path, tmp_path / "out.jsonl")
        .read_bytes()
        .startswith(b'{"prompt": "a\\ud83d", "n": 1,"status"')
    )
    assert read_columns(joined(path, tmp_path / "out.csv"))["prompt"] == ["a\ufffd"]
    assert read_columns(joined(path, tmp_path / "out.parquet"))["prompt"] == ["a\ufffd"]
    assert verify(tmp_path / "out.csv", path).is_proven


def test_pitfall_8_a_semicolon_file_is_hinted_at(tmp_path: Path) -> None:
    """A spreadsheet's file of one column `id;prompt` says which separator reads it."""
    path = packed(tmp_path / "in.csv", b"id;prompt\n1;a\n")

    assert open_source(path).scan([]).delimiter_hint == ";"


def test_pitfall_9_one_schema_from_the_first_row_to_the_last(tmp_path: Path) -> None:
    """Thousands of rows of nulls before the first answer fix no null type; the types are always the same."""
    path = packed(tmp_path / "in.csv", csv_bytes([["prompt"], *([str(number)] for number in range(5000))]))

    late = joined(path, tmp_path / "late.parquet", [PENDING] * 4999 + [DONE])
    never = joined(path, tmp_path / "never.parquet", [PENDING] * 5000)

    types = dict(zip(read_parquet(late).column_names, map(str, read_parquet(late).schema.types), strict=True))
    assert read_parquet(never).schema.equals(read_parquet(late).schema)
    assert types == {"prompt": "large_string"} | {
        name: "timestamp[us, tz=UTC]" if kind == "timestamp" else kind for name, kind in OUTPUT_COLUMNS
    }


def test_pitfall_9_json_lines_types_are_those_of_the_whole_file(tmp_path: Path) -> None:
    """A column that is null, then integer, then text after thousands of rows has one type for all."""
    lines = ['{"n": null}'] * 3000 + ['{"n": 1}'] * 3000 + ['{"n": "x"}']

    output = joined(packed(tmp_path / "in.jsonl", "\n".join(lines).encode()), tmp_path / "out.parquet")

    assert read_columns(output)["n"] == [None] * 3000 + ["1"] * 3000 + ['"x"']


def test_pitfall_10_more_than_two_gigabytes_of_answers(tmp_path: Path) -> None:
    """300 answers of 8 MiB, more than `string` holds, are written, in small row groups, and read."""
    answer = "answer, " * (1 << 20)
    path = packed(tmp_path / "in.csv", csv_bytes([["prompt"], *([str(number)] for number in range(300))]))

    output = joined(path, tmp_path / "out.parquet", (DONE._replace(response=answer) for _ in range(300)))  # type: ignore[arg-type]

    with pq.ParquetFile(output) as file:
        assert file.num_row_groups >= 100
    answers = pd.read_parquet(output, columns=["response"])["response"]
    assert len(answers) == 300
    assert all(each == answer for each in answers)


def test_pitfall_11_nothing_to_do_is_a_valid_table(tmp_path: Path) -> None:
    """An empty file and a header alone give tables that pandas reads, with the full schema."""
    for data, inputs in {b"": [], b"prompt,n\n": ["prompt", "n"]}.items():
        path = packed(tmp_path / "in.csv", data)
        assert open_source(path).scan([]).is_empty == (not data)

        assert list(pd.read_csv(joined(path, tmp_path / "out.csv")).columns) == [*inputs, *OUR_NAMES]
        assert list(pd.read_parquet(joined(path, tmp_path / "out.parquet")).columns) == [*inputs, *OUR_NAMES]
        assert load(joined(path, tmp_path / "out.jsonl")).shape[0] == 0


def test_pitfall_12_formulas_are_disarmed_only_when_asked(tmp_path: Path) -> None:
    """With `csv_safe` a quote stands before `= + - @` in our text columns, and nowhere else."""
    path = packed(tmp_path / "in.csv", csv_bytes([["prompt"], ["=1+1"], ["=2"]]))
    cells = [
        DONE._replace(
            response='=HYPERLINK("x")', error_message="@x", wait_ms=-1, image_url="+1", finish_reason="-f"
        ),
        DONE._replace(response=" =1", error_message=None),
    ]

    plain = load(joined(path, tmp_path / "plain.csv", cells))
    safe = load(joined(path, tmp_path / "safe.csv", cells, csv_safe=True))

    assert plain["response"].tolist() == ['=HYPERLINK("x")', " =1"]
    assert safe["response"].tolist() == ['\'=HYPERLINK("x")', " =1"]
    assert safe.loc[0, ["error_message", "image_url", "finish_reason"]].tolist() == ["'@x", "'+1", "'-f"]
    assert safe["prompt"].tolist() == ["=1+1", "=2"]
    assert safe["wait_ms"].tolist() == [-1, 0]


def test_a_byte_order_mark_is_written_when_asked(tmp_path: Path) -> None:
    """With `bom` a spreadsheet sees UTF-8, and our own readers still find the first column."""
    path = packed(tmp_path / "in.csv", b"prompt,n\n\xc3\xa9,1\n")

    output = joined(path, tmp_path / "out.csv", bom=True)

    assert output.read_bytes().startswith(b"\xef\xbb\xbfprompt,")
    assert load(output)["prompt"].tolist() == ["é"]


def test_the_output_is_what_the_page_says(tmp_path: Path) -> None:
    """In CSV null is empty, times are ISO 8601 with Z; in JSON Lines all keys are present."""
    path = packed(tmp_path / "in.csv", b"prompt\na\nb\n")

    header, rows = read_csv(joined(path, tmp_path / "out.csv", [DONE, PENDING]))
    objects = read_jsonl(joined(path, tmp_path / "out.jsonl", [DONE, PENDING]))

    assert header == ["prompt", *OUR_NAMES]
    assert rows[0] == [
        "a", "ok",
        'An answer, "quoted"\r\nin lines', "", "", "", "200", "1", "51", "0", "", "", "stop", "chat", "",
        "",
        "0f" * 16, "2023-11-14T22:13:20.123456Z", "2023-11-14T22:13:20.174456Z", "run-1",
    ]  # fmt: skip
    assert rows[1] == ["b", "pending", *[""] * 5, "0", *[""] * 12]
    assert [list(each) for each in objects] == [["prompt", *OUR_NAMES]] * 2
    assert objects[0]["started_at"] == "2023-11-14T22:13:20.123456Z"
    assert objects[1]["response"] is None


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pandas_duckdb_and_polars_read_the_output(tmp_path: Path, suffix: str) -> None:
    """Other tools read every cell of the output as it is, awkward ones too."""
    texts = [text for text in AWKWARD if "\0" not in text and text]
    path = packed(tmp_path / "in.csv", csv_bytes([["prompt", "n"], *([text, "007"] for text in texts)]))
    output = joined(path, tmp_path / f"out{suffix}", [DONE._replace(response=f"{text}.") for text in texts])
    name = str(output)

    def by_pandas() -> Any:
        if suffix == ".csv":
            return pd.read_csv(output, dtype=str, keep_default_na=False)
        if suffix == ".parquet":
            return pd.read_parquet(output)
        return pd.read_json(output, lines=True, dtype=False)

    def by_polars() -> Any:
        if suffix == ".csv":
            return pl.read_csv(output, infer_schema=False)
        return pl.read_parquet(output) if suffix == ".parquet" else pl.read_ndjson(output)

    def by_duckdb() -> Any:
        reader = {
            ".csv": f"read_csv('{name}', all_varchar=true, header=true, delim=',', quote='\"', escape='\"')"
        }
        return duckdb.sql(f"select * from {reader.get(suffix, repr(name))}").pl()

    for frame in (by_pandas(), by_polars(), by_duckdb()):
        assert list(frame["prompt"]) == texts
        assert list(frame["response"]) == [f"{text}." for text in texts]
        assert list(frame["n"]) == ["007"] * len(texts)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_to_text_needs_no_arrow_and_no_pandas(tmp_path: Path, suffix: str) -> None:
    """A run from CSV to CSV or JSON Lines to JSON Lines loads neither library; Parquet never loads pandas."""
    packed(tmp_path / "in.csv", b"prompt\na\n")
    packed(tmp_path / "in.jsonl", b'{"prompt": 1.10}\n')
    pq.write_table(pa.table({"prompt": ["a"], "n": [[1]]}), tmp_path / "in.parquet")
    script = """
import sys
from pathlib import Path
from websim_batch.records import OutputCells
from websim_batch.tables import *
suffix, folder = sys.argv[1], Path(sys.argv[2])
source = open_source(folder / f"in{suffix}")
info = source.scan([])
assert [len(batch) for batch in source.rows(["prompt"])] == [1]
write_output(source, info, iter([OutputCells("ok", "x", requests=1)]), OutputSpec(folder / f"out{suffix}"))
assert is_ours(folder / f"out{suffix}")
heavy = ("pyarrow", "pandas", "numpy", "zstandard", "charset_normalizer")
print([name for name in heavy if name in sys.modules])
"""

    def loaded(ending: str) -> str:
        command = [sys.executable, "-c", script, ending, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert loaded(suffix) == "[]"
    assert "pandas" not in loaded(".parquet")


def test_the_csv_module_alone_would_lose_a_row() -> None:
    """Why cells are quoted by hand: the csv module's own line end would lose what the reader then splits."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(["a\rb", "c"])

    rows = list(csv.reader(io.StringIO(text.getvalue(), newline="")))

    assert rows == [["a\rb", "c"]] or sys.version_info < (3, 11, 9)


def test_cells_hold_no_more_than_they_can(tmp_path: Path) -> None:
    """A count beyond its column's type is written as the largest one instead of failing at the very end."""
    path = packed(tmp_path / "in.csv", b"prompt\na\n")

    output = joined(path, tmp_path / "out.parquet", [OutputCells("ok", requests=70_000, latency_ms=-(2**40))])

    assert read_parquet(output).column("requests").to_pylist() == [32_767]
    assert read_parquet(output).column("latency_ms").to_pylist() == [-(2**31)]
