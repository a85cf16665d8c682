"""A job from end to end: run it, check it, look at it, export it, prove it. `session` has the order of things drawn.

Each function loads what it needs when it is called, so that a look at a status does not wait for HTTP or tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websim_batch.job.settings import Settings

if TYPE_CHECKING:
    from websim_batch.progress import Progress
    from websim_batch.run.checking import CheckReport
    from websim_batch.run.finish import RunReport
    from websim_batch.run.reopening import LedgerLine
    from websim_batch.run.stopping import Stopper
    from websim_batch.tables.compare import Comparison


def execute(settings: Settings, table: object = None, stopper: Stopper | None = None) -> RunReport:
    """Run the job, or continue it, showing how it goes; without a `stopper`, Ctrl-C and SIGTERM drain it.

    `table` is a table in memory in place of the settings' input. Raises WebsimBatchError for what refuses the run.
    """
    from websim_batch.run import session

    with _progress(settings) as shown:
        shown.report = session.execute(settings, shown.progress, table, stopper)
        return shown.report


async def execute_here(settings: Settings, table: object, stopper: Stopper) -> RunReport:
    """As `execute`, on the caller's event loop; only `stopper` drains it."""
    from websim_batch.run import session

    with _progress(settings) as shown:
        shown.report = await session.execute_here(settings, shown.progress, table, stopper)
        return shown.report


@dataclass(slots=True)
class _Shown:
    progress: Progress
    report: RunReport | None = None


@contextmanager
def _progress(settings: Settings) -> Iterator[_Shown]:
    """What shows a run on stderr while it goes on; at its end it is told how the run ended."""
    import sys

    from websim_batch.progress import make_progress

    shown = _Shown(make_progress(settings, sys.stderr, sys.stderr.isatty()))
    try:
        yield shown
    finally:
        shown.progress.close(1 if shown.report is None else shown.report.exit_code)


def check(settings: Settings, show: int = 0, table: object = None) -> CheckReport:
    """Everything before the first request, and no request: all problems, hazards, what a run would send."""
    from websim_batch.run.checking import check as look

    return look(settings, show, table)


def status(output: Path) -> dict[str, Any]:
    """The summary of the newest run behind `output`, finished, stopped or going on; raises JournalError without one."""
    from websim_batch.run.state import status as read

    return read(output)


def export(output: Path, other: Path) -> None:
    """Write the table behind `output` to `other` as the journal has it now, also while a run is going."""
    from websim_batch.run.exporting import export as write

    write(output, other)


def ledger(settings: Settings, output: Path, table: object = None) -> Sequence[LedgerLine]:
    """Every request of the job behind `output`, over all runs, by row of the table and number."""
    from websim_batch.run.reopening import ledger as read

    return read(settings, output, table)


def parquet_now(settings: Settings, output: Path, table: object = None) -> bytes:
    """The table behind `output` as its journal has it now, as a Parquet file in memory."""
    from websim_batch.run.exporting import parquet_now as write

    return write(settings, output, table)


def verify(output: Path, table: Path | None = None) -> Comparison:
    """Prove from the two tables alone that every input row is in the output once, in order, unchanged."""
    from websim_batch.run.proving import verify as prove

    return prove(output, table)


def models(settings: Settings) -> Sequence[str]:
    """The provider's models, default first; asks the endpoint where the list is not fixed."""
    from websim_batch.run.asking import models as ask

    return ask(settings)
