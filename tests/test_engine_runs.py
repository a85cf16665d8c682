"""The engine in virtual time: conservation, order, back-pressure, stops; hours in milliseconds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine_kit import Story, drive, error, fatal, ok, outage, refusal, unanswered
from websim_batch.engine import Engine
from websim_batch.engine.backlog import Backlog
from websim_batch.engine.lookahead import Lookahead
from websim_batch.engine.stops import GiveUp, weightier
from websim_batch.errors import InternalError
from websim_batch.records import Answer, Ceiling, Reply, StopReason
from websim_batch.retry import RetryPolicy

STOPPED = StopReason(130, "interrupted", "interrupted")


def assert_conserved(story: Story, rows: int) -> None:
    """Every row has one status, results and counts agree, and no request is missing from the ledger."""
    assert sum(story.statuses.values()) == rows
    counted = Counter(result.status for result in story.writer.results.values())
    assert counted == {status: count for status, count in story.statuses.items() if status != "pending"}
    sends = Counter(row for _, row, _ in story.sends)
    ledger = Counter(row for row, _ in story.writer.ledger)
    assert ledger == sends
    for row, result in story.writer.results.items():
        sent = [a for (r, _), a in story.writer.ledger.items() if r == row and a.delivery != "not_sent"]
        assert result.requests == len(sent)


def test_every_row_gets_its_answer_once() -> None:
    """A well-behaved server: as many requests as rows, never more in flight than allowed."""
    story = drive(3000, lambda row, n, now: (0.05, ok()), concurrency=32)

    assert (story.stop, story.statuses) == (None, {"ok": 3000})
    assert len(story.sends) == 3000
    assert story.most_in_flight == 32
    assert_conserved(story, 3000)


def test_rows_are_sent_in_the_order_of_the_input() -> None:
    """First come, first served."""
    story = drive(1000, lambda row, n, now: (0.05, ok()))

    assert [row for _, row, _ in story.sends] == list(range(1000))


def test_nothing_is_sent_before_its_intent_is_durable() -> None:
    """Also not on a retry: the ledger knows each request before it can be billed."""
    story = drive(500, lambda row, n, now: (0.02, error() if n == 1 and row % 3 == 0 else ok()))

    assert all(durable for _, _, durable in story.sends)
    assert len(story.sends) > 500


@given(seed=st.integers(0, 10**6), concurrency=st.integers(1, 40), rows=st.integers(0, 120))
@settings(max_examples=20, deadline=None)
def test_conservation_under_any_weather(seed: int, concurrency: int, rows: int) -> None:
    """Whatever the server answers to whom: each row ends once, and the ledger has each request."""
    draw = random.Random(seed)
    kinds = [ok, ok, ok, ok, error, unanswered, refusal, outage, partial(refusal, 0.5)]
    invalid = partial(Reply, Answer.INVALID, error_type="bad_response", http_status=200)
    kinds += [invalid, partial(Reply, Answer.DECLINED, error_type="content_policy", http_status=400)]

    story = drive(
        rows, lambda row, n, now: (draw.uniform(0.001, 0.3), draw.choice(kinds)()), concurrency=concurrency
    )

    # So many refusals at random may look like no service at all.
    assert story.stop is None or story.stop.exit_reason == "no_success"
    assert (story.statuses.get("pending", 0) > 0) == (story.stop is not None)
    assert story.most_in_flight <= concurrency
    assert_conserved(story, rows)


@given(seed=st.integers(0, 10**6), at_s=st.floats(0.0, 3.0), grace_s=st.sampled_from([0.0, 0.05, 30.0]))
@settings(max_examples=25, deadline=None)
def test_conservation_whenever_it_is_stopped(seed: int, at_s: float, grace_s: float) -> None:
    """A stop at any moment, with any grace: rows are finished or pending, the ledger has what was sent, no more."""
    draw = random.Random(seed)
    kinds = [ok, ok, ok, error, refusal, unanswered]

    def stop_then(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_at(at_s, engine.stop, STOPPED)

    story = drive(
        2000,
        lambda row, n, now: (draw.uniform(0.01, 0.4), draw.choice(kinds)()),
        then=stop_then,
        grace_s=grace_s,
    )

    assert story.stop == STOPPED
    assert story.ended_s <= at_s + min(grace_s, 0.5) + 0.01
    assert max([time for time, _, _ in story.sends], default=0.0) <= at_s + 1e-3
    assert_conserved(story, 2000)


def test_requests_that_wait_for_connections_keep_to_the_ceiling() -> None:
    """The first ones leave 0.95 s late, among others that leave at once: still 5 in a second at most."""
    story = drive(
        60,
        lambda row, n, now: (0.05, ok()),
        ceilings=(Ceiling(5, 1.0),),
        connect_s=lambda now: 0.95 if now < 3 else 0.0,
    )

    left = [at for at, _, _ in story.sends]
    assert story.statuses == {"ok": 60}
    assert all(sum(at <= later <= at + 1.0 for later in left) <= 5 for at in left)


def test_no_request_leaves_while_the_gate_is_closed() -> None:
    """Those that were connecting when the 429 came are called back, and are the next to go after the wait."""
    story = drive(
        200,
        lambda row, n, now: (0.05, refusal(5.0) if row == 0 and n == 1 else ok()),
        connect_s=lambda now: 0.0 if now < 0.01 else 0.3,
    )

    times = [at for at, _, _ in story.sends]
    refused_at = times[0] + 0.05
    assert story.statuses == {"ok": 200}
    assert not any(refused_at < at < refused_at + 5 for at in times)
    assert len(times) == 201
    assert story.counters.sent == 201
    assert sorted(row for _, row, _ in story.sends[2:6]) == [0, 2, 3, 4]
    assert_conserved(story, 200)


def test_a_request_that_is_connecting_at_a_stop_is_not_sent() -> None:
    """Its row stays pending, its intent is withdrawn, and the run ends without waiting for a connection."""
    story = drive(
        50,
        lambda row, n, now: (0.05, ok()),
        connect_s=lambda now: 2.0,
        then=lambda engine, loop: loop.call_at(1.0, engine.stop, STOPPED) and None,
    )

    assert (story.stop, story.sends, story.statuses) == (STOPPED, [], {"pending": 50})
    assert story.ended_s <= 1.01
    assert story.counters.sent == 0
    assert_conserved(story, 50)


def test_a_request_starts_when_it_leaves() -> None:
    """`started_at` of a row, and its line in the ledger, tell when it was sent, not when it was granted."""
    story = drive(1, lambda row, n, now: (0.5, ok()), connect_s=lambda now: 10.0)

    result, attempt = story.writer.results[0], story.writer.ledger[0, 1]
    assert result.started_us == attempt.started_us
    assert attempt.elapsed_us == 500_000


def test_a_slow_row_holds_up_nobody() -> None:
    """Row 0 takes 20 s; 5,000 others finish at full rate meanwhile."""
    story = drive(5001, lambda row, n, now: (20.0 if row == 0 else 0.05, ok()))
    others = [time for time, row, _ in story.sends if row]

    assert story.statuses == {"ok": 5001}
    # 15 workers at 20 answers a second each, after the ramp.
    assert max(others) < 5000 / 15 * 0.05 + 2
    assert story.ended_s < 20.1


def test_three_rows_without_an_answer_end_in_time() -> None:
    """timeout * attempts + 5 s, and the others long before."""
    silent = {0, 7, 400}
    story = drive(800, lambda row, n, now: (10.0, unanswered()) if row in silent else (0.05, ok()))

    assert story.statuses == {"ok": 797, "failed": 3}
    assert story.ended_s < 10 * 5 + 5
    assert max(time for time, row, _ in story.sends if row not in silent) < 10


def test_max_attempts_counts_sends() -> None:
    """--max-attempts 3 against a server of 500s: three requests a row."""
    story = drive(20, lambda row, n, now: (0.01, error()), policy=RetryPolicy(max_attempts=3))

    assert story.statuses == {"failed": 20}
    assert Counter(row for _, row, _ in story.sends) == dict.fromkeys(range(20), 3)


def test_a_refused_row_keeps_its_place() -> None:
    """It goes before all that were not refused; nobody is sent inside the server's wait."""
    story = drive(300, lambda row, n, now: (0.02, refusal(3.0) if (row, n) == (50, 1) else ok()))
    sends = [row for _, row, _ in story.sends]
    first, second = (index for index, row in enumerate(sends) if row == 50)
    refused_at = story.sends[first][0] + 0.02

    assert second - first <= 16 + 2
    assert not [time for time, _, _ in story.sends if refused_at + 1e-3 < time < refused_at + 3.0]
    assert story.statuses == {"ok": 300}


