"""Power loss and kills: what was acknowledged is there, whole groups, and nothing half."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from websim_batch.journal import JournalWriter, Placed, open_journal
from websim_batch.records import Attempt, Result

ROWS = 600

State = tuple[int, int]
"""How many rows have a request, how many a result."""


def key_of(row_id: int) -> bytes:
    """A key of its own for each row."""
    return row_id.to_bytes(16, "big")


def state_of(path: Path) -> State:
    """What a journal holds; checks that results are a prefix, each with its answered request."""
    with open_journal(path, "read") as journal:
        assert journal._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = [Placed(row_id, key_of(row_id), False) for row_id in range(ROWS)]
        responses = [cells.response for cells in journal.output_cells(rows)]
        attempts = list(journal.attempts())
    results = sum(response is not None for response in responses)
    assert responses == [f"answer {row_id}" for row_id in range(results)] + [None] * (ROWS - results)
    assert [attempt.row_id for attempt in attempts] == list(range(len(attempts)))
    assert sum(attempt.delivery == "answered" for attempt in attempts) == results
    return len(attempts), results


class Snapshots:
    """Copies of a journal's files as they stood after each fsync, with what had been acknowledged by then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states: list[State] = []
        self.log_sizes: list[int] = []

    def take(self, path: Path, state: State) -> None:
        """Copy database and log; the shared memory file does not survive a power loss."""
        target = self.folder / f"{len(self.states)}"
        target.mkdir(parents=True)
        for name in (path.name, path.name + "-wal"):
            shutil.copy(path.with_name(name), target / name)
        self.states.append(state)
        self.log_sizes.append((target / f"{path.name}-wal").stat().st_size)


def write_rows(path: Path, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows sent and answered in groups of varying size, with a snapshot after every commit."""
    counts = [0, 0]
    commit = JournalWriter._commit

    def commit_and_copy(writer: Any, group: Any) -> Any:
        tokens = commit(writer, group)
        counts[0] += len(group.intents)
        counts[1] += len(group.results)
        snapshots.take(path, (counts[0], counts[1]))
        return tokens

    monkeypatch.setattr(JournalWriter, "_commit", commit_and_copy)
    asyncio.run(_write(path))


async def _write(path: Path) -> None:
    news: asyncio.Queue[list[int]] = asyncio.Queue()
    rng = random.Random(5)
    with open_journal(path) as journal:
        journal.begin_run("r", 1, b"{}")
        writer = JournalWriter(
            journal, asyncio.get_running_loop(), news.put_nowait, news.put_nowait, window_s=0
        )
        row_id = 0
        while row_id < ROWS:
            group = range(row_id, min(ROWS, row_id + rng.randint(1, 40)))
            for number in group:
                intent = Attempt(number, 1, 1, 5, None, None, None, "unknown")
                writer.intend(intent, key_of(number), None, number)
            await news.get()
            for number in group:
                answer = Attempt(number, 1, 1, 5, 9, 200, None, "answered")
                writer.settle(answer, Result(number, "ok", f"answer {number}", requests=1, run=1), number)
            await news.get()
            row_id = group.stop
        await writer.close()


def test_files_as_of_each_fsync_hold_exactly_what_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endings: power loss. The files of any fsync reopen with the committed rows, no more, no less."""
    snapshots = Snapshots(tmp_path / "copies")
    write_rows(tmp_path / "j", snapshots, monkeypatch)

    found = [state_of(tmp_path / "copies" / str(number) / "j") for number in range(len(snapshots.states))]

    assert found == snapshots.states
    assert found[-1] == (ROWS, ROWS)
    assert len(found) > 30


@pytest.mark.parametrize("tail", [b"", b"\0" * 5_000, random.Random(3).randbytes(5_000)])
def test_log_cut_anywhere_holds_the_last_whole_group(
    tail: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endings: power loss while writing. A log cut or torn at any byte gives the last group synced."""
    snapshots = Snapshots(tmp_path / "copies")
    write_rows(tmp_path / "j", snapshots, monkeypatch)
    # The log is not yet folded here, so each group's end in it is known.
    last = max(n for n, size in enumerate(snapshots.log_sizes) if size == max(snapshots.log_sizes[: n + 1]))
    whole = (tmp_path / "copies" / str(last) / "j-wal").read_bytes()
    rng = random.Random(11)
    cuts = [rng.randrange(snapshots.log_sizes[0], len(whole)) for _ in range(40)]

    for cut in [*cuts, snapshots.log_sizes[0], len(whole)]:
        copy = tmp_path / "cut"
        shutil.copytree(tmp_path / "copies" / str(last), copy)
        (copy / "j-wal").write_bytes(whole[:cut] + tail)
        durable = max(number for number in range(last + 1) if snapshots.log_sizes[number] <= cut)

        assert state_of(copy / "j") == snapshots.states[durable]
        shutil.rmtree(copy)


VICTIM = """
import asyncio, sys
from pathlib import Path
from websim_batch.journal import JournalWriter, open_journal
from websim_batch.records import Attempt, Result

async def main():
    journal = open_journal(Path(sys.argv[1]))
    journal.begin_run("r", 1, b"{}")
    news = asyncio.Queue()
    def acknowledged(tokens):
        print(max(tokens), flush=True)
        news.put_nowait(None)
    writer = JournalWriter(journal, asyncio.get_running_loop(), acknowledged, print)
    for row_id in range(600):
        intent = Attempt(row_id, 1, 1, 5, None, None, None, "unknown")
        writer.intend(intent, row_id.to_bytes(16, "big"), None, -1)
        answer = Attempt(row_id, 1, 1, 5, 9, 200, None, "answered")
        writer.settle(answer, Result(row_id, "ok", f"answer {row_id}", requests=1, run=1), row_id)
        if row_id % 20 == 19:
            await news.get()
    await writer.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 3, 7, 12, 20])
def test_killed_process_leaves_all_that_it_acknowledged(lines: int, tmp_path: Path) -> None:
    """Endings: SIGKILL. Every row that was acknowledged is in the file; the next run opens it as it is."""
    path = tmp_path / "j"
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    acknowledged = [int(victim.stdout.readline()) for _ in range(lines)][-1]
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()

    assert state_of(path)[1] >= acknowledged + 1
    with open_journal(path) as journal:
        assert journal.begin_run("next", 2, b"{}") == 2
        assert [run.state for run in journal.runs()] == ["stopped", "running"]
