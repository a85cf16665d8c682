"""retry.decide as tables of numbers."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from websim_batch import retry
from websim_batch.records import Answer, Delivery, Reply
from websim_batch.retry import FRESH, Again, Finish, RetryPolicy, RowHistory, RunFacts, Stop, Verdict, decide

POLICY = RetryPolicy()
GOING_WELL = RunFacts(ok_rows=10, accepted=10, random=0.5)


def reply(
    answer: Answer, error_type: str = "server", delivery: Delivery = "answered", **fields: float
) -> Reply:
    """A reply of that class."""
    return Reply(answer, error_type=error_type, message="boom", http_status=500, delivery=delivery, **fields)  # type: ignore[arg-type]


REFUSED = reply(Answer.REFUSAL, "rate_limit")
BROKEN = reply(Answer.TRANSIENT)
INVALID = reply(Answer.INVALID, "bad_response")


def after(replies: list[tuple[Reply, RunFacts]], policy: RetryPolicy = POLICY) -> list[Verdict]:
    """The verdicts on a row that gets these replies one after the other, until one is final."""
    history, verdicts = FRESH, list[Verdict]()
    for each, run in replies:
        verdict = decide(policy, history, each, run)
        verdicts.append(verdict)
        if not isinstance(verdict, Again):
            break
        history = verdict.history
    return verdicts


@pytest.mark.parametrize(
    ("answer", "error_type", "expected"),
    [
        (Answer.OK, "", Finish("ok")),
        (Answer.PERMANENT, "bad_request", Finish("failed", "bad_request", "boom")),
        (Answer.PERMANENT, "context_length", Finish("failed", "context_length", "boom")),
        (Answer.DECLINED, "content_policy", Finish("refused", "content_policy", "boom")),
        (Answer.SUSPECT, "permission", Finish("failed", "permission", "boom")),
        (Answer.SUSPECT, "not_found", Finish("failed", "not_found", "boom")),
    ],
)
def test_final_answers_end_the_row(answer: Answer, error_type: str, expected: Finish) -> None:
    """A usable answer, a permanent refusal, a declined content: one attempt is all."""
    assert decide(POLICY, FRESH, reply(answer, error_type), GOING_WELL) == expected


@pytest.mark.parametrize("max_attempts", [1, 2, 3, 5])
def test_max_attempts_is_the_number_of_sends(max_attempts: int) -> None:
    """`--max-attempts 3` against a server of 500s means three sends, then `failed`."""
    verdicts = after([(BROKEN, GOING_WELL)] * 20, RetryPolicy(max_attempts=max_attempts))

    assert len(verdicts) == max_attempts
    assert verdicts[-1] == Finish("failed", "server", "boom")


def test_attempts_count_while_nothing_ever_succeeded() -> None:
    """A server that answers 500 from the first request on ends its rows `failed`, probe or not."""
    verdicts = after([(BROKEN, RunFacts(is_probe=True))] * 20)

    assert len(verdicts) == POLICY.max_attempts


@pytest.mark.parametrize("error_type", ["server", "timeout", "connection"])
def test_the_last_error_names_the_failure(error_type: str) -> None:
    """The row ends with the error type of its last attempt."""
    verdicts = after([(BROKEN, GOING_WELL)] * 4 + [(reply(Answer.TRANSIENT, error_type), GOING_WELL)])

    assert verdicts[-1] == Finish("failed", error_type, "boom")


def test_what_was_never_sent_uses_no_attempt() -> None:
    """A connection that broke before a byte was sent is tried again without end."""
    verdicts = after([(reply(Answer.TRANSIENT, "connection", "not_sent"), GOING_WELL)] * 50)

    assert len(verdicts) == 50


def test_an_outage_uses_no_attempt_and_keeps_its_place() -> None:
    """No connection: the row waits at the gate, at the front."""
    verdict = decide(POLICY, FRESH, reply(Answer.OUTAGE, "connection", "not_sent"), GOING_WELL)

    assert verdict == Again(0.0, "outage", "front", FRESH)


@pytest.mark.parametrize(
    ("failures", "longest_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (7, 60.0), (1000, 60.0)]
)
def test_backoff_is_full_jitter(failures: int, longest_s: float) -> None:
    """U(0, min(60, 2^n)) seconds: from nothing up to the whole."""
    assert retry.backoff_s(POLICY, failures, 0.0) == 0.0
    assert retry.backoff_s(POLICY, failures, 0.25) == 0.25 * longest_s
    assert retry.backoff_s(POLICY, failures, 1.0) == longest_s


def test_a_failed_row_goes_to_the_back_after_its_backoff() -> None:
    """It holds up nobody."""
    first, second = after([(BROKEN, GOING_WELL)] * 2)

    assert first == Again(0.5, "transient", "back", RowHistory(attempts=1))
    assert second == Again(1.0, "transient", "back", RowHistory(attempts=2))


def test_the_wait_after_a_timeout_does_not_grow() -> None:
    """A row that is never answered ends within timeout * attempts + 5 s, since each timeout was a pause."""
    run = replace(GOING_WELL, random=0.999)
    verdicts = after([(reply(Answer.TRANSIENT, "timeout", "unknown"), run)] * 9, RetryPolicy(max_attempts=9))

    waits = [verdict.delay_s for verdict in verdicts if isinstance(verdict, Again)]

    assert len(waits) == 8
    assert sum(waits) < 5.0
    assert max(waits) < 0.5


def test_retry_after_is_a_floor_of_the_backoff() -> None:
    """The server's own wait is never shortened."""
    verdict = decide(POLICY, FRESH, reply(Answer.TRANSIENT, retry_after_s=7.0), GOING_WELL)

    assert isinstance(verdict, Again)
    assert verdict.delay_s == 7.0