def test_an_outage_uses_no_attempt() -> None:
    """A minute without connections: all rows are answered in the end, each with one request that counts."""
    story = drive(100, lambda row, n, now: (0.001, outage()) if 1 < now < 61 else (0.1, ok()))

    assert story.statuses == {"ok": 100}
    assert {result.requests for result in story.writer.results.values()} == {1}
    assert (story.counters.sent, story.counters.unknown) == (100, 0)


def test_a_dead_endpoint_is_given_up_after_15_s() -> None:
    """Nothing was ever answered: 15 s, whatever --give-up-after says; no row is blamed."""
    story = drive(50, lambda row, n, now: (0.001, outage()), give_up_after_s=600.0)

    assert story.stop is not None
    assert (story.stop.exit_code, story.stop.exit_reason) == (4, "no_success")
    assert 15 <= story.ended_s < 16
    assert story.statuses == {"pending": 50}


def test_an_endpoint_that_dies_is_given_up_after_ten_minutes() -> None:
    """It had answered before: --give-up-after counts from the first failure after the last success."""
    story = drive(5000, lambda row, n, now: (0.001, outage()) if now > 5 else (0.1, ok()))

    assert story.stop is not None and story.stop.exit_reason == "no_success"
    assert 604 <= story.ended_s <= 607


