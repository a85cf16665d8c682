"""What all benchmarks share: the server as a child, commands that are measured, tables to send, medians."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import IO, Any
from urllib.request import urlopen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = HERE / "out"
ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE)))}
PRODUCT = (sys.executable, "-m", "websim_batch")
UNTHROTTLED = (sys.executable, str(HERE / "unthrottled.py"))
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_POLL_S = 0.02


class BenchmarkError(Exception):
    """Something that is measured did not do what it should; the figure cannot be told."""


@dataclass(frozen=True, slots=True)
class Child:
    """What one command cost, its start-up included: `spawned_at` is the machine's monotonic clock."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int
    stdout: str
    stderr: str
    spawned_at: float

    def last_json(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout. Raises BenchmarkError with what the command said."""
        try:
            told: dict[str, Any] = json.loads(self.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise BenchmarkError(f"exit {self.code}, no JSON: {self.stderr.strip()[-300:]}") from None
        return told


class Running:
    """A command on its way; its output goes to files, so that no pipe can fill up."""

    def __init__(self, command: Sequence[str]) -> None:
        self._files: tuple[IO[str], IO[str]] = (_scratch(), _scratch())
        self.spawned_at = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._files[0],
            stderr=self._files[1],
            env=ENVIRON,
            cwd=ROOT,
        )

    def kill_when(self, condition: Callable[[], bool]) -> None:
        """SIGKILL as soon as the condition holds. Raises BenchmarkError if the command ends before."""
        while not condition():
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise BenchmarkError("the command ended before it could be killed")
            time.sleep(_POLL_S)
        os.kill(self._process.pid, signal.SIGKILL)

    def finish(self) -> Child:
        """Waits for the end and tells what it cost."""
        _, status, usage = os.wait4(self._process.pid, 0)
        wall_s = time.monotonic() - self.spawned_at
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        stdout, stderr = (_told(file) for file in self._files)
        cpu_s = usage.ru_utime + usage.ru_stime
        # Linux counts what this process needed when it started the child, about 30 MB; no run needs less.
        peak_mb = usage.ru_maxrss * _RSS_UNIT / 1e6
        return Child(wall_s, cpu_s, peak_mb, code, stdout, stderr, self.spawned_at)


def measure(*command: str, expect: int = 0) -> Child:
    """Runs a command to its end. Raises BenchmarkError if it ends with another code than `expect`."""
    child = Running(command).finish()
    if child.code != expect:
        told = (child.stderr.strip() or child.stdout.strip())[-400:]
        raise BenchmarkError(f"{' '.join(command[1:4])} … ended with {child.code}: {told}")
    return child


class Server:
    """benchmarks/server.py in a process of its own."""

    def __init__(self, latency_ms: float = 0.0) -> None:
        command = (sys.executable, str(HERE / "server.py"), "--latency-ms", str(latency_ms), "--with-parent")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()

    def stats(self) -> dict[str, Any]:
        """`requests` and `first_at` since the last reset."""
        return self._get("/__stats")

    def reset(self) -> dict[str, Any]:
        """The same, and forgets them."""
        return self._get("/__reset")

    def _get(self, path: str) -> dict[str, Any]:
        with urlopen(self.base_url + path, timeout=30) as response:
            told: dict[str, Any] = json.load(response)
        return told

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


@dataclass(slots=True)
class Bench:
    """One benchmark session: where its files lie, how often things are repeated, and every sample taken."""

    work: Path
    repeats: int
    is_quick: bool
    samples: list[dict[str, Any]] = field(default_factory=list)

    def table(self, rows: int, suffix: str = ".csv") -> Path:
        """A table of so many prompts; made once."""
        path = self.work / f"prompts-{rows}{suffix}"
        if not path.exists():
            # In a process of its own: what this one needs in memory counts for every child it starts.
            measure(sys.executable, str(HERE / "make_table.py"), str(rows), str(path))
        return path

    def output(self, table: Path) -> Path:
        """A fresh output path in the table's format: whatever an earlier run left there is gone."""
        path = self.work / f"answers-{table.stem}{table.suffix}"
        for stale in self.work.glob(f"{path.name}*"):
            stale.unlink()
        return path

    def run(
        self,
        table: Path,
        server: Server,
        concurrency: int,
        *,
        options: Sequence[str] = (),
        product: Sequence[str] = PRODUCT,
    ) -> Child:
        """The product over the whole table into a fresh output; every row must be answered exactly once."""
        server.reset()
        child = measure(*product, *run_arguments(table, self.output(table), server, concurrency), *options)
        self.note("product", child, table=table.name, concurrency=concurrency)
        summary, sent = child.last_json(), server.stats()["requests"]
        if summary["counts"].get("ok") != sent or summary["rows"] != sent:
            raise BenchmarkError(f"{sent} requests for {summary['rows']} rows: {summary['counts']}")
        return child

    def thin(self, table: Path, server: Server, concurrency: int) -> Child:
        """The thin loop over the whole table."""
        command = (
            sys.executable,
            str(HERE / "thin.py"),
            str(table),
            server.base_url,
            "--concurrency",
            str(concurrency),
        )
        child = measure(*command)
        self.note("thin", child, table=table.name, concurrency=concurrency)
        return child

    def note(self, what: str, child: Child, **more: Any) -> None:
        """Keeps a sample for the JSON."""
        self.samples.append(
            {"what": what, "wall_s": child.wall_s, "cpu_s": child.cpu_s, "peak_mb": child.peak_mb, **more}
        )


def run_arguments(table: Path, output: Path, server: Server, concurrency: int) -> list[str]:
    """`run` with everything that the figures ask for."""
    paths = ["run", str(table), "-o", str(output), "--base-url", server.base_url]
    return [*paths, "--concurrency", str(concurrency), "--json", "--progress", "none"]


def paired(repeats: int, first: Callable[[], float], second: Callable[[], float]) -> list[float]:
    """`first()` ÷ `second()`, measured in turns, each pair in the other order than the last."""
    ratios = []
    for number in range(repeats):
        if number % 2:
            below = second()
            above = first()
        else:
            above = first()
            below = second()
        ratios.append(above / below)
    return ratios


def median_of(repeats: int, measured: Callable[[], float]) -> float:
    """The median of so many measurements."""
    return median(measured() for _ in range(repeats))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    libraries = ("aiohttp", "aiolimiter", "uvloop", "orjson", "pyarrow", "pandas")
    return {
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        **{name: version(name) for name in libraries},
    }


def _scratch() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


def _told(file: IO[str]) -> str:
    with file:
        file.seek(0)
        return file.read()
