"""`{date}` in the output's path: the day on which the job began, so each night has its own table."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

from websim_batch.job.build import settings_from_jobfile
from websim_batch.job.paths import is_job_file

PLACEHOLDER = "{date}"
_DAY_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


def is_dated(path: Path) -> bool:
    """Whether the path holds `{date}`."""
    return PLACEHOLDER in str(path)


def fill(pattern: Path, day: date) -> Path:
    """The path of one day."""
    return Path(str(pattern).replace(PLACEHOLDER, day.isoformat()))


def resolve_output(pattern: Path, today: date, is_unfinished: Callable[[Path], bool]) -> Path:
    """The output of the job at hand: the newest day's while its job is unfinished, else today's.

    `is_unfinished` is asked about the output of the newest day that has a journal beside it, at most once.
    """
    if not is_dated(pattern):
        return pattern
    newest = newest_output(pattern)
    return newest if newest is not None and is_unfinished(newest) else fill(pattern, today)


def newest_output(pattern: Path) -> Path | None:
    """The output of the newest day that has a journal beside it, or None."""
    journals = Path(f"{pattern}.journal")
    days = [day for found in _matches(journals) if (day := _day(journals, found)) is not None]
    return fill(pattern, max(days)) if days else None


def output_behind(path: Path, today: date) -> Path:
    """The output that a path means where OUTPUT is asked for: a job file stands for its newest table."""
    if not is_job_file(path):
        return path
    output = settings_from_jobfile(path).output
    assert output is not None, "a job file names an input, so the output has a default"
    return (newest_output(output) or fill(output, today)) if is_dated(output) else output


def _matches(pattern: Path) -> list[str]:
    parts = (glob.escape(part) for part in str(pattern).split(PLACEHOLDER))
    return glob.glob(_DAY_GLOB.join(parts))  # noqa: PTH207  # the day may stand in any part of the path


def _day(pattern: Path, found: str) -> date | None:
    """The day in a path that fits; None where it is no day, or not the same one throughout."""
    first, *rest = (re.escape(part) for part in str(pattern).split(PLACEHOLDER))
    match = re.fullmatch(first + r"(\d{4}-\d\d-\d\d)" + r"\1".join(rest), found)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None
