"""The names of a table's columns, for `init`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from websim_batch.errors import UsageError
from websim_batch.tables import column_names


def columns_of(path: Path) -> Sequence[str]:
    """The column names, read from the table's beginning; raises UsageError for what is no table."""
    names = column_names(path)
    if names is None:
        raise UsageError(
            f"{path} is not a sound table; `websim-batch check {path}` says what is wrong with it"
        )
    return names
