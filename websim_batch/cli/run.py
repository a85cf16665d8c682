"""The command `run`."""

from __future__ import annotations

from typing import Any

import click

from websim_batch.cli.base import Command, said, table_options
from websim_batch.cli.faults import hide_secrets
from websim_batch.cli.show import show_summary
from websim_batch.job.build import build


@click.command(cls=Command)
@table_options()
@click.argument("input", metavar="INPUT")
@click.pass_context
def command(ctx: click.Context, /, **raw: Any) -> None:
    """Run a job, or continue it where it stood.

    INPUT is a table (.csv, .jsonl, also .gz or .zst, or .parquet), '-' for text on stdin, or a .toml job
    file. The same command again continues an interrupted run; a finished one sends nothing.

    \b
    Example:
        mkdir -p out
        websim-batch run sample_inputs/chat.csv --sandbox -o out/chat.csv

    \b
    Exit codes:
        0    every row ok or skipped, or within --tolerate
        1    a fault of websim-batch itself
        2    wrong usage, bad input, drift; nothing was sent
        3    finished, but rows are failed, invalid or refused
        4    stopped early; the same command continues
        5    the endpoint refuses everything
        6    another run holds this output
        130  SIGINT, 143 SIGTERM: drained; the same command continues
    """
    settings = build(said(raw))
    hide_secrets(settings)
    from websim_batch.run import execute

    report = execute(settings)
    show_summary(report.summary.as_json(), settings)
    ctx.exit(report.exit_code)
