"""Promise 3, by properties: what comes in comes out, over all pairs of formats."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from test_tables_kit import DONE, csv_bytes, joined, packed, read_columns, read_csv, read_jsonl, read_parquet

from websim_batch.tables import OUR_NAMES, ReadOptions, open_source
from websim_batch.tables.compare import verify

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
TEXT_OUTPUTS = [".csv", ".csv.gz", ".csv.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]
OUTPUTS = [".csv", ".jsonl", ".parquet"]

AWKWARD = [
    "\r",
    "\n",
    "\r\n",
    '"',
    ",",
    ";",
    "\0",
    "\u2028",
    "😀",
    "'",
    "NA",
    "null",
    "007",
    "1.10",
    "\ufeff",
    "\\",
    " ",
]
cells = st.lists(st.sampled_from(AWKWARD) | st.text(max_size=4), max_size=5).map("".join)
names = st.lists(
    st.text(min_size=1, max_size=6).filter(lambda n: "\ufeff" not in n), min_size=1, max_size=4, unique=True
)


@st.composite
def text_tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    header = [name for name in draw(names) if name not in OUR_NAMES] or ["prompt"]
    rows = draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), max_size=6))
    return header, rows


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | cells,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(cells, inner, max_size=3),
    max_leaves=5,
)
json_rows = st.lists(
    st.dictionaries(st.sampled_from(["prompt", "n", "x.y", "ü", ""]), json_values, max_size=4), max_size=6
)


def expected_csv(header: list[str], rows: list[list[str]]) -> dict[str, list[Any]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", TEXT_OUTPUTS)
@given(table=text_tables())
@settings(QUICK, max_examples=15)
def test_csv_text_survives_every_output(
    suffix: str, delimiter: str, table: tuple[list[str], list[list[str]]]
) -> None:
    """Any text in any cell of a CSV comes out of every format as it went in."""
    header, rows = table
    with tempfile.TemporaryDirectory() as folder:
        source = packed(Path(folder) / "in.csv.gz", csv_bytes([header, *rows], delimiter))

        output = joined(source, Path(folder) / f"out{suffix}", options=ReadOptions(delimiter=delimiter))

        assert read_columns(output) == expected_csv(header, rows) or not rows
        assert verify(output, source, ReadOptions(delimiter=delimiter)).is_proven


@given(table=text_tables(), delimiter=st.sampled_from(";\t|:-.' "))
@QUICK
def test_any_separator_of_the_output_is_quoted_where_needed(
    table: tuple[list[str], list[list[str]]], delimiter: str
) -> None:
    """A CSV output with another separator reads back the same, our columns too."""
    header, rows = table
    with tempfile.TemporaryDirectory() as folder:
        source = packed(Path(folder) / "in.csv", csv_bytes([header, *rows]))

        output = joined(source, Path(folder) / "out.csv", delimiter=delimiter)
        names_out, rows_out = read_csv(output, delimiter)

        assert names_out == [*header, *OUR_NAMES]
        assert [row[: len(header)] for row in rows_out] == rows
        assert all(row[len(header) + 1] == DONE.response for row in rows_out)


@given(rows=json_rows, compact=st.booleans(), ascii_only=st.booleans())
@QUICK
def test_jsonl_lines_keep_their_text(rows: list[dict[str, Any]], compact: bool, ascii_only: bool) -> None:
    """From JSON Lines to JSON Lines each line begins with exactly the text that it had."""
    separators = (",", ":") if compact else (" ,  ", " : ")
    lines = [json.dumps(row, separators=separators, ensure_ascii=ascii_only) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        source = packed(Path(folder) / "in.jsonl.zst", "\n".join(lines).encode())

        output = joined(source, Path(folder) / "out.jsonl")
        written = output.read_text().split("\n")[:-1] if rows else []

        assert all(out.startswith(line[:-1].rstrip()) for out, line in zip(written, lines, strict=True))
        assert [list(row)[-len(OUR_NAMES) :] for row in read_jsonl(output)] == [list(OUR_NAMES)] * len(rows)
        assert verify(output, source).is_proven


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@given(rows=json_rows)
@QUICK
def test_jsonl_values_survive_in_tables(suffix: str, rows: list[dict[str, Any]]) -> None:
    """Into a table every JSON value comes as itself, as its text, or as JSON text: nothing is lost."""
    with tempfile.TemporaryDirectory() as folder:
        source = packed(Path(folder) / "in.jsonl", "\n".join(json.dumps(row) for row in rows).encode())

        output = joined(source, Path(folder) / f"out{suffix}")
        columns = read_columns(output)

        assert list(columns) == list(dict.fromkeys(key for row in rows for key in row))
        for name, found in columns.items():
            given_values = [row.get(name) for row in rows]
            assert all(
                same_json(value, cell, given_values) for value, cell in zip(given_values, found, strict=True)
            )
        assert verify(output, source).is_proven


def same_json(value: Any, cell: Any, column: list[Any]) -> bool:
    """Whether a table's cell tells the JSON value, by the rule for its column."""
    if value is None:
        return cell in (None, "")
    if all(isinstance(other, str) for other in column if other is not None):
        return bool(cell == value)
    if not isinstance(cell, str):
        return type(cell) is type(value) or (isinstance(cell, float) and cell == value)
    return json.dumps(json.loads(cell)) == json.dumps(value)


