"""When a run ends before its rows do: rules that look at counts and at the time, and decide nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from websim_batch.errors import DiskFullError, InternalError, WebsimBatchError
from websim_batch.records import Answer, Reply, StopReason

UNANSWERED_S = 15.0
"""A run whose endpoint never answered at all gives up after this."""

ASKED_WAIT_MOST_S = 3600.0
"""Waiting that the server asked for (Retry-After) is no failure, up to this long."""

_PROBE_S = 60.0


@dataclass(slots=True)
class GiveUp:
    """Says when a run without success gives up. The clock starts at the first failure after the last success.

    So neither a slow endpoint nor a ceiling of one request an hour counts as a failure. A wait that the server asked
    for is waited out, and one probe is allowed after it. All times are seconds of one clock.
    """

    limit_s: float
    failing_since: float | None = None
    asked_until: float = 0.0
    was_answered: bool = False
    last_message: str = field(default="no answer", repr=False)

    def on_reply(self, reply: Reply, now: float) -> None:
        """Note an answer, or that none came."""
        self.was_answered = self.was_answered or reply.http_status is not None
        if reply.answer is Answer.OK:
            self.failing_since = None
            return
        if self.failing_since is None:
            self.failing_since = now
        self.last_message = reply.message or self.last_message
        if reply.retry_after_s:
            self.asked_until = max(self.asked_until, now + reply.retry_after_s)

    def due(self) -> float | None:
        """When the run gives up if no success comes before; None while nothing fails."""
        if self.failing_since is None:
            return None
        limit_s = self.limit_s if self.was_answered else min(self.limit_s, UNANSWERED_S)
        asked = min(self.asked_until + _PROBE_S, self.failing_since + ASKED_WAIT_MOST_S + limit_s)
        return max(self.failing_since + limit_s, asked if self.asked_until else 0.0)

    def reason(self, now: float) -> StopReason:
        """The sentence for the user."""
        waited_s = now - (self.failing_since or now)
        never = "" if self.was_answered else " and nothing was ever answered"
        return StopReason(
            4,
            "no_success",
            f"no success for {waited_s:.0f} s{never} (last: {self.last_message}); the same command continues",
        )


def stopped_by(exc: WebsimBatchError) -> StopReason:
    """What an error in the middle of a run amounts to, as an input that changed while it was read."""
    if isinstance(exc, DiskFullError):
        return StopReason(4, "disk_full", f"{exc}; the same command continues")
    if exc.exit_code == 1:
        return StopReason(1, "internal", f"a fault of websim-batch itself: {exc}; what finished is kept")
    return StopReason(exc.exit_code, "input", f"{exc}; what finished is kept")


def journal_lost(exc: BaseException) -> StopReason:
    """The journal can no longer be written: by the disk, by another program, or by a fault of ours."""
    if isinstance(exc, InternalError):
        return stopped_by(exc)
    message = f"the journal cannot be written: {exc}; mend that, then the same command continues"
    return StopReason(4, "disk_full", message)


_WEIGHTS = (1, 6, 2, 5, 130, 143, 4)
"""Exit codes of stops, the one that is told before all others first."""


def weightier(old: StopReason | None, new: StopReason) -> StopReason:
    """The reason to tell where both hold; of equal ones the first."""
    if old is None or _WEIGHTS.index(new.exit_code) < _WEIGHTS.index(old.exit_code):
        return new
    return old


def too_many_failures(failures: int, most: float | None) -> StopReason | None:
    """Say that more rows of this run failed than `--max-failures` allows."""
    if most is None or failures <= most:
        return None
    return StopReason(
        4,
        "max_failures",
        f"{failures} rows failed, more than --max-failures allows; the same command continues with the rest",
    )
