"""Every figure that the project holds, each with how it is measured, its bound and its goal.

Ratios are against the thin loop in the same session: both are whole processes from spawn to exit, so the
product's reading, journal and final table count. Where a figure leaves the start-up out, a run of one row is
taken off both.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from common import (
    PRODUCT,
    UNTHROTTLED,
    Bench,
    BenchmarkError,
    Child,
    Server,
    measure,
    median_of,
    paired,
    run_arguments,
)
from server import CONTENT

QUICK_ROWS, ROWS = 10_000, 100_000
MEMORY_ROWS = 10_000
COMMAND_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `is_more_better` says on which side of bound and goal a value should lie."""

    name: str
    text: str
    unit: str
    bound: float
    goal: float
    is_more_better: bool
    measured: Callable[[Bench], float]

    def verdict(self, value: float) -> str:
        """`goal`, `bound` or `MISSED`."""
        reaches = operator.ge if self.is_more_better else operator.le
        if reaches(value, self.goal):
            return "goal"
        return "bound" if reaches(value, self.bound) else "MISSED"


def rows_ratio(bench: Bench, latency_ms: float, concurrency: int, rows: int) -> float:
    """Rows/s of the product ÷ rows/s of thin."""
    table = bench.table(rows)
    with Server(latency_ms) as server:
        ratios = paired(
            bench.repeats,
            lambda: bench.thin(table, server, concurrency).wall_s,
            lambda: bench.run(table, server, concurrency).wall_s,
        )
    return median(ratios)


def cpu_ratio(bench: Bench) -> float:
    """CPU seconds per row, product ÷ thin, both without their start-up."""
    rows = QUICK_ROWS if bench.is_quick else ROWS
    table, one_row = bench.table(rows), bench.table(1)

    def cost(measured: Callable[[Path, Server, int], Child], server: Server) -> float:
        start_up = median_of(3, lambda: measured(one_row, server, 64).cpu_s)
        return (measured(table, server, 64).cpu_s - start_up) / rows

    with Server() as server:
        return median(
            paired(bench.repeats, lambda: cost(bench.run, server), lambda: cost(bench.thin, server))
        )


