"""The command `status`."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from websim_batch.cli.base import Command
from websim_batch.cli.show import show_status


@click.command(cls=Command)
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(output: Path, as_json: bool) -> None:
    """Say how far the job behind OUTPUT is.

    Counts by status, pace, what limits it and the time left; also while a run goes on in another process.
    OUTPUT is the table that `run` writes, or the job file.

    \b
    Example:
        websim-batch status out/chat.csv
    """
    from websim_batch.job.dated import output_behind
    from websim_batch.run import status

    show_status(status(output_behind(output, date.today())), as_json)