def test_a_ceiling_of_one_an_hour_is_no_failure() -> None:
    """Neither a slow ceiling nor slow answers count as a run without success."""
    slow = drive(4, lambda row, n, now: (100.0, ok()), ceilings=(Ceiling(1, 3600.0),), give_up_after_s=60.0)

    assert (slow.stop, slow.statuses) == (None, {"ok": 4})
    assert slow.ended_s >= 3 * 3600


def test_a_wait_that_the_server_asked_for_is_waited_out() -> None:
    """Retry-After of half an hour, --give-up-after of a minute: the run goes on afterwards."""
    story = drive(
        3, lambda row, n, now: (0.1, refusal(1800.0)) if now < 1000 else (0.1, ok()), give_up_after_s=60.0
    )

    assert (story.stop, story.statuses) == (None, {"ok": 3})


def test_a_wait_beyond_the_deadline_puts_rows_off() -> None:
    """The run stops at once with `deferred` instead of waiting for its deadline."""

    def deadline(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        engine.stop_at(100.0, StopReason(4, "deadline", "over"))

    story = drive(50, lambda row, n, now: (0.1, refusal(200.0)) if row >= 10 else (0.1, ok()), then=deadline)

    assert story.stop is not None and story.stop.exit_reason == "deferred"
    assert story.ended_s < 10
    assert story.statuses["ok"] == 10
    assert story.statuses["deferred"] >= 1


def test_a_deadline_stops_the_run() -> None:
    """Nothing is sent after it; what is in flight is answered."""

    def deadline(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        engine.stop_at(50.0, StopReason(4, "deadline", "over"))
        engine.stop_at(5.0, StopReason(4, "time_limit", "over"))

    story = drive(5000, lambda row, n, now: (0.5, ok()), then=deadline)

    assert story.stop is not None and story.stop.exit_reason == "time_limit"
    assert max(time for time, _, _ in story.sends) <= 5.0 + 1e-3
    assert 5.0 < story.ended_s <= 5.51
    assert_conserved(story, 5000)


def test_a_fatal_answer_stops_within_the_requests_in_flight() -> None:
    """At most max(3, concurrency) requests were refused, and no row is blamed."""
    story = drive(1000, lambda row, n, now: (0.1, fatal() if row >= 300 else ok()), concurrency=8)

    assert story.stop is not None and (story.stop.exit_code, story.stop.exit_reason) == (5, "auth")
    assert story.statuses == {"ok": 300, "pending": 700}
    assert len(story.sends) <= 308


def test_max_failures_stops_soon() -> None:
    """Once more rows than that failed, durably, nothing more is sent."""
    bad = partial(Reply, Answer.PERMANENT, error_type="bad_request", http_status=400)
    story = drive(5000, lambda row, n, now: (0.05, bad()), max_failures=20.0)

    assert story.stop is not None and story.stop.exit_reason == "max_failures"
    assert 21 <= story.statuses["failed"] <= 21 + 16 + 20


def test_a_journal_that_is_lost_ends_the_run_at_once() -> None:
    """No answer could be kept, so nothing more is sent, and what is in flight is not waited for."""

    def lose(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_at(1.0, engine.on_error, OSError(28, "No space left on device"))

    story = drive(5000, lambda row, n, now: (0.5, ok()), then=lose)

    assert story.stop is not None and (story.stop.exit_code, story.stop.exit_reason) == (4, "disk_full")
    assert story.ended_s < 1.01


def test_a_fault_of_ours_in_the_journal_is_told_as_one() -> None:
    """It is no full disk: exit 1."""

    def lose(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_at(1.0, engine.on_error, InternalError("oops"))

    story = drive(5000, lambda row, n, now: (0.5, ok()), then=lose)

    assert story.stop is not None and (story.stop.exit_code, story.stop.exit_reason) == (1, "internal")


def test_a_fault_of_ours_in_one_row_harms_no_other() -> None:
    """The row ends failed / internal, with what and where but no values."""

    def answer(row: int, n: int, now: float) -> tuple[float, Reply]:
        if row == 3:
            raise ValueError("the prompt's own words")
        return 0.05, ok()

    story = drive(10, answer)

    assert story.statuses == {"ok": 9, "failed": 1}
    message = story.writer.results[3].error_message or ""
    assert "ValueError (" in message
    assert "own words" not in message


def test_a_stop_before_the_run_sends_nothing() -> None:
    """Ctrl-C while the run was still prepared."""
    story = drive(10, lambda row, n, now: (0.05, ok()), then=lambda engine, loop: engine.stop(STOPPED, 0.0))

    assert (story.stop, story.statuses, story.sends) == (STOPPED, {"pending": 10}, [])


def test_a_second_stop_never_lengthens_the_grace() -> None:
    """Requests that hang end with the first stop's grace, although a fatal answer stops the run again later."""

    def stops(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_at(1.0, engine.stop, STOPPED)

    story = drive(
        100, lambda row, n, now: (4.0, fatal()) if row == 0 else (900.0, ok()), then=stops, grace_s=5.0
    )

    assert story.stop is not None and story.stop.exit_code == 5
    assert 5.9 < story.ended_s < 6.1


# -- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [(4, 130, 130), (130, 4, 130), (143, 5, 5), (5, 130, 5), (2, 5, 2), (4, 1, 1), (130, 143, 130)],
)
def test_the_weightiest_reason_is_told(old: int, new: int, told: int) -> None:
    """1, 6, 2, 5, 130, 143, 4: the order of the design."""
    assert weightier(StopReason(old, "", ""), StopReason(new, "", "")).exit_code == told


def test_of_equal_reasons_the_first_stays() -> None:
    """A time limit that came before max_failures is what stopped the run."""
    first = StopReason(4, "time_limit", "")

    assert weightier(first, StopReason(4, "max_failures", "")) is first
    assert weightier(None, first) is first


def test_giving_up_counts_from_the_first_failure_after_a_success() -> None:
    """Successes reset it; before the first answer of any kind the limit is 15 s."""
    rule = GiveUp(600.0)
    assert rule.due() is None
    rule.on_reply(outage(), 10.0)
    assert rule.due() == 25.0
    rule.on_reply(error(), 12.0)
    assert rule.due() == 610.0
    rule.on_reply(ok(), 20.0)
    assert rule.due() is None
    rule.on_reply(refusal(1000.0), 30.0)
    assert rule.due() == 30.0 + 1000.0 + 60.0


def test_the_backlog_puts_refused_rows_first_and_failed_ones_last() -> None:
    """Also among those that are armed already."""
    from tests.engine_kit import Work
    from websim_batch.records import Request

    a, b, c, d = (Work(row, Request("chat", "m"), None) for row in range(4))
    backlog = Backlog()
    backlog.append(a)
    backlog.append(b)
    backlog.put_later(c, 5.0)
    first = backlog.start_arming()
    backlog.finish_arming(first)
    backlog.put_first(d)
    backlog.finish_arming(backlog.start_arming())

    assert [backlog.pop_armed(), backlog.pop_armed()] == [d, a]
    assert (backlog.next_due(), backlog.waiting) == (5.0, 1)
    backlog.move_due(5.0)
    assert [backlog.start_arming(), backlog.start_arming()] == [b, c]
    assert backlog.take_unsent().sort(key=id) is None


def test_few_rows_are_armed_ahead_of_a_slow_pace() -> None:
    """At one request a minute a kill leaves one row perhaps sent, not 256."""
    lookahead = Lookahead()
    for minute in range(10):
        lookahead.on_send(60.0 * minute + 1)
    assert lookahead.rows == 1
    for _ in range(20):
        lookahead.on_starved()
    assert lookahead.rows == 256
