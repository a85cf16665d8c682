"""How far a job is, from its journal alone; cheap, and never in the way of a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from websim_batch.journal import open_journal, read_status
from websim_batch.records import STATUSES
from websim_batch.run.paths import paths_of


def status(output: Path) -> dict[str, Any]:
    """The summary of the newest run with its state as of now: `running` only while its process lives.

    Raises JournalError where no job was run.
    """
    found = read_status(output)
    summary: dict[str, Any] = {**_EMPTY, "output": str(output), "run_id": found.run_id, **found.summary}
    summary["state"] = found.state
    throttle = summary.pop("throttle", None) or {}
    if found.state == "running":
        summary["limited_by"] = throttle.get("text")
    else:
        summary.pop("eta_s", None)
    if found.state == "stopped" and summary["exit_code"] is None:
        summary |= _recounted(output, found.run, summary["rows"])
    summary["capacity_per_s"] = throttle.get("capacity_per_s")
    summary["closed_s"] = throttle.get("closed_s", 0.0)
    return summary


def _recounted(output: Path, run: int, rows: int) -> dict[str, Any]:
    """What a run that ended without a word left behind; its last summary is a moment older than its last commit."""
    with open_journal(paths_of(output).journal, "read") as journal:
        outcomes, ledger = journal.outcomes(), journal.ledger(run)
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for (status, error_type), number in outcomes.items():
        counts[status] += number
        if error_type is not None:
            errors[error_type] += number
    counts["pending"] += max(0, rows - sum(counts.values()))
    return {
        "counts": {name: counts[name] for name in STATUSES if counts[name]},
        "errors": dict(errors.most_common()),
        "sent": ledger.answered + ledger.unknown,
        "may_be_paid": ledger.unknown,
        "message": "the run ended without a word (killed, or the power went); the same command continues",
    }


_EMPTY: dict[str, Any] = {
    "rows": 0,
    "counts": {},
    "errors": {},
    "sent": 0,
    "refused_429": 0,
    "retries": 0,
    "elapsed_s": 0.0,
    "rows_per_s": 0.0,
    "latency_ms": {"p50": None, "p95": None, "p99": None},
    "exit_code": None,
    "exit_reason": None,
}
