"""An input that the output's format cannot hold is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import websim_batch as wb
from websim_batch.errors import UsageError
from websim_batch.sandbox import Sandbox


def test_a_type_that_parquet_cannot_hold_is_told_before_sending(tmp_path: Path) -> None:
    """The run would fail at its very end otherwise, with every answer paid."""
    interval = pa.array([pa.MonthDayNano([1, 2, 3])], pa.month_day_nano_interval())
    table = pa.table({"prompt": ["a"], "span": interval})
    with Sandbox() as sandbox:
        with pytest.raises(UsageError, match=r"column 'span'.*write \.jsonl"):
            wb.run(table, output=tmp_path / "out.parquet", base_url=sandbox.base_url, quiet=True)

        assert sandbox.stats()["requests"] == 0
    assert not (tmp_path / "out.parquet.journal").exists()
