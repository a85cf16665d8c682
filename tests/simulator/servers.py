"""Models of rate-limited servers: pure, seeded, no clock of their own; the simulator and the benchmark
share them.

A `Policy` says whether a request that arrives at `now` is let in. A `Server` is a policy with latencies
and mishaps. All times are seconds since the server's start; calls come in the order of time.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, log
from typing import Literal, NamedTuple, Protocol

from websim_batch.records import RateHint

Capacity = Callable[[float], float]


def constant(rate_per_s: float) -> Capacity:
    """A capacity that stays."""
    return lambda now: rate_per_s


def steps(*parts: tuple[float, float]) -> Capacity:
    """A capacity that changes: (from time, rate) in the order of time."""

    def capacity(now: float) -> float:
        return [rate for since, rate in parts if since <= now][-1]

    return capacity


class Policy(Protocol):
    """One rule of a server."""

    def admit(self, now: float, service_s: float) -> bool:
        """Whether a request arriving now, which would take `service_s`, is let in; counts it if so."""
        ...

    def wait_s(self, now: float) -> float:
        """How long from now until a request would be let in: the right Retry-After."""
        ...

    def capacity_per_s(self, now: float) -> float:
        """How many requests a second it lets in over a long time."""
        ...


class Unlimited:
    """Lets everything in; `reach_per_s` is what the client itself can do at best."""

    def __init__(self, reach_per_s: float = inf) -> None:
        self._reach_per_s = reach_per_s

    def admit(self, now: float, service_s: float) -> bool:
        return True

    def wait_s(self, now: float) -> float:
        return 0.0

    def capacity_per_s(self, now: float) -> float:
        return self._reach_per_s


class TokenBucket:
    """A store of `burst` permits, refilled evenly. GCRA of depth d is a bucket of burst d."""

    def __init__(self, rate: float | Capacity, burst: float) -> None:
        self.capacity_per_s: Capacity = rate if callable(rate) else constant(rate)
        self._burst = self._tokens = float(burst)
        self._last = 0.0

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._last) * self.capacity_per_s(now))
        self._last = now

    def admit(self, now: float, service_s: float) -> bool:
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def wait_s(self, now: float) -> float:
        self._refill(now)
        return max(0.0, 1 - self._tokens) / self.capacity_per_s(now)


class FixedWindow:
    """`limit` requests in each window of `window_s`; the first edge is `offset_s` after the start."""

    def __init__(self, limit: int, window_s: float, offset_s: float = 0.0) -> None:
        self._limit, self._window_s, self._offset_s = limit, window_s, offset_s
        self._window = -1
        self._used = 0

    def _index(self, now: float) -> int:
        return int((now - self._offset_s + self._window_s) // self._window_s)

    def admit(self, now: float, service_s: float) -> bool:
        if self._index(now) != self._window:
            self._window, self._used = self._index(now), 0
        if self._used >= self._limit:
            return False
        self._used += 1
        return True

    def wait_s(self, now: float) -> float:
        return (self._index(now)) * self._window_s + self._offset_s - now

    def remaining(self, now: float) -> int:
        return self._limit - self._used if self._index(now) == self._window else self._limit

    def capacity_per_s(self, now: float) -> float:
        return self._limit / self._window_s


class SlidingLog:
    """At most `limit` requests in any window of `window_s`, by an exact log."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit, self._window_s = limit, window_s
        self._times: deque[float] = deque()

    def admit(self, now: float, service_s: float) -> bool:
        while self._times and self._times[0] <= now - self._window_s:
            self._times.popleft()
        if len(self._times) >= self._limit:
            return False
        self._times.append(now)
        return True

    def wait_s(self, now: float) -> float:
        return self._times[0] + self._window_s - now if len(self._times) >= self._limit else 0.0

    def capacity_per_s(self, now: float) -> float:
        return self._limit / self._window_s


