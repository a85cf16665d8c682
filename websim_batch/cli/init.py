"""The command `init`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from websim_batch.cli.base import Command
from websim_batch.cli.faults import emit
from websim_batch.errors import UsageError
from websim_batch.job.init import job_file_text


@click.command(cls=Command)
@click.argument("input", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    help="The job file; else INPUT's name with .toml.",
)
def command(input: Path, file: Path | None) -> None:
    """Write a commented job file for the table INPUT, with every setting at its default.

    \b
    Example:
        mkdir -p out
        websim-batch init sample_inputs/chat.csv -o out/chat.toml
    """
    from websim_batch.run.columns import columns_of

    file = file or input.with_name(f"{input.name.partition('.')[0]}.toml")
    source = Path(os.path.relpath(input, file.parent))
    text = job_file_text(source, columns_of(input), file.name)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UsageError(f"{file} exists already; give another name with -o") from None
    except OSError as exc:
        raise UsageError(f"{file} cannot be written: {(exc.strerror or 'failed').lower()}") from None
    emit(f"{file}: written; run it with: websim-batch run {file}")
