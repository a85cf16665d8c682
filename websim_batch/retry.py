"""What happens to a row after an attempt: a pure decision, without a clock, a sleep, or any I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from websim_batch.records import Answer, Reply, Status, StopReason

Cause: TypeAlias = Literal["rate_limit", "transient", "outage", "invalid"]
Place: TypeAlias = Literal["front", "back"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a row is.

    Backoff is full jitter, U(0, min(`backoff_max_s`, `backoff_initial_s`·2^n)): the first wait is between 0
    and 1 s, the second between 0 and 2 s. After a timeout, which was a long pause already, it does not grow:
    U(0, `backoff_after_timeout_s`), so that a row without an answer ends within timeout · attempts + 5 s.
    """

    max_attempts: int = 5
    backoff_initial_s: float = 1.0
    backoff_max_s: float = 60.0
    backoff_after_timeout_s: float = 0.5
    max_invalid: int = 2
    max_refusals_alone: int = 8
    max_probes_in_front: int = 2
    longest_wait_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class RowHistory:
    """What was seen of one row so far.

    `attempts` are those charged. `refusals` are those that were its own: some other request was accepted since the
    row's refusal before; `accepted_then` is how many of the run had been accepted at the last one.
    """

    attempts: int = 0
    invalid: int = 0
    refusals: int = 0
    accepted_then: int = -1
    probes_refused: int = 0


OFTEN_REFUSED = 2
"""So many refusals of its own make a row look like the only one that is refused."""

FRESH = RowHistory()
"""The history of a row that was never sent."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a decision must know of the run, at the moment of the reply.

    `ok_rows`: rows that ended `ok`. `accepted`: requests answered with anything but a refusal or an error.
    `suspects_in_a_row`: answers 403 or 404 since the last other answer, this one included. `deadline_in_s`:
    seconds to the end of the run's time, None without one. `random`: from [0, 1), for the jitter.
    `is_probe`: this request was the one that tested a closed gate. `only_refused_left`: every row that is left was
    refused `OFTEN_REFUSED` times or more.
    """

    ok_rows: int = 0
    accepted: int = 0
    suspects_in_a_row: int = 0
    concurrency: int = 16
    deadline_in_s: float | None = None
    random: float = 0.5
    is_probe: bool = False
    only_refused_left: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """The row has its outcome."""

    status: Status
    error_type: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Send the row once more after `delay_s`, or later if the gate is closed; `history` is its new one."""

    delay_s: float
    kind: Cause
    where: Place
    history: RowHistory


@dataclass(frozen=True, slots=True)
class Stop:
    """The run ends; the row is left `status` (unfinished)."""

    reason: StopReason
    status: Status = "pending"


Verdict: TypeAlias = Finish | Again | Stop

SUCCESS = Finish("ok")
"""What every usable answer leads to."""


def decide(policy: RetryPolicy, history: RowHistory, reply: Reply, run: RunFacts) -> Verdict:
    """Say what happens to the row next. `history` is the row's before this reply."""
    answer = reply.answer
    if answer is Answer.OK:
        return SUCCESS
    if answer is Answer.REFUSAL:
        return _after_refusal(policy, history, reply, run)
    if answer is Answer.TRANSIENT:
        return _after_error(policy, history, reply, run)
    if answer is Answer.INVALID:
        return _after_invalid(policy, history, reply, run)
    if answer is Answer.OUTAGE:
        return Again(0.0, "outage", "front", history)
    if answer is Answer.SUSPECT and not _is_everywhere(run):
        return Finish("failed", reply.error_type, reply.message)
    if answer is Answer.SUSPECT or answer is Answer.FATAL:
        return Stop(_endpoint_refuses(reply))
    if answer is Answer.DECLINED:
        return Finish("refused", reply.error_type, reply.message)
    return Finish("failed", reply.error_type, reply.message)


def is_charged(reply: Reply) -> bool:
    """Does the reply use up an attempt? Only once bytes were sent; a rate limit or an outage never does."""
    return reply.delivery != "not_sent" and reply.answer not in (Answer.REFUSAL, Answer.OUTAGE)


