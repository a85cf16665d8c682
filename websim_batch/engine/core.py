"""Sends rows through a pool of workers, each attempt granted by the throttle, each outcome journaled.

    batches ──feeder──> Backlog ──dispatcher (one grant a send)──> worker: one attempt ──> retry.decide
                          ^                                                                  │
                          └───────────── again (front, or later) <───────────────────────────┤
                                                             journal writer, in groups <─────┘──> counted as done

All state changes are synchronous and happen in the event loop's thread; what waits is the feeder (for the disk), the
dispatcher (for a row and for the throttle) and the workers (for the network). Where nothing binds, a worker takes its
next row itself, without waiting for anyone. Nothing here knows CSV, HTTP or TOML.

At a stop nothing new is sent; what is in flight may take the grace; then it is cancelled, and the ledger keeps its
intent without an outcome: nobody knows whether it was paid for. Cancelling loses no row: whatever has no result is
`pending`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from websim_batch.engine.alarms import Alarms
from websim_batch.engine.backlog import Backlog
from websim_batch.engine.counters import FAILURES, Counters
from websim_batch.engine.guard import Guard
from websim_batch.engine.lookahead import COMMIT_WINDOW_ROWS, Lookahead
from websim_batch.engine.stops import GiveUp, journal_lost, stopped_by, too_many_failures, weightier
from websim_batch.engine.work import Batch, Work

if TYPE_CHECKING:
    from websim_batch.journal import JournalWriter
from websim_batch.errors import HeldBackError, WebsimBatchError
from websim_batch.records import Answer, Attempt, Reply, Request, Result, Status, StopReason
from websim_batch.retry import OFTEN_REFUSED, SUCCESS, Finish, RetryPolicy, RunFacts, Stop, Verdict, decide
from websim_batch.throttle import Grant, Signal, Throttle
from websim_batch.throttle.signals import SignalKind

Job: TypeAlias = tuple[Work, Grant]

_OK = Answer.OK  # looking up a member of an Enum costs as much as all else that an answer is asked
_SIGNALS: dict[Answer, SignalKind] = {
    Answer.REFUSAL: "refused",
    Answer.TRANSIENT: "error",
    Answer.OUTAGE: "outage",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of one run. `max_failures` is in rows; `grace_s` is what is in flight may take at a stop."""

    policy: RetryPolicy
    concurrency: int
    give_up_after_s: float = 600.0
    grace_s: float = 30.0
    max_failures: float | None = None