def rich_table() -> pa.Table:
    """Every type that Parquet knows, with nulls, an order of columns, metadata of fields and schema."""
    when = [0, None, 1_700_000_000_123_456_789]
    columns = {
        "prompt": pa.array(["a", None, ""]),
        "large": pa.array(["x", "y\r", None], pa.large_string()),
        "view": pa.array(["x", None, "long enough for a buffer of its own"], pa.string_view()),
        "i8": pa.array([-128, None, 127], pa.int8()),
        "i64": pa.array([9007199254740993, None, -(2**63)]),
        "u64": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "f16": pa.array([0.1, None, -2.5], pa.float16()),
        "f32": pa.array([0.1, None, 3.4e38], pa.float32()),
        "f64": pa.array([0.1, None, float("nan")]),
        "inf": pa.array([float("inf"), None, float("-inf")]),
        "bool": pa.array([True, None, False]),
        "dec": pa.array(
            [decimal.Decimal("1.10"), None, decimal.Decimal("-12345678901234567.90")], pa.decimal128(25, 2)
        ),
        "dec256": pa.array([decimal.Decimal(10) ** 40, None, None], pa.decimal256(60, 5)),
        "day": pa.array([dt.date(1, 1, 1), None, dt.date(2024, 2, 29)]),
        "t32": pa.array([dt.time(1, 2, 3, 4000), None, dt.time()], pa.time32("ms")),
        "t64": pa.array([dt.time(23, 59, 59, 999999), None, dt.time()], pa.time64("us")),
        "naive": pa.array(when, pa.timestamp("ns")),
        "zoned": pa.array(when, pa.timestamp("ns", "Europe/Berlin")),
        "millis": pa.array([-1, None, 253402300799999], pa.timestamp("ms", "UTC")),
        "span": pa.array([-1, None, 10**15], pa.duration("us")),
        "bytes": pa.array([b"\x00\xff", None, b""]),
        "fixed": pa.array([b"abc", None, b"\x00\x01\x02"], pa.binary(3)),
        "cat": pa.array(["a", None, "b"]).dictionary_encode(),
        "uuid": pa.array([bytes(range(16)), None, bytes(16)], pa.uuid()),
        "nothing": pa.nulls(3),
        "list": pa.array([["a", None], None, []], pa.list_(pa.string())),
        "deep": pa.array([[[1], None, []], None, []], pa.list_(pa.list_(pa.int64()))),
        "fixed_list": pa.array([[1, 2], None, [3, None]], pa.list_(pa.int32(), 2)),
        "struct": pa.array(
            [{"n": 1, "t": dt.datetime(2024, 1, 1)}, None, {"n": None, "t": None}],
            pa.struct([("n", pa.int16()), ("t", pa.timestamp("us"))]),
        ),
        "map": pa.array([[("k", 1.5)], None, []], pa.map_(pa.string(), pa.float64())),
        "messages": pa.array(
            [[{"role": "user", "content": "hi"}], None, []],
            pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        ),
    }  # fmt: skip
    fields = [pa.field(name, values.type, metadata={"note": name}) for name, values in columns.items()]
    return pa.table(list(columns.values()), pa.schema(fields, metadata={"made by": "a test", "pandas": "{}"}))


