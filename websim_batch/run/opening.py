"""The job's files: the journal, drift, and which journal row each input row is.

Nothing is written before every check of the input has passed; after that the journal is the job's memory.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import orjson

from websim_batch.errors import DriftError, ForeignFileError, InputError, JournalError, UsageError
from websim_batch.job.dated import is_dated, resolve_output
from websim_batch.job.drift import answer_settings, differences
from websim_batch.job.settings import Settings
from websim_batch.journal import Identity, Journal, open_journal, point_to, read_status, retire_journal
from websim_batch.records import Problem
from websim_batch.run.paths import JOURNAL_SUFFIX, Paths, paths_of
from websim_batch.run.prepare import MOST_PROBLEMS, Table
from websim_batch.tables import format_of, require_ours, require_types, require_writable

_ANSWER_SETTINGS = "answer_settings"
_INPUT = "input"


@dataclass(slots=True)
class Job:
    """A job that is ready to run: its table, its files, its memory, and each row's place in it."""

    settings: Settings
    table: Table
    paths: Paths
    journal: Journal
    identity: Identity
    notices: list[str]


def resolve_paths(settings: Settings) -> Paths:
    """The files of the job, with `{date}` filled in: the newest day's while its job is unfinished, else today's.

    Raises UsageError for a path that no table can be written to.
    """
    if settings.output is None:
        raise UsageError("no output is named; use -o, as -o answers.csv")
    output = resolve_output(settings.output, date.today(), _is_unfinished)
    if output.is_dir():
        raise UsageError(f"{output}: is a folder; name a file, as {output / 'answers.csv'}")
    format_of(output)
    if not output.parent.is_dir():
        raise UsageError(
            f"{output}: the folder {output.parent} does not exist; make it first, or give another -o"
        )
    return paths_of(output, settings.journal)


def _is_unfinished(output: Path) -> bool:
    try:
        return read_status(output).state != "finished"
    except JournalError:
        return False


def open_job(settings: Settings, table: Table, paths: Paths, stack: ExitStack) -> Job:
    """Open the output's journal, or make one; the caller holds the output's lock, `stack` closes the journal.

    Raises ForeignFileError, JournalError, DriftError, InputError (equal ids), UsageError.
    """
    require_types(table.source, paths.output)
    _require_place(settings, paths)
    if settings.overwrite or not paths.journal.exists():
        # A table that is refused leaves no journal behind, and retires none.
        identity = stack.enter_context(identify(table, settings, None))
        notices = [*_elsewhere(settings, table, paths), *_unsent_model(settings, table)]
        retire_journal(paths.journal)
        journal = stack.enter_context(open_journal(paths.journal, is_sandbox=settings.sandbox))
        point_to(paths.output, paths.journal)
    else:
        journal = stack.enter_context(open_journal(paths.journal, is_sandbox=settings.sandbox))
        require_no_drift(settings, journal)
        identity, notices = stack.enter_context(identify(table, settings, journal)), []
    journal.note(_ANSWER_SETTINGS, orjson.dumps(answer_settings(settings)).decode())
    journal.note(_INPUT, "" if table.source.path is None else os.path.realpath(table.source.path))
    return Job(settings, table, paths, journal, identity, notices)


def _require_place(settings: Settings, paths: Paths) -> None:
    """The output can be written and is ours to write; answers that lost their journal are not sent again unasked."""
    require_writable(paths.output)
    if settings.overwrite:
        return
    require_ours(paths.output)
    if paths.output.exists() and paths.output.stat().st_size and not paths.journal.exists():
        raise ForeignFileError(
            f"{paths.output}: holds answers, but its journal {paths.journal} is gone, so every row would be sent and"
            " paid again; bring the journal back, give another -o, or use --overwrite"
        )


def require_no_drift(settings: Settings, journal: Journal) -> None:
    """Raise DriftError if settings that change answers differ from the journal's, unless `--on-drift` allows it."""
    noted = journal.noted(_ANSWER_SETTINGS)
    if noted is None or settings.on_drift != "refuse":
        return
    found = differences(orjson.loads(noted), answer_settings(settings))
    if found:
        raise DriftError(
            f"{journal.path}: the job began with other settings: {'; '.join(found)}. Give the old ones again, or"
            " --on-drift keep (finished rows stay), --on-drift resend (rows whose request changed run again),"
            " or another -o; nothing was sent"
        )


