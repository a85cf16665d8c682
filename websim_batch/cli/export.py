"""The command `export`."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from websim_batch.cli.base import Command
from websim_batch.cli.faults import emit


@click.command(cls=Command)
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "other", type=click.Path(path_type=Path), required=True, help="The table to write."
)
def command(output: Path, other: Path) -> None:
    """Write the table behind OUTPUT as it stands now, in OTHER's format.

    Reads the journal, so it works while a run goes on and after a crash; unanswered rows are `pending`.

    \b
    Example:
        websim-batch export out/chat.csv -o out/chat.parquet
    """
    from websim_batch.job.dated import output_behind
    from websim_batch.run import export

    export(output_behind(output, date.today()), other)
    emit(f"{other}: written")
