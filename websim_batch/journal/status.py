"""How far a run is, read from any process, at a cost that does not grow with the table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from websim_batch.errors import JournalError
from websim_batch.journal.faults import plain_words
from websim_batch.journal.lock import Holder, holder_of
from websim_batch.journal.opening import open_database
from websim_batch.journal.places import journal_path
from websim_batch.records import Json

State: TypeAlias = Literal["running", "stopped", "finished"]

_NEWEST = (
    "SELECT run, run_id, state, started_us, finished_us, settings, summary, versions FROM runs "
    "ORDER BY run DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """The newest run: `state` is `running` only while its process lives; `summary` is as of the last commit.

    Times are microseconds UTC; `holder` is the living process, None if there is none.
    """

    run: int
    run_id: str
    state: State
    started_us: int
    finished_us: int | None
    settings: Mapping[str, Json]
    summary: Mapping[str, Json]
    versions: Mapping[str, Json]
    is_sandbox: bool
    holder: Holder | None


def read_status(output: Path, journal: Path | None = None) -> JournalStatus:
    """The status of the job behind `output`; its journal lies beside it unless `journal` says where.

    Neither blocks the run nor changes the journal. Raises JournalError where there is none, or no run in it.
    """
    path = journal_path(output) if journal is None else journal
    holder = holder_of(output)
    with closing(open_database(path, "read")) as db, plain_words(path):
        row = db.execute(_NEWEST).fetchone()
        is_sandbox = _is_sandbox(db)
    if row is None:
        raise JournalError(f"{path}: no run has begun in this journal yet")
    run, run_id, state, started_us, finished_us, settings, summary, versions = row
    return JournalStatus(
        run, run_id, _state(state, holder), started_us, finished_us, json.loads(settings),
        json.loads(summary), json.loads(versions), is_sandbox, holder,
    )  # fmt: skip


def _state(noted: str, holder: Holder | None) -> State:
    # A run that never said its end, and holds no lock, is dead.
    if holder is not None:
        return "running"
    return "finished" if noted == "finished" else "stopped"


def _is_sandbox(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT value FROM meta WHERE key = 'sandbox'").fetchone() == ("1",))
