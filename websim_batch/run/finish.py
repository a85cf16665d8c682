"""The end of a run: the output table from the journal, the manifest, the summary, the exit code.

Finishing needs no network and no event loop. If it cannot be done (a full disk, no time left after a stop, a second
Ctrl-C), the journal is the state, and the message says how to `export` it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from websim_batch.engine.stops import weightier
from websim_batch.errors import DiskFullError, JournalError, UsageError
from websim_batch.job.settings import public_settings
from websim_batch.progress import Progress
from websim_batch.records import OutputCells, Status, StopReason
from websim_batch.run.outcome import exit_code
from websim_batch.run.reporting import throttle_facts
from websim_batch.run.stopping import INTERRUPTED, TERMINATED
from websim_batch.run.summary import Summary, summarize, versions
from websim_batch.tables import OutputSpec, atomic_write, write_output

if TYPE_CHECKING:
    from websim_batch.run.session import Prepared


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended; `is_written` says whether the output table holds it, else the journal alone does."""

    summary: Summary
    is_written: bool

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return self.summary.exit_code or 0


class OutOfTimeError(Exception):
    """Writing the table after a stop took longer than the grace."""


class _Tally:
    """Passes the output's cells on and counts what goes by, so that the summary is of the table as written."""

    def __init__(self, cells: Iterator[OutputCells], until_s: float | None) -> None:
        self.statuses: Counter[Status] = Counter()
        self.errors: Counter[str] = Counter()
        self._cells = cells
        self._until_s = until_s

    def __iter__(self) -> Iterator[OutputCells]:
        statuses, errors = self.statuses, self.errors
        for number, cells in enumerate(self._cells):
            statuses[cells.status] += 1
            if cells.error_type is not None:
                errors[cells.error_type] += 1
            if self._until_s is not None and not number % 1024 and time.monotonic() > self._until_s:
                raise OutOfTimeError
            yield cells


def finish(
    prepared: Prepared, stop: StopReason | None, progress: Progress, grace_s: float | None = None
) -> RunReport:
    """Write the table and the manifest; what cannot be written becomes part of the report, not an exception.

    After a stop the table may take `grace_s` seconds (None: the settings' grace).
    """
    stop, is_written = _write_table(prepared, stop, prepared.settings.grace_s if grace_s is None else grace_s)
    summary = _summary(prepared, stop, is_written)
    report = RunReport(summary, is_written)
    _write_manifest(prepared, summary, progress)
    told = f"run {summary.run_id} {summary.state}, exit code {summary.exit_code}"
    facts = {name: value for name, value in summary.as_json().items() if name != "message"}
    progress.log("debug", "end", told if summary.message is None else f"{told}: {summary.message}", **facts)
    state: Literal["stopped", "finished"] = "stopped" if summary.state == "stopped" else "finished"
    try:
        prepared.job.journal.end_run(state, round(time.time() * 1e6), orjson.dumps(summary.as_json()))
    except (DiskFullError, JournalError) as exc:
        progress.log("warning", "journal", f"the end of the run was not noted: {exc}")
    return report


def _write_table(
    prepared: Prepared, stop: StopReason | None, grace_s: float
) -> tuple[StopReason | None, bool]:
    """Why the run ended, after all, and whether the table was written."""
    job, settings = prepared.job, prepared.settings
    until_s = None if stop is None else time.monotonic() + grace_s
    tally = _Tally(job.journal.output_cells(job.identity.place()), until_s)
    spec = OutputSpec(
        job.paths.output,
        settings.prefix,
        settings.bom,
        settings.csv_safe,
        settings.delimiter,
        _metadata(prepared),
    )
    try:
        write_output(job.table.source, job.table.info, iter(tally), spec)
    except DiskFullError as exc:
        fault = StopReason(4, "disk_full", str(exc))
    except OutOfTimeError:
        fault = StopReason(4, "time_limit", f"the table could not be written within {grace_s:g} s")
    except KeyboardInterrupt:
        fault = INTERRUPTED
    except SystemExit:
        fault = TERMINATED
    except UsageError as exc:
        fault = StopReason(2, "output", str(exc))
    else:
        prepared.counters.statuses, prepared.counters.errors = tally.statuses, tally.errors
        return stop, True
    return _unwritten(prepared, stop, fault), False


def _unwritten(prepared: Prepared, stop: StopReason | None, fault: StopReason) -> StopReason:
    """The reason to tell when the table was not written, with what to do."""
    reason = weightier(stop, fault)
    said = reason.message if reason is fault else f"{reason.message}; {fault.message}"
    output = prepared.job.paths.output
    return replace(reason, message=f"{said}; the table was not written, {_export(output)}")


def _export(output: Path) -> str:
    return f"the journal holds all results: websim-batch export {output} -o OTHER.{output.name.partition('.')[2]}"


def _metadata(prepared: Prepared) -> dict[str, str]:
    return {"run_id": prepared.run_id, "settings": orjson.dumps(public_settings(prepared.settings)).decode()}


def _summary(prepared: Prepared, stop: StopReason | None, is_written: bool) -> Summary:
    counters = prepared.counters
    counts = counters.by_status()
    code = exit_code(counts, stop, prepared.settings.tolerate, is_written)
    is_stopped = not is_written or bool(counts.get("pending") or counts.get("deferred"))
    summary = summarize(
        counters,
        output=str(prepared.job.paths.output),
        run_id=prepared.run_id,
        elapsed_s=time.monotonic() - prepared.started_s,
        state="stopped" if is_stopped else "finished",
        throttle=throttle_facts(prepared.throttle_state) if prepared.throttle_state else None,
    )
    is_stop = stop is not None and code == stop.exit_code
    return replace(
        summary,
        exit_code=code,
        exit_reason=stop.exit_reason if is_stop and stop else None,
        message=stop.message if is_stop and stop else None,
    )


def _write_manifest(prepared: Prepared, summary: Summary, progress: Progress) -> None:
    manifest: dict[str, Any] = {
        **summary.as_json(),
        "settings": public_settings(prepared.settings),
        "versions": versions(),
    }
    try:
        with atomic_write(prepared.job.paths.manifest) as file:
            file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    except (DiskFullError, UsageError) as exc:
        progress.log("warning", "manifest", f"the manifest was not written: {exc}")
