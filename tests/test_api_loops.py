"""wb.run and wb.arun beside event loops, and what an interrupt leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

import websim_batch as wb
from websim_batch.run.stopping import Stopper
from websim_batch.sandbox import Misbehaviour, Sandbox, SandboxOptions

FRAME = pd.DataFrame({"prompt": [f"say {number}" for number in range(60)]})
WAIT_S = 20.0


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a working folder of its own."""
    monkeypatch.chdir(tmp_path)


def slow() -> Sandbox:
    """Half a second for each answer, so that a run is still on its way when it is interrupted."""
    return Sandbox(SandboxOptions(latency_ms=300))


def until(sandbox: Sandbox, arrivals: int) -> bool:
    """Wait until so many requests have arrived; False if they do not come."""
    pause, left_s = threading.Event(), WAIT_S
    while len(sandbox.arrivals) < arrivals and left_s > 0:
        pause.wait(0.01)
        left_s -= 0.01
    return left_s > 0


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` on a thread during the block."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(WAIT_S)


def interrupt() -> None:
    """What Ctrl-C and a notebook's kernel do."""
    os.kill(os.getpid(), signal.SIGINT)


def run_in_loop(**options: object) -> wb.RunResult:
    """wb.run as a notebook's cell calls it: inside a loop that runs already."""

    async def cell() -> wb.RunResult:
        return wb.run(FRAME, **options)  # type: ignore[arg-type]  # options of several types

    return asyncio.run(cell())


def finished_once(sandbox: Sandbox, result: wb.RunResult) -> bool:
    """Whether every row is ok and no row was answered twice."""
    return result.counts == {"ok": 60} and sandbox.status_count(200) == 60


def test_run_works_inside_a_running_loop() -> None:
    """In a notebook's loop `run` gives the same result as without one."""
    with Sandbox() as sandbox:
        result = run_in_loop(base_url=sandbox.base_url)

    assert result.counts == {"ok": 60}


@pytest.mark.parametrize(
    "runs", [run_in_loop, lambda **options: wb.run(FRAME, **options)], ids=["loop", "plain"]
)
def test_an_interrupt_gives_what_finished(runs: Callable[..., wb.RunResult]) -> None:
    """What is in flight is still answered, the rest is pending; the next call pays only for the rest."""
    with slow() as sandbox:

        def interrupts() -> None:
            if until(sandbox, 10):
                interrupt()

        with meanwhile(interrupts):
            result = runs(base_url=sandbox.base_url, concurrency=4)

        assert (result.exit_code, result.summary.exit_reason) == (130, "interrupted")
        assert result.counts["ok"] == sandbox.status_count(200)
        assert 0 < result.counts["ok"] < 60
        assert result.counts["ok"] + result.counts["pending"] == 60
        assert result.table.num_rows == 60
        assert finished_once(sandbox, runs(base_url=sandbox.base_url, concurrency=60))


def test_a_second_interrupt_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers does not hold the cell: the second interrupt ends it, with a result."""
    stops = threading.Semaphore(0)
    stop = Stopper.stop

    def noticed(self: Stopper) -> None:
        stop(self)
        stops.release()

    monkeypatch.setattr(Stopper, "stop", noticed)
    with Sandbox(misbehaviour=Misbehaviour(every="hang")) as sandbox:

        def interrupts() -> None:
            if until(sandbox, 4):
                interrupt()
            if stops.acquire(timeout=WAIT_S):
                interrupt()

        with meanwhile(interrupts):
            result = run_in_loop(base_url=sandbox.base_url, concurrency=4, grace=1000)

    assert (result.exit_code, result.counts) == (130, {"pending": 60})
    assert result.summary.elapsed_s < WAIT_S


def test_the_callers_signal_handlers_are_put_back() -> None:
    """A run takes the signals for its time only."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own = {number: lambda *_: None for number in before}
    for number, handler in own.items():
        signal.signal(number, handler)
    try:
        with Sandbox() as sandbox:
            wb.run(FRAME, base_url=sandbox.base_url)
            run_in_loop(base_url=sandbox.base_url)

        assert {number: signal.getsignal(number) for number in own} == own
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_run_works_on_another_thread() -> None:
    """Where no signals can be had, a run goes on without them."""
    results: list[wb.RunResult] = []
    with Sandbox() as sandbox, meanwhile(lambda: results.append(wb.run(FRAME, base_url=sandbox.base_url))):
        pass

    assert results[0].counts == {"ok": 60}


def test_arun_shares_the_callers_loop() -> None:
    """Two runs on one loop go on side by side: each has one request in flight, the server sees two."""

    async def both(url: str) -> list[wb.RunResult]:
        frames = [pd.DataFrame({"prompt": [f"{name} {number}" for number in range(5)]}) for name in "ab"]
        return await asyncio.gather(*(wb.arun(frame, base_url=url, concurrency=1) for frame in frames))

    with slow() as sandbox:
        results = asyncio.run(both(sandbox.base_url))

        assert sandbox.stats()["most_in_flight"] == 2
    assert [result.counts for result in results] == [{"ok": 5}] * 2


def test_a_refusal_is_raised_by_arun_too() -> None:
    """What refuses the run comes out of the await, in its own class."""
    with pytest.raises(wb.InputError, match="prompt"):
        asyncio.run(wb.arun(pd.DataFrame({"text": ["a"]})))


def test_cancelling_arun_drains_and_saves() -> None:
    """The cancellation goes on once what was in flight is saved; the next call pays only for the rest."""

    async def cancelled(sandbox: Sandbox) -> None:
        task = asyncio.create_task(wb.arun(FRAME, base_url=sandbox.base_url, concurrency=4))
        await asyncio.to_thread(until, sandbox, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with slow() as sandbox:
        asyncio.run(cancelled(sandbox))

        saved = wb.load("websim-*.parquet", status="ok")
        assert 0 < len(saved) == sandbox.status_count(200) < 60
        assert finished_once(sandbox, wb.run(FRAME, base_url=sandbox.base_url, concurrency=60))


def test_cancelling_arun_twice_ends_it_at_once() -> None:
    """A server that never answers does not hold the program."""

    async def cancelled(sandbox: Sandbox) -> None:
        task = asyncio.create_task(wb.arun(FRAME, base_url=sandbox.base_url, concurrency=4, grace=1000))
        await asyncio.to_thread(until, sandbox, 4)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, WAIT_S)

    with Sandbox(misbehaviour=Misbehaviour(every="hang")) as sandbox:
        asyncio.run(cancelled(sandbox))

    assert wb.load("websim-*.parquet")["status"].tolist() == ["pending"] * 60


def test_a_cancellation_before_anything_is_sent_sends_nothing() -> None:
    """Cancelled while it still reads the table, a run ends without a request."""

    async def cancelled(url: str) -> None:
        task = asyncio.create_task(wb.arun(FRAME, output="out.csv", base_url=url))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Sandbox() as sandbox:
        asyncio.run(cancelled(sandbox.base_url))

        assert sandbox.arrivals == []
