"""Writes a table of made-up prompts: `python benchmarks/make_table.py 100000 prompts.csv` (or .parquet)."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("id", "prompt", "topic")
TOPICS = ("rivers", "bread", "clocks", "whales", "paper", "glass", "moss")
_BATCH = 10_000


def rows(count: int) -> Iterator[tuple[str, str, str]]:
    """Rows whose chat requests weigh about 200 bytes; all prompts differ."""
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        ask = f"say in one sentence what a curious child should know about {topic}, please."
        yield f"r{number}", f"Question {number:07d}: {ask}", topic


def write_csv(path: Path, count: int) -> None:
    """`count` rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows(count))


def write_parquet(path: Path, count: int) -> None:
    """`count` rows as Parquet, batch by batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    source = rows(count)
    with pq.ParquetWriter(path, schema) as writer:
        while batch := [row for _, row in zip(range(_BATCH), source, strict=False)]:
            columns = [pa.array(values, pa.string()) for values in zip(*batch, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


if __name__ == "__main__":
    number_text, path_text = sys.argv[1:]
    target = Path(path_text)
    (write_parquet if target.suffix == ".parquet" else write_csv)(target, int(number_text))
