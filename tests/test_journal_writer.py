"""The writer on a real file: groups, windows, values that SQLite refuses, full disks, its own faults."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from websim_batch.errors import DiskFullError, InternalError, JournalError
from websim_batch.journal import Journal, JournalWriter, Placed, open_journal, opening, sql
from websim_batch.records import Attempt, Result

Work = Callable[["Bench"], Coroutine[Any, Any, None]]


class Bench:
    """A journal in its first run, a writer, and what came back."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.groups: list[list[Any]] = []
        self.errors: list[BaseException] = []
        self.summaries = 0
        self.journal: Journal
        self.writer: JournalWriter[Any]
        self._options = options

    def run(self, work: Work) -> Bench:
        """Open everything, let `work` write, close the writer; the journal's file stays."""

        async def main() -> None:
            with open_journal(self.path) as self.journal:
                self.journal.begin_run("r", 1, b"{}")
                self._news = asyncio.Event()
                loop = asyncio.get_running_loop()
                self._options.setdefault("summary", self._summary)
                self.writer = JournalWriter(
                    self.journal, loop, self._on_commit, self._on_error, **self._options
                )
                await work(self)
                await self.writer.close()

        asyncio.run(main())
        return self

    async def wait(self, is_enough: Callable[[], bool]) -> None:
        """Until the callbacks have brought what is waited for."""
        while not is_enough():
            await self._news.wait()
            self._news.clear()

    @property
    def tokens(self) -> list[Any]:
        """All tokens that came back."""
        return [token for group in self.groups for token in group]

    def responses(self, count: int) -> list[str | None]:
        """The responses of the first rows, from the file."""
        with open_journal(self.path, "read") as journal:
            return [cells.response for cells in journal.output_cells(placed(count))]

    def _on_commit(self, tokens: list[Any]) -> None:
        self.groups.append(tokens)
        self._news.set()

    def _on_error(self, exc: BaseException) -> None:
        self.errors.append(exc)
        self._news.set()

    def _summary(self) -> bytes:
        self.summaries += 1
        return json.dumps({"summaries": self.summaries}).encode()


def placed(count: int) -> list[Placed]:
    """The first rows."""
    return [Placed(row_id, key_of(row_id), False) for row_id in range(count)]


def key_of(row_id: int) -> bytes:
    """A key of its own for each row."""
    return row_id.to_bytes(16, "big")


def finish(bench: Bench, row_id: int, response: Any = "yes", **facts: Any) -> None:
    """Hand in a result with the row's number as the token."""
    bench.writer.finish(
        Result(row_id, "ok", response, **facts, finished_us=1, run=1), key_of(row_id), None, row_id
    )


# -- groups ----------------------------------------------------------------------------------------------


def test_group_is_closed_at_256_entries(tmp_path: Path) -> None:
    """A full group does not wait for its window; the rest waits."""

    async def work(bench: Bench) -> None:
        finish(bench, 0)
        await bench.wait(lambda: len(bench.tokens) == 1)
        for row_id in range(1, 601):
            finish(bench, row_id)
        await bench.wait(lambda: len(bench.tokens) == 513)

    bench = Bench(tmp_path / "j", window_s=3_600).run(work)

    assert [len(group) for group in bench.groups] == [1, 256, 256, 88]


def test_first_entry_after_a_pause_does_not_wait_for_the_window(tmp_path: Path) -> None:
    """A window of an hour holds up nothing where no group was closed before; the second entry waits."""

    async def work(bench: Bench) -> None:
        finish(bench, 0)
        await bench.wait(lambda: bench.tokens == [0])
        finish(bench, 1)
        await asyncio.sleep(0)
        assert bench.tokens == [0]

    bench = Bench(tmp_path / "j", window_s=3_600).run(work)

    assert bench.tokens == [0, 1]


def test_window_is_20_ms_unless_told_otherwise(tmp_path: Path) -> None:
    """The entry after the first is committed without anything else happening."""

    async def work(bench: Bench) -> None:
        for row_id in range(3):
            finish(bench, row_id)
            await bench.wait(lambda: len(bench.tokens) > row_id)  # noqa: B023 - awaited before the next turn
        assert bench.writer._window_s == 0.02

    assert len(Bench(tmp_path / "j").run(work).groups) == 3


