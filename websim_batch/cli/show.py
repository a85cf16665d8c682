"""How results read on stdout: a few lines for people, or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
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
    emit(json.dumps(status, ensure_ascii=False) if as_json else "\n".join(told_state(status)))


def show_check(report: Facts, as_json: bool) -> None:
    """What `check` found."""
    emit(json.dumps(report, ensure_ascii=False, default=str) if as_json else "\n".join(told_check(report)))


def told_summary(summary: Facts) -> str:
    """A run's summary in a few lines; in one if there was nothing to do."""
    first, *others = told_state(summary)
    if summary["state"] == "finished" and not summary["sent"]:
        first = f"{summary['output']}: nothing new to send, {_rows(summary)}"
    return "\n".join([first, *others])


def told_state(summary: Facts) -> Iterator[str]:
    """Lines on how far a job is: rows by status, errors, requests, what comes next."""
    yield f"{summary['output']}: {summary['state']}, {_rows(summary)}"
    if summary["errors"]:
        yield "errors: " + ", ".join(f"{name} {number:,}" for name, number in summary["errors"].items())
    if summary["sent"] or summary["state"] == "running":
        yield _sent(summary)
    if summary.get("limited_by"):
        yield f"limited by: {summary['limited_by']}"
    if summary.get("eta_s") is not None:
        yield f"time left: {duration(summary['eta_s'])}"
    if summary.get("may_be_paid"):
        told = _number(summary["may_be_paid"], "request")
        yield f"the fate of {told} is unknown (timeout, cut connection, kill): perhaps paid for nothing"
    if summary.get("message"):
        yield str(summary["message"])
    elif summary.get("exit_code") == 3:
        yield _advice(summary["errors"])


def _sent(summary: Facts) -> str:
    """`sent 80 requests, 40 of them again in 1.1 s, 35.1 rows/s`."""
    extra = [("of them again", summary["retries"]), ("refused by a rate limit", summary["refused_429"])]
    told = "".join(f", {number:,} {name}" for name, number in extra if number)
    return (
        f"sent {_number(summary['sent'], 'request')}{told}"
        f" in {duration(summary['elapsed_s'])}, {summary['rows_per_s']:,.3g} rows/s{_latency(summary)}"
    )


def _advice(errors: Mapping[str, int]) -> str:
    """What to do about rows that failed: a bad cell is no better the second time."""
    again = "to try those rows again: the same command with --retry-failed"
    mend = "rows with the error 'input': websim-batch check tells what is wrong; mend them, then the same command"
    return mend if set(errors) == {"input"} else f"{again}\n{mend}" if "input" in errors else again


def _rows(summary: Facts) -> str:
    """`40 rows (ok 38, failed 2)`."""
    counts = [(name, summary["counts"][name]) for name in STATUSES if summary["counts"].get(name)]
    told = ", ".join(f"{name} {number:,}" for name, number in counts)
    return f"{_number(summary['rows'], 'row')} ({told or 'empty'})"


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _latency(summary: Facts) -> str:
    p50, p95 = (summary["latency_ms"].get(name) for name in ("p50", "p95"))
    return f", latency {p50:,.0f} ms (p95 {p95:,.0f} ms)" if p50 is not None and p95 is not None else ""


def told_check(report: Facts) -> Iterator[str]:
    """What `check` found: the problems with their places, else what a run would do."""
    yield from (problem["text"] for problem in report["problems"])
    counts = report["problem_counts"]
    if counts:
        total = sum(counts.values())
        more = total - len(report["problems"])
        told = ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in counts.items())
        yield f"{_number(total, 'problem')} ({told}){f'; {more:,} of them are not shown' if more else ''}"
    if report["rows"] or not counts:
        yield from _told_plan(report)
    yield from _told_requests(report["requests"])


def _told_plan(report: Facts) -> Iterator[str]:
    parts = [f"send {_number(report['to_send'], 'request')}"]
    parts += [f"skip {_number(report['skipped'], 'empty prompt')}"] if report["skipped"] else []
    parts += [f"leave {_number(report['finished'], 'finished row')} alone"] if report["finished"] else []
    yield f"{_number(report['rows'], 'row')}: a run would {', '.join(parts)}"
    if report["at_least_s"]:
        yield f"time: at least {duration(report['at_least_s'])} at the given rate"
    elif report["rounds"]:
        told = f"{duration(report['rounds'])} for each second that an answer takes, {report['concurrency']} at once"
        yield f"time: {told}; longer if the server limits the rate"
    longest = [
        f"{found['characters']:,} characters (row {found['row']:,})" for found in report["longest_prompts"]
    ]
    if longest:
        yield f"longest prompts: {', '.join(longest)}"
    if report["hazards"]:
        yield "other tools would change some cells; here they stay as they are:"
        yield from (f"  {hazard}" for hazard in report["hazards"])


def _told_requests(requests: Iterable[Facts]) -> Iterator[str]:
    for request in requests:
        yield f"row {request['row']:,}: POST {request['url']} (model {request['model']})"
        yield json.dumps(request["body"], ensure_ascii=False, indent=2)