RENDERED = {
    "prompt": ["a", "", ""],
    "large": ["x", "y\r", ""],
    "i8": ["-128", "", "127"],
    "i64": ["9007199254740993", "", "-9223372036854775808"],
    "u64": ["18446744073709551615", "", "0"],
    "f16": ["0.1", "", "-2.5"],
    "f32": ["0.1", "", "3.4e+38"],
    "f64": ["0.1", "", "NaN"],
    "inf": ["Infinity", "", "-Infinity"],
    "bool": ["true", "", "false"],
    "dec": ["1.10", "", "-12345678901234567.90"],
    "dec256": ["1" + "0" * 40 + ".00000", "", ""],
    "day": ["0001-01-01", "", "2024-02-29"],
    "t32": ["01:02:03.004", "", "00:00:00.000"],
    "t64": ["23:59:59.999999", "", "00:00:00.000000"],
    "naive": ["1970-01-01T00:00:00.000000000", "", "2023-11-14T22:13:20.123456789"],
    "zoned": ["1970-01-01T00:00:00.000000000Z", "", "2023-11-14T22:13:20.123456789Z"],
    "millis": ["1969-12-31T23:59:59.999Z", "", "9999-12-31T23:59:59.999Z"],
    "span": ["-PT0.000001S", "", "PT1000000000.000000S"],
    "bytes": ["AP8=", "", ""],
    "fixed": ["YWJj", "", "AAEC"],
    "cat": ["a", "", "b"],
    "uuid": ["00010203-0405-0607-0809-0a0b0c0d0e0f", "", "00000000-0000-0000-0000-000000000000"],
    "nothing": ["", "", ""],
    "list": ['["a",null]', "", "[]"],
    "deep": ["[[1],null,[]]", "", "[]"],
    "fixed_list": ["[1,2]", "", "[3,null]"],
    "struct": ['{"n":1,"t":"2024-01-01T00:00:00.000000"}', "", '{"n":null,"t":null}'],
    "map": ['[["k",1.5]]', "", "[]"],
    "messages": ['[{"role":"user","content":"hi"}]', "", "[]"],
}


def test_parquet_keeps_every_type(tmp_path: Path) -> None:
    """From Parquet to Parquet types, values, nulls, dictionaries, zones and metadata all stay."""
    pq.write_table(rich_table(), tmp_path / "in.parquet")
    given_table = read_parquet(tmp_path / "in.parquet")

    output = joined(tmp_path / "in.parquet", tmp_path / "out.parquet", metadata={"run_id": "r"})
    found = read_parquet(output)

    kept = found.select(given_table.column_names)
    assert kept.drop(["f64"]).equals(given_table.drop(["f64"]), check_metadata=False)
    assert kept.schema.equals(given_table.schema)
    assert [field.metadata for field in kept.schema] == [field.metadata for field in given_table.schema]
    assert found.schema.metadata.items() >= given_table.schema.metadata.items()
    assert json.loads(found.schema.metadata[b"websim_batch"]) == {"run_id": "r"}
    assert verify(output, tmp_path / "in.parquet").is_proven


def test_parquet_renders_every_type_into_csv(tmp_path: Path) -> None:
    """Each type of Parquet has its documented text in CSV."""
    output = joined(rich_table(), tmp_path / "out.csv")

    found = read_columns(output)

    assert {name: found[name] for name in RENDERED} == RENDERED
    assert verify(output, rich_table()).is_proven