def test_long_answers_close_a_group(tmp_path: Path) -> None:
    """A group holds about 1 MiB of answers at most, so that memory does not grow with their length."""

    async def work(bench: Bench) -> None:
        finish(bench, 0)
        await bench.wait(lambda: len(bench.tokens) == 1)
        for row_id in range(1, 9):
            attempt = Attempt(row_id, 1, 1, 1, 1, 200, None, "answered")
            bench.writer.settle(attempt, Result(row_id, "ok", "x" * 300_000, run=1), row_id)
        await bench.wait(lambda: len(bench.tokens) == 9)

    bench = Bench(tmp_path / "j", window_s=3_600).run(work)

    assert [len(group) for group in bench.groups] == [1, 4, 4]


@pytest.mark.parametrize("count", [1, 3, 7, 8, 9, 31, 33, 70, 96, 100, 127, 129, 191, 192, 255, 256])
def test_every_size_of_group_is_stored_whole(count: int, tmp_path: Path) -> None:
    """However many rows a statement is made for, each row is stored once and nothing beside."""

    async def work(bench: Bench) -> None:
        for row_id in range(count):
            finish(bench, row_id, f"answer {row_id}")

    bench = Bench(tmp_path / "j").run(work)

    assert bench.responses(count + 1) == [*(f"answer {row_id}" for row_id in range(count)), None]
    with open_journal(tmp_path / "j", "read") as journal:
        assert journal._db.execute("SELECT count(*), count(key) FROM rows").fetchone() == (count, count)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (1, [1]),
        (3, [4]),
        (5, [4, 1]),
        (70, [64, 8]),
        (95, [64, 32]),
        (100, [128]),
        (128, [128]),
        (250, [256]),
    ],
)
def test_a_group_takes_few_statements(rows: int, sizes: list[int]) -> None:
    """Up to a quarter of a statement's lines stay empty where that saves another statement."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE rows (row_id INTEGER PRIMARY KEY, key BLOB NOT NULL, cells BLOB)")
    seen: list[str] = []
    db.set_trace_callback(seen.append)

    sql.ROWS.store(db, [(row_id, key_of(row_id), None) for row_id in range(rows)])

    inserts = [text for text in seen if text.startswith("INSERT")]
    assert [text.count("), (") + 1 for text in inserts] == sizes
    assert db.execute("SELECT count(*), count(cells) FROM rows").fetchone() == (rows, 0)
    db.close()


def test_summary_is_committed_with_its_group(tmp_path: Path) -> None:
    """The run's summary in the file is the one made when the newest group was closed."""

    async def work(bench: Bench) -> None:
        finish(bench, 0)
        await bench.wait(lambda: len(bench.tokens) == 1)
        finish(bench, 1)

    bench = Bench(tmp_path / "j").run(work)

    assert bench.summaries == 2
    assert summary_of(tmp_path / "j") == {"summaries": 2}


def test_touch_writes_the_summary_alone(tmp_path: Path) -> None:
    """While no row moves, the summary in the file can be brought up to date."""

    async def work(bench: Bench) -> None:
        bench.writer.touch()

    bench = Bench(tmp_path / "j").run(work)

    assert bench.tokens == []
    assert summary_of(tmp_path / "j")["summaries"] >= 1


def summary_of(path: Path) -> Any:
    """The newest run's summary."""
    with open_journal(path, "read") as journal:
        return json.loads(journal.runs()[-1].summary)


# -- values ----------------------------------------------------------------------------------------------


def test_lone_surrogate_is_replaced_and_harms_no_other(tmp_path: Path) -> None:
    """Half a character becomes U+FFFD, two halves that came apart their character; others stay."""
    texts = ["plain", "a\udc00b", "\ud83d", "\ud83d\ude00!", "é\0\r\n\u2028😀", "x\ud800y\udfff", ""]

    async def work(bench: Bench) -> None:
        for row_id, text in enumerate(texts):
            finish(bench, row_id, text)

    bench = Bench(tmp_path / "j").run(work)

    assert bench.errors == []
    assert bench.tokens == list(range(len(texts)))
    assert bench.responses(len(texts)) == [
        "plain", "a\ufffdb", "\ufffd", "😀!", "é\0\r\n\u2028😀", "x\ufffdy\ufffd", "",
    ]  # fmt: skip


