"""wb.run and wb.arun: what goes in, what comes back or is raised, and what is paid."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import websim_batch as wb
from websim_batch.errors import LockedError
from websim_batch.journal import OutputLock
from websim_batch.sandbox import Misbehaviour, Sandbox, SandboxOptions

PROMPTS = [f"say {number}" for number in range(6)]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a working folder of its own."""
    monkeypatch.chdir(tmp_path)


def written(prompts: list[str] = PROMPTS) -> Path:
    """A CSV of prompts in the working folder."""
    path = Path("prompts.csv")
    path.write_text("prompt\n" + "".join(f"{prompt}\n" for prompt in prompts))
    return path


def frame(prompts: list[str] = PROMPTS) -> pd.DataFrame:
    """A frame of prompts with a number beside each."""
    return pd.DataFrame({"prompt": prompts, "n": range(len(prompts))})


# --- what comes back, what is raised


def test_a_path_gives_a_result_beside_it() -> None:
    """Every row is answered, and the output has the name that the command line gives it."""
    with Sandbox() as sandbox:
        result = wb.run(written(), base_url=sandbox.base_url)

    assert (result.exit_code, result.counts, len(result)) == (0, {"ok": 6}, 6)
    assert result.output == Path("prompts.results.csv").absolute()
    assert result.table.column("prompt").to_pylist() == PROMPTS


def test_failed_rows_give_a_result_with_3() -> None:
    """Rows that failed are in the result; nothing is raised."""
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"say 1": "400"})) as sandbox:
        result = wb.run(str(written()), base_url=sandbox.base_url)

    assert (result.exit_code, result.counts, result.errors) == (3, {"ok": 5, "failed": 1}, {"bad_request": 1})


def test_a_run_that_stops_early_gives_a_result_with_4() -> None:
    """A stopped run has its finished rows and the others pending."""
    prompts = [f"say {number}" for number in range(50)]
    with Sandbox(SandboxOptions(latency_ms=50), Misbehaviour(every="400")) as sandbox:
        result = wb.run(written(prompts), base_url=sandbox.base_url, concurrency=1, max_failures=1)

    assert (result.exit_code, result.summary.exit_reason) == (4, "max_failures")
    assert result.counts["pending"] > 0
    assert result.table.num_rows == 50


def test_an_endpoint_that_refuses_everything_raises_after_saving() -> None:
    """Exit code 5 is an EndpointRefusesError that says how; the output is there, with its rows pending."""
    with (
        Sandbox(misbehaviour=Misbehaviour(every="401")) as sandbox,
        pytest.raises(wb.EndpointRefusesError) as raised,
    ):
        wb.run(written(), base_url=sandbox.base_url)

    assert raised.value.error_type == "auth"
    assert "scripted 401" in str(raised.value)
    assert wb.load("prompts.results.csv")["status"].tolist() == ["pending"] * 6


def test_wrong_usage_raises_and_sends_nothing() -> None:
    """A missing file, an unknown option, a broken table and drift are UsageErrors, each in its own class."""
    with Sandbox() as sandbox:
        here: Any = {"base_url": sandbox.base_url}
        with pytest.raises(wb.UsageError, match=r"none\.csv"):
            wb.run("none.csv", **here)
        with pytest.raises(wb.UsageError, match="unknown option 'ratee'; did you mean 'rate'"):
            wb.run(written(), ratee="1/s", **here)
        with pytest.raises(wb.InputError, match="prompt"):
            wb.run(pd.DataFrame({"text": ["a"]}), **here)
        assert sandbox.stats()["requests"] == 0
        wb.run(written(), **here)
        with pytest.raises(wb.DriftError, match="system was not given"):
            wb.run(written(), system="Be short.", **here)

        assert sandbox.stats()["requests"] == 6


def test_an_output_that_is_held_raises() -> None:
    """Another run on the same output is a LockedError, and nothing is sent."""
    with Sandbox() as sandbox, OutputLock(Path("out.csv")), pytest.raises(LockedError):
        wb.run(written(), output="out.csv", base_url=sandbox.base_url)

    assert sandbox.arrivals == []


