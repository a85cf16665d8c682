"""SIGKILL a run again and again, continue it each time, and count at the server: `python benchmarks/kills.py 200`.

One job of 250 rows for each kill, against the stand-in on loopback. A run is killed at a random moment: while it
starts, or after a random number of answers. At the end the job is let finish, and the sums are taken from the
server's records of every arrival, the journal's ledger and the output. It ends 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from websim_batch.sandbox import SandboxOptions  # noqa: E402  # the path comes first
from websim_batch.sandbox.testing import Sandbox  # noqa: E402

COMMIT_WINDOW_ROWS = 256
ROWS_PER_KILL = 250
LATENCY_MS = 25.0
PATIENCE_S = 120.0
STARTING_SHARE = 0.2
SHARE_BEFORE_KILLS = 0.7
"""Of all rows, so many are answered before the last kill: each run has something to do."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What twenty or two hundred kills came to.

    `extra` is requests beyond one for each row, `most_extra` the most that one kill caused: answers that the server had
    given, or was to give, and the journal did not hold. `unnoted` requests reached the server but not the ledger.
    """

    kills: int
    rows: int
    requests: int
    extra: int
    most_extra: int
    extra_allowed_per_kill: int
    lost: int
    doubled: int
    misplaced: int
    unnoted: int
    may_be_paid: int
    elapsed_s: float

    @property
    def is_kept(self) -> bool:
        """Whether the promises hold."""
        broken = self.lost + self.doubled + self.misplaced + self.unnoted
        return not broken and self.most_extra <= self.extra_allowed_per_kill


def prompts(rows: int) -> list[str]:
    """Different prompts; the number says which row it is."""
    return [f"Tell row {number} from all others." for number in range(rows)]


def kill_and_count(folder: Path, kills: int, *, rows: int, concurrency: int = 64, seed: int = 1) -> Sums:
    """Kill a job so often, finish it, and count. Raises RuntimeError if it ended before its last kill."""
    began = time.monotonic()
    wanted = prompts(rows)
    with (folder / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], *([prompt] for prompt in wanted)])
    draw = random.Random(seed)
    most_extra = 0
    with Sandbox(SandboxOptions(latency_ms=LATENCY_MS)) as sandbox:
        for number, answers in enumerate(_moments(draw, kills, rows)):
            _run_and_kill(folder, sandbox, concurrency, draw, answers)
            wasted = _wasted(folder / "out.csv.journal", sandbox)
            most_extra = max(most_extra, wasted)
            print(f"kill {number + 1}: {wasted} to send again", file=sys.stderr)
        code = _command(folder, sandbox, concurrency).wait(PATIENCE_S)
        if code:
            raise RuntimeError(f"the last run ended with {code}")
        sends = Counter(arrival.prompt for arrival in sandbox.arrivals)
    told = _read(folder / "out.csv")
    noted, unknown = _ledger(folder / "out.csv.journal")
    found = Counter(row["prompt"] for row in told)
    return Sums(
        kills=kills,
        rows=rows,
        requests=sends.total(),
        extra=sends.total() - rows,
        most_extra=most_extra,
        extra_allowed_per_kill=concurrency + COMMIT_WINDOW_ROWS,
        lost=sum(1 for prompt in wanted if not sends[prompt] or not found[prompt]),
        doubled=sum(count - 1 for count in found.values()) + sum(row["status"] != "ok" for row in told),
        misplaced=sum(
            row["prompt"] != prompt or not row["response"].endswith(prompt)
            for row, prompt in zip(told, wanted, strict=True)
        ),
        unnoted=sum(max(0, sends[prompt] - noted[position]) for position, prompt in enumerate(wanted)),
        may_be_paid=unknown,
        elapsed_s=round(time.monotonic() - began, 1),
    )


def _command(folder: Path, sandbox: Sandbox, concurrency: int) -> subprocess.Popen[bytes]:
    arguments = [
        "run",
        "in.csv",
        "-o",
        "out.csv",
        "--base-url",
        sandbox.base_url,
        "--concurrency",
        str(concurrency),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "websim_batch", *arguments, "-q"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
    )


def _moments(draw: random.Random, kills: int, rows: int) -> list[int]:
    """After how many answers each run is killed; 0 for one that is killed while it starts."""
    shares = [0.0 if draw.random() < STARTING_SHARE else draw.random() for _ in range(kills)]
    total = sum(shares) or 1.0
    return [int(share / total * rows * SHARE_BEFORE_KILLS) for share in shares]


def _run_and_kill(
    folder: Path, sandbox: Sandbox, concurrency: int, draw: random.Random, answers: int
) -> None:
    before = sandbox.status_count(200)
    child = _command(folder, sandbox, concurrency)
    end = time.monotonic() + PATIENCE_S
    if not answers:
        time.sleep(draw.uniform(0.0, 0.6))
    while sandbox.status_count(200) < before + answers and time.monotonic() < end and child.poll() is None:
        time.sleep(0.001)
    child.kill()
    if child.wait(PATIENCE_S) >= 0:
        raise RuntimeError("the job was over before its last kill; give it more rows")


def _wasted(journal: Path, sandbox: Sandbox) -> int:
    """How many requests reached the server whose rows have no result, counted since each row's last one."""
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(journal)) as db:
        done = {row_id for (row_id,) in db.execute("SELECT row_id FROM results")}
    arrived = {int(arrival.prompt.split()[2]) for arrival in sandbox.arrivals}
    return len(arrived - done)


def _ledger(journal: Path) -> tuple[Counter[int], int]:
    """Requests noted for each row, and how many of all have an unknown fate."""
    with closing(sqlite3.connect(journal)) as db:
        noted = Counter(dict(db.execute("SELECT row_id, count(*) FROM requests GROUP BY row_id")))
        unknown = db.execute("SELECT count(*) FROM requests WHERE delivery = 'unknown'").fetchone()[0]
    return noted, unknown


def _read(output: Path) -> list[dict[str, str]]:
    with output.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> int:
    """Kill as often as told and print the sums."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kills", type=int, nargs="?", default=20)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sums = kill_and_count(
            Path(folder),
            given.kills,
            rows=ROWS_PER_KILL * given.kills,
            concurrency=given.concurrency,
            seed=given.seed,
        )
    print(json.dumps({**asdict(sums), "is_kept": sums.is_kept}, indent=1))
    return 0 if sums.is_kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
