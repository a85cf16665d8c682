"""The command `check`."""

from __future__ import annotations

from typing import Any

import click

from websim_batch.cli.base import Command, said, table_options
from websim_batch.cli.show import show_check
from websim_batch.job.build import build


@click.command(cls=Command)
@click.option("--show", default=1, metavar="N", type=int, help="Show the first N requests.  [default: 1]")
@table_options()
@click.argument("input", metavar="INPUT")
@click.pass_context
def command(ctx: click.Context, /, show: int, **raw: Any) -> None:
    """Read and check everything that `run` would, and send nothing.

    Lists every problem with its place, shows the first requests, tells hazards, the time the job will take at
    the given --rate, and what a resumed run would send. Takes the options of `run`.

    \b
    Example:
        websim-batch check sample_inputs/awkward.csv --show 3

    \b
    Exit codes:
        0    nothing is wrong
        2    problems were found
    """
    settings = build(said(raw))
    from websim_batch.run import check

    report = check(settings, show)
    show_check(report.as_json(), settings.json)
    ctx.exit(report.exit_code)