def test_an_input_that_breaks_while_it_runs_raises_after_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2 at the end is raised too; what finished is in the journal."""
    from importlib import import_module

    def fails(*_: object) -> None:
        raise wb.InputChangedError("prompts.csv changed while it was read")

    with Sandbox() as sandbox:
        with monkeypatch.context() as patch:
            patch.setattr(import_module("websim_batch.run.finish"), "write_output", fails)
            with pytest.raises(wb.UsageError, match="changed while it was read"):
                wb.run(written(), base_url=sandbox.base_url)

        assert wb.run(written(), base_url=sandbox.base_url).counts == {"ok": 6}
        assert sandbox.stats()["requests"] == 6


# --- tables in memory


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: pd.DataFrame(rows),
        lambda rows: pl.DataFrame(rows),
        lambda rows: pa.table(rows),
        lambda rows: pa.table(rows).to_reader(),
        lambda rows: duckdb.from_arrow(pa.table(rows)),
    ],
    ids=["pandas", "polars", "arrow", "reader", "duckdb"],
)
def test_any_table_in_memory_is_an_input(make: Any) -> None:
    """pandas, polars, Arrow, a stream that can be read once: all of them, with their other columns."""
    with Sandbox() as sandbox:
        result = wb.run(make({"prompt": PROMPTS, "n": [1, 2, 3, 4, 5, None]}), base_url=sandbox.base_url)

    assert result.counts == {"ok": 6}
    assert result.table.column("prompt").to_pylist() == PROMPTS
    assert result.table.column("n").null_count + result.to_pandas()["n"].isna().sum() in (1, 2)


@pytest.mark.parametrize("thing", [["a", "b"], {"prompt": ["a"]}, None, 7])
def test_what_is_no_table_is_refused(thing: Any) -> None:
    """A list, a dict, nothing: each is told by its type, with what to give instead."""
    with pytest.raises(wb.UsageError, match=f"the {type(thing).__name__} is no table; give a path"):
        wb.run(thing)


def test_the_same_frame_again_pays_nothing() -> None:
    """Without an output a frame has its own file; running the cell again finds it and sends nothing."""
    with Sandbox() as sandbox:
        first = wb.run(frame(), base_url=sandbox.base_url)
        again = wb.run(frame(), base_url=sandbox.base_url, concurrency=3, rate="1000/s")

        assert sandbox.stats()["requests"] == 6
    assert first.output == again.output
    assert (first.output.parent, first.output.suffix) == (Path.cwd(), ".parquet")
    assert first.output.name.startswith("websim-")
    assert again.table.equals(first.table)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (frame([*PROMPTS[:5], "another"]), {}),
        (frame().assign(n=7), {}),
        (frame().rename(columns={"n": "m"}), {}),
        (frame(), {"system": "Be short."}),
        (frame(), {"model": "gemini-1.5-flash"}),
    ],
    ids=["prompt", "carried", "column", "system", "model"],
)
def test_another_frame_or_other_answers_have_another_file(table: pd.DataFrame, options: Any) -> None:
    """What changes the output, content or settings that change answers, changes the file's name."""
    with Sandbox() as sandbox:
        first = wb.run(frame(), base_url=sandbox.base_url)
        other = wb.run(table, base_url=sandbox.base_url, **options)

    assert other.output != first.output


def test_a_first_try_with_a_limit_is_continued_by_the_whole() -> None:
    """`limit` does not change the file: the rows tried first are not paid again."""
    with Sandbox() as sandbox:
        first = wb.run(frame(), base_url=sandbox.base_url, limit=2)
        whole = wb.run(frame(), base_url=sandbox.base_url)

        assert sandbox.stats()["requests"] == 6
    assert (len(first), len(whole), first.output) == (2, 6, whole.output)


def test_a_rehearsal_has_a_file_of_its_own() -> None:
    """Answers of the sandbox never land where the real ones go."""
    rehearsal = wb.run(frame(), sandbox=True)
    with Sandbox() as sandbox:
        real = wb.run(frame(), base_url=sandbox.base_url)

    assert rehearsal.output.name == real.output.name.replace(".parquet", ".sandbox.parquet")
    assert real.summary.sent == 6


def test_standard_input_is_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """'-' reads standard input; what would have to read it again says that it cannot."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"prompt\nsay it\n")))
    with Sandbox() as sandbox:
        result = wb.run("-", output="out.csv", base_url=sandbox.base_url)

    assert result.counts == {"ok": 1}
    for again in (result.retry_failed, result.attempts):
        with pytest.raises(wb.UsageError, match="standard input, which cannot be read again"):
            again()


def test_a_job_file_is_an_input(tmp_path: Path) -> None:
    """A job file stands where a table does, and an option wins over it."""
    written()
    Path("job.toml").write_text(
        '[input]\npath = "prompts.csv"\nlimit = 1\n[output]\npath = "out-{date}.csv"\n'
    )
    with Sandbox() as sandbox:
        result = wb.run("job.toml", base_url=sandbox.base_url, limit=2)

    assert len(result) == 2
    assert result.output.exists()
    assert "{date}" not in result.output.name


# --- the package itself


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import websim_batch` stays light, and knows its public names all the same."""
    heavy = {"aiohttp", "pandas", "pyarrow", "pydantic", "jinja2", "sqlite3", "asyncio", "rich", "click"}
    code = f"import sys, websim_batch as wb; print(sorted({heavy} & {{*sys.modules}}), *dir(wb))"

    env = {**os.environ, "PYTHONPATH": str(Path(wb.__file__).parents[1])}
    told = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout

    assert told.startswith("[] ")
    assert set(wb.__all__) <= set(told.split())


def test_every_public_name_is_there() -> None:
    """All that `__all__` names can be had, `run` stays the call, and a wrong name is an AttributeError."""
    found = {name: getattr(wb, name) for name in wb.__all__}

    assert callable(found["run"])
    assert found["run"].__module__ == "websim_batch.api"
    assert issubclass(found["InputError"], found["WebsimBatchError"])
    assert found["Websim"].url == "https://websim.ai"
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = wb.runn  # type: ignore[attr-defined]  # that is the point


def test_options_are_those_of_the_command_line() -> None:
    """A keyword may have the flag's name or the setting's; contradictions are told in Python's words."""
    with pytest.raises(wb.UsageError) as raised:
        wb.run(frame(), overwrite=True, retry_failed=True, timeout=-1, csv_safe=True, output="out.parquet")

    assert "overwrite and retry_failed contradict each other" in str(raised.value)
    assert "timeout: -1 is not a duration" in str(raised.value)
    assert "csv_safe is for CSV" in str(raised.value)


def test_options_that_do_not_fit_the_default_output_are_told() -> None:
    """A frame's default output is Parquet, and what is for CSV is refused there too."""
    with Sandbox(SandboxOptions()) as sandbox, pytest.raises(wb.UsageError, match="bom is for CSV"):
        wb.run(frame(), base_url=sandbox.base_url, bom=True)
