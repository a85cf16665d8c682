"""What goes wrong with an attempt, and how long it takes: functions of (seed, request, attempt number) alone.

Nothing here depends on the order in which requests come, so two runs over the same rows meet the same faults.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from statistics import NormalDist
from typing import Literal, TypeAlias

from websim_batch.sandbox.options import SandboxOptions

Fault: TypeAlias = Literal["fail", "drop", "garbage"]

FAIL_STATUSES = (500, 502, 503, 504)
_NORMAL = NormalDist()
_Z99 = _NORMAL.inv_cdf(0.99)
_STEPS = 1 << 32


class Faults:
    """Draws for one server; cheap when nothing is to be drawn."""

    def __init__(self, options: SandboxOptions) -> None:
        fail = options.fail_share
        drop = fail + options.drop_share
        self._fail, self._drop, self._garbage = fail, drop, drop + options.garbage_share
        self._median_s = options.latency_ms / 1000
        p99 = options.latency_p99_ms
        self._sigma = math.log(p99 / options.latency_ms) / _Z99 if p99 else 0.0
        self._seed = str(options.seed).encode()

    def fault(self, request: bytes, attempt: int) -> Fault | None:
        """The fault of this attempt, or None; equal arguments give equal faults."""
        if self._garbage <= 0:
            return None
        share = self.share(b"fault", request, attempt)
        if share < self._fail:
            return "fail"
        if share < self._drop:
            return "drop"
        return "garbage" if share < self._garbage else None

    def latency_s(self, request: bytes, attempt: int) -> float:
        """Server seconds until the answer: log-normal through the median and the 99th percentile."""
        if not self._sigma:
            return self._median_s
        share = self.share(b"latency", request, attempt)
        return self._median_s * math.exp(self._sigma * _NORMAL.inv_cdf(share))

    def pick(self, choices: int, request: bytes, attempt: int) -> int:
        """Which of so many kinds of the drawn fault it is."""
        return int(self.share(b"pick", request, attempt) * choices)

    def share(self, purpose: bytes, request: bytes, attempt: int) -> float:
        """A number evenly spread over (0, 1)."""
        text = b"%s:%s:%d:" % (self._seed, purpose, attempt)
        digest = blake2b(text + request, digest_size=4).digest()
        return (int.from_bytes(digest, "big") + 0.5) / _STEPS
