"""How results read on stdout: a few lines for people, or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from websim_batch.cli.faults import emit
from websim_batch.job.settings import Settings
from websim_batch.progress.view import duration
from websim_batch.records import STATUSES

Facts = Mapping[str, Any]


def show_summary(summary: Facts, settings: Settings) -> None:
    """The summary of a run; under -q nothing if all is well, unless JSON was asked for."""
    if settings.json:
        emit(json.dumps(summary, ensure_ascii=False))
    elif not settings.quiet or summary.get("exit_code"):
        emit(told_summary(summary))


def show_status(status: Facts, as_json: bool) -> None:
    """The state of a job, of a run that goes on too."""
    emit(json.dumps(status, ensure_ascii=False) if as_json else told_summary(status))


def show_check(report: Facts, as_json: bool) -> None:
    """What `check` found."""
    emit(json.dumps(report, ensure_ascii=False, default=str) if as_json else "\n".join(told_check(report)))


def told_summary(summary: Facts) -> str:
    """A summary in a few lines; in one if there was nothing to do."""
    counts = [(name, summary["counts"][name]) for name in STATUSES if summary["counts"].get(name)]
    told = ", ".join(f"{name} {number:,}" for name, number in counts)
    if summary["state"] == "finished" and not summary["sent"]:
        return f"{summary['output']}: nothing new to send, {summary['rows']:,} rows ({told or 'empty'})"
    return "\n".join(_lines(summary, told))


def _lines(summary: Facts, told: str) -> Iterator[str]:
    yield f"{summary['output']}: {summary['state']}, {summary['rows']:,} rows ({told or 'empty'})"
    if summary["errors"]:
        yield "errors: " + ", ".join(f"{name} {number:,}" for name, number in summary["errors"].items())
    extra = [("retries", summary["retries"]), ("refused by a rate limit", summary["refused_429"])]
    told_extra = "".join(f", {number:,} {name}" for name, number in extra if number)
    yield (
        f"sent {summary['sent']:,} requests{told_extra}"
        f" in {duration(summary['elapsed_s'])}, {summary['rows_per_s']:,.3g} rows/s{_latency(summary)}"
    )
    if summary.get("limited_by"):
        yield f"limited by: {summary['limited_by']}"
    if summary.get("eta_s") is not None:
        yield f"time left: {duration(summary['eta_s'])}"
    if summary.get("message"):
        yield str(summary["message"])
    elif summary.get("exit_code") == 3:
        yield "to try those rows again: the same command with --retry-failed"


def _latency(summary: Facts) -> str:
    p50, p95 = (summary["latency_ms"].get(name) for name in ("p50", "p95"))
    return f", latency {p50:,.0f} ms (p95 {p95:,.0f} ms)" if p50 is not None and p95 is not None else ""


def told_check(report: Facts) -> Iterator[str]:
    """What `check` found, problems first."""
    for problem in report.get("problems", ()):
        yield str(problem)
    for kind, number in report.get("problem_counts", {}).items():
        yield f"{number:,} x {kind}"
    for name, value in report.items():
        if name not in ("problems", "problem_counts", "requests"):
            yield f"{name.replace('_', ' ')}: {value}"
    for request in report.get("requests", ()):
        yield json.dumps(request, ensure_ascii=False, indent=2)
