"""The result of a run as a table, and what wb.load makes of many."""

from __future__ import annotations

import errno
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import websim_batch as wb
from websim_batch.records import OUTPUT_COLUMNS, STATUSES
from websim_batch.sandbox import Misbehaviour, Sandbox, SandboxOptions

FRAME = pd.DataFrame(
    {"prompt": ["one", "two", "three", ""], "n": [1, 2, 3, 2**60]},
    index=pd.Index([10, 20, 30, 40], name="key"),
)
FAILS_ONCE = Misbehaviour(by_prompt={"two": ["400"], "three": ["policy"]})


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a working folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sandbox() -> Any:
    """A server that refuses two of the prompts once."""
    with Sandbox(misbehaviour=FAILS_ONCE) as sandbox:
        yield sandbox


# --- the table


def test_to_pandas_has_good_types(sandbox: Sandbox) -> None:
    """Arrow's types, which lose nothing, a category for the status, and the frame's own index."""
    found = wb.run(FRAME, base_url=sandbox.base_url).to_pandas()

    assert found.index.tolist() == [10, 20, 30, 40]
    assert found["n"].tolist() == [1, 2, 3, 2**60]
    assert str(found["n"].dtype) == "int64[pyarrow]"
    assert found["status"].tolist() == ["ok", "failed", "refused", "skipped"]
    assert list(found["status"].cat.categories) == list(STATUSES)
    assert str(found["started_at"].dtype) == "timestamp[us, tz=UTC][pyarrow]"
    assert str(found["http_status"].dtype) == "int16[pyarrow]"


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl.gz", "out.parquet"])
def test_the_table_has_the_same_schema_from_every_format(sandbox: Sandbox, name: str) -> None:
    """Our columns have their own types whatever the output was written as, also under a prefix."""
    result = wb.run(FRAME.reset_index(), output=name, prefix="my_", base_url=sandbox.base_url)

    ours = result.table.select([f"my_{column}" for column, _ in OUTPUT_COLUMNS])
    assert ours.schema.field("my_response").type == pa.large_string()
    assert ours.schema.field("my_finished_at").type == pa.timestamp("us", "UTC")
    assert ours.column("my_status").to_pylist() == ["ok", "failed", "refused", "skipped"]
    assert result.failed["prompt"].tolist() == ["two", "three"]


def test_a_separator_is_for_the_text_table_only(sandbox: Sandbox) -> None:
    """A delimiter reads the input, writes a CSV output, and does not disturb a Parquet one."""
    Path("in.csv").write_text("prompt;n\none;007\n")
    for name in ("out.csv", "out.parquet"):
        result = wb.run("in.csv", output=name, delimiter=";", base_url=sandbox.base_url)

        assert result.table.column("n").to_pylist() == ["007"]
    assert Path("out.csv").read_text().startswith("prompt;n;status;")


def test_polars_and_duckdb_take_the_result_itself(sandbox: Sandbox) -> None:
    """The PyCapsule interface: no conversion by hand."""
    result = wb.run(FRAME, base_url=sandbox.base_url)

    assert pl.DataFrame(result)["n"].to_list() == [1, 2, 3, 2**60]
    assert pa.table(result).equals(result.table)
    assert duckdb.sql("SELECT prompt FROM result WHERE status = 'ok'").fetchall() == [("one",)]