def test_an_invalid_answer_is_tried_once_more() -> None:
    """Two 200s that are no answer end the row `invalid`."""
    verdicts = after([(INVALID, GOING_WELL)] * 9)

    assert len(verdicts) == 2
    assert isinstance(verdicts[0], Again)
    assert (verdicts[0].kind, verdicts[0].where) == ("invalid", "back")
    assert verdicts[1] == Finish("invalid", "bad_response", "boom")


def test_an_invalid_answer_uses_an_attempt() -> None:
    """Sends never exceed `--max-attempts`, whatever the mixture."""
    assert after([(INVALID, GOING_WELL)], RetryPolicy(max_attempts=1)) == [
        Finish("invalid", "bad_response", "boom")
    ]
    verdicts = after([(INVALID, GOING_WELL)] + [(BROKEN, GOING_WELL)] * 9)
    assert len(verdicts) == POLICY.max_attempts


def test_a_refusal_uses_no_attempt_and_keeps_the_front() -> None:
    """A rate limit says something about everyone; the row waits at the gate."""
    verdict = decide(POLICY, RowHistory(attempts=4), REFUSED, GOING_WELL)

    assert isinstance(verdict, Again)
    assert (verdict.delay_s, verdict.kind, verdict.where) == (0.0, "rate_limit", "front")
    assert verdict.history.attempts == 4


def test_a_row_refused_as_a_probe_twice_goes_to_the_back() -> None:
    """It must not hold the others."""
    probe = replace(GOING_WELL, is_probe=True)

    verdicts = after([(REFUSED, GOING_WELL), (REFUSED, probe), (REFUSED, probe), (REFUSED, GOING_WELL)])

    assert [v.where for v in verdicts if isinstance(v, Again)] == ["front", "front", "back", "back"]


def test_a_row_refused_twice_while_others_are_accepted_goes_to_the_back() -> None:
    """Probe or not: in front it would close the gate for the others again and again."""
    verdicts = after([(REFUSED, replace(GOING_WELL, accepted=10 + i)) for i in range(3)])

    assert [v.where for v in verdicts if isinstance(v, Again)] == ["front", "back", "back"]


def test_a_row_that_alone_is_refused_fails_at_the_eighth_time() -> None:
    """Others are accepted in between, so the limit is the row's own."""
    verdicts = after([(REFUSED, replace(GOING_WELL, accepted=10 + i)) for i in range(20)])

    assert len(verdicts) == 8
    assert verdicts[-1] == Finish(
        "failed", "rate_limit", "refused 8 times while other rows were accepted: boom"
    )


def test_a_row_is_not_blamed_while_everyone_is_refused() -> None:
    """No row fails by 429 unless it alone is refused."""
    verdicts = after([(REFUSED, GOING_WELL)] * 100)

    assert len(verdicts) == 100
    assert all(isinstance(verdict, Again) for verdict in verdicts)