def test_value_that_no_column_holds_harms_no_other_row(tmp_path: Path) -> None:
    """A number beyond 64 bits becomes null, a value of another type its text; the others are stored."""

    async def work(bench: Bench) -> None:
        finish(bench, 0, prompt_tokens=10**30)
        finish(bench, 1, ["not", "text"])
        finish(bench, 2, "fine", prompt_tokens=7)

    bench = Bench(tmp_path / "j").run(work)

    assert bench.errors == []
    assert bench.responses(3) == ["yes", "['not', 'text']", "fine"]
    with open_journal(tmp_path / "j", "read") as journal:
        assert [cells.prompt_tokens for cells in journal.output_cells(placed(3))] == [None, None, 7]


# -- endings ---------------------------------------------------------------------------------------------


def test_full_disk_is_told_once_and_earlier_commits_stay(tmp_path: Path) -> None:
    """Endings: journal on a full disk. DiskFullError once; what was committed is there, and nothing else."""

    async def work(bench: Bench) -> None:
        finish(bench, 0, "before")
        await bench.wait(lambda: bench.tokens == [0])
        pages = bench.writer._db.execute("PRAGMA page_count").fetchone()[0]
        bench.writer._db.execute(f"PRAGMA max_page_count = {pages}")
        for row_id in range(1, 601):
            finish(bench, row_id, "x" * 1_000)
        await bench.wait(lambda: bool(bench.errors))
        finish(bench, 601, "after")

    bench = Bench(tmp_path / "j").run(work)

    assert [type(exc) for exc in bench.errors] == [DiskFullError]
    assert "the disk is full" in str(bench.errors[0])
    assert bench.tokens == [0]
    assert bench.responses(602) == ["before"] + [None] * 601


FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from websim_batch.journal import JournalWriter, open_journal
from websim_batch.records import Result

async def main():
    journal = open_journal(Path(sys.argv[1]))
    journal.begin_run("r", 1, b"{}")
    acked, errors = [], []
    loop = asyncio.get_running_loop()
    failed = asyncio.Event()
    def on_error(exc):
        errors.append(type(exc).__name__)
        failed.set()
    writer = JournalWriter(journal, loop, acked.extend, on_error)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    for row_id in range(5_000):
        writer.finish(Result(row_id, "ok", "x" * 200, run=1), row_id.to_bytes(16, "big"), None, row_id)
        if row_id % 50 == 0:
            await asyncio.sleep(0)
    await failed.wait()
    await writer.close()
    print(len(acked), acked == list(range(len(acked))), errors)

asyncio.run(main())
"""


def test_disk_that_refuses_writes_in_the_middle_of_a_commit(tmp_path: Path) -> None:
    """Endings: the system refuses a write. What was acknowledged is in the file, and nothing else."""
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "j")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    count, in_order, errors = child.stdout.split(maxsplit=2)

    assert (in_order, errors.strip()) == ("True", "['DiskFullError']")
    assert 0 < int(count) < 5_000
    with open_journal(tmp_path / "j", "read") as journal:
        stored = [cells.status for cells in journal.output_cells(placed(5_000))]
    assert stored == ["ok"] * int(count) + ["pending"] * (5_000 - int(count))


def test_journal_held_by_another_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who keeps the file locked for writing ends the run with a sentence, not with a hang."""
    monkeypatch.setattr(opening, "_BUSY_TIMEOUT_MS", 10)

    async def work(bench: Bench) -> None:
        bench.journal._db.execute("BEGIN IMMEDIATE")
        finish(bench, 0)
        await bench.wait(lambda: bool(bench.errors))
        bench.journal._db.execute("ROLLBACK")

    bench = Bench(tmp_path / "j").run(work)

    assert [type(exc) for exc in bench.errors] == [JournalError]
    assert "another program keeps the journal locked" in str(bench.errors[0])


