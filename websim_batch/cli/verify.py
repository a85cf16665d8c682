"""The command `verify`."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from websim_batch.cli.base import Command
from websim_batch.cli.faults import emit


@click.command(cls=Command)
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("input", type=click.Path(path_type=Path), required=False)
@click.pass_context
def command(ctx: click.Context, /, output: Path, input: Path | None) -> None:
    """Prove from the tables alone that OUTPUT holds every row of INPUT once, in order and unchanged.

    Without INPUT only the output itself is looked at: each row has one known status.

    \b
    Example:
        websim-batch verify out/chat.csv sample_inputs/chat.csv

    \b
    Exit codes:
        0    it does
        3    it does not; the line says where
    """
    from websim_batch.job.dated import output_behind
    from websim_batch.run import verify

    verdict = verify(output_behind(output, date.today()), input)
    emit(str(verdict))
    ctx.exit(0 if verdict.is_proven else 3)
