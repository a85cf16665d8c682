"""A job that was run, opened again to read: its table, its journal, and each row's place in it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from websim_batch.errors import UsageError
from websim_batch.job.settings import Settings
from websim_batch.journal import Identity, Journal, open_journal
from websim_batch.providers import get_provider
from websim_batch.records import Attempt
from websim_batch.run.opening import identify
from websim_batch.run.paths import paths_of
from websim_batch.run.prepare import Table, open_input, read_table


@dataclass(frozen=True, slots=True)
class Reopened:
    """What `reopened` gives; nothing of it can be written."""

    table: Table
    journal: Journal
    identity: Identity


class LedgerLine(NamedTuple):
    """One request: of which row of the table (None: of one that is not in it), in which run."""

    row: int | None
    run_id: str
    attempt: Attempt


@contextmanager
def reopened(settings: Settings, journal: Path, table: object = None) -> Iterator[Reopened]:
    """The job behind `journal`, its input read again as the settings say; `table` is an input in memory.

    Raises JournalError without a journal, UsageError if the input is gone or was standard input.
    """
    if settings.stdin and table is None:
        raise UsageError("the input was standard input, which cannot be read again")
    with ExitStack() as stack:
        opened = stack.enter_context(open_journal(journal, "read"))
        provider = get_provider(settings.provider, None, {})
        read = read_table(settings, open_input(settings, stack, table), provider)
        yield Reopened(read, opened, stack.enter_context(identify(read, settings, opened)))


def ledger(settings: Settings, output: Path, table: object = None) -> Sequence[LedgerLine]:
    """The whole ledger, by row of the table, then number; requests of rows that left the table come last."""
    with reopened(settings, paths_of(output, settings.journal).journal, table) as job:
        run_ids = {run.run: run.run_id for run in job.journal.runs()}
        row_ids = array("q", (placed.row_id for placed in job.identity.place()))
        rows = {row_id: row for row, row_id in enumerate(row_ids)}
        lines = [LedgerLine(rows.get(a.row_id), run_ids[a.run], a) for a in job.journal.attempts()]
    return sorted(lines, key=lambda line: (line.row is None, line.row or 0, line.attempt.number))
