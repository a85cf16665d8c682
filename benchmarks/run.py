"""Measures what the project holds: `python benchmarks/run.py [--quick] [--only NAME …] [--scale]`.

Prints a Markdown table of figure, result, bound, goal and verdict, as it stands in the README, and writes it
with every sample to benchmarks/out/ as JSON. Ends with 1 if a bound is missed or a figure could not be measured.
Quick: fewer rows and one pair each, to see that things work; its figures are no evidence.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import OUT, Bench, BenchmarkError, machine
from figures import FIGURES, Figure
from scale import HEADER, series


def tell_figures(bench: Bench, chosen: list[Figure]) -> list[dict[str, Any]]:
    """Measures and prints the chosen figures, line by line."""
    print("| figure | result | bound | goal | |\n|---|---|---|---|---|")
    told = []
    for figure in chosen:
        began = time.monotonic()
        value: float | None = None
        try:
            value = figure.measured(bench)
            verdict, shown = figure.verdict(value), f"{value:.2f} {figure.unit}"
        except BenchmarkError as exc:
            verdict, shown = f"FAILED: {exc}", "-"
        sign = "≥" if figure.is_more_better else "≤"
        print(
            f"| {figure.text} | {shown} | {sign} {figure.bound:g} | {figure.goal:g} | {verdict} |", flush=True
        )
        told.append(
            {
                "figure": figure.name,
                "text": figure.text,
                "unit": figure.unit,
                "value": value,
                "bound": figure.bound,
                "goal": figure.goal,
                "verdict": verdict,
                "took_s": time.monotonic() - began,
            }
        )
    return told


def tell_scale(bench: Bench) -> list[dict[str, Any]]:
    """Measures and prints the series of growing jobs."""
    print(HEADER)
    told = []
    for line in series(bench):
        print(line, flush=True)
        told.append(line.as_dict())
    return told


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the figures that the project holds.")
    parser.add_argument("--quick", action="store_true", help="small and once: to see that it works")
    parser.add_argument("--scale", action="store_true", help="the series of growing jobs instead (minutes)")
    parser.add_argument("--only", nargs="+", choices=[figure.name for figure in FIGURES], metavar="NAME",
                        help="these figures alone: %(choices)s")  # fmt: skip
    parser.add_argument("--repeats", type=int, help="pairs per ratio (3; quick: 1)")
    parser.add_argument("--work", type=Path, default=OUT / "work", help="where tables and journals lie")
    return parser.parse_args()


def main() -> int:
    """Measures, prints, writes; gives the exit code."""
    chosen = options()
    chosen.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(chosen.work, chosen.repeats or (1 if chosen.quick else 3), chosen.quick)
    report: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "quick": chosen.quick}
    report["machine"] = machine()
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()), end="\n\n")
    if chosen.scale:
        report["scale"] = tell_scale(bench)
        failed = any(line["what"] == "FAILED" for line in report["scale"])
    else:
        wanted = chosen.only or [figure.name for figure in FIGURES]
        report["figures"] = tell_figures(bench, [figure for figure in FIGURES if figure.name in wanted])
        failed = any(told["verdict"] not in ("goal", "bound") for told in report["figures"])
    report["samples"] = bench.samples
    OUT.mkdir(exist_ok=True)
    name = "scale" if chosen.scale else "figures"
    path = OUT / f"{name}{'-quick' if chosen.quick else ''}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Written to {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