class SlidingCounter:
    """Two fixed windows weighed by overlap, as many gateways approximate a sliding one."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit, self._window_s = limit, window_s
        self._window, self._now_used, self._before_used = 0, 0, 0

    def admit(self, now: float, service_s: float) -> bool:
        window = int(now // self._window_s)
        if window != self._window:
            self._before_used = self._now_used if window == self._window + 1 else 0
            self._window, self._now_used = window, 0
        overlap = 1 - (now % self._window_s) / self._window_s
        if self._before_used * overlap + self._now_used + 1 > self._limit:
            return False
        self._now_used += 1
        return True

    def wait_s(self, now: float) -> float:
        return self._window_s - now % self._window_s

    def capacity_per_s(self, now: float) -> float:
        return self._limit / self._window_s


class ConcurrencyCap:
    """At most `limit` requests in service at once."""

    def __init__(self, limit: float | Capacity, mean_service_s: float) -> None:
        self.limit: Capacity = limit if callable(limit) else constant(limit)
        self._mean_service_s = mean_service_s
        self._ends: list[float] = []

    def admit(self, now: float, service_s: float) -> bool:
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        if len(self._ends) >= self.limit(now):
            return False
        heapq.heappush(self._ends, now + service_s)
        return True

    def wait_s(self, now: float) -> float:
        return max(0.0, self._ends[0] - now) if self._ends else 0.0

    def capacity_per_s(self, now: float) -> float:
        return self.limit(now) / self._mean_service_s


class Both:
    """Two rules at once."""

    def __init__(self, one: Policy, other: Policy) -> None:
        self._one, self._other = one, other

    def admit(self, now: float, service_s: float) -> bool:
        return self._one.admit(now, service_s) and self._other.admit(now, service_s)

    def wait_s(self, now: float) -> float:
        return max(self._one.wait_s(now), self._other.wait_s(now))

    def capacity_per_s(self, now: float) -> float:
        return min(self._one.capacity_per_s(now), self._other.capacity_per_s(now))


class Ban:
    """Another rule whose refusal bans everything for `ban_s`; each knock begins the ban anew."""

    def __init__(self, inner: Policy, ban_s: float) -> None:
        self._inner, self._ban_s = inner, ban_s
        self._until = -inf
        self.hits = 0

    def admit(self, now: float, service_s: float) -> bool:
        if now >= self._until and self._inner.admit(now, service_s):
            return True
        self._until = now + self._ban_s
        self.hits += 1
        return False

    def wait_s(self, now: float) -> float:
        return max(self._until - now, 0.0)

    def capacity_per_s(self, now: float) -> float:
        return self._inner.capacity_per_s(now)


class Hiccup:
    """Another rule, but requests number `first` to `last` are refused for no reason and told to wait `told_s`."""

    def __init__(self, inner: Policy, first: int, last: int, told_s: float) -> None:
        self._inner, self._first, self._last, self._told_s = inner, first, last, told_s
        self._number = 0

    def admit(self, now: float, service_s: float) -> bool:
        self._number += 1
        return not self._is_one() and self._inner.admit(now, service_s)

    def _is_one(self) -> bool:
        return self._first <= self._number <= self._last

    def wait_s(self, now: float) -> float:
        return self._told_s if self._is_one() else self._inner.wait_s(now)

    def capacity_per_s(self, now: float) -> float:
        return self._inner.capacity_per_s(now)


@dataclass(frozen=True)
class Latency:
    """Log-normal service times by median and 99th percentile; equal ones are constant."""

    p50_s: float
    p99_s: float

    @property
    def _sigma(self) -> float:
        return log(self.p99_s / self.p50_s) / 2.326

    @property
    def mean_s(self) -> float:
        return self.p50_s * float(2.718281828459045 ** (self._sigma**2 / 2))

    def draw(self, rng: random.Random) -> float:
        return self.p50_s * rng.lognormvariate(0.0, self._sigma)


LLM = Latency(2.0, 20.0)
FAST = Latency(0.02, 0.02)


class Answered(NamedTuple):
    """What the server does with one request: the answer's kind and when it leaves, in seconds after
    arrival."""

    kind: Literal["accepted", "refused", "error", "outage"]
    after_s: float
    retry_after_s: float | None = None
    rate_hint: RateHint | None = None


@dataclass
class Server:
    """A policy with latencies, mishaps and ways of telling.

    `retry_after` makes of the right wait what is told (None: nothing). `outage` is [from, to):
    connections fail at once (`outage_kind` outage) or end in 503 (error). `error_share` of what is let in
    fails. `refusal_s` is how long a refusal takes, a share of `late_refusals` takes 1 s; `network_s` is the
    most that the network adds each way. `handshake_s` is what a new connection takes; one that was free for
    `keepalive_s` is closed. `faster` is (from, latency): another latency from then on.
    """

    policy: Policy
    latency: Latency = FAST
    retry_after: Callable[[float], float | None] = lambda wait_s: None
    hint: Callable[[float], RateHint | None] = lambda now: None
    faster: tuple[float, Latency] = (inf, FAST)
    outage: tuple[float, float] = (inf, inf)
    outage_kind: Literal["outage", "error"] = "outage"
    error_share: float = 0.0
    refusal_s: float = 0.005
    late_refusals: float = 0.0
    network_s: float = 0.02
    handshake_s: float = 0.0
    keepalive_s: float = 4.0
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    served: int = 0
    served_s: float = 0.0

    def arrive(self, now: float) -> Answered:
        """What a request arriving now meets."""
        if self.outage[0] <= now < self.outage[1]:
            return Answered(self.outage_kind, self.refusal_s)
        service_s = (self.latency if now < self.faster[0] else self.faster[1]).draw(self.rng)
        if not self.policy.admit(now, service_s):
            told_s = self.retry_after(max(self.policy.wait_s(now), 0.0))
            after_s = 1.0 if self.rng.random() < self.late_refusals else self.refusal_s
            return Answered("refused", after_s, told_s, self.hint(now))
        self.served, self.served_s = self.served + 1, self.served_s + service_s
        kind: Literal["accepted", "error"] = "error" if self.rng.random() < self.error_share else "accepted"
        return Answered(kind, service_s, None, self.hint(now))

    def ideal_s(self, rows: int) -> float:
        """How long a client that knows all needs for `rows` rows; burst and tail of answers left out."""
        if isinstance(self.policy, ConcurrencyCap) and self.policy.limit(0) == self.policy.limit(inf):
            return self.served_s / self.policy.limit(0)
        now, done, step_s = 0.0, 0.0, 0.05
        while done < rows:
            is_out = self.outage[0] <= now < self.outage[1]
            rate = 0.0 if is_out else self.policy.capacity_per_s(now)
            if rate * step_s > rows - done:
                return now + (rows - done) / rate
            done += rate * step_s
            now += step_s
        return now