def backoff_s(policy: RetryPolicy, failures: int, random: float) -> float:
    """Full jitter: U(0, 1) s after the first of the `failures`, U(0, 2) s after the second, at most 60 s."""
    longest = policy.backoff_initial_s * 2.0 ** min(max(failures - 1, 0), 60)
    return random * min(policy.backoff_max_s, longest)


def _after_refusal(policy: RetryPolicy, history: RowHistory, reply: Reply, run: RunFacts) -> Verdict:
    """The gate waits for everyone; only a row that alone is refused, while others are accepted, ends so."""
    if _is_put_off(policy, reply, run):
        return Stop(_deferred(reply, run), "deferred")
    # Once the others are done, nothing can be accepted in between any more; then each refusal counts.
    is_own = run.accepted > history.accepted_then
    is_own = is_own or (run.only_refused_left and history.refusals >= OFTEN_REFUSED)
    history = replace(
        history,
        refusals=history.refusals + is_own,
        accepted_then=run.accepted,
        probes_refused=history.probes_refused + run.is_probe,
    )
    if history.refusals >= policy.max_refusals_alone:
        times = f"refused {history.refusals} times while other rows were accepted"
        return Finish("failed", "rate_limit", f"{times}: {reply.message or 'rate limit'}")
    # As a probe it holds all others; and a probe's place may be taken by a row that was armed before it.
    is_alone = history.refusals >= OFTEN_REFUSED or history.probes_refused >= policy.max_probes_in_front
    where: Place = "back" if is_alone else "front"
    return Again(0.0, "rate_limit", where, history)


def _after_error(policy: RetryPolicy, history: RowHistory, reply: Reply, run: RunFacts) -> Verdict:
    if _is_put_off(policy, reply, run):
        return Stop(_deferred(reply, run), "deferred")
    charged = replace(history, attempts=history.attempts + is_charged(reply))
    if charged.attempts >= policy.max_attempts:
        return Finish("failed", reply.error_type, reply.message)
    return Again(_delay_s(policy, charged, reply, run), "transient", "back", charged)


def _after_invalid(policy: RetryPolicy, history: RowHistory, reply: Reply, run: RunFacts) -> Verdict:
    history = replace(history, attempts=history.attempts + 1, invalid=history.invalid + 1)
    if history.invalid >= policy.max_invalid or history.attempts >= policy.max_attempts:
        return Finish("invalid", reply.error_type, reply.message)
    return Again(_delay_s(policy, history, reply, run), "invalid", "back", history)


def _delay_s(policy: RetryPolicy, history: RowHistory, reply: Reply, run: RunFacts) -> float:
    """The backoff; the server's own wait is a floor."""
    if reply.error_type == "timeout":
        return run.random * policy.backoff_after_timeout_s
    return max(backoff_s(policy, history.attempts, run.random), reply.retry_after_s or 0.0)


def _is_put_off(policy: RetryPolicy, reply: Reply, run: RunFacts) -> bool:
    longest = policy.longest_wait_s if run.deadline_in_s is None else run.deadline_in_s
    return reply.retry_after_s is not None and reply.retry_after_s > longest


def _is_everywhere(run: RunFacts) -> bool:
    """403 and 404 speak of the endpoint, not of the row: nothing succeeded yet, or so many in a row."""
    return run.ok_rows == 0 or run.suspects_in_a_row >= max(3, run.concurrency)


def _deferred(reply: Reply, run: RunFacts) -> StopReason:
    wait = f"the server puts requests off by {reply.retry_after_s:.0f} s (Retry-After)"
    left_s = run.deadline_in_s
    bound = "more than an hour" if left_s is None else f"the run's time ends in {max(left_s, 0.0):.0f} s"
    return StopReason(4, "deferred", f"{wait}, {bound}; give the same command again later")


_REMEDIES = {
    "auth": "check the key, given by --header-env",
    "quota": "check the account's quota, then give the same command again",
    "not_found": "check --base-url and --model",
    "permission": "check the key's permissions, --base-url and --model",
}


def _endpoint_refuses(reply: Reply) -> StopReason:
    error_type = reply.error_type or "auth"
    remedy = _REMEDIES.get(error_type)
    status = "" if reply.http_status is None else f" (HTTP {reply.http_status})"
    said = f"the endpoint refuses everything{status}: {reply.message or error_type}"
    return StopReason(5, error_type, f"{said}; {remedy}" if remedy else said)
