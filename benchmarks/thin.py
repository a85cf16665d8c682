"""The barest loop that sends a CSV of prompts: what all ratios are taken against.

    python benchmarks/thin.py prompts.csv http://127.0.0.1:8765 --concurrency 64

One aiohttp session, N tasks, uvloop; no throttle, no retries, no journal, no output table. Prints one JSON
object: rows, wall_s and cpu_s of the loop alone, rows_per_s, cpu_ms_per_row, peak_rss_mb.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import orjson
import uvloop
from yarl import URL

PATH = "/api/v1/inference/run_chat_completion"
PROJECT_ID = "ke3_xh5gai3gjkmruomu"
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def prompts(path: Path) -> Iterator[str]:
    """The column `prompt`, row by row."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield row["prompt"]


async def work(session: aiohttp.ClientSession, url: URL, rows: Iterator[str]) -> int:
    """Sends rows until there are none; gives how many were answered."""
    answered = 0
    for prompt in rows:
        body = orjson.dumps({"project_id": PROJECT_ID, "messages": [{"role": "user", "content": prompt}]})
        async with session.post(url, data=body) as response:
            content = orjson.loads(await response.read())["content"]
            answered += response.status == 200 and bool(content)
    return answered


async def run(path: Path, base_url: str, concurrency: int) -> int:
    """Sends the whole table; gives how many rows were answered."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    headers = {"Content-Type": "text/plain;charset=UTF-8"}
    timeout = aiohttp.ClientTimeout(total=None)
    rows = prompts(path)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        url = URL(base_url + PATH)
        return sum(await asyncio.gather(*(work(session, url, rows) for _ in range(concurrency))))


def main() -> None:
    """Reads the options, runs, prints the figures."""
    parser = argparse.ArgumentParser(description="The barest client loop.")
    parser.add_argument("table", type=Path)
    parser.add_argument("base_url")
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    began, cpu_began = time.monotonic(), time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(run(options.table, options.base_url, options.concurrency))
    wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
    figures = {
        "rows": rows,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "rows_per_s": rows / wall_s,
        "cpu_ms_per_row": cpu_s / max(1, rows) * 1000,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 1e6,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