class Engine:
    """One run: feed it batches and it returns once every row has a durable result, or the run was stopped.

    `attempt` makes one HTTP try of a request and returns its Reply; HeldBackError says that nothing was sent as the
    grant was called back, any other WebsimBatchError stops the run.
    `run` is the journal's number of this run. `already_ok` is how many rows of the job succeeded in earlier runs.
    """

    def __init__(
        self,
        attempt: Callable[[Request, Grant], Awaitable[Reply]],
        throttle: Throttle,
        rules: Rules,
        counters: Counters,
        *,
        run: int,
        already_ok: int = 0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._attempt = attempt
        self._throttle = throttle
        self._rules = rules
        self.counters = counters
        self._run = run
        self._ok = already_ok
        self._suspects_in_a_row = 0
        self._accepted = 0
        self._backlog = Backlog()
        self._idle: deque[asyncio.Future[Job]] = deque()
        self._grants: dict[asyncio.Task[None], Grant] = {}  # of each worker the last one
        self._in_flight = 0
        self._open = 0  # rows and outcomes that are not durable yet
        self._often_refused = 0  # of them those that were refused while others were not
        self._is_fed = False
        self._stop: StopReason | None = None
        self._lookahead = Lookahead()
        self._give_up = GiveUp(rules.give_up_after_s)
        self._alarms = Alarms(self._loop)
        self._deadline: float | None = None
        self._read = asyncio.to_thread
        # The wall clock is read once: set back in the middle of a run, it must not turn times around.
        self._wall_offset_us = 0

    # -- the run ---------------------------------------------------------------------------------------------------

    async def run(self, batches: Iterator[Batch], writer: JournalWriter[object]) -> StopReason | None:
        """Send every row of `batches`; the reason if the run was stopped before, None if every row has a result.

        `writer` must report its commits to `on_commit` and its failure to `on_error`.
        """
        self._wall_offset_us = (time.time_ns() - time.monotonic_ns()) // 1000
        self._writer = writer
        self._over = asyncio.Event()
        self._wants_rows = asyncio.Event()
        self._has_work = asyncio.Event()
        if self._stop is not None:  # stopped before it began
            return self._stop
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._feed(batches)), group.create_task(self._dispatch())]
            tasks += [group.create_task(self._work()) for _ in range(self._rules.concurrency)]
            await self._over.wait()
            for task in tasks:
                task.cancel()
        self._alarms.clear()
        self.counters.unknown += self._in_flight  # cut off by the end of the grace
        for work in self._backlog.take_unsent():
            writer.withdraw(self._intent(work, self._now_us()))
        return self._stop

    def stop(self, reason: StopReason, grace_s: float | None = None) -> None:
        """Send nothing more, and end when what is in flight is answered or `grace_s` is over.

        Of several reasons the one that weighs most is told; the grace only ever gets shorter.
        """
        self._stop = weightier(self._stop, reason)
        self._throttle.shut()
        for worker, grant in self._grants.items():
            if grant.is_held:  # for a connection that would not be used any more
                worker.cancel()
        if not hasattr(self, "_over"):
            return
        grace_s = self._rules.grace_s if grace_s is None else grace_s
        if grace_s <= 0:
            self._over.set()
        ends = self._loop.time() + grace_s
        earlier = self._alarms.when("grace")
        if earlier is None or ends < earlier:
            self._alarms.set("grace", ends, self._over.set)
        self._end_if_done()

    def stop_at(self, when: float, reason: StopReason) -> None:
        """Stop at the loop's time `when`; the server's longer waits then put rows off instead of being waited for."""
        if self._deadline is None or when < self._deadline:
            self._deadline = when
            self._alarms.set("deadline", when, lambda: self.stop(reason))

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _feed(self, batches: Iterator[Batch]) -> None:
        """Read until the end; what cannot be read on, as an input that changed, stops the run."""
        try:
            await self._read_ahead(batches)
        except WebsimBatchError as exc:
            self.stop(stopped_by(exc))

    async def _read_ahead(self, batches: Iterator[Batch]) -> None:
        """Read ahead by about one batch, on a thread, so that a slow disk holds up nobody."""
        done = Batch()
        while (batch := await self._read(next, batches, done)) is not done:
            self.counters.rows_known(batch.known)
            self._open += len(batch.work) + len(batch.settled)
            for settled in batch.settled:
                self._writer.finish(settled.result, settled.key, settled.cells, settled.result)
                self._note_end(settled.result.status)
            for work in batch.work:
                self._backlog.append(work)
            self._arm()
            while self._backlog.waiting >= COMMIT_WINDOW_ROWS and self._stop is None:
                self._wants_rows.clear()
                await self._wants_rows.wait()
            if self._stop is not None:
                return
        self._is_fed = True
        self._end_if_done()

    def _arm(self) -> None:
        """Write the intents of the rows that will be sent within about one commit window."""
        backlog, most = self._backlog, self._lookahead.rows
        if backlog.ahead > most // 2 or self._stop is not None:
            return
        now_us = self._now_us()
        for _ in range(min(backlog.waiting, most - backlog.ahead)):
            work = backlog.start_arming()
            self._writer.intend(self._intent(work, now_us), work.key, work.cells, work)
            work.key = work.cells = None
        if backlog.waiting < COMMIT_WINDOW_ROWS:
            self._wants_rows.set()

    def _intent(self, work: Work, now_us: int) -> Attempt:
        return Attempt(work.row_id, work.number, self._run, now_us, None, None, None, "unknown")

    # -- sending ---------------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        """Hand armed rows to idle workers, one grant of the throttle each, in order."""
        while True:
            while not (self._idle and self._backlog.armed):
                await self._wait_for_work()
            grant = await self._throttle.acquire()
            if self._stop is not None:
                self._throttle.release(grant)
                return
            self._hand_over(self._take(grant))
            while self._idle and (job := self._take_now()) is not None:
                self._hand_over(job)

    async def _wait_for_work(self) -> None:
        if self._idle and self._backlog.ahead:
            self._lookahead.on_starved()
            self._arm()
        self._has_work.clear()
        await self._has_work.wait()

    def _hand_over(self, job: Job) -> None:
        self._idle.popleft().set_result(job)

    def _take_now(self) -> Job | None:
        """The next row, if it may be sent without any waiting."""
        if self._stop is not None or not self._backlog.armed:
            return None
        grant = self._throttle.try_acquire()
        return None if grant is None else self._take(grant)

    def _take(self, grant: Grant) -> Job:
        self._in_flight += 1
        work = self._backlog.pop_armed()
        self._arm()
        return work, grant

    async def _wait_idle(self) -> Job:
        idle: asyncio.Future[Job] = self._loop.create_future()
        self._idle.append(idle)
        self._has_work.set()
        return await idle

    async def _work(self) -> None:
        """Make one attempt after another; whichever row comes next."""
        guard = Guard()
        me = asyncio.current_task()
        assert me is not None
        while True:
            work, grant = self._take_now() or await self._wait_idle()
            self._grants[me] = grant
            self._note_send(work, grant)
            with guard:
                try:
                    reply = await self._attempt(work.request, grant)
                except HeldBackError:
                    self._take_back(work, grant)
                    continue
                except asyncio.CancelledError:
                    if grant.is_held:
                        self._take_back(work, grant)
                    raise
                except WebsimBatchError as exc:
                    reply = self._unkept(exc)
            if guard.fault is not None:
                reply = Reply(
                    Answer.PERMANENT, error_type="internal", message=guard.fault, delivery="unknown"
                )
            self._in_flight -= 1
            self._on_reply(work, grant, reply)

    def _take_back(self, work: Work, grant: Grant) -> None:
        """The gate closed, or the run stops, and nothing was sent yet: the row is the next one."""
        self._in_flight -= 1
        self.counters.sent -= 1
        self.counters.retries -= work.was_sent
        self._throttle.release(grant)
        self._backlog.put_back(work)
        self._has_work.set()
        self._end_if_done()

    def _unkept(self, exc: WebsimBatchError) -> Reply:
        """An answer that cannot be kept stops the run, and its row is left as it was."""
        self.stop(stopped_by(exc))
        return Reply(Answer.OUTAGE, error_type="internal", message=str(exc), delivery="unknown")

    def _note_send(self, work: Work, grant: Grant) -> None:
        work.throttled_s += grant.throttled_s
        work.sent_us = self._now_us()
        self._lookahead.on_send(self._loop.time())
        self.counters.sent += 1
        self.counters.retries += work.was_sent

    # -- answers ---------------------------------------------------------------------------------------------------

    def _on_reply(self, work: Work, grant: Grant, reply: Reply) -> None:
        """Take in one answer: the throttle first, since others wait for it, then this row's fate."""
        now = self._loop.time()
        is_fresh = work.history.attempts == 0
        if grant.was_held:
            work.sent_us = self._now_us() - round(reply.latency_s * 1e6)
        if work.started_us is None and reply.delivery != "not_sent":
            work.started_us = work.sent_us
        is_ok = reply.answer is _OK
        kind = "accepted" if is_ok else _SIGNALS.get(reply.answer, "accepted")
        self._throttle.settle(
            grant, Signal(kind, reply.retry_after_s, reply.rate_hint, is_fresh, reply.latency_s)
        )
        verdict: Verdict = SUCCESS
        if is_ok:
            self._count_success(work, reply, now)
        else:
            self._count_reply(work, reply, now)
            verdict = decide(self._rules.policy, work.history, reply, self._facts(now, grant))
        self._settle(work, reply, verdict, now)
        if self._stop is not None:
            self._end_if_done()

    def _count_success(self, work: Work, reply: Reply, now: float) -> None:
        was_failing = self._give_up.failing_since is not None
        self._give_up.on_reply(reply, now)
        if was_failing:
            self._watch_success()
        work.requests += 1
        work.was_sent = True
        self._suspects_in_a_row = 0
        self._ok += 1
        self._accepted += 1
        self.counters.latencies.add(reply.latency_s * 1000)

    def _count_reply(self, work: Work, reply: Reply, now: float) -> None:
        self._give_up.on_reply(reply, now)
        self._watch_success()
        if reply.delivery == "not_sent":
            self.counters.sent -= 1
            self.counters.retries -= work.was_sent
        else:
            work.requests += 1
            work.was_sent = True
        self._suspects_in_a_row = self._suspects_in_a_row + 1 if reply.answer is Answer.SUSPECT else 0
        if reply.answer is Answer.REFUSAL:
            self.counters.refused += 1
        elif reply.answer not in (Answer.TRANSIENT, Answer.OUTAGE):
            self._accepted += 1
        if reply.delivery == "unknown":
            self.counters.unknown += 1

    def _facts(self, now: float, grant: Grant) -> RunFacts:
        return RunFacts(
            ok_rows=self._ok,
            accepted=self._accepted,
            suspects_in_a_row=self._suspects_in_a_row,
            concurrency=self._rules.concurrency,
            deadline_in_s=None if self._deadline is None else self._deadline - now,
            random=random.random(),
            is_probe=grant.is_probe,
            only_refused_left=self._is_fed and self._open == self._often_refused,
        )

    def _settle(self, work: Work, reply: Reply, verdict: Verdict, now: float) -> None:
        attempt = Attempt(
            work.row_id,
            work.number,
            self._run,
            work.sent_us,
            round(reply.latency_s * 1e6),
            reply.http_status,
            reply.error_type,
            reply.delivery,
        )
        work.number += 1
        was_often = work.history.refusals >= OFTEN_REFUSED
        if isinstance(verdict, Finish):
            self._often_refused -= was_often
            result = self._result(work, reply, verdict.status, verdict.error_type, verdict.message)
            self._writer.settle(attempt, result, result)
            self._note_end(verdict.status)
            return
        if isinstance(verdict, Stop):
            self._settle_stop(work, reply, attempt, verdict)
            return
        self._writer.settle(attempt, None, None)
        work.history = verdict.history
        self._often_refused += (verdict.history.refusals >= OFTEN_REFUSED) - was_often
        if verdict.where == "front":
            self._backlog.put_first(work)
        elif verdict.delay_s <= 0:
            self._backlog.append(work)
        else:
            self._backlog.put_later(work, now + verdict.delay_s)
            self._set_due_alarm()
        self._arm()

    def _note_end(self, status: Status) -> None:
        """A row has its outcome: enough of them may have failed, whether they are durable yet or not."""
        if status not in FAILURES:
            return
        self.counters.failures += 1
        reason = too_many_failures(self.counters.failures, self._rules.max_failures)
        if reason is not None and self._stop is None:
            self.stop(reason)

    def _settle_stop(self, work: Work, reply: Reply, attempt: Attempt, verdict: Stop) -> None:
        """The row that ends the run stays pending, or is `deferred` where the server put it off."""
        result = None
        if verdict.status == "deferred":
            result = self._result(work, reply, verdict.status, reply.error_type, reply.message)
        self._writer.settle(attempt, result, result)
        if result is None:
            self._open -= 1
        self.stop(verdict.reason)

    def _result(
        self, work: Work, reply: Reply, status: Status, error_type: str | None, message: str | None
    ) -> Result:
        request = work.request
        return Result(
            work.row_id,
            status,
            reply.response if status == "ok" else None,
            reply.image_url if status == "ok" else None,
            error_type,
            message,
            reply.http_status,
            work.requests,
            round(reply.latency_s * 1000),
            round(work.throttled_s * 1000),
            reply.prompt_tokens,
            reply.completion_tokens,
            reply.finish_reason,
            request.kind,
            request.model,
            reply.project_id or request.project_id,
            bytes.fromhex(request.hash_hex),
            work.started_us,
            self._now_us(),
            self._run,
        )

    # -- what the journal says ---------------------------------------------------------------------------------------

    def on_commit(self, tokens: list[object]) -> None:
        """These are durable now: an intent arms its row, a result counts its row as done."""
        for token in tokens:
            if isinstance(token, Work):
                self._backlog.finish_arming(token)
            elif isinstance(token, Result):
                self._open -= 1
                self.counters.row_finished(token.status, token.error_type)
        if self._backlog.armed:
            self._has_work.set()
        self._end_if_done()

    def on_error(self, exc: BaseException) -> None:
        """The journal can no longer be written: send nothing more, since no answer could be kept."""
        self.stop(journal_lost(exc), grace_s=0)

    # -- the clock ---------------------------------------------------------------------------------------------------

    def _now_us(self) -> int:
        return time.monotonic_ns() // 1000 + self._wall_offset_us

    def _set_due_alarm(self) -> None:
        due, alarm = self._backlog.next_due(), self._alarms.when("due")
        if due is not None and (alarm is None or alarm > due):
            self._alarms.set("due", due, self._on_due)

    def _on_due(self) -> None:
        self._backlog.move_due(self._loop.time())
        self._set_due_alarm()
        self._arm()

    def _watch_success(self) -> None:
        """Keep an alarm at the time at which the run gives up, while it fails."""
        if self._give_up.failing_since is None:
            self._alarms.cancel("give_up")
        elif self._alarms.when("give_up") is None:
            self._alarms.set("give_up", self._give_up.due() or 0.0, self._on_give_up)

    def _on_give_up(self) -> None:
        due, now = self._give_up.due(), self._loop.time()
        if due is None:
            return
        if due > now:
            self._alarms.set("give_up", due, self._on_give_up)
        else:
            self.stop(self._give_up.reason(now))

    def _end_if_done(self) -> None:
        if self._stop is not None:
            if self._in_flight == 0:
                self._over.set()
        elif self._is_fed and self._open == 0:
            self._over.set()
