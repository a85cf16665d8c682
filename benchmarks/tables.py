"""Tables alone: CPU per row and peak memory of scan, read and join, each case in a process of its own.

`python benchmarks/tables.py` takes some minutes and 10 GB of disk; `--quick` runs a hundredth; `--json` prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from make_table import write_csv, write_parquet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from websim_batch.records import OutputCells
from websim_batch.tables import OutputSpec, open_source, write_output

MIB = 1 << 20
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_DONE = OutputCells(
    "ok",
    'A sentence, as an answer, with a comma and a "quote".\nAnd one more line of it. ' * 2,
    http_status=200,
    requests=1,
    latency_ms=51,
    wait_ms=3,
    prompt_tokens=12,
    completion_tokens=40,
    finish_reason="stop",
    request_kind="chat",
    request_project_id="0123456789abcdef",
    request_hash="0123456789abcdef" * 2,
    started_at=1_700_000_000_123_456,
    finished_at=1_700_000_000_174_456,
    run_id="2026-01-01T00-00-00-abcd",
)


def main() -> None:
    """Run every case and print its line, or one case in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--case", nargs=3, metavar=("NAME", "INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        name, table, output = given.case
        print(json.dumps(CASES[name](Path(table), Path(output))))
        return
    share = 100 if given.quick else 1
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        lines = [show(line, given.json) for line in series(Path(folder), share)]
    if given.json:
        print(json.dumps(lines))


def series(folder: Path, share: int) -> Iterator[dict[str, Any]]:
    """Every case at its sizes; inputs are made on the way and taken away again."""
    for rows in (10_000, 1_000_000 // share, 10_000_000 // share):
        write_csv(folder / "in.csv", rows)
        for target in (".csv", ".jsonl", ".parquet"):
            yield child("join", folder / "in.csv", folder / f"out{target}")
            if target == ".jsonl" and rows <= 1_000_000:
                yield child("join", folder / "out.jsonl", folder / "again.jsonl", prefix="again_")
    for rows in (10_000, 1_000_000 // share):
        write_parquet(folder / "in.parquet", rows)
        for target in (".parquet", ".csv"):
            yield child("join", folder / "in.parquet", folder / f"out{target}")
    write_big_groups(folder / "big.parquet", 2048 * MIB // share)
    yield child("join", folder / "big.parquet", folder / "out.parquet")
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_big_cell(folder / f"cell{suffix}", 50 * MIB // share)
        yield child("join", folder / f"cell{suffix}", folder / f"out{suffix}")
    write_csv(folder / "in.csv", 300)
    yield child("answers", folder / "in.csv", folder / "out.parquet")
    yield child("pandas", folder / "out.parquet", folder / "-")


def show(line: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """Print one line for a person."""
    if not as_json:
        steps = "".join(
            f"{name:>8} {line[name]:>8.2f} us/row" for name in ("scan", "read", "join") if name in line
        )
        print(f"{line['case']:<44}{line['rows']:>11,} rows {line['peak_mb']:>7.0f} MB {steps}", flush=True)
    return line


def child(case: str, table: Path, output: Path, prefix: str = "") -> dict[str, Any]:
    """One case in a fresh process, so that its peak is its own."""
    command = [sys.executable, __file__, "--case", case, str(table), str(output)]
    environ = {**os.environ, "TABLES_PREFIX": prefix}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    line: dict[str, Any] = json.loads(done.stdout)
    return {"case": f"{case} {table.name} -> {output.name}", **line}


def join(table: Path, output: Path, answer: str | None = None) -> dict[str, Any]:
    """Scan, read the prompts, write the output; microseconds of CPU per row."""
    source = open_source(table)
    clock = time.process_time()
    info = source.scan([])
    scanned = time.process_time()
    read = sum(len(batch) for batch in source.rows(["prompt"]))
    rows_read = time.process_time()
    cells = _DONE if answer is None else _DONE._replace(response=answer)
    spec = OutputSpec(output, prefix=os.environ.get("TABLES_PREFIX", ""))
    write_output(source, info, (cells for _ in range(info.rows)), spec)
    written = time.process_time()
    per_row = 1e6 / max(read, 1)
    return {
        "rows": read,
        "scan": (scanned - clock) * per_row,
        "read": (rows_read - scanned) * per_row,
        "join": (written - rows_read) * per_row,
        "peak_mb": peak_mb(),
    }


def answers(table: Path, output: Path) -> dict[str, Any]:
    """300 answers of 8 MiB: more than a column of `string` can hold."""
    return join(table, output, "answer, " * MIB)


def pandas(table: Path, output: Path) -> dict[str, Any]:
    """What pandas makes of it."""
    import pandas as pd

    answers_read = pd.read_parquet(table, columns=["response"])["response"]
    return {"rows": int((answers_read.str.len() == 8 * MIB).sum()), "peak_mb": peak_mb()}


CASES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "join": join,
    "answers": answers,
    "pandas": pandas,
}


def peak_mb() -> float:
    """The peak memory of this process; on Linux its own mark, as `ru_maxrss` begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(mark.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / MIB


def write_big_groups(path: Path, size: int) -> None:
    """A Parquet file of about `size` bytes that hardly compress, in row groups of a quarter each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("prompt", pa.string()), ("n", pa.int64())])
    rows = max(size // 4 // 1024, 1)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for _ in range(4):
            prompts = pa.array((os.urandom(512).hex() for _ in range(rows)), pa.string(), size=rows)
            writer.write_table(pa.table([prompts, pa.array(range(rows))], schema=schema), rows)


def write_big_cell(path: Path, size: int) -> None:
    """Three rows; the prompt of the second has `size` characters."""
    prompts = ["a", 'long, "quoted"\n ' * (size // 16), "b"]
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"prompt": prompts}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    else:
        quoted = ('"' + prompt.replace('"', '""') + '"\n' for prompt in ["prompt", *prompts])
        path.write_text("".join(quoted))


if __name__ == "__main__":
    main()
