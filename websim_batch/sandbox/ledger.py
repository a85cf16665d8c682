"""What a stand-in server saw: counts for `/__stats`, and for tests every single arrival."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

BIN_S = 0.1


@dataclass(slots=True)
class Arrival:
    """One request as it came: server seconds since the start, and our `time.monotonic()`.

    `sent` says how often this request had come by then, itself included; `attempt` how often it was let
    through by the limit (0: refused). `status` is what it was answered, 0 if nothing was (dropped, hanging).
    """

    at_s: float
    monotonic: float
    request: str
    prompt: str
    sent: int
    attempt: int = 0
    status: int = 0


class Ledger:
    """Counts what happens; written by the server's thread, readable from any."""

    def __init__(self) -> None:
        self.requests = 0
        self.by_status: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.sends: dict[bytes, int] = {}
        self.answered: dict[bytes, int] = {}
        self.attempts: dict[bytes, int] = {}
        self.in_flight = 0
        self.most_in_flight = 0
        self.first_s: float | None = None
        self._bins: Counter[int] = Counter()

    def arrive(self, at_s: float, request: bytes) -> int:
        """A request came in at server time `at_s`; gives how often it has come by now."""
        self.requests += 1
        self.in_flight += 1
        if self.in_flight > self.most_in_flight:
            self.most_in_flight = self.in_flight
        if self.first_s is None:
            self.first_s = at_s
        self._bins[int((at_s - self.first_s) / BIN_S)] += 1
        sent = self.sends[request] = self.sends.get(request, 0) + 1
        return sent

    def let_through(self, request: bytes) -> int:
        """The limit took the request; gives the number of this attempt."""
        attempt = self.attempts[request] = self.attempts.get(request, 0) + 1
        return attempt

    def leave(self, request: bytes, status: int, is_answer: bool) -> None:
        """The request is over: `status` 0 means without any; `is_answer`, with what it asked for."""
        self.in_flight -= 1
        self.by_status[str(status) if status else "none"] += 1
        if is_answer:
            self.answered[request] = self.answered.get(request, 0) + 1

    def arrivals_per_100ms(self) -> list[int]:
        """Arrivals in each 100 ms of server time since the first one."""
        if not self._bins:
            return []
        return [self._bins.get(number, 0) for number in range(max(self._bins) + 1)]

    def summary(self) -> dict[str, Any]:
        """The counts without those per request: cheap, however many requests there were."""
        return {
            "requests": self.requests,
            "by_status": dict(self.by_status),
            "faults": dict(self.faults),
            "distinct_requests": len(self.sends),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
        }

    def stats(self) -> dict[str, Any]:
        """All of `/__stats`: `sends` and `answered` count per request (by the hash of what it asks)."""
        return {
            **self.summary(),
            "sends": {request.hex(): count for request, count in self.sends.copy().items()},
            "answered": {request.hex(): count for request, count in self.answered.copy().items()},
            "arrivals_per_100ms": self.arrivals_per_100ms(),
        }
