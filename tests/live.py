"""Runs the program as its users do: in processes of its own, with real signals, against a real server."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from websim_batch.cli import main

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0
"""Far more than any of these runs takes; a test that waits so long has failed."""

_MAIN = "\nimport sys\nfrom websim_batch.cli import main\nraise SystemExit(main(sys.argv[1:]))"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


class Running:
    """A process that goes on; left alone at the end of the block it is killed."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.poll() is None:
            self._child.kill()
        for pipe in (self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()
        self._child.wait()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._child.send_signal(number)

    def read_line(self) -> str:
        """The next line of its stderr."""
        assert self._child.stderr is not None
        return self._child.stderr.readline()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._child.kill()
        self._child.communicate()

    def wait(self) -> Ended:
        """Let it end."""
        out, err = self._child.communicate(timeout=PATIENCE_S)
        return Ended(self._child.returncode, out, err)


def start(
    folder: Path,
    *arguments: object,
    prelude: str = "",
    env: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    before: Callable[[], None] | None = None,
) -> Running:
    """Start `websim-batch` with these arguments in `folder`.

    `prelude` is Python that the process runs first; `before` runs in it before Python begins.
    """
    program = ["-c", prelude + _MAIN] if prelude else ["-m", "websim_batch"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WEBSIM_BATCH")}
    child = subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **(env or {})},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )
    return Running(child)


def run(folder: Path, *arguments: object, **options: Any) -> Ended:
    """Run `websim-batch` to its end; a traceback on stderr fails the test."""
    with start(folder, *arguments, **options) as running:
        ended = running.wait()
    assert "Traceback" not in ended.err, ended.err
    return ended


def wait_until(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Return once the condition holds; raises TimeoutError if it never does."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.005)


def write_table(path: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = ("prompt",)) -> Path:
    """A CSV table; gives its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def prompts_table(path: Path, number: int) -> Path:
    """A CSV table of so many different prompts."""
    return write_table(path, ([f"prompt {i}"] for i in range(number)))


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table."""
    csv.field_size_limit(1 << 30)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def statuses(path: Path) -> dict[str, int]:
    """How many rows of a CSV output have each status."""
    found: dict[str, int] = {}
    for row in read_table(path):
        found[row["status"]] = found.get(row["status"], 0) + 1
    return found


def journal_of(output: Path) -> Path:
    """The journal beside an output."""
    return output.with_name(output.name + ".journal")


def query(journal: Path, text: str) -> list[tuple[Any, ...]]:
    """The answer of a journal to an SQL query, asked as anyone may."""
    with closing(sqlite3.connect(journal)) as db:
        return db.execute(text).fetchall()


def answered_twice(stats: Mapping[str, Any]) -> int:
    """How many answers of the server were not the first one to their request."""
    return sum(count - 1 for count in stats["answered"].values())


def call(*arguments: object) -> Ended:
    """Run `websim-batch` inside this process: faster, and warnings of what was left open become errors."""
    out, err = io.StringIO(), io.StringIO()
    hook = sys.excepthook
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
    finally:
        sys.excepthook = hook
    assert "Traceback" not in err.getvalue()
    return Ended(code, out.getvalue(), err.getvalue())
