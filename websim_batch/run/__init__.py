"""A job from end to end: run it, check it, look at it, export it, prove it. `session` has the order of things drawn.

Each function loads what it needs when it is called, so that a look at a status does not wait for HTTP or tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websim_batch.job.settings import Settings

if TYPE_CHECKING:
    from websim_batch.run.checking import CheckReport
    from websim_batch.run.finish import RunReport
    from websim_batch.tables.compare import Comparison


def execute(settings: Settings, table: object = None) -> RunReport:
    """Run the job, or continue it, showing how it goes on stderr; Ctrl-C and SIGTERM drain it.

    `table` is a table in memory in place of the settings' input. Raises WebsimBatchError for what refuses the run.
    """
    import sys

    from websim_batch.progress import make_progress
    from websim_batch.run.session import execute as run

    progress = make_progress(settings, sys.stderr, sys.stderr.isatty())
    report = None
    try:
        report = run(settings, progress, table)
        return report
    finally:
        progress.close(report.exit_code if report is not None else 1)


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


def verify(output: Path, table: Path | None = None) -> Comparison:
    """Prove from the two tables alone that every input row is in the output once, in order, unchanged."""
    from websim_batch.run.proving import verify as prove

    return prove(output, table)


def models(settings: Settings) -> Sequence[str]:
    """The provider's models, default first; asks the endpoint where the list is not fixed."""
    from websim_batch.run.asking import models as ask

    return ask(settings)
