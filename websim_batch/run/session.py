"""One run from end to end: everything is checked, rows are sent, the table is written, and the outcome is told.

prepare   endpoint, input, lock, journal, drift, identity     nothing is sent; any refusal leaves all as it was
drive     throttle, transport, engine, on an event loop       results become durable in the journal
finish    the output table, the manifest, the summary         from the journal alone
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from websim_batch.engine import Counters, Engine, Rules
from websim_batch.job.settings import Settings, public_settings
from websim_batch.journal import Journal, JournalWriter, OutputLock
from websim_batch.progress import Progress
from websim_batch.providers import get_provider
from websim_batch.records import StopReason
from websim_batch.retry import RetryPolicy
from websim_batch.run.attempts import Attempts
from websim_batch.run.earlier import earlier_sends
from websim_batch.run.feed import Feed, ResumeRule
from websim_batch.run.finish import RunReport, finish
from websim_batch.run.images import ImageFolder
from websim_batch.run.opening import Job, open_job, resolve_paths
from websim_batch.run.prepare import Endpoint, open_endpoint, open_input, read_table
from websim_batch.run.reporting import Reporter
from websim_batch.run.stopping import Stopper, exiting_on_sigterm
from websim_batch.run.summary import versions
from websim_batch.throttle import Throttle, ThrottleState
from websim_batch.transport import Transport, TransportSettings

HURRIED_GRACE_S = 2.0
"""After a second Ctrl-C the table is written only if it takes no longer."""


@dataclass(slots=True)
class Prepared:
    """A run that may begin: all checks have passed and the output is locked; `close` lets go of everything."""

    settings: Settings
    endpoint: Endpoint
    job: Job
    run_id: str
    counters: Counters
    started_s: float
    stack: ExitStack = field(repr=False)
    throttle_state: ThrottleState | None = None

    def close(self) -> None:
        """Close the journal, give the lock back, end the sandbox."""
        self.stack.close()


def execute(
    settings: Settings, progress: Progress, table: object = None, stopper: Stopper | None = None
) -> RunReport:
    """Run the job, or continue it, on an event loop of its own; `stopper` drains it, else Ctrl-C and SIGTERM do.

    `table` is a table in memory in place of the settings' input. Raises WebsimBatchError for what refuses the run
    (nothing was sent); how a run ended otherwise is in the report.
    """
    with exiting_on_sigterm():
        prepared = prepare(settings, table)
    stopper = stopper or Stopper(handles_signals=True)
    try:
        stop = run_loop(drive(prepared, progress, stopper))
        with exiting_on_sigterm():
            return finish(prepared, stop, progress, HURRIED_GRACE_S if stopper.is_hurried else None)
    finally:
        prepared.close()


async def execute_here(settings: Settings, progress: Progress, table: object, stopper: Stopper) -> RunReport:
    """As `execute`, on the event loop that goes on already; what blocks is done on threads."""
    prepared = await asyncio.to_thread(prepare, settings, table)
    try:
        stop = await drive(prepared, progress, stopper)
        grace_s = HURRIED_GRACE_S if stopper.is_hurried else None
        return await asyncio.to_thread(finish, prepared, stop, progress, grace_s)
    finally:
        await asyncio.to_thread(prepared.close)


def run_loop(main: Coroutine[Any, Any, Any]) -> Any:
    """What `main` returns, run on a new event loop: uvloop's where there is one, since it costs less per row."""
    try:
        import uvloop
    except ImportError:  # a platform without it
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def prepare(settings: Settings, table: object = None, environ: Mapping[str, str] = os.environ) -> Prepared:
    """Check everything and open the job's files; raises WebsimBatchError for whatever refuses the run."""
    with ExitStack() as stack:
        settings = _with_sandbox(settings, stack)
        endpoint = open_endpoint(settings, environ)
        source = open_input(settings, stack, table)
        paths = resolve_paths(settings)
        stack.enter_context(OutputLock(paths.output, paths.journal))
        read = read_table(settings, source, endpoint.provider)
        job = open_job(settings, read, paths, stack)
        now_s = time.time()
        run_id = f"{datetime.fromtimestamp(now_s, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        job.journal.begin_run(
            run_id, round(now_s * 1e6), orjson.dumps(public_settings(settings)), orjson.dumps(versions())
        )
        counters = Counters(read.info.rows, unknown=job.journal.left_open)
        return Prepared(settings, endpoint, job, run_id, counters, time.monotonic(), stack.pop_all())


