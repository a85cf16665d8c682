"""Everything before the first request, and no request: problems, hazards, what a run would send, how long it takes."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from math import ceil
from typing import Any

import orjson

from websim_batch.errors import DriftError, InputError
from websim_batch.job.settings import Settings
from websim_batch.journal import open_journal
from websim_batch.providers import Provider
from websim_batch.records import Problem, Request
from websim_batch.run.feed import Feed, ResumeRule
from websim_batch.run.opening import identify, require_no_drift, resolve_paths
from websim_batch.run.prepare import MOST_PROBLEMS, Table, open_endpoint, open_input, read_table
from websim_batch.tables.hazards import hazards

LONGEST = 3


@dataclass(slots=True)
class CheckReport:
    """What `check` found. `problems` are the first 50 in full, `problem_counts` all of them by kind.

    `to_send` is the number of requests that a run would send, `finished` the rows it would leave alone, `skipped`
    those with nothing to send. `longest_prompts` are characters and rows. `at_least_s` is the time that the ceilings
    ask for; None without one. `rounds` is how many answers must come one after another, as `concurrency` requests are
    in flight at once: the seconds that the run takes for each second of latency. `requests` are the first requests as
    they would go over the wire.
    """

    rows: int = 0
    to_send: int = 0
    finished: int = 0
    skipped: int = 0
    at_least_s: float | None = None
    concurrency: int = 0
    rounds: int = 0
    longest_prompts: list[dict[str, int]] = field(default_factory=list)
    hazards: list[str] = field(default_factory=list)
    problem_counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if nothing is wrong, else 2."""
        return 2 if self.problem_counts else 0

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values; each problem with its place and its sentence."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        problems = [{**asdict(problem), "text": str(problem)} for problem in self.problems]
        return {**told, "problem_counts": dict(self.problem_counts), "problems": problems}

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it if there is room."""
        self.problem_counts[problem.kind] += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


def check(settings: Settings, show: int = 0, table: object = None) -> CheckReport:
    """Look at all that `run` would look at; writes nothing and sends nothing.

    Raises UsageError (also JournalError) for what is wrong beyond the table's own content.
    """
    report = CheckReport()
    with ExitStack() as stack:
        provider = open_endpoint(settings, os.environ).provider
        source = open_input(settings, stack, table)
        try:
            read = read_table(settings, source, provider)
        except InputError as exc:
            for problem in exc.problems:
                report.add(problem)
            return report
        report.rows = read.info.rows
        _look_at_rows(report, read, provider, settings, show)
        report.hazards = [str(hazard) for hazard in hazards(read.source, read.info)]
        if not any(problem.is_structural for problem in report.problems):
            _look_at_journal(report, settings, read, stack)
    report.at_least_s = max(
        (report.to_send / ceiling.limit * ceiling.window_s for ceiling in settings.rate), default=None
    )
    report.concurrency = settings.concurrency
    report.rounds = ceil(report.to_send / settings.concurrency)
    return report


def _look_at_rows(
    report: CheckReport, table: Table, provider: Provider, settings: Settings, show: int
) -> None:
    lengths: list[tuple[int, int]] = []
    for batch in table.rows():
        for row in batch:
            rendered = table.renderer.render(row)
            if isinstance(rendered, Problem):
                report.add(rendered)
            elif isinstance(rendered, Request):
                lengths.append((_characters(rendered), -row.position))
                if len(report.requests) < show:
                    report.requests.append(_shown(rendered, provider, row.position + 1, settings.sandbox))
            else:
                report.skipped += 1
        lengths = sorted(lengths, reverse=True)[:LONGEST]
    report.longest_prompts = [{"characters": length, "row": 1 - position} for length, position in lengths]


def _characters(request: Request) -> int:
    contents = (message.get("content") for message in request.messages)
    return len(request.prompt) + sum(len(content) for content in contents if isinstance(content, str))


def _shown(request: Request, provider: Provider, row: int, is_sandbox: bool) -> dict[str, Any]:
    """The request as it would go out; a made-up project id differs each time, so its place is shown instead."""
    wire = provider.build(request)
    body = orjson.loads(wire.body)
    if request.project_id is None and "project_id" in body:
        body["project_id"] = "(made up for each request)"
    url = wire.url.replace(provider.base_url, "(sandbox)", 1) if is_sandbox else wire.url
    return {"row": row, "url": url, "model": request.model, "body": body}


def _look_at_journal(report: CheckReport, settings: Settings, table: Table, stack: ExitStack) -> None:
    """Say what a run would send, and refuse what it would refuse: drift, equal ids, another job's journal."""
    path = resolve_paths(settings).journal if settings.output is not None else None
    journal = None
    if path is not None and path.exists() and not settings.overwrite:
        journal = stack.enter_context(open_journal(path, "read", is_sandbox=settings.sandbox))
        try:
            require_no_drift(settings, journal)
        except DriftError as exc:
            report.add(Problem("drift", str(exc)))
            return
    try:
        identity = stack.enter_context(identify(table, settings, journal))
    except InputError as exc:
        for problem in exc.problems:
            report.add(problem)
        return
    if journal is None:
        report.to_send = report.rows - report.skipped - sum(report.problem_counts.values())
        return
    rule = ResumeRule(settings.retry_failed, settings.on_drift)
    for batch in Feed(table, identity, journal, rule).batches():
        report.to_send += len(batch.work)
        report.finished += sum(batch.known.values())
