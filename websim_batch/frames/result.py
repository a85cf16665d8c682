"""What a run gives back in Python: how it ended, and its table for Arrow, pandas, polars and DuckDB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from websim_batch.errors import UsageError
from websim_batch.frames.showing import as_html, as_line
from websim_batch.job.parse import error_types as parse_error_types
from websim_batch.job.settings import Settings
from websim_batch.records import Status

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from websim_batch.run.finish import RunReport
    from websim_batch.run.summary import Summary

Again: TypeAlias = "Callable[[Settings, object], RunResult]"

FAILED: tuple[Status, ...] = ("failed", "invalid", "refused")
"""The statuses of rows that ended without success."""


class RunResult:
    """How a run ended, and its output. The table is read when it is first asked for, and then kept.

    `print(result)` and a notebook show the outcome and the errors; polars and DuckDB take the result itself as a table.
    """

    def __init__(self, report: RunReport, settings: Settings, table: object, again: Again) -> None:
        self.summary: Summary = report.summary
        """The facts of the run, as `--json` prints them."""
        self.output = Path(report.summary.output).absolute()
        """The table that was written."""
        self._is_written = report.is_written
        self._settings = _pinned(settings, self.output)
        self._input = table
        self._again = again

    @property
    def exit_code(self) -> int:
        """What the command line would have ended with: 0, 3, 4, or 130 and 143 for an interrupt."""
        return self.summary.exit_code or 0

    @property
    def counts(self) -> Counter[Status]:
        """Rows by status; 0 for one that no row has."""
        return Counter(self.summary.counts)

    @property
    def errors(self) -> Counter[str]:
        """Rows by error type; 0 for one that no row has."""
        return Counter(self.summary.errors)

    @cached_property
    def table(self) -> pa.Table:
        """The output as an Arrow table: input columns as they were, ours in their own types, in input order."""
        from websim_batch.tables import ReadOptions, format_of
        from websim_batch.tables.load import parquet_table, read_table

        if not self._is_written:
            from websim_batch.run import parquet_now

            return parquet_table(parquet_now(self._settings, self.output, self._input))
        is_csv = format_of(self.output)[0] == "csv"
        return read_table(self.output, ReadOptions(delimiter=self._settings.delimiter if is_csv else None))

    def to_pandas(self) -> pd.DataFrame:
        """The output as a frame: Arrow's types, which lose nothing, and a category for the status.

        The index of a pandas frame that was the input is the index again.
        """
        from websim_batch.tables.load import as_frame

        return as_frame(self.table)

    @property
    def failed(self) -> pd.DataFrame:
        """The rows that ended `failed`, `invalid` or `refused`, as a frame that keeps their places as its index."""
        frame = self.to_pandas()
        return frame[frame[f"{self._settings.prefix}status"].isin(FAILED)]

    def attempts(self) -> pd.DataFrame:
        """Every request of the job, over all its runs: the ledger.

        `row` is the row's place in the table from 0 (null for a row that is no longer in it), `number` counts the
        row's requests from 1, `elapsed_ms` is null while nobody knows the outcome; `delivery` is `answered`, `unknown`
        or `not_sent`. Reads the input again; raises UsageError if it is gone.
        """
        from websim_batch.run import ledger
        from websim_batch.tables.load import ledger_frame

        lines = ledger(self._settings, self.output, self._input)
        return ledger_frame([(line.row, line.run_id, line.attempt) for line in lines])

    def retry_failed(self, *error_types: str) -> RunResult:
        """Run the job again with the rows that failed, all or those of these error types; gives the new result.

        Rows without a result are sent as well. Raises as `run` does.
        """
        if self._settings.stdin:
            raise UsageError("the input was standard input, which cannot be read again; give it as a file")
        try:
            wanted = parse_error_types(list(error_types) or True)
        except ValueError as exc:
            raise UsageError(str(exc)) from exc
        return self._again(replace(self._settings, retry_failed=wanted, overwrite=False), self._input)

    def __len__(self) -> int:
        return self.summary.rows

    def __bool__(self) -> bool:
        return True  # also of an empty table: it is a result

    def __repr__(self) -> str:
        return as_line(self.summary)

    def _repr_html_(self) -> str:
        return as_html(self.summary)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        capsule: object = self.table.__arrow_c_stream__(requested_schema)  # type: ignore[no-untyped-call]
        return capsule


def _pinned(settings: Settings, output: Path) -> Settings:
    """The settings for what comes later: the same files from any folder, and the day of this job for a {date}."""
    paths = {
        name: path.absolute()
        for name in ("input", "journal")
        if (path := getattr(settings, name)) is not None
    }
    return replace(settings, output=output, **paths)