def test_parquet_renders_every_type_into_jsonl(tmp_path: Path) -> None:
    """In JSON Lines numbers are numbers, lists are lists, null is null, and the rest has CSV's text."""
    output = joined(rich_table(), tmp_path / "out.jsonl")

    found = read_columns(output)

    assert found["i64"] == [9007199254740993, None, -(2**63)]
    assert found["f64"] == [0.1, None, "NaN"]
    assert found["bool"] == [True, None, False]
    assert found["list"] == [["a", None], None, []]
    assert found["struct"][0] == {"n": 1, "t": "2024-01-01T00:00:00.000000"}
    assert found["zoned"][2] == "2023-11-14T22:13:20.123456789Z"
    assert b'"dec":1.10,' in output.read_bytes()
    assert verify(output, rich_table()).is_proven


@pytest.mark.parametrize("suffix", OUTPUTS)
@given(
    table=st.lists(
        st.tuples(
            cells | st.none(), st.integers(-(2**63), 2**63 - 1) | st.none(),
            st.floats(allow_nan=False) | st.none(),
            st.lists(cells | st.none(), max_size=3) | st.none(), st.datetimes() | st.none(),
        ),
        max_size=8,
    )
)  # fmt: skip
@QUICK
def test_parquet_rows_survive_every_output(suffix: str, table: list[tuple[Any, ...]]) -> None:
    """Any values of Parquet columns are told the same by every output."""
    kinds = [pa.string(), pa.int64(), pa.float64(), pa.list_(pa.string()), pa.timestamp("us")]
    columns = list(zip(*table, strict=True)) if table else [()] * 5
    whole = pa.table(
        [pa.array(list(values), kind) for values, kind in zip(columns, kinds, strict=True)], list("abcde")
    )
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(whole, Path(folder) / "in.parquet", row_group_size=3)

        output = joined(Path(folder) / "in.parquet", Path(folder) / f"out{suffix}")
        found = read_columns(output)

        assert verify(output, Path(folder) / "in.parquet").is_proven
        if suffix == ".parquet":
            assert found == whole.to_pydict()
        elif table:
            assert [int(text) for text in found["b"] if text not in (None, "")] == [
                b for b in columns[1] if b is not None
            ]
            assert [dt.datetime.fromisoformat(t) for t in found["e"] if t] == [
                e for e in columns[4] if e is not None
            ]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_frames_of_every_library_are_tables(tmp_path: Path, suffix: str) -> None:
    """A pandas or polars DataFrame and an Arrow table give the same output as the same Parquet file."""
    data = {"prompt": ["a", "b\r", None], "n": [1, 2, 3]}
    pq.write_table(pa.table(data), tmp_path / "in.parquet")
    expected = read_columns(joined(tmp_path / "in.parquet", tmp_path / f"expected{suffix}"))

    frames = [pa.table(data), pd.DataFrame(data), pl.DataFrame(data), pa.table(data).to_reader()]
    outputs = [joined(frame, tmp_path / f"{index}{suffix}") for index, frame in enumerate(frames)]

    assert [read_columns(output) for output in outputs] == [expected] * len(frames)


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_stdin_is_read_again_from_disk(tmp_path: Path, suffix: str) -> None:
    """A stream is spooled, so it is scanned, read and joined like a file; gzip is seen by its first bytes."""
    data = csv_bytes([["prompt", "n"], ["a\r\nb", "007"]])
    packed(tmp_path / "in.csv.gz", data)

    for stream in (io.BytesIO(data), (tmp_path / "in.csv.gz").open("rb")):
        with stream:
            source = open_source("-", stdin=stream)
        assert [row.cells for batch in source.rows(["n"]) for row in batch] == [{"n": "007"}]
        assert [row.cells for batch in source.rows(["prompt"]) for row in batch] == [{"prompt": "a\r\nb"}]
        source.close()


def test_stdin_may_be_json_lines() -> None:
    """A stream that begins with a brace is JSON Lines."""
    source = open_source("-", stdin=io.BytesIO(b'\xef\xbb\xbf {"prompt": 1.10}\n'))

    assert source.format == "jsonl"
    assert [row.cells for batch in source.rows(["prompt"]) for row in batch] == [{"prompt": "1.10"}]
    source.close()