def _with_sandbox(settings: Settings, stack: ExitStack) -> Settings:
    if not settings.sandbox:
        return settings
    from websim_batch.sandbox import SandboxOptions, start_sandbox_process

    path = get_provider(settings.provider, None, {}).facts.sandbox_path
    process = stack.enter_context(start_sandbox_process(SandboxOptions(port=0)))
    return replace(settings, base_url=process.base_url + path)


async def drive(prepared: Prepared, progress: Progress, stopper: Stopper) -> StopReason | None:
    """Send what is to be sent; the reason if the run was stopped early. All results are durable when it returns."""
    settings, job = prepared.settings, prepared.job
    loop = asyncio.get_running_loop()
    throttle = Throttle(settings.rate, settings.concurrency)
    if settings.rate:
        throttle.remember(earlier_sends(job.journal, 1.001 * max(c.window_s for c in settings.rate) + 0.025))
    async with Transport(_transport_settings(prepared), throttle) as transport:
        attempts = Attempts(
            prepared.endpoint.provider,
            transport,
            prepared.endpoint.redact,
            ImageFolder(job.paths.images),
            settings.idempotency_header,
        )
        engine = Engine(
            attempts,
            throttle,
            _rules(prepared),
            prepared.counters,
            run=job.journal.run,
            already_ok=_ok_before(job.journal),
        )
        reporter = Reporter(prepared, throttle, progress)
        writer = JournalWriter(job.journal, loop, engine.on_commit, engine.on_error, reporter.summary_json)
        feed = Feed(
            job.table, job.identity, job.journal,
            ResumeRule(settings.retry_failed, settings.on_drift), with_keys=settings.idempotency_header is not None,
        )  # fmt: skip
        _set_deadlines(engine, settings, loop)
        tell = partial(progress.log, "warning", "stop")
        with stopper.watching(engine, tell), reporter.reporting(writer):
            for notice in job.notices:
                progress.log("info", "notice", notice)
            try:
                return await engine.run(feed.batches(), writer)
            finally:
                await writer.close()


def _ok_before(journal: Journal) -> int:
    """How many rows had succeeded when the run before ended, as far as it told."""
    before = journal.runs()[-2:-1]
    return sum(orjson.loads(run.summary).get("counts", {}).get("ok", 0) for run in before)


def _rules(prepared: Prepared) -> Rules:
    settings = prepared.settings
    most = None if settings.max_failures is None else settings.max_failures.of(prepared.counters.total)
    return Rules(
        RetryPolicy(max_attempts=settings.max_attempts),
        settings.concurrency,
        settings.give_up_after_s,
        settings.grace_s,
        most,
    )


def _transport_settings(prepared: Prepared) -> TransportSettings:
    settings, endpoint = prepared.settings, prepared.endpoint
    return TransportSettings(
        headers=endpoint.headers,
        concurrency=settings.concurrency,
        timeout_s=settings.timeout_s,
        proxy=endpoint.proxy,
    )


def _set_deadlines(engine: Engine, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
    now = loop.time()
    if settings.time_limit_s is not None:
        sentence = f"--time-limit of {settings.time_limit_s:g} s is over; the same command continues"
        engine.stop_at(now + settings.time_limit_s, StopReason(4, "time_limit", sentence))
    if settings.deadline is not None:
        left_s = settings.deadline.timestamp() - time.time()
        sentence = f"the deadline {settings.deadline:%Y-%m-%d %H:%M} has come; the same command continues"
        engine.stop_at(now + max(0.0, left_s), StopReason(4, "deadline", sentence))