def test_only_refusals_with_an_acceptance_before_them_are_the_rows_own() -> None:
    """Refused over and over while everyone is: nobody's fault; a refusal counts once others got through again."""
    waits = [(REFUSED, replace(GOING_WELL, accepted=10 + i // 5)) for i in range(100)]

    verdicts = after(waits)

    assert len(verdicts) == 7 * 5 + 1
    assert isinstance(verdicts[-1], Finish)


@pytest.mark.parametrize(
    ("ok_rows", "in_a_row", "concurrency", "stops"),
    [
        (0, 1, 16, True),  # nothing succeeded yet
        (1, 1, 16, False),
        (1, 15, 16, False),
        (1, 16, 16, True),
        (9, 2, 1, False),
        (9, 3, 1, True),  # at least three
        (9, 3, 2, True),
    ],
)
@pytest.mark.parametrize("error_type", ["permission", "not_found"])
def test_403_and_404_stop_the_run_only_if_they_look_general(
    ok_rows: int, in_a_row: int, concurrency: int, stops: bool, error_type: str
) -> None:
    """Fatal if no row succeeded yet, or `max(3, concurrency)` in a row; else only the row fails."""
    run = RunFacts(ok_rows=ok_rows, suspects_in_a_row=in_a_row, concurrency=concurrency)

    verdict = decide(POLICY, FRESH, reply(Answer.SUSPECT, error_type), run)

    assert isinstance(verdict, Stop) == stops
    if isinstance(verdict, Stop):
        assert (verdict.reason.exit_code, verdict.reason.exit_reason) == (5, error_type)


@pytest.mark.parametrize("error_type", ["auth", "quota", "redirect"])
def test_a_fatal_answer_stops_the_run(error_type: str) -> None:
    """Exit 5, the row stays pending, the message holds what the service said."""
    verdict = decide(POLICY, FRESH, reply(Answer.FATAL, error_type), GOING_WELL)

    assert isinstance(verdict, Stop)
    assert verdict.status == "pending"
    assert (verdict.reason.exit_code, verdict.reason.exit_reason) == (5, error_type)
    assert "boom" in verdict.reason.message


@pytest.mark.parametrize(
    ("retry_after_s", "deadline_in_s", "stops"),
    [
        (3600.0, None, False),
        (3600.1, None, True),
        (86_400.0, None, True),
        (10.0, 20.0, False),
        (20.1, 20.0, True),
        (7000.0, 8000.0, False),  # with a deadline only that counts
        (None, 0.0, False),
    ],
)
@pytest.mark.parametrize("answer", [Answer.REFUSAL, Answer.TRANSIENT])
def test_a_wait_beyond_the_deadline_or_an_hour_stops_the_run(
    retry_after_s: float | None, deadline_in_s: float | None, stops: bool, answer: Answer
) -> None:
    """The row is `deferred`, the run ends resumable."""
    run = replace(GOING_WELL, deadline_in_s=deadline_in_s)
    refused = Reply(answer, retry_after_s=retry_after_s)

    verdict = decide(POLICY, FRESH, refused, run)

    assert isinstance(verdict, Stop) == stops
    if isinstance(verdict, Stop):
        assert (verdict.status, verdict.reason.exit_code, verdict.reason.exit_reason) == (
            "deferred",
            4,
            "deferred",
        )


def test_a_probes_error_is_an_attempt_like_any_other() -> None:
    """`--max-attempts` is how often the server sees a row, whoever was chosen to test a closed gate."""
    probe = replace(GOING_WELL, is_probe=True)

    verdicts = after([(BROKEN, probe)] * 100)

    assert len(verdicts) == POLICY.max_attempts


def test_the_decision_is_pure() -> None:
    """No clock, no sleep, no I/O, no randomness of its own in retry.py."""
    tree = ast.parse(Path(retry.__file__).read_text())
    imported = {
        name
        for node in ast.walk(tree)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
        + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
    }

    assert imported == {"__future__", "dataclasses", "typing", "websim_batch.records"}


def test_when_only_refused_rows_are_left_each_refusal_counts() -> None:
    """Nothing can be accepted in between any more, so the last rows end by their own count."""
    left = replace(GOING_WELL, accepted=30, only_refused_left=True)

    twice = [(REFUSED, replace(GOING_WELL, accepted=10 + i)) for i in range(retry.OFTEN_REFUSED)]
    verdicts = after(twice + [(REFUSED, left)] * 20)

    assert len(verdicts) == 8
    assert isinstance(verdicts[-1], Finish)
