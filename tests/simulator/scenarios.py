"""The servers that the controller is tried on: named ones with the bounds they must hold, and random ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf

from simulator.servers import (
    FAST,
    LLM,
    Ban,
    Both,
    ConcurrencyCap,
    FixedWindow,
    Hiccup,
    Latency,
    Policy,
    Server,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
    Unlimited,
    steps,
)
from simulator.simulation import Outcome, Simulation
from websim_batch.records import Ceiling, RateHint

SEEDS = (0, 1, 2)


def whole_seconds(wait_s: float) -> float:
    """A right Retry-After, rounded up as servers do."""
    return float(ceil(wait_s))


def exact(wait_s: float) -> float:
    """A right Retry-After with fractions."""
    return wait_s


def too_short(wait_s: float) -> float:
    """A Retry-After that promises too much."""
    return 0.3 * wait_s


@dataclass(frozen=True)
class Scenario:
    """A server, a job and the bounds: goodput of the median and of the worst seed, 429s per row likewise.

    `rush` is how many requests may be sent in the first 100 ms after the first pause: 0.1 * rate + 1.
    """

    server: Callable[[], Server]
    rows: int
    goodput: tuple[float, float]
    refused_per_row: tuple[float, float]
    concurrency: int = 64
    ceilings: tuple[Ceiling, ...] = ()
    rush: float = inf

    def run(self, seed: int) -> Outcome:
        """One simulated run."""
        return Simulation(
            self.server(), self.rows, concurrency=self.concurrency, ceilings=self.ceilings, seed=seed
        ).run()


def stated(now: float) -> RateHint:
    """Headers that tell 600 requests a minute."""
    return RateHint(limit=600, window_s=60.0)


def malformed(now: float) -> RateHint:
    """Headers with no sense in them."""
    return RateHint(limit=0, window_s=inf, remaining=-5, reset_s=-1.0)


SHORT = Latency(0.3, 0.9)

SCENARIOS: dict[str, Scenario] = {
    # the table of bounds
    "bucket 10/s, LLM": Scenario(
        lambda: Server(TokenBucket(10, 20), LLM), 2000, (0.90, 0.80), (0.04, 0.08), 128
    ),
    "bucket 10/s, fast": Scenario(
        lambda: Server(TokenBucket(10, 20), FAST), 2000, (0.90, 0.80), (0.04, 0.08)
    ),
    "bucket 1/s, LLM": Scenario(lambda: Server(TokenBucket(1, 5), LLM), 200, (0.95, 0.90), (0.08, 0.12)),
    "bucket 1/s, fast": Scenario(lambda: Server(TokenBucket(1, 5), FAST), 200, (0.95, 0.90), (0.08, 0.12)),
    "1/min": Scenario(lambda: Server(TokenBucket(1 / 60, 1), FAST), 40, (0.90, 0.88), (12 / 40, 16 / 40)),
    "1/min, window": Scenario(lambda: Server(FixedWindow(1, 60, 20), FAST), 40, (0.85, 0.75), (0.4, 0.5)),
    "window 60/60 s, LLM": Scenario(
        lambda: Server(FixedWindow(60, 60), LLM), 200, (0.93, 0.85), (0.09, 0.12)
    ),
    "window 60/60 s, fast": Scenario(
        lambda: Server(FixedWindow(60, 60), FAST), 200, (0.93, 0.85), (0.12, 0.15)
    ),
    "window 60/60 s, not aligned": Scenario(
        lambda: Server(FixedWindow(60, 60, 30), SHORT), 200, (0.93, 0.85), (0.09, 0.12)
    ),
    "window 500/60 s, Retry-After": Scenario(
        lambda: Server(FixedWindow(500, 60), LLM, retry_after=whole_seconds),
        2000,
        (0.85, 0.75),
        (0.05, 0.10),
        128,
    ),
    "window 500/60 s, Retry-After, fast": Scenario(
        lambda: Server(FixedWindow(500, 60, 17), FAST, retry_after=whole_seconds),
        2000,
        (0.85, 0.75),
        (0.05, 0.10),
    ),
    "window 500/60 s, Retry-After too short": Scenario(
        lambda: Server(FixedWindow(500, 60, 17), LLM, retry_after=too_short),
        2000,
        (0.85, 0.75),
        (0.05, 0.10),
        128,
    ),
    "window 500/60 s, silent": Scenario(
        lambda: Server(FixedWindow(500, 60, 17), LLM), 2000, (0.85, 0.75), (0.05, 0.10), 128
    ),
    "sliding log 500/60 s": Scenario(
        lambda: Server(SlidingLog(500, 60), LLM), 2000, (0.89, 0.88), (0.04, 0.10), 128
    ),
    "sliding log 500/60 s, fast": Scenario(
        lambda: Server(SlidingLog(500, 60), FAST), 2000, (0.85, 0.75), (0.04, 0.10)
    ),
    "sliding counter 500/60 s": Scenario(
        lambda: Server(SlidingCounter(500, 60), SHORT), 2000, (0.85, 0.75), (0.04, 0.10)
    ),
    "GCRA 5/s, fast": Scenario(lambda: Server(TokenBucket(5, 2), FAST), 1000, (0.80, 0.70), (0.04, 0.06)),
    "GCRA 5/s, LLM": Scenario(lambda: Server(TokenBucket(5, 2), LLM), 1000, (0.80, 0.70), (0.04, 0.06)),
    "at most 16 at once": Scenario(
        lambda: Server(ConcurrencyCap(16, LLM.mean_s), LLM), 300, (0.85, 0.70), (0.10, 0.15)
    ),
    "at most 64 at once": Scenario(
        lambda: Server(ConcurrencyCap(64, LLM.mean_s), LLM), 1000, (0.75, 0.60), (0.10, 0.20), 256
    ),
    "at most 8 at once, short": Scenario(
        lambda: Server(ConcurrencyCap(8, SHORT.mean_s), SHORT), 1000, (0.75, 0.70), (0.04, 0.06)
    ),
    "headers, bucket": Scenario(
        lambda: Server(TokenBucket(10, 20), LLM, hint=stated), 1000, (0.80, 0.80), (0.005, 0.005), 128
    ),
    "headers, window": Scenario(
        lambda: Server(FixedWindow(600, 60, 30), LLM, hint=stated), 1000, (0.80, 0.80), (0.005, 0.005), 128
    ),
    "headers, malformed": Scenario(
        lambda: Server(TokenBucket(10, 20), LLM, hint=malformed), 1000, (0.90, 0.80), (0.04, 0.08), 128
    ),
    "capacity x 0.3 in the middle": Scenario(
        lambda: Server(TokenBucket(steps((0, 10), (100, 3)), 20), LLM), 1300, (0.85, 0.75), (0.05, 0.08), 128
    ),
    "capacity x 3 in the middle": Scenario(
        lambda: Server(TokenBucket(steps((0, 10), (100, 30)), 20), LLM), 2000, (0.75, 0.65), (0.03, 0.03), 256
    ),
    "capacity drifts": Scenario(
        lambda: Server(TokenBucket(lambda now: 10 + 5 * ((now % 200) / 100 - 1), 20), SHORT),
        3000,
        (0.80, 0.75),
        (0.04, 0.06),
    ),
    "60 s outage": Scenario(
        lambda: Server(TokenBucket(10, 20), LLM, outage=(60, 120)), 2000, (0.80, 0.75), (0.04, 0.04), 128
    ),
    "60 s of 503": Scenario(
        lambda: Server(TokenBucket(10, 20), LLM, outage=(60, 120), outage_kind="error"),
        2000,
        (0.80, 0.75),
        (0.04, 0.04),
        128,
    ),
    "10 min outage": Scenario(
        lambda: Server(TokenBucket(10, 20), SHORT, outage=(60, 660)), 3000, (0.80, 0.75), (0.04, 0.04)
    ),
    "window 500/10 min, silent": Scenario(
        lambda: Server(FixedWindow(500, 600), SHORT), 1500, (0.75, 0.70), (0.06, 0.08)
    ),
    "10 s ban": Scenario(
        lambda: Server(Ban(TokenBucket(10, 20), 10), LLM, retry_after=exact),
        2000,
        (0.55, 0.55),
        (5 / 2000, 5 / 2000),
        128,
    ),
    "both limits": Scenario(
        lambda: Server(Both(TokenBucket(10, 20), ConcurrencyCap(24, LLM.mean_s)), LLM),
        1000,
        (0.70, 0.65),
        (0.05, 0.08),
        128,
    ),
    "5 % errors": Scenario(
        lambda: Server(TokenBucket(10, 20), SHORT, error_share=0.05), 1500, (0.85, 0.80), (0.04, 0.06)
    ),
    "slow refusals": Scenario(
        lambda: Server(TokenBucket(10, 20), SHORT, refusal_s=0.6), 1500, (0.90, 0.80), (0.12, 0.20)
    ),
    "late refusals": Scenario(
        lambda: Server(SlidingLog(500, 60), SHORT, late_refusals=0.2), 2000, (0.90, 0.60), (0.04, 0.10), 128
    ),
    "headers that lie": Scenario(
        lambda: Server(TokenBucket(5, 10), SHORT, hint=stated), 1000, (0.90, 0.80), (0.04, 0.06)
    ),
    "at most 8 at once, then 24": Scenario(
        lambda: Server(ConcurrencyCap(steps((0, 8), (60, 24)), SHORT.mean_s), SHORT),
        4000,
        (0.60, 0.55),
        (0.04, 0.06),
    ),
    "latency falls": Scenario(
        lambda: Server(TokenBucket(20, 20), LLM, faster=(100, FAST)), 2500, (0.33, 0.33), (0.04, 0.06), 16
    ),
    "short job, bucket 100/s": Scenario(
        lambda: Server(TokenBucket(100, 100), FAST), 400, (0.90, 0.85), (0.12, 0.15)
    ),
    "short job, 64 at once": Scenario(
        lambda: Server(ConcurrencyCap(64, LLM.mean_s), LLM), 200, (0.60, 0.50), (0.10, 0.20), 256
    ),
    "10 s ban, 1500 rows": Scenario(
        lambda: Server(Ban(TokenBucket(10, 20), 10), LLM, retry_after=exact),
        1500,
        (0.55, 0.55),
        (5 / 1500, 5 / 1500),
        128,
    ),
    "10 s ban, burst 40": Scenario(
        lambda: Server(Ban(TokenBucket(10, 40), 10), LLM, retry_after=exact),
        1500,
        (0.70, 0.70),
        (0.007, 0.007),
        256,
    ),
    "ban, Retry-After too short": Scenario(
        lambda: Server(Ban(TokenBucket(10, 20), 10), SHORT, retry_after=too_short),
        2000,
        (0.4, 0.4),
        (0.02, 0.02),
    ),
    "1/min, Retry-After": Scenario(
        lambda: Server(TokenBucket(1 / 60, 1), FAST, retry_after=whole_seconds),
        40,
        (0.80, 0.75),
        (7 / 40, 8 / 40),
    ),
    "GCRA 30/s, Retry-After": Scenario(
        lambda: Server(TokenBucket(30, 2), FAST, retry_after=whole_seconds),
        1000,
        (0.40, 0.40),
        (0.03, 0.04),
        rush=0.1 * 30 + 1,
    ),
    "one early 429": Scenario(
        lambda: Server(Hiccup(Unlimited(1000), 2, 2, 5.0), FAST, retry_after=exact),
        5000,
        (0.40, 0.40),
        (1 / 5000, 1 / 5000),
    ),
    "one 429 in the middle, bucket 100/s": Scenario(
        lambda: Server(Hiccup(TokenBucket(100, 100), 1000, 1000, 30.0), FAST, retry_after=exact),
        5000,
        (0.50, 0.50),
        (0.02, 0.03),
    ),
    "10 s ban, slow handshakes": Scenario(
        lambda: Server(Ban(TokenBucket(10, 20), 10), SHORT, retry_after=exact, handshake_s=1.0),
        2000,
        (0.55, 0.55),
        (0.0025, 0.0025),
    ),
    "window 500/60 s, Retry-After, slow handshakes": Scenario(
        lambda: Server(FixedWindow(500, 60), LLM, retry_after=whole_seconds, handshake_s=1.0),
        2000,
        (0.85, 0.75),
        (0.05, 0.10),
        128,
    ),
    "bucket 10/s, slow handshakes": Scenario(
        lambda: Server(TokenBucket(10, 20), FAST, handshake_s=2.0, keepalive_s=0.5),
        400,
        (0.95, 0.95),
        (0.02, 0.02),
        16,
    ),
    "ceiling 5/s, slow handshakes": Scenario(
        lambda: Server(TokenBucket(50, 50), LLM, handshake_s=0.95),
        500,
        (0.0, 0.0),
        (0.0, 0.0),
        ceilings=(Ceiling(5, 1.0),),
    ),
    "ceiling 60/min": Scenario(
        lambda: Server(TokenBucket(50, 50), SHORT), 200, (0.0, 0.0), (0.0, 0.0), ceilings=(Ceiling(60, 60.0),)
    ),
    "unlimited": Scenario(lambda: Server(Unlimited(64 / 0.045), FAST), 2000, (0.70, 0.70), (0.0, 0.0)),
}
"""By name; goodput 0 where it has no meaning."""


def random_policy(rng: random.Random, latency: Latency) -> Policy:
    """A limit of a random kind, between 1 and 100 requests a second."""
    rate = 10 ** rng.uniform(0.0, 2.0)
    window_s = rng.choice((1.0, 10.0, 60.0))
    limit = max(2, round(rate * window_s))
    return rng.choice(
        [
            lambda: TokenBucket(rate, max(1.0, rate * rng.uniform(0.5, 5.0))),
            lambda: TokenBucket(rate, rng.choice((2.0, 3.0, 5.0))),
            lambda: FixedWindow(limit, window_s, rng.uniform(0, window_s)),
            lambda: SlidingLog(limit, window_s),
            lambda: SlidingCounter(max(20, limit), window_s),
            lambda: (
                ConcurrencyCap(max(3, round(rate * latency.mean_s)), latency.mean_s)
                if rate * latency.mean_s >= 3
                else ConcurrencyCap(3, latency.mean_s)
            ),
        ]
    )()


def random_scenario(seed: int) -> Scenario:
    """A server, latencies, network and manners drawn by `seed`; about 150 s of work at its capacity."""
    rng = random.Random(f"server {seed}")
    p50_s = 10 ** rng.uniform(-1.7, 0.4)
    latency = Latency(p50_s, p50_s * rng.uniform(1.5, 8.0))
    network_s = rng.choice((0.002, 0.01, 0.04))
    told = rng.choice((lambda wait_s: None, lambda wait_s: None, exact, whole_seconds, too_short))
    state = rng.getstate()

    def server() -> Server:
        again = random.Random()
        again.setstate(state)
        return Server(random_policy(again, latency), latency, retry_after=told, network_s=network_s)

    capacity = server().policy.capacity_per_s(0.0)
    concurrency = max(16, round(3 * capacity * (latency.mean_s + network_s)))
    return Scenario(server, round(min(150 * capacity, 3000)), (0, 0), (1, 1), concurrency)
