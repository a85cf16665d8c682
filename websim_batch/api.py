"""The calls for scripts and notebooks: the same run as the command line's, with a table as its result."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeAlias

from websim_batch.run import execute, execute_here

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path
    from typing import Unpack

    import pandas as pd

    from websim_batch.frames import RunResult
    from websim_batch.job.keywords import RunOptions
    from websim_batch.job.settings import Settings
    from websim_batch.records import Status
    from websim_batch.run.finish import RunReport
    from websim_batch.run.stopping import Stopper


class ArrowStream(Protocol):
    """A table in memory that hands itself over by Arrow's PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The table as a capsule."""


TableInput: TypeAlias = "str | os.PathLike[str] | ArrowStream | pd.DataFrame"
"""A path, '-' for standard input, or a table in memory: pandas, polars, Arrow, DuckDB, …"""


def run(input: TableInput, **options: Unpack[RunOptions]) -> RunResult:
    """Run a job, or continue it where it stood, and give its result; the options are those of the command line.

    Works inside a running event loop too (a notebook's): then on a thread, while this call waits. An interrupt drains
    the run and gives what finished; a second one stops at once. A table in memory without `output` is answered in
    `websim-<hash>.parquet` in the working folder; the same table and settings find it again and pay nothing.

    Raises UsageError (also InputError, DriftError, …) and LockedError if nothing was sent, EndpointRefusesError if the
    endpoint refuses everything, InternalError for a fault of ours; what finished is saved before.
    """
    settings, table = _plan(input, options)
    return _run(settings, table)


async def arun(input: TableInput, **options: Unpack[RunOptions]) -> RunResult:
    """As `run`, on the caller's event loop, which is never blocked.

    Cancelling it drains the run, at once if it is cancelled twice, and saves what finished; then the cancellation goes
    on. The same call continues.
    """
    import asyncio

    settings, table = await asyncio.to_thread(_plan, input, options)
    from websim_batch.run.stopping import Stopper

    stopper = Stopper()
    task = asyncio.create_task(execute_here(settings, table, stopper))
    return _result(await _drained(task, stopper), settings, table)


def load(path: str | os.PathLike[str], status: Status | Sequence[Status] | None = None) -> pd.DataFrame:
    """An output, or all that a pattern matches in the order of their names, as one frame with Arrow's types.

    Input columns keep their types (text in CSV), the status is a category, and `status` keeps only rows that ended so.
    `run_date` is the day, in UTC, on which the run began that finished the row; null for a row without one.
    Raises UsageError if nothing matches or a table is not ours.
    """
    from websim_batch.tables.load import load as load_outputs

    return load_outputs(os.fspath(path), status)


def _plan(source: TableInput, options: Mapping[str, object]) -> tuple[Settings, object]:
    """The settings, and the table if it is one in memory; loads what is heavy, so that the event loop need not."""
    from websim_batch.job.build import settings_from_kwargs
    from websim_batch.run import session  # noqa: F401

    if isinstance(source, str | os.PathLike):
        return settings_from_kwargs(input=source, **options), None
    from websim_batch.tables import ReadOptions
    from websim_batch.tables.arrowread import frame_source

    table = frame_source(source, ReadOptions())
    settings = settings_from_kwargs(**options)
    if settings.output is None:
        settings = settings_from_kwargs(**{**options, "output": _output_of(table.fingerprint(), settings)})
    return settings, table


def _output_of(fingerprint: str, settings: Settings) -> Path:
    """Where a table in memory is answered: the same place for the same content and the same answers.

    `limit` is left out: a first try with ten rows is continued by the whole table.
    """
    import hashlib
    from pathlib import Path

    import orjson

    from websim_batch.job.drift import answer_settings

    said = orjson.dumps([fingerprint, answer_settings(settings)], option=orjson.OPT_SORT_KEYS)
    name = f"websim-{hashlib.blake2b(said, digest_size=8).hexdigest()}"
    return Path(f"{name}.sandbox.parquet" if settings.sandbox else f"{name}.parquet")


def _run(settings: Settings, table: object) -> RunResult:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:  # there is none
        report = execute(settings, table)
    else:
        report = _execute_on_thread(settings, table)
    return _result(report, settings, table)


def _execute_on_thread(settings: Settings, table: object) -> RunReport:
    """Run with a loop of its own while this thread waits; what it shows belongs to the cell that called."""
    from concurrent.futures import ThreadPoolExecutor, wait
    from contextvars import copy_context

    from websim_batch.run.stopping import Stopper

    stopper = Stopper()
    threads = ThreadPoolExecutor(1, "websim-batch")
    with _interrupts_to(stopper):
        future = threads.submit(copy_context().run, execute, settings, table, stopper)
        threads.shutdown(wait=False)
        while not future.done():  # a signal close behind another wakes nobody; it is seen at the next waking
            wait([future], timeout=0.2)
        return future.result()


@contextmanager
def _interrupts_to(stopper: Stopper) -> Iterator[None]:
    """Ctrl-C, and a kernel's interrupt, stop the run instead of raising here; the third one raises."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        if stopper.is_hurried:
            raise KeyboardInterrupt
        stopper.stop()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


async def _drained(task: asyncio.Task[RunReport], stopper: Stopper) -> RunReport:
    """What `task` gives; being cancelled stops the run, and is passed on when it has drained."""
    import asyncio

    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
            stopper.stop()
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


def _result(report: RunReport, settings: Settings, table: object) -> RunResult:
    """The result, unless the run's exit code is one that is raised."""
    from websim_batch.errors import EndpointRefusesError, InternalError, UsageError
    from websim_batch.frames import RunResult

    message = report.summary.message or ""
    if report.exit_code == EndpointRefusesError.exit_code:
        raise EndpointRefusesError(report.summary.exit_reason or "", message)
    if report.exit_code == UsageError.exit_code:
        raise UsageError(message)
    if report.exit_code == InternalError.exit_code:
        raise InternalError(message)
    return RunResult(report, settings, table, _run)
