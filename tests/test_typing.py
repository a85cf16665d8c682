"""The public API is typed: a user's script passes mypy --strict, and what is wrong in one is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCRIPT = """
import asyncio
from collections import Counter
from pathlib import Path
from typing import assert_type

import pandas as pd
import polars as pl
import pyarrow as pa

import websim_batch as wb
from websim_batch import ImageResponse, RunResult, Websim


def nightly(day: str) -> int:
    result = wb.run("prompts.csv", output=f"out/{day}.parquet", rate=["60/min", "5/s"], max_failures="5%")
    assert_type(result, RunResult)
    assert_type(result.exit_code, int)
    assert_type(result.table, pa.Table)
    assert_type(result.to_pandas(), pd.DataFrame)
    assert_type(result.failed, pd.DataFrame)
    assert_type(result.attempts(), pd.DataFrame)
    assert_type(result.retry_failed("server", "timeout"), RunResult)
    assert_type(result.errors, Counter[str])
    assert_type(result.output, Path)
    print(result.counts["ok"], result.counts["failed"], result.summary.rows_per_s, len(result))
    return result.exit_code


async def frames() -> None:
    pandas = await wb.arun(pd.DataFrame({"prompt": ["a"]}), system="Be short.", params={"seed": 7})
    assert_type(pandas, RunResult)
    wb.run(pl.DataFrame({"prompt": ["a"]}), retry_failed=True, sandbox=True)
    wb.run(pa.table({"prompt": ["a"]}), headers={"X-Team": "night"}, timeout=30, deadline="06:00")
    wb.run(Path("prompts.csv"), kind="image", on_drift="keep", progress="none", tolerate=3)
    wb.run(pandas)
    assert_type(wb.load("out/*.parquet", status="ok"), pd.DataFrame)
    wb.load(Path("a.csv"), status=["failed", "invalid"])
    pl.DataFrame(pandas)


async def one() -> None:
    try:
        async for piece in Websim.create_async_generator("flux", [{"role": "user", "content": "A cat"}]):
            print(piece.get_list() if isinstance(piece, ImageResponse) else piece.upper())
    except wb.WebsimBatchError as exc:
        print(exc.exit_code)


asyncio.run(frames())
"""

MISTAKES = """
import websim_batch as wb

wb.run("prompts.csv", ratee="60/min")
wb.run("prompts.csv", concurrency="many")
wb.run("prompts.csv", on_drift="ignore")
wb.run(["a", "list"])
wb.load("out.csv", status="good")
wb.run("prompts.csv").exit
wb.walk("prompts.csv")
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says about each script, by its name: one line for each error."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "mistakes.py").write_text(MISTAKES)
    # As it finds an installed package: by its own py.typed, errors inside it not told.
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    options = ["--config-file=", "--follow-imports=silent", "script.py", "mistakes.py"]
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert not done.stderr
    lines = [line for line in done.stdout.splitlines() if ": error:" in line]
    return {
        name: [line for line in lines if line.startswith(f"{name}.py")] for name in ("script", "mistakes")
    }


def test_a_users_script_passes_strictly(told: dict[str, list[str]]) -> None:
    """Inputs, options, results and errors have the types that a user would write."""
    assert told["script"] == []


def test_a_users_mistakes_are_found(told: dict[str, list[str]]) -> None:
    """An unknown option, a wrong value, no table, an unknown name: one error on each line."""
    lines = [int(line.split(":")[1]) for line in told["mistakes"]]

    assert lines == [4, 5, 6, 7, 8, 9, 10]


def test_the_package_says_that_it_is_typed() -> None:
    """`py.typed` is shipped beside the code."""
    assert (ROOT / "websim_batch" / "py.typed").is_file()
