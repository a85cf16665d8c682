"""Prints what the simulated servers came to at the end of the test log."""

from __future__ import annotations

from typing import Any

from simulator.summary import LINES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each simulated server: goodput and 429s per row."""
    if LINES:
        terminalreporter.section("throttle against simulated servers: goodput, 429s per row (median, worst)")
        for line in LINES:
            terminalreporter.write_line(line)
