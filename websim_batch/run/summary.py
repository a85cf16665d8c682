"""What a run tells of itself: the summary for people and programs, in the journal, the manifest and on stdout."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from websim_batch import __version__
from websim_batch.engine import Counters
from websim_batch.records import Status


@dataclass(frozen=True, slots=True)
class Summary:
    """The facts of one run. `counts` and `errors` are of the whole table, the rest of this run alone.

    `rows_per_s` is of the rows that this run finished. `latency_ms` is of the requests that succeeded. `may_be_paid`
    counts requests whose fate is unknown (timeouts, resets, a kill): they may have been paid for nothing.
    """

    output: str
    run_id: str
    state: Literal["running", "finished", "stopped"]
    rows: int
    counts: Mapping[Status, int]
    errors: Mapping[str, int]
    sent: int
    refused_429: int
    retries: int
    elapsed_s: float
    rows_per_s: float
    latency_ms: Mapping[str, float | None]
    exit_code: int | None = None
    exit_reason: str | None = None
    may_be_paid: int = 0
    message: str | None = None
    throttle: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values, in the order of its fields."""
        return asdict(self)


def summarize(
    counters: Counters,
    *,
    output: str,
    run_id: str,
    elapsed_s: float,
    state: Literal["running", "finished", "stopped"] = "running",
    throttle: Mapping[str, Any] | None = None,
) -> Summary:
    """The summary as the counters stand now; of a run that still goes on unless `state` says otherwise."""
    latencies = counters.latencies
    return Summary(
        output=output,
        run_id=run_id,
        state=state,
        rows=counters.total,
        counts=counters.by_status(),
        errors=dict(counters.errors.most_common()),
        sent=counters.sent,
        refused_429=counters.refused,
        retries=counters.retries,
        elapsed_s=round(elapsed_s, 3),
        rows_per_s=round(counters.finished / elapsed_s, 3) if elapsed_s > 0 else 0.0,
        latency_ms={f"p{p}": latencies.percentile(p / 100) for p in (50, 95, 99)},
        may_be_paid=counters.unknown,
        throttle=throttle or {},
    )


def versions() -> dict[str, str]:
    """The versions that a run depends on, for the journal and the manifest."""
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("aiohttp", "aiolimiter", "orjson")}
    return {"websim-batch": __version__, "python": platform.python_version(), **libraries}
