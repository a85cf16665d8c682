"""What the engine works on: rows that ask for something, and rows that are settled without asking."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from websim_batch.records import Request, Result, Status
from websim_batch.retry import FRESH, RowHistory


@dataclass(slots=True, eq=False)
class Work:
    """One row on its way from the reader to a result.

    `key` and `cells` are what the journal has to note with the row's first intent; None once it has.
    `number` is that of the row's next line in the ledger, `requests` how many were sent; both over all runs.
    `was_sent` says whether this run has sent it before.
    """

    row_id: int
    request: Request
    key: bytes | None
    cells: bytes | None = None
    number: int = 1
    requests: int = 0
    was_sent: bool = False
    history: RowHistory = FRESH
    started_us: int | None = None
    sent_us: int = 0
    throttled_s: float = 0.0
    is_urgent: bool = False


@dataclass(slots=True)
class Settled:
    """A row that needs no request: nothing to send, or a cell that cannot be sent."""

    result: Result
    key: bytes | None
    cells: bytes | None = None


@dataclass(slots=True)
class Batch:
    """Some consecutive rows of the input, sorted by what is to be done with them.

    `known` counts rows that were finished before, by status and error type.
    """

    work: list[Work] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    known: Counter[tuple[Status, str | None]] = field(default_factory=Counter)
