"""How far a run is, seen from outside: of a living process, a dead one, a finished one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from websim_batch.errors import JournalError
from websim_batch.journal import OutputLock, journal_path, open_journal, read_status

RUNNER = """
import asyncio, sys
from pathlib import Path
from websim_batch.journal import JournalWriter, OutputLock, journal_path, open_journal
from websim_batch.records import Result

async def main():
    output = Path(sys.argv[1])
    with OutputLock(output), open_journal(journal_path(output), is_sandbox=True) as journal:
        journal.begin_run("abc", 5, b'{"model": "m"}', b'{"python": "3"}')
        done = asyncio.Event()
        writer = JournalWriter(
            journal, asyncio.get_running_loop(), lambda tokens: done.set(), print, lambda: b'{"rows": 7}'
        )
        writer.finish(Result(0, "skipped", run=1), b"k" * 16, None, 0)
        await done.wait()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


def test_run_in_another_process_is_running_until_it_dies(tmp_path: Path) -> None:
    """The state follows the process: `running` while it lives, `stopped` once it is killed, with the last summary."""
    output = tmp_path / "a.csv"
    child = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"

    alive = read_status(output)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    dead = read_status(output)

    assert (alive.state, dead.state) == ("running", "stopped")
    assert alive.holder is not None
    assert alive.holder.pid == child.pid
    assert dead.holder is None
    assert alive.summary == dead.summary == {"rows": 7}
    assert (dead.run, dead.run_id, dead.started_us, dead.finished_us) == (1, "abc", 5, None)
    assert (dead.settings, dead.versions, dead.is_sandbox) == ({"model": "m"}, {"python": "3"}, True)


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_ended_run_says_how(state: str, tmp_path: Path) -> None:
    """A run that ended by itself has the state it noted, and when; the newest run counts."""
    output = tmp_path / "a.csv"
    with open_journal(journal_path(output)) as journal:
        for run_id in ("first", "second"):
            journal.begin_run(run_id, 5, b"{}")
            journal.end_run(state, 9, b'{"rows": 1}')  # type: ignore[arg-type] - a parameter of the test

    status = read_status(output)

    assert (status.state, status.run_id, status.finished_us, status.summary) == (
        state,
        "second",
        9,
        {"rows": 1},
    )


def test_status_neither_waits_for_the_writer_nor_stops_it(tmp_path: Path) -> None:
    """In the middle of a commit the status is that of the last one; the commit goes through."""
    output = tmp_path / "a.csv"
    with OutputLock(output), open_journal(journal_path(output)) as journal:
        journal.begin_run("abc", 5, b"{}")
        journal._db.execute("BEGIN IMMEDIATE")
        journal._db.execute("""UPDATE runs SET summary = '{"rows": 1}'""")

        assert read_status(output).summary == {}

        journal._db.execute("COMMIT")
        assert read_status(output).summary == {"rows": 1}


def test_journal_elsewhere_is_read_where_it_lies(tmp_path: Path) -> None:
    """`--journal PATH` holds for the status as well."""
    with open_journal(tmp_path / "elsewhere") as journal:
        journal.begin_run("abc", 5, b"{}")

    assert read_status(tmp_path / "a.csv", tmp_path / "elsewhere").run_id == "abc"


def test_output_without_a_journal_or_a_run_is_told(tmp_path: Path) -> None:
    """Nothing to tell: one sentence, and no file is made."""
    with pytest.raises(JournalError, match="there is no journal here"):
        read_status(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []

    open_journal(journal_path(tmp_path / "a.csv")).close()
    with pytest.raises(JournalError, match="no run has begun"):
        read_status(tmp_path / "a.csv")
