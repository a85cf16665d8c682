"""Promises 1 and 3 proved again from the tables alone; the journal only says how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from websim_batch.errors import JournalError
from websim_batch.journal import read_status
from websim_batch.run.opening import noted_input
from websim_batch.tables import ReadOptions
from websim_batch.tables.compare import Comparison
from websim_batch.tables.compare import verify as compare


def verify(output: Path, table: Path | None = None) -> Comparison:
    """Compare the output with its input (None: the one that its journal names, or none at all).

    Raises UsageError for an output that is not there or not ours, InputError for tables that cannot be read.
    """
    settings = _noted_settings(output)
    reading = ReadOptions(settings.get("encoding"), settings.get("delimiter"), settings.get("limit"))
    written = ReadOptions(None, settings.get("delimiter"))
    return compare(output, table or noted_input(output), reading, written)


def _noted_settings(output: Path) -> Mapping[str, Any]:
    """The settings of the newest run, as far as there is a journal that tells."""
    try:
        return read_status(output).settings
    except JournalError:
        return {}