def throttle_ratio(bench: Bench) -> float:
    """Rows/s with the throttle and a ceiling that never binds ÷ rows/s with the throttle taken out."""
    table = bench.table(QUICK_ROWS if bench.is_quick else ROWS // 2)
    ceiling = ("--rate", "1000000/s")
    with Server() as server:
        return median(
            paired(
                3 * bench.repeats,  # the difference is small, so it takes more pairs
                lambda: bench.run(table, server, 64, product=UNTHROTTLED).wall_s,
                lambda: bench.run(table, server, 64, options=ceiling).wall_s,
            )
        )


def peak_mb(bench: Bench, rows: int, suffix: str) -> float:
    """Peak memory of a run over so many rows."""
    with Server() as server:
        return bench.run(bench.table(rows, suffix), server, 64).peak_mb


def growth_mb(bench: Bench) -> float:
    """Peak memory of a hundred times the rows, less that of the rows; quick: ten times."""
    large = MEMORY_ROWS * (10 if bench.is_quick else 100)
    return peak_mb(bench, large, ".csv") - peak_mb(bench, MEMORY_ROWS, ".csv")


def first_request_s(bench: Bench) -> float:
    """From the spawn of the process to the first request's arrival at the server, 10,000 rows of CSV."""
    table = bench.table(MEMORY_ROWS)
    with Server(latency_ms=1.0) as server:

        def once() -> float:
            spawned_at = bench.run(table, server, 64).spawned_at
            arrived_at: float = server.stats()["first_at"]
            return arrived_at - spawned_at

        return median_of(max(3, bench.repeats), once)


def commands_s(bench: Bench) -> float:
    """The slowest of `--help`, a usage error, and `status` of a finished run."""
    output = _finished(bench)[0]
    commands = {("--help",): 0, ("run", "--no-such-option"): 2, ("status", str(output)): 0}
    times = {}
    for arguments, code in commands.items():

        def once(arguments: tuple[str, ...] = arguments, code: int = code) -> float:
            child = measure(*PRODUCT, *arguments, expect=code)
            bench.note(" ".join(arguments[:2]), child)
            return child.wall_s

        times[arguments] = median_of(COMMAND_REPEATS, once)
    return max(times.values())


def nothing_to_do_s(bench: Bench) -> float:
    """The same command again on a finished job; no request may leave."""
    output, table = _finished(bench)
    with Server() as server:

        def once() -> float:
            child = measure(*PRODUCT, *run_arguments(table, output, server, 64))
            bench.note("nothing to do", child)
            if server.stats()["requests"]:
                raise BenchmarkError("the finished job sent requests again")
            return child.wall_s

        return median_of(3, once)


def journal_bytes_per_row(bench: Bench) -> float:
    """The journal's size per row, less the answer's own bytes."""
    output, table = _finished(bench)
    size = sum(part.stat().st_size for part in output.parent.glob(f"{output.name}.journal*"))
    if not size:
        raise BenchmarkError(f"no journal beside {output}")
    return size / _rows_of(table) - len(CONTENT)


@cache
def _finished_at(work: Path, rows: int) -> tuple[Path, Path]:
    """Copies of a table and a finished run over it, which stay as they are."""
    source = Bench(work, 1, False)
    table = work / f"finished-{rows}.csv"
    table.write_bytes(source.table(rows).read_bytes())
    with Server() as server:
        source.run(table, server, 64)
    return work / f"answers-{table.name}", table


def _finished(bench: Bench) -> tuple[Path, Path]:
    return _finished_at(bench.work, QUICK_ROWS if bench.is_quick else ROWS)


def _rows_of(table: Path) -> int:
    return int(table.stem.rpartition("-")[2])


def _size(bench: Bench, full: int) -> int:
    return full // 5 if bench.is_quick else full


FIGURES: tuple[Figure, ...] = (
    Figure(
        "rows", "rows/s ÷ thin: 0 ms, concurrency 64", "x", 0.80, 1.0, True,
        lambda bench: rows_ratio(bench, 0, 64, QUICK_ROWS if bench.is_quick else ROWS),
    ),
    Figure(
        "rows-128", "rows/s ÷ thin: 50 ms, concurrency 128", "x", 0.90, 1.0, True,
        lambda bench: rows_ratio(bench, 50, 128, _size(bench, 50_000)),
    ),
    Figure(
        "rows-512", "rows/s ÷ thin: 50 ms, concurrency 512", "x", 0.80, 1.0, True,
        lambda bench: rows_ratio(bench, 50, 512, _size(bench, 100_000)),
    ),
    Figure("cpu", "CPU per row ÷ thin, without start-up", "x", 1.5, 1.1, False, cpu_ratio),
    Figure("throttle", "rows/s with the throttle ÷ without", "x", 0.95, 1.0, True, throttle_ratio),
    Figure(
        "memory-csv", "peak memory, CSV, 10,000 rows", "MB", 80, 60, False,
        lambda bench: peak_mb(bench, MEMORY_ROWS, ".csv"),
    ),
    Figure(
        "memory-parquet", "peak memory, Parquet, 10,000 rows", "MB", 260, 180, False,
        lambda bench: peak_mb(bench, MEMORY_ROWS, ".parquet"),
    ),
    Figure("growth", "growth of it to 1,000,000 rows of CSV", "MB", 30, 5, False, growth_mb),
    Figure("start", "process start to first request, CSV", "s", 1.0, 0.5, False, first_request_s),
    Figure("commands", "--help, a usage error, status", "s", 0.35, 0.2, False, commands_s),
    Figure("again", "a re-run with nothing to do, 100,000 rows", "s", 4.0, 1.5, False, nothing_to_do_s),
    Figure(
        "journal", "journal bytes per row beyond the answer", "B", 300, 150, False, journal_bytes_per_row
    ),
)  # fmt: skip
"""In the order of the table."""
