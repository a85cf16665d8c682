"""The table as it stands now, from the journal, in any format; also while a run is going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from websim_batch.errors import UsageError
from websim_batch.job.build import settings_from_kwargs
from websim_batch.job.settings import Settings
from websim_batch.journal import read_status
from websim_batch.run.opening import noted_input
from websim_batch.run.paths import paths_of
from websim_batch.run.reopening import reopened
from websim_batch.tables import OutputSpec, require_ours, write_output
from websim_batch.tables.output import parquet_bytes

_READING = (
    "prompt_column",
    "id_column",
    "template",
    "fields",
    "data_columns",
    "encoding",
    "delimiter",
    "limit",
    "prefix",
    "provider",
)


def export(output: Path, other: Path) -> None:
    """Write the table behind `output` to `other`; rows without a result are `pending`.

    The input is read again, as the newest run read it. Raises JournalError without a journal, UsageError if the input
    is gone or `other` is a file that is not ours.
    """
    if other.resolve() == output.resolve():
        raise UsageError(f"{other}: is the output itself; run writes that one, give another -o")
    require_ours(other)
    status = read_status(output)
    source_path = noted_input(output)
    if source_path is None:
        raise UsageError(
            f"{output}: its input was no file (standard input or a table in memory), so it cannot be joined"
        )
    settings = _reading_settings(source_path, status.settings)
    with reopened(settings, paths_of(output).journal) as job:
        cells = job.journal.output_cells(job.identity.place())
        write_output(job.table.source, job.table.info, cells, OutputSpec(other, settings.prefix))
        job.journal.checkpoint()


def parquet_now(settings: Settings, output: Path, table: object = None) -> bytes:
    """The table of `output` as its journal has it now, as a Parquet file in memory; `table` is an input in memory.

    Raises JournalError without a journal, UsageError if the input is gone.
    """
    with reopened(settings, paths_of(output, settings.journal).journal, table) as job:
        cells = job.journal.output_cells(job.identity.place())
        return parquet_bytes(job.table.source, cells, OutputSpec(output, settings.prefix))


def _reading_settings(source: Path, noted: Any) -> Settings:
    """The settings by which the newest run read its input and knew its rows."""
    kept = {name: noted[name] for name in _READING if name in noted}
    return settings_from_kwargs(input=source, **kept)
