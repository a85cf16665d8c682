"""What a run counts, each thing where it happens; and latencies in a histogram of fixed size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from websim_batch.records import STATUSES, Status

_FIRST_MS = 0.1
_STEP = 1.04
_BUCKETS_PER_E = 1 / math.log(_STEP)
_BUCKETS = 420  # up to 0.1 ms · 1.04^420 ≈ 1.4e6 ms, over twenty minutes


@dataclass(slots=True)
class LatencyHistogram:
    """Counts of latencies in buckets that grow by 4 %, so that a percentile is off by 2 % at most."""

    buckets: list[int] = field(default_factory=lambda: [0] * (_BUCKETS + 1))
    total: int = 0

    def add(self, latency_ms: float) -> None:
        """Count one latency in milliseconds."""
        index = int(math.log(latency_ms / _FIRST_MS) * _BUCKETS_PER_E) if latency_ms > _FIRST_MS else 0
        self.buckets[index if index < _BUCKETS else _BUCKETS] += 1
        self.total += 1

    def percentile(self, share: float) -> float | None:
        """The latency in milliseconds below which `share` (0 … 1) of all lie; None if there is none."""
        if not self.total:
            return None
        rest = share * self.total
        for index, count in enumerate(self.buckets):
            rest -= count
            if rest <= 0 and count:
                return float(f"{_FIRST_MS * _STEP ** (index + 0.5):.3g}")
        return None


FAILURES: frozenset[Status] = frozenset({"failed", "invalid", "refused"})
"""Statuses of rows that count for `--max-failures`."""


@dataclass(slots=True)
class Counters:
    """The counts of one run; rows are counted by status once their result is durable.

    `statuses` are those of the whole table, with what earlier runs finished. `finished` and `failures` count rows
    of this run alone. `sent` counts requests, of which `refused` met a rate limit, `retries` were not a row's first,
    `unknown` may have been paid for nothing.
    """

    total: int
    statuses: Counter[Status] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    failures: int = 0
    sent: int = 0
    refused: int = 0
    retries: int = 0
    unknown: int = 0
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)

    def rows_known(self, known: Mapping[tuple[Status, str | None], int]) -> None:
        """Count rows that an earlier run finished."""
        for (status, error_type), rows in known.items():
            self.statuses[status] += rows
            if error_type is not None:
                self.errors[error_type] += rows

    def row_finished(self, status: Status, error_type: str | None) -> None:
        """Count a row whose result of this run has just become durable."""
        self.statuses[status] += 1
        if error_type is not None:
            self.errors[error_type] += 1
        self.finished += 1

    def by_status(self) -> dict[Status, int]:
        """Rows by status, `pending` for all that are not finished; statuses without rows are left out."""
        counts = dict(self.statuses)
        counts["pending"] = counts.get("pending", 0) + self.total - sum(counts.values())
        return {status: counts[status] for status in STATUSES if counts.get(status)}

    @property
    def done(self) -> int:
        """Rows of the table that have a final status."""
        return sum(count for status, count in self.statuses.items() if status not in ("pending", "deferred"))