def test_the_result_is_found_again_from_another_folder(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result holds its place, not the folder in which the program happens to stand."""
    Path("in.csv").write_text("prompt\none\ntwo\n")
    result = wb.run("in.csv", base_url=sandbox.base_url)
    monkeypatch.chdir("/")

    assert result.table.num_rows == 2
    assert len(result.attempts()) == 2
    assert result.retry_failed().output == tmp_path / "in.results.csv"


def test_a_table_that_could_not_be_written_comes_from_the_journal(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk the result is still whole."""

    def fails(*_: object) -> None:
        raise wb.DiskFullError(f"out.csv: {errno.ENOSPC}")

    with monkeypatch.context() as patch:
        patch.setattr(import_module("websim_batch.run.finish"), "write_output", fails)
        result = wb.run(FRAME, output="out.csv", base_url=sandbox.base_url)

    assert (result.exit_code, result.summary.exit_reason) == (4, "disk_full")
    assert not Path("out.csv").exists()
    assert result.to_pandas()["status"].tolist() == ["ok", "failed", "refused", "skipped"]
    assert result.to_pandas().index.tolist() == [10, 20, 30, 40]


def test_an_empty_table_is_a_result_too(sandbox: Sandbox) -> None:
    """No rows: exit code 0, an empty frame with all columns, and a result that is true."""
    result = wb.run(FRAME.head(0), base_url=sandbox.base_url)

    assert (result.exit_code, len(result), bool(result)) == (0, 0, True)
    assert list(result.to_pandas().columns) == ["prompt", "n", *(name for name, _ in OUTPUT_COLUMNS)]
    assert len(result.failed) == len(result.attempts()) == 0


# --- what failed


def test_failed_are_the_rows_without_success(sandbox: Sandbox) -> None:
    """Failed, invalid and refused rows, at their places; skipped ones are none of them."""
    failed = wb.run(FRAME, base_url=sandbox.base_url).failed

    assert failed.index.tolist() == [20, 30]
    assert failed["error_type"].tolist() == ["bad_request", "content_policy"]


def test_counts_know_every_status(sandbox: Sandbox) -> None:
    """A status or an error that no row has counts 0."""
    result = wb.run(FRAME, base_url=sandbox.base_url)

    assert result.counts == {"ok": 1, "failed": 1, "refused": 1, "skipped": 1}
    assert (result.counts["invalid"], result.errors["server"]) == (0, 0)


def test_retry_failed_sends_those_rows_alone(sandbox: Sandbox) -> None:
    """The rows that failed are sent again, all or by error type; the others are not."""
    result = wb.run(FRAME, base_url=sandbox.base_url, overwrite=True)
    policy = result.retry_failed("content_policy")
    rest = policy.retry_failed()

    assert policy.counts == {"ok": 2, "failed": 1, "skipped": 1}
    assert rest.counts == {"ok": 3, "skipped": 1}
    assert [sandbox.sends_of(prompt) for prompt in ("one", "two", "three")] == [1, 2, 2]
    with pytest.raises(wb.UsageError, match="'serve' is no error type; did you mean 'server'"):
        result.retry_failed("serve")


def test_attempts_are_the_whole_ledger(sandbox: Sandbox) -> None:
    """Every request, with the row it was for, over all runs."""
    first = wb.run(FRAME, base_url=sandbox.base_url)
    again = first.retry_failed()
    found = again.attempts()

    assert found[["row", "number"]].values.tolist() == [[0, 1], [1, 1], [1, 2], [2, 1], [2, 2]]
    assert found["http_status"].tolist() == [200, 400, 200, 400, 200]
    assert found["delivery"].unique().tolist() == ["answered"]
    assert found["run_id"].nunique() == 2
    assert (found["elapsed_ms"] >= 0).all()
    assert str(found["started_at"].dtype) == "timestamp[us, tz=UTC][pyarrow]"


def test_attempts_name_the_row_as_the_table_has_it(sandbox: Sandbox) -> None:
    """After rows were inserted and removed, `row` is the place in the table of now; a lost row has none."""
    Path("in.csv").write_text("prompt\nfour\nfive\nsix\n")
    wb.run("in.csv", base_url=sandbox.base_url)
    Path("in.csv").write_text("prompt\nnew\nfour\nsix\n")
    found = wb.run("in.csv", base_url=sandbox.base_url).attempts()

    prompts = ["new", "four", "six"]
    times = dict(zip(found["row"].fillna(-1), found["started_at"], strict=True))
    sent = [arrival.prompt for arrival in sandbox.arrivals]
    assert sorted(times) == [-1, 0, 1, 2]
    assert sorted(prompts, key=lambda prompt: times[prompts.index(prompt)]) == [
        p for p in sent if p in prompts
    ]


# --- how it looks


def test_repr_tells_the_outcome_and_the_errors(sandbox: Sandbox) -> None:
    """One line: where, how it ended, rows by status, errors by type, what to do."""
    result = wb.run(FRAME, output="out.csv", base_url=sandbox.base_url)

    assert repr(result) == (
        "<RunResult out.csv: finished, exit code 3; 4 rows: ok 1, failed 1, refused 1, skipped 1;"
        " errors: bad_request 1, content_policy 1; result.retry_failed() tries those rows again>"
    )


def test_the_html_tells_the_same_and_escapes_it(sandbox: Sandbox) -> None:
    """Both tables are there, and text that looks like HTML stays text."""
    result = wb.run(FRAME, output="<b>&.csv", base_url=sandbox.base_url)

    shown = result._repr_html_()

    assert "<code>&lt;b&gt;&amp;.csv</code>" in shown
    assert "<b>&.csv" not in shown
    assert "<tr><td>failed</td><td>1</td></tr>" in shown
    assert "<tr><td>content_policy</td><td>1</td></tr>" in shown
    assert "<b>finished</b>, exit code 3: 4 rows" in shown


def test_a_stopped_run_says_why() -> None:
    """The reason stands in both forms, escaped."""
    frame = pd.DataFrame({"prompt": [f"say {number}" for number in range(50)]})
    with Sandbox(SandboxOptions(latency_ms=50), Misbehaviour(every="400")) as sandbox:
        result = wb.run(frame, base_url=sandbox.base_url, max_failures=1, concurrency=1)

    assert "exit code 4" in repr(result)
    assert "more than --max-failures allows" in repr(result)
    assert "more than --max-failures allows" in result._repr_html_()


# --- many nights


def test_load_joins_nights_with_the_day_of_each_run(sandbox: Sandbox) -> None:
    """All files of a pattern in one frame; `run_date` is the day of the run that finished the row."""
    for day in ("2025-11-20", "2025-11-21"):
        wb.run(FRAME, output=f"out-{day}.csv", base_url=sandbox.base_url)
    older = Path("out-2025-11-20.csv")
    run_id = wb.load(older)["run_id"][0]
    older.write_text(older.read_text().replace(run_id, "20251120T235959Z-abcdef"))

    found = wb.load("out-*.csv", status="ok")

    assert found["prompt"].tolist() == ["one", "one", "two", "three"]
    assert found["run_date"][0] == date(2025, 11, 20)
    assert found["run_date"][1] == pd.Timestamp(f"{run_id[:8]}").date()
    assert str(found["run_date"].dtype) == "date32[day][pyarrow]"
    assert str(found["status"].dtype) == "category"


def test_a_row_without_a_run_has_no_day() -> None:
    """Pending rows have no run that finished them."""
    with Sandbox(misbehaviour=Misbehaviour(every="401")) as sandbox, pytest.raises(wb.EndpointRefusesError):
        wb.run(FRAME, output="out.parquet", base_url=sandbox.base_url)

    found = wb.load("out.parquet")
    assert found.loc[found["status"] == "pending", "run_date"].isna().all()
    assert found.columns[-1] == "run_date"


def test_load_keeps_a_frames_index_as_a_column(sandbox: Sandbox) -> None:
    """Frames of many files have no index in common, so it stays as what it was: a column."""
    for name in ("a.parquet", "b.parquet"):
        wb.run(FRAME, output=name, base_url=sandbox.base_url)

    assert wb.load("?.parquet")["key"].tolist() == [10, 20, 30, 40] * 2


def test_a_column_of_the_input_called_run_date_stays(sandbox: Sandbox) -> None:
    """What the user brought is never written over."""
    wb.run(FRAME.assign(run_date="yesterday"), output="a.parquet", base_url=sandbox.base_url)

    assert wb.load("a.parquet")["run_date"].unique().tolist() == ["yesterday"]
