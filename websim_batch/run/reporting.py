"""Tells how far a run is, while it goes on: to the screen, and to the journal for `status` in another process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from websim_batch.journal import JournalWriter
from websim_batch.progress import Progress, ProgressView
from websim_batch.run.summary import Summary, summarize
from websim_batch.throttle import Throttle, ThrottleState

if TYPE_CHECKING:
    from websim_batch.run.session import Prepared

UPDATE_S = 0.25
TOUCH_EVERY = 8  # updates: the journal's summary is fresh within two seconds also while no row moves
RATE_WINDOW_S = 20.0


class Reporter:
    """Makes views and summaries of one run; everything it says comes from the counters and the throttle."""

    def __init__(self, prepared: Prepared, throttle: Throttle, progress: Progress) -> None:
        self._prepared = prepared
        self._throttle = throttle
        self._progress = progress
        self._marks: deque[tuple[float, int]] = deque()
        self._summary_json = b"{}"
        self._summary_due = 0.0

    @contextmanager
    def reporting(self, writer: JournalWriter[Any]) -> Iterator[None]:
        """Update the screen and the journal while the block runs."""
        prepared = self._prepared
        self._progress.start(prepared.counters.total)
        facts = {"run_id": prepared.run_id, "output": str(prepared.job.paths.output)}
        told = f"run {prepared.run_id} of {prepared.counters.total:,} rows begins"
        self._progress.log("debug", "start", told, **facts, rows=prepared.counters.total)
        task = asyncio.get_running_loop().create_task(self._report(writer))
        try:
            yield
        finally:
            task.cancel()
            self._prepared.throttle_state = self._throttle.snapshot()
            self._progress.update(self.view())

    async def _report(self, writer: JournalWriter[Any]) -> None:
        turn = 0
        while True:
            await asyncio.sleep(UPDATE_S)
            turn += 1
            self._progress.update(self.view())
            if turn % TOUCH_EVERY == 0:
                writer.touch()

    def view(self) -> ProgressView:
        """The run as it stands, for the screen."""
        counters, state = self._prepared.counters, self._throttle.snapshot()
        rate = self._rows_per_s()
        left = counters.total - counters.done
        return ProgressView(
            done=counters.done,
            total=counters.total,
            counts=counters.by_status(),
            rows_per_s=rate,
            eta_s=left / rate if rate else None,
            limited_by=state.text,
            waiting_s=state.wait_s,
            wait_reason=state.wait_reason,
            in_flight=state.in_flight,
            retries=counters.retries,
            refused_429=counters.refused,
        )

    def summary(self) -> Summary:
        """The run as it stands, for the journal."""
        prepared = self._prepared
        return summarize(
            prepared.counters,
            output=str(prepared.job.paths.output),
            run_id=prepared.run_id,
            elapsed_s=time.monotonic() - prepared.started_s,
            throttle=throttle_facts(self._throttle.snapshot()),
        )

    def summary_json(self) -> bytes:
        """`summary` as JSON, with the rate of the last moments and the time left; made anew each quarter second."""
        now = time.monotonic()
        if now >= self._summary_due:
            view = self.view()
            pace = {"rows_per_s": round(view.rows_per_s, 3), "eta_s": view.eta_s}
            self._summary_json = orjson.dumps({**self.summary().as_json(), **pace})
            self._summary_due = now + UPDATE_S
        return self._summary_json

    def _rows_per_s(self) -> float:
        """Rows finished per second over the last 20 s, or since the run began."""
        now, finished = time.monotonic(), self._prepared.counters.finished
        marks = self._marks
        if not marks or now - marks[-1][0] >= UPDATE_S / 2:
            marks.append((now, finished))
        while len(marks) > 1 and marks[0][0] < now - RATE_WINDOW_S:
            marks.popleft()
        since, before = marks[0] if len(marks) > 1 else (self._prepared.started_s, 0)
        return (finished - before) / (now - since) if now > since else 0.0


def throttle_facts(state: ThrottleState) -> dict[str, Any]:
    """What the throttle found, as JSON values: for the manifest and `status`."""
    return {
        key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(state).items()
    }