def test_fault_in_the_writer_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endings: an exception of our own in the writer. InternalError once, then nothing is written."""

    def broken(writer: Any, group: Any) -> None:
        raise ZeroDivisionError("a fault of ours")

    async def work(bench: Bench) -> None:
        finish(bench, 0)
        await bench.wait(lambda: bench.tokens == [0])
        with monkeypatch.context() as patch:
            patch.setattr(JournalWriter, "_write", broken)
            finish(bench, 1)
            await bench.wait(lambda: bool(bench.errors))
        finish(bench, 2)

    bench = Bench(tmp_path / "j").run(work)

    assert [type(exc) for exc in bench.errors] == [InternalError]
    assert "ZeroDivisionError: a fault of ours" in str(bench.errors[0])
    assert bench.responses(3) == ["yes", None, None]


def test_groups_behind_a_failed_one_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group closed before the failure of an earlier one was known is not written after it."""
    whole = JournalWriter._write

    def broken(writer: Any, group: Any) -> None:
        if group.tokens[0] == 0:
            raise ZeroDivisionError
        whole(writer, group)

    async def work(bench: Bench) -> None:
        monkeypatch.setattr(JournalWriter, "_write", broken)
        for row_id in range(512):
            finish(bench, row_id)
        await bench.wait(lambda: bool(bench.errors))

    bench = Bench(tmp_path / "j").run(work)

    assert bench.tokens == []
    assert bench.responses(512) == [None] * 512


def test_fault_in_the_summary_is_told(tmp_path: Path) -> None:
    """A summary that raises does not leave its rows waiting for ever."""

    def summary() -> bytes:
        raise ZeroDivisionError

    async def work(bench: Bench) -> None:
        bench.writer._loop.set_exception_handler(lambda loop, context: None)
        finish(bench, 0)
        await bench.wait(lambda: bool(bench.errors))

    bench = Bench(tmp_path / "j", summary=summary).run(work)

    assert [type(exc) for exc in bench.errors] == [InternalError]


def test_closed_writer_says_so(tmp_path: Path) -> None:
    """What is handed in after the end is refused, not lost in silence; a second close is harmless."""

    async def work(bench: Bench) -> None:
        await bench.writer.close()
        with pytest.raises(InternalError, match="after it was closed"):
            finish(bench, 0)
        await bench.writer.close()

    Bench(tmp_path / "j").run(work)


# -- the log ---------------------------------------------------------------------------------------------


def log_size(path: Path) -> int:
    """Bytes in the write-ahead log."""
    return Path(f"{path}-wal").stat().st_size


async def write_megabytes(bench: Bench, first: int, megabytes: int) -> None:
    """Some rows of 64 KiB, all committed when it returns."""
    last = first + 16 * megabytes
    before = len(bench.tokens)
    for row_id in range(first, last):
        finish(bench, row_id, "x" * 65_536)
        if row_id % 16 == 15:
            await bench.wait(lambda: len(bench.tokens) == before + row_id + 1 - first)  # noqa: B023 - awaited here


def test_log_that_a_long_reader_made_grow_shrinks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody reads in one transaction the log grows; then it is folded and cut to its limit."""
    monkeypatch.setattr(opening, "_LOG_LIMIT_BYTES", 1 << 20)
    sizes = []

    async def work(bench: Bench) -> None:
        finish(bench, 0)
        await bench.wait(lambda: bench.tokens == [0])
        with open_journal(bench.path, "read") as reader:
            reader._db.execute("BEGIN")
            reader._db.execute("SELECT count(*) FROM rows").fetchone()
            await write_megabytes(bench, 16, 16)
            sizes.append(log_size(bench.path))
            assert bench.journal.checkpoint() is False
            reader._db.execute("ROLLBACK")
            assert bench.journal.checkpoint() is True
        await write_megabytes(bench, 512, 1)
        sizes.append(log_size(bench.path))

    Bench(tmp_path / "j", window_s=0).run(work)

    assert sizes[0] > 8 << 20
    assert sizes[1] <= 2 << 20


def test_streams_of_the_journal_do_not_hold_the_log(tmp_path: Path) -> None:
    """An export that pauses between two rows does not keep the log from being folded."""

    async def work(bench: Bench) -> None:
        for row_id in range(3_000):
            finish(bench, row_id)
        await bench.wait(lambda: len(bench.tokens) == 3_000)
        with open_journal(bench.path, "read") as reader:
            streams = [reader.output_cells(placed(3_000)), reader.known(placed(3_000)), reader.attempts()]
            assert [next(stream, None) is None for stream in streams] == [False, False, True]
            finish(bench, 3_000)
            await bench.wait(lambda: len(bench.tokens) == 3_001)
            assert reader.checkpoint() is True

    Bench(tmp_path / "j").run(work)
