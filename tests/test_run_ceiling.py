"""The user's ceiling holds across runs: what an earlier run sent counts in the same window."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from websim_batch.sandbox import Sandbox, SandboxOptions


def command(folder: Path, base_url: str, *options: str) -> list[str]:
    """`run` over five rows at one request an hour, stopped after a second."""
    table = folder / "in.csv"
    table.write_text("prompt\n" + "".join(f"row {number}\n" for number in range(5)))
    start = [sys.executable, "-m", "websim_batch", "run", str(table), "-o", str(folder / "out.csv")]
    return [*start, "--base-url", base_url, "--rate", "1/h", "--time-limit", "1s", "-q", *options]


def test_a_second_run_sends_nothing_while_the_window_is_full(tmp_path: Path) -> None:
    """The one request of this hour was sent a moment ago, so the same command waits for its time limit."""
    with Sandbox() as sandbox:
        codes = [
            subprocess.run(command(tmp_path, sandbox.base_url), check=False).returncode for _ in range(2)
        ]

        assert codes == [4, 4]
        assert sandbox.stats()["requests"] == 1


def test_a_killed_run_is_counted_too(tmp_path: Path) -> None:
    """Requests whose answers were lost with the process were sent all the same."""
    with Sandbox(SandboxOptions(latency_ms=60_000)) as sandbox:
        run = subprocess.Popen(command(tmp_path, sandbox.base_url))
        while sandbox.stats()["requests"] < 1:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
        subprocess.run(command(tmp_path, sandbox.base_url, "--grace", "0"), check=False)

        assert sandbox.stats()["requests"] == 1
