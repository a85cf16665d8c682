"""The table as it stands now, from the journal, in any format; also while a run is going on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websim_batch.errors import UsageError
from websim_batch.job.build import settings_from_kwargs
from websim_batch.job.settings import Settings
from websim_batch.journal import open_journal, read_status
from websim_batch.providers import get_provider
from websim_batch.run.opening import identify, noted_input
from websim_batch.run.paths import paths_of
from websim_batch.run.prepare import open_input, read_table
from websim_batch.tables import OutputSpec, require_ours, write_output

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
)


def export(output: Path, other: Path) -> None:
    """Write the table behind `output` to `other`; rows without a result are `pending`.

    The input is read again, as the newest run read it. Raises JournalError without a journal, UsageError if the input
    is gone or `other` is a file that is not ours.
    """
    if other.resolve() == output.resolve():
        raise UsageError(f"{other}: is the output itself; run writes that one, give another -o")
    require_ours(other)
    source_path = noted_input(output)
    if source_path is None:
        raise UsageError(
            f"{output}: its input was no file (standard input or a table in memory), so it cannot be joined"
        )
    noted = read_status(output).settings
    settings = _reading_settings(source_path, noted)
    with ExitStack() as stack:
        journal = stack.enter_context(open_journal(paths_of(output).journal, "read"))
        table = read_table(
            settings,
            open_input(settings, stack),
            get_provider(str(noted.get("provider", "websim")), None, {}),
        )
        identity = stack.enter_context(identify(table, settings, journal))
        cells = journal.output_cells(identity.place())
        write_output(table.source, table.info, cells, OutputSpec(other, settings.prefix))
        journal.checkpoint()


def _reading_settings(source: Path, noted: Any) -> Settings:
    """The settings by which the newest run read its input and knew its rows."""
    kept = {name: noted[name] for name in _READING if name in noted}
    return settings_from_kwargs(input=source, **kept)
