"""What there is to show, and how it reads; no streams, no clocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from websim_batch.records import STATUSES, Json, Status

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far a run is. `done` rows of `total` have a final status; `eta_s` is None while nobody can know.

    `limited_by` reads like `server limit ≈ 9.8/s`; `waiting_s` and `wait_reason` while the gate is closed.
    """

    done: int
    total: int
    counts: Mapping[Status, int] = field(default_factory=dict)
    rows_per_s: float = 0.0
    eta_s: float | None = None
    limited_by: str = ""
    waiting_s: float | None = None
    wait_reason: str | None = None
    in_flight: int = 0
    retries: int = 0
    refused_429: int = 0

    def facts(self) -> dict[str, Json]:
        """The view as JSON values; the keys of the log event `progress`."""
        return {
            "done": self.done,
            "total": self.total,
            "counts": dict(self.counts),
            "rows_per_s": round(self.rows_per_s, 3),
            "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
            "limited_by": self.limited_by,
            "waiting_s": None if self.waiting_s is None else round(self.waiting_s, 1),
            "wait_reason": self.wait_reason,
            "in_flight": self.in_flight,
            "retries": self.retries,
            "refused_429": self.refused_429,
        }


class Progress(Protocol):
    """Where a run tells how far it is and what happens; every call is cheap and raises nothing."""

    def start(self, total: int) -> None:
        """A run over `total` rows begins."""

    def update(self, view: ProgressView) -> None:
        """The state now, at most five times a second."""

    def log(self, level: Level, event: str, message: str, **facts: Json) -> None:
        """One event: its stable name, a sentence, and facts for the JSON form."""

    def close(self, exit_code: int = 0) -> None:
        """The run is over; nothing more is shown after it."""


def sentence(view: ProgressView) -> str:
    """The state in one line: `1,200 of 20,000 rows (6 %) · ok 1,190 · failed 10 · 49.8 rows/s`."""
    parts = [
        f"{view.done:,} of {view.total:,} rows ({percent(view)} %)",
        *told_counts(view),
        *told_pace(view),
    ]
    return " · ".join(parts)


def percent(view: ProgressView) -> int:
    """Whole percents that are done; 100 only for all."""
    return 100 * view.done // view.total if view.total else 100


def told_counts(view: ProgressView) -> list[str]:
    """`ok 1,190`, `failed 10`, …: the statuses that rows have, and refusals and retries if there were any."""
    counts = [
        f"{status} {view.counts[status]:,}"
        for status in STATUSES
        if status != "pending" and view.counts.get(status)
    ]
    extra = (("retries", view.retries), ("429s", view.refused_429))
    return counts + [f"{name} {number:,}" for name, number in extra if number]


def told_pace(view: ProgressView) -> list[str]:
    """`49.8 rows/s`, `6 min left`, and what limits it, or `waiting 1.8 s (Retry-After)`."""
    pace = [f"{view.rows_per_s:.3g} rows/s" if view.rows_per_s < 1000 else f"{view.rows_per_s:,.0f} rows/s"]
    if view.waiting_s is not None:
        why = f" ({view.wait_reason})" if view.wait_reason else ""
        return [*pace, f"waiting {duration(view.waiting_s)}{why}"]
    if view.eta_s is not None and view.done < view.total:
        pace.append(f"{duration(view.eta_s)} left")
    return [*pace, view.limited_by] if view.limited_by else pace


def duration(seconds: float) -> str:
    """A time as people say it: `1.8 s`, `40 s`, `6 min`, `1 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
