"""What passes between the throttle and those who use it: grants out, signals in, a state to tell the user."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

from websim_batch.records import RateHint

SignalKind = Literal["accepted", "refused", "error", "outage"]


class Signal(NamedTuple):
    """What a grant's request met.

    `accepted`: the server let it in (any answer that is neither of the following). `refused`: a rate limit.
    `error`: a transient failure (5xx, timeout, reset). `outage`: no connection could be made.
    `retry_after_s` counts from now. `is_fresh_row` is False for a row that failed before: its error says
    nothing about the server. `latency_s` is from sending to the last byte.
    """

    kind: SignalKind
    retry_after_s: float | None = None
    rate_hint: RateHint | None = None
    is_fresh_row: bool = True
    latency_s: float = 0.0


class Grant:
    """The right to send one request now; given back exactly once, by `settle` or `release`.

    `sent_at` is the loop's time of the grant, or of its leaving if it was held until its connection stood (`inf`
    until then, `was_held` from then on); `epoch` counts closures of the gate up to the grant; `level` is how many
    other requests were in flight; `throttled_s` is how long `acquire` waited.
    """

    __slots__ = ("epoch", "is_probe", "level", "sent_at", "throttled_s", "was_held")

    def __init__(self, sent_at: float, epoch: int, level: int, is_probe: bool = False) -> None:
        self.sent_at = sent_at
        self.epoch = epoch
        self.level = level
        self.is_probe = is_probe
        self.throttled_s = 0.0
        self.was_held = False

    @property
    def is_held(self) -> bool:
        """Whether its request waits for a connection; nothing of it was sent."""
        return self.sent_at == inf

    def __repr__(self) -> str:
        probe = " probe" if self.is_probe else ""
        return f"<Grant{probe} at {self.sent_at:.3f} epoch={self.epoch} level={self.level}>"


LimitedBy = Literal["your ceiling", "server limit", "concurrency", "waiting", "ramp", "nothing"]


@dataclass(frozen=True, slots=True)
class ThrottleState:
    """What holds the run's rate right now, for the bar, the log, `status` and the manifest.

    `rate_per_s` is the pace in use (None: not paced). `text` says `limited_by` with its numbers, in a few
    words. `wait_s` is the time until the gate may open again and `wait_reason` why it is closed, else None.
    `capacity_per_s` is the server's measured capacity, None while none was met. `closed_s` is the time spent
    closed.
    """

    rate_per_s: float | None
    limited_by: LimitedBy
    text: str
    wait_s: float | None
    wait_reason: str | None
    capacity_per_s: float | None
    refusals: int
    closed_s: float
    in_flight: int
    is_closed: bool
