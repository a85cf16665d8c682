"""How the product behaves as jobs grow: more rows, more at once, a finished journal, a kill near the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common import PRODUCT, Bench, BenchmarkError, Child, Running, Server, measure, run_arguments

CONCURRENCIES = (16, 64, 256, 1000, 2000)
CONCURRENCY_LATENCY_MS = 20.0
KILLED_AFTER = 0.9


@dataclass(frozen=True, slots=True)
class Line:
    """One measured thing: wall time, CPU, memory, and what there is to say about it."""

    what: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"| {self.what} | {self.wall_s:.2f} s | {self.cpu_s:.2f} s | {self.peak_mb:.0f} MB | {self.note} |"


HEADER = "| | wall | CPU | peak | |\n|---|---|---|---|---|"


def series(bench: Bench) -> Iterator[Line]:
    """All series, line by line as they are measured; quick ones are a hundred times smaller."""
    decades = (100, 1000, 10_000) if bench.is_quick else (10_000, 100_000, 1_000_000)
    for part in (
        lambda: rows_series(bench, decades, ".parquet"),
        lambda: rows_series(bench, decades, ".csv"),
        lambda: finished_series(bench, decades[-1]),
        lambda: killed_series(bench, decades[-1]),
        lambda: concurrency_series(bench, decades[-1] // 20),
    ):
        yield from _told(part)


def rows_series(bench: Bench, decades: Sequence[int], suffix: str) -> Iterator[Line]:
    """The same run over ten times the rows, and again: time per row and memory should stay."""
    with Server() as server:
        for rows in decades:
            child = bench.run(bench.table(rows, suffix), server, 64)
            yield _line(f"{rows:,} rows of {suffix[1:]}", child, f"{child.wall_s / rows * 1e6:.0f} µs a row")


def finished_series(bench: Bench, rows: int) -> Iterator[Line]:
    """On the journal that the last CSV run left: nothing to do, status, export, verify."""
    table = bench.table(rows)
    output = bench.work / f"answers-{table.name}"
    exported = bench.work / f"exported-{rows}.parquet"
    with Server() as server:
        again = measure(*PRODUCT, *run_arguments(table, output, server, 64))
        if server.stats()["requests"]:
            raise BenchmarkError("the finished job sent requests again")
    yield _line(f"re-run with nothing to do, {rows:,} rows", again)
    yield _line(f"status, {rows:,} rows", measure(*PRODUCT, "status", str(output), "--json"))
    yield _line(
        f"export to Parquet, {rows:,} rows", measure(*PRODUCT, "export", str(output), "-o", str(exported))
    )
    yield _line(f"verify, {rows:,} rows", measure(*PRODUCT, "verify", str(output), str(table)))
    exported.unlink()


def killed_series(bench: Bench, rows: int) -> Iterator[Line]:
    """SIGKILL after nine tenths of the rows, then the same command again."""
    table = bench.table(rows)
    output = bench.output(table)
    with Server() as server:
        command = (*PRODUCT, *run_arguments(table, output, server, 64))
        running = Running(command)
        running.kill_when(lambda: server.stats()["requests"] >= rows * KILLED_AFTER)
        killed = running.finish()
        before = server.reset()["requests"]
        yield _line(f"killed at {KILLED_AFTER:.0%} of {rows:,} rows", killed, f"{before:,} requests")
        child = measure(*command)
        after = server.stats()
    wait_s = after["first_at"] - child.spawned_at
    twice = before + after["requests"] - rows
    yield _line(
        "the same command again", child, f"first request after {wait_s:.2f} s, {twice} rows sent twice"
    )


def concurrency_series(bench: Bench, rows: int) -> Iterator[Line]:
    """More and more requests at once, beside thin at the same concurrency."""
    table = bench.table(rows)
    with Server(CONCURRENCY_LATENCY_MS) as server:
        for concurrency in CONCURRENCIES:
            thin = bench.thin(table, server, concurrency)
            child = bench.run(table, server, concurrency)
            note = f"{rows / child.wall_s:.0f} rows/s, {thin.wall_s / child.wall_s:.2f} of thin's"
            yield _line(f"concurrency {concurrency}, 20 ms, {rows:,} rows", child, note)


def _told(part: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """A part's lines; one that fails says so and lets the others go on."""
    try:
        yield from part()
    except BenchmarkError as exc:
        yield Line("FAILED", 0, 0, 0, str(exc))


def _line(what: str, child: Child, note: str = "") -> Line:
    return Line(what, child.wall_s, child.cpu_s, child.peak_mb, note)
