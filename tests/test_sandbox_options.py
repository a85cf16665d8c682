"""The options of the sandbox, and its faults, which are functions of (seed, request, attempt)."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from websim_batch.errors import UsageError
from websim_batch.sandbox import POLICIES, SandboxOptions, parse_share
from websim_batch.sandbox.faults import Faults
from websim_batch.sandbox.limiters import (
    Concurrency,
    FixedWindow,
    Gcra,
    SlidingWindow,
    TokenBucket,
    Unlimited,
)
from websim_batch.sandbox.options import parse_capacity

REQUESTS = [number.to_bytes(8, "big") for number in range(20_000)]


@pytest.mark.parametrize(
    ("text", "rate_per_s"),
    [("10/s", 10), ("500/min", 500 / 60), ("90/h", 0.025), ("0.5/s", 0.5), (" 1 / min ", 1 / 60)],
)
def test_capacities_are_read(text: str, rate_per_s: float) -> None:
    """A number per second, minute or hour."""
    number, unit_s = parse_capacity(text)

    assert number / unit_s == pytest.approx(rate_per_s)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"capacity": "10"}, "10/s"),
        ({"capacity": "ten/s"}, "10/s"),
        ({"capacity": "0/s"}, "10/s"),
        ({"capacity": "-1/s"}, "10/s"),
        ({"capacity": "nan/s"}, "10/s"),
        ({"capacity": "5/week"}, "10/s"),
        ({"capacity": "1.5", "policy": "concurrency"}, "whole number"),
        ({"policy": "leaky"}, "token-bucket"),
        ({"retry_after": "minutes"}, "seconds"),
        ({"burst": 0}, "1 or more"),
        ({"burst": 5, "policy": "fixed-window"}, "leave it out"),
        ({"window_s": 5.0}, "fixed-window"),
        ({"window_s": 0.0, "policy": "fixed-window"}, "above 0"),
        ({"latency_ms": -1.0}, "0 or more"),
        ({"latency_p99_ms": 10.0}, "--latency-ms"),
        ({"latency_ms": 10.0, "latency_p99_ms": 5.0}, "10 or more"),
        ({"fail_share": 1.5}, "between 0 and 1"),
        ({"fail_share": 0.5, "drop_share": 0.4, "garbage_share": 0.2}, "1 or less"),
        ({"port": 70_000}, "65535"),
    ],
)
def test_impossible_options_are_refused_with_a_remedy(wrong: dict[str, Any], remedy: str) -> None:
    """The message names the option and says what to write."""
    with pytest.raises(UsageError, match="--") as caught:
        SandboxOptions(**wrong)

    assert remedy in str(caught.value)


@pytest.mark.parametrize(("text", "share"), [("0.05", 0.05), ("5%", 0.05), ("1", 1.0)])
def test_shares_are_read(text: str, share: float) -> None:
    """As a number or as a percentage."""
    assert parse_share(text) == pytest.approx(share)


def test_a_share_that_is_no_number_is_refused() -> None:
    """With an example of how to write it."""
    with pytest.raises(UsageError, match=r"0\.05"):
        parse_share("some")


def test_every_policy_has_its_limiter() -> None:
    """No capacity, no limit; else the model of that name."""
    kinds = {policy: type(SandboxOptions(capacity="8/s", policy=policy).limiter()) for policy in POLICIES}

    assert kinds == {
        "token-bucket": TokenBucket,
        "fixed-window": FixedWindow,
        "sliding-window": SlidingWindow,
        "gcra": Gcra,
        "concurrency": Concurrency,
    }
    assert isinstance(SandboxOptions(policy="gcra").limiter(), Unlimited)


@pytest.mark.parametrize(
    ("options", "at_once"),
    [
        (SandboxOptions(capacity="10/s", burst=20), 20),
        (SandboxOptions(capacity="10/s"), 10),
        (SandboxOptions(capacity="30/min"), 1),
        (SandboxOptions(capacity="500/min", policy="fixed-window"), 500),
        (SandboxOptions(capacity="500/min", policy="sliding-window", window_s=6.0), 50),
        (SandboxOptions(capacity="5/s", policy="gcra"), 1),
        (SandboxOptions(capacity="5/s", policy="gcra", burst=2), 2),
        (SandboxOptions(capacity="16", policy="concurrency"), 16),
        (SandboxOptions(capacity="16/s", policy="concurrency"), 16),
    ],
)
def test_the_capacity_and_burst_say_how_many_are_taken_at_once(options: SandboxOptions, at_once: int) -> None:
    """From a standing start, in one instant."""
    limiter = options.limiter()

    assert sum(limiter.admit(1000.0) == 0.0 for _ in range(1000)) == at_once


def test_options_pass_to_another_process_unchanged() -> None:
    """As one line of JSON."""
    options = SandboxOptions(port=0, capacity="10/s", latency_ms=5, latency_p99_ms=50, fail_share=0.1, seed=3)

    assert SandboxOptions.from_json(options.to_json()) == options


def test_faults_come_in_the_shares_asked_for() -> None:
    """Each kind within a hundredth of its share."""
    faults = Faults(SandboxOptions(fail_share=0.1, drop_share=0.05, garbage_share=0.2, seed=1))

    drawn = [faults.fault(request, 1) for request in REQUESTS]

    shares = {kind: drawn.count(kind) / len(drawn) for kind in ("fail", "drop", "garbage")}
    assert shares == pytest.approx({"fail": 0.1, "drop": 0.05, "garbage": 0.2}, abs=0.01)


def test_faults_depend_on_seed_request_and_attempt_alone() -> None:
    """Any order of asking gives the same faults; another seed or attempt gives others."""
    first, again, other = (Faults(SandboxOptions(fail_share=0.3, seed=seed)) for seed in (1, 1, 2))

    drawn = [first.fault(request, 1) for request in REQUESTS]

    assert drawn == [again.fault(request, 1) for request in reversed(REQUESTS)][::-1]
    assert drawn != [other.fault(request, 1) for request in REQUESTS]
    assert drawn != [first.fault(request, 2) for request in REQUESTS]


def test_latency_is_log_normal_through_median_and_p99() -> None:
    """Half of the answers are faster than the one, one in a hundred slower than the other."""
    faults = Faults(SandboxOptions(latency_ms=100, latency_p99_ms=1500))

    latencies = sorted(faults.latency_s(request, 1) for request in REQUESTS)

    assert statistics.median(latencies) == pytest.approx(0.1, rel=0.03)
    assert latencies[int(len(latencies) * 0.99)] == pytest.approx(1.5, rel=0.1)


def test_latency_without_p99_is_constant() -> None:
    """Every answer takes as long."""
    faults = Faults(SandboxOptions(latency_ms=40))

    assert {faults.latency_s(request, 1) for request in REQUESTS[:100]} == {0.04}