def identify(table: Table, settings: Settings, journal: Journal | None) -> Identity:
    """Find every row's place in the journal; raises InputError for equal ids, or cells that refuse the file."""
    identity = Identity(journal)
    try:
        refused = _add_rows(table, identity)
        if refused:
            raise InputError(refused)
        identity.settle()
        if settings.id_column is not None:
            _require_unique(table, settings.id_column, identity)
    except BaseException:
        identity.close()
        raise
    return identity


def _add_rows(table: Table, identity: Identity) -> list[Problem]:
    renderer = table.renderer
    refused: list[Problem] = []
    for batch in table.rows():
        identity.add_batch([renderer.identity(row) for row in batch])
        if renderer.checks_rows and len(refused) < MOST_PROBLEMS:
            refused += [problem for row in batch if (problem := renderer.structural_problem(row)) is not None]
    return refused[:MOST_PROBLEMS]


def _require_unique(table: Table, column: str, identity: Identity) -> None:
    pairs = identity.duplicates(MOST_PROBLEMS)
    if not pairs:
        return
    wanted = {position for pair in pairs for position in pair}
    rows = {row.position: row for batch in table.rows() for row in batch if row.position in wanted}
    problems = []
    for position, first in pairs:
        row, before = rows[position], rows[first]
        place = f"row {first + 1}" if before.line is None else f"line {before.line}"
        message = (
            f"the id {row.cells[column]!r} stands already on {place}; ids must differ (--id-column {column})"
        )
        problems.append(
            Problem("duplicate_id", message, table.source.display, row.line, position + 1, column)
        )
    raise InputError(problems)


def _elsewhere(settings: Settings, table: Table, paths: Paths) -> list[str]:
    """Say so if the same input was answered before under another output: those answers are not used here.

    A rehearsal, a new day and a job that starts anew want none of them.
    """
    is_wanted = not (settings.sandbox or settings.overwrite or is_dated(settings.output or paths.output))
    if table.source.path is None or not is_wanted:
        return []
    real = os.path.realpath(table.source.path)
    folders = {table.source.path.absolute().parent, paths.output.absolute().parent}
    journals = {found for folder in folders for found in folder.glob(f"*{JOURNAL_SUFFIX}")}
    outputs = [
        (path.stat().st_mtime, output) for path in journals if (output := _output_of(path, real)) is not None
    ]
    if not outputs:
        return []
    newest = max(outputs)[1]
    more = f" (and {len(outputs) - 1} more)" if len(outputs) > 1 else ""
    return [
        f"{newest}{more} already holds answers to this input, which this job does not use; to have them in another"
        f" format: websim-batch export {newest} -o {paths.output}"
    ]


def _unsent_model(settings: Settings, table: Table) -> list[str]:
    """The websim service does not receive the model's name: said once, as a job begins that names one."""
    is_named = settings.model is not None or "model" in table.renderer.used_columns
    if settings.provider != "websim" or not is_named:
        return []
    return [
        "the websim service does not receive the model's name: it decides between chat and image, and is kept in"
        " the column request_model"
    ]


def noted_input(output: Path) -> Path | None:
    """The input file that the job behind `output` was begun with; None if it was no file, or nobody knows."""
    journal = paths_of(output).journal
    if not journal.exists():
        return None
    with open_journal(journal, "read") as opened:
        noted = opened.noted(_INPUT)
    return Path(noted) if noted else None


def _output_of(journal: Path, real_input: str) -> Path | None:
    """The output beside `journal` if it holds real answers to `real_input`, else None."""
    try:
        with open_journal(journal, "read") as opened:
            if opened.noted(_INPUT) != real_input or opened.is_sandbox or not _has_answers(opened):
                return None
    except UsageError:
        return None
    return journal.with_name(journal.name.removesuffix(JOURNAL_SUFFIX))


def _has_answers(journal: Journal) -> bool:
    counts = [orjson.loads(run.summary).get("counts", {}) for run in journal.runs()[-1:]]
    return any(number for status, number in counts[0].items() if status != "pending") if counts else False
