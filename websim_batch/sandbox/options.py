"""The options of `websim-batch sandbox`, checked when they are made; loads fast."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from websim_batch.errors import UsageError

if TYPE_CHECKING:
    from websim_batch.sandbox.limiters import Limiter

POLICIES = ("token-bucket", "fixed-window", "sliding-window", "gcra", "concurrency")
RETRY_AFTER_FORMS = ("none", "seconds", "date")

_UNITS_S = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """What the stand-in server does; every field is one option of the command, shares are between 0 and 1.

    `capacity` is the option's text (`10/s`, `500/min`; a bare number for the policy `concurrency`), None for
    no limit. Raises UsageError with the remedy for values that cannot be, or that contradict each other.
    """

    port: int = 8765
    capacity: str | None = None
    policy: str = "token-bucket"
    burst: int | None = None
    window_s: float | None = None
    retry_after: str = "none"
    latency_ms: float = 0.0
    latency_p99_ms: float | None = None
    fail_share: float = 0.0
    drop_share: float = 0.0
    garbage_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= _MAX_PORT:
            raise UsageError(f"--port {self.port}: a port is between 0 (any free one) and {_MAX_PORT}")
        _one_of("--policy", self.policy, POLICIES)
        _one_of("--retry-after", self.retry_after, RETRY_AFTER_FORMS)
        self._check_latency()
        self._check_shares()
        self._check_limit()

    def _check_latency(self) -> None:
        if not 0 <= self.latency_ms < math.inf:
            raise UsageError(f"--latency-ms {self.latency_ms:g}: give a number of milliseconds, 0 or more")
        p99 = self.latency_p99_ms
        if p99 is None:
            return
        if self.latency_ms <= 0:
            raise UsageError("--latency-p99-ms needs the median beside it: give --latency-ms as well")
        if not self.latency_ms <= p99 < math.inf:
            raise UsageError(
                f"--latency-p99-ms {p99:g} is less than the median --latency-ms {self.latency_ms:g}: "
                f"use {self.latency_ms:g} or more"
            )

    def _check_shares(self) -> None:
        shares = {"--fail": self.fail_share, "--drop": self.drop_share, "--garbage": self.garbage_share}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise UsageError(f"{name} {share:g}: a share is between 0 and 1")
        if sum(shares.values()) > 1 + 1e-9:
            raise UsageError(
                "--fail, --drop and --garbage are more than 1 together: make their sum 1 or less"
            )

    def _check_limit(self) -> None:
        if self.burst is not None and self.burst < 1:
            raise UsageError(f"--burst {self.burst}: give 1 or more")
        if self.window_s is not None and not 0 < self.window_s < math.inf:
            raise UsageError(f"--window {self.window_s:g}: give a number of seconds above 0")
        if self.burst is not None and self.policy not in ("token-bucket", "gcra"):
            raise UsageError(
                f"--burst means nothing to --policy {self.policy}: leave it out, or use token-bucket or gcra"
            )
        if self.window_s is not None and not self.policy.endswith("-window"):
            raise UsageError(
                f"--window means nothing to --policy {self.policy}: "
                "leave it out, or use fixed-window or sliding-window"
            )
        if self.capacity is not None:
            parse_capacity(self.capacity, self.policy)

    def limiter(self) -> Limiter:
        """A new limiter of this policy and capacity; one that takes everything without `capacity`."""
        from websim_batch.sandbox import limiters

        if self.capacity is None:
            return limiters.Unlimited()
        number, unit_s = parse_capacity(self.capacity, self.policy)
        rate_per_s = number / unit_s
        if self.policy == "concurrency":
            return limiters.Concurrency(int(number))
        if self.policy == "token-bucket":
            return limiters.TokenBucket(rate_per_s, self.burst or max(1, math.floor(rate_per_s)))
        if self.policy == "gcra":
            return limiters.Gcra(rate_per_s, self.burst or 1)
        window_s = self.window_s or unit_s
        limit = max(1, round(rate_per_s * window_s))
        if self.policy == "fixed-window":
            return limiters.FixedWindow(limit, window_s)
        return limiters.SlidingWindow(limit, window_s)

    def to_json(self) -> str:
        """The options as one line, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SandboxOptions:
        """The options that `to_json` wrote."""
        return cls(**json.loads(text))


def parse_capacity(text: str, policy: str = "token-bucket") -> tuple[float, float]:
    """`10/s`, `500/min`, `0.5/s` as (number, seconds of the unit). Raises UsageError, which says how to write
    it.

    The policy `concurrency` counts requests at once, so it takes a bare number too and looks at no unit.
    """
    number_text, slash, unit = text.strip().partition("/")
    wrong = UsageError(f"--capacity {text}: write it as 10/s, 500/min or 1000/h")
    try:
        number = float(number_text)
    except ValueError:
        raise wrong from None
    if not 0 < number < math.inf:
        raise wrong
    if policy == "concurrency":
        if number != int(number):
            raise UsageError(f"--capacity {text}: --policy concurrency wants a whole number, as 16")
        return number, 1.0
    if not slash or unit.strip() not in _UNITS_S:
        raise wrong
    return number, _UNITS_S[unit.strip()]


def parse_share(text: str) -> float:
    """`0.05` or `5%` as 0.05. Raises UsageError for anything else; the range is checked with the options."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(
            f"{text}: a share is a number from 0 to 1, as 0.05, or a percentage, as 5%"
        ) from None


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{option} {value}: choose one of {', '.join(choices)}")
