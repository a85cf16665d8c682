"""Every way in which a run may end: what is kept, what is told, and that the same command continues.

The README's table of endings names these tests.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.live import (
    answered_twice,
    journal_of,
    prompts_table,
    query,
    read_table,
    run,
    start,
    statuses,
    wait_until,
    write_table,
)
from websim_batch.sandbox import SandboxOptions
from websim_batch.sandbox.misbehaviour import Misbehaviour, Outage
from websim_batch.sandbox.testing import Sandbox

OUT = "out.csv"


def finish_the_job(folder: Path, sandbox: Sandbox, rows: int, *options: object) -> None:
    """The same command again ends 0, with every row answered."""
    again = run(folder, "run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json", *options)

    assert (again.code, again.summary["state"]) == (0, "finished"), again.err
    assert statuses(folder / OUT) == {"ok": rows}
    assert run(folder, "verify", OUT, "in.csv").code == 0


def only_the_files_of_the_job(folder: Path) -> bool:
    """Whether nothing temporary is left beside the output."""
    left = {path.name for path in folder.iterdir()} - {"in.csv", OUT}
    return left <= {
        f"{OUT}{suffix}" for suffix in (".journal", ".lock", ".run.json", ".journal-wal", ".journal-shm")
    }


# -- signals ---------------------------------------------------------------------------------------------------------


def test_ending_by_sigkill(tmp_path: Path) -> None:
    """kill -9: what was committed stays, and what was in flight is sent once more."""
    prompts_table(tmp_path / "in.csv", 300)
    with Sandbox(SandboxOptions(latency_ms=20)) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url)
        with start(tmp_path, *command) as running:
            wait_until(lambda: sandbox.status_count(200) >= 100)
            running.kill()
        status = run(tmp_path, "status", OUT, "--json").summary
        finish_the_job(tmp_path, sandbox, 300)

        assert (status["state"], status["rows"]) == ("stopped", 300)
        assert sum(status["counts"].values()) == 300
        assert answered_twice(sandbox.stats()) <= 16 + 256
        assert only_the_files_of_the_job(tmp_path)


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_ending_by_a_signal_drains(tmp_path: Path, number: signal.Signals, code: int, reason: str) -> None:
    """One SIGTERM or SIGINT: what is in flight is answered and kept, nothing is sent twice afterwards."""
    prompts_table(tmp_path / "in.csv", 100)
    with Sandbox(SandboxOptions(latency_ms=120)) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        with start(tmp_path, *command) as running:
            wait_until(lambda: sandbox.status_count(200) >= 15)
            running.signal(number)
            ended = running.wait()
        answered = sandbox.stats()["by_status"]

        assert (ended.code, ended.summary["exit_code"], ended.summary["exit_reason"]) == (code, code, reason)
        assert "Traceback" not in ended.err
        assert "the same command continues" in ended.summary["message"]
        assert answered == {"200": ended.summary["counts"]["ok"]}
        assert statuses(tmp_path / OUT) == {"ok": answered["200"], "pending": 100 - answered["200"]}
        assert ended.summary["may_be_paid"] == 0
        finish_the_job(tmp_path, sandbox, 100)
        assert sandbox.stats()["requests"] == 100


def test_ending_by_a_signal_waits_no_longer_than_the_grace(tmp_path: Path) -> None:
    """Requests that are not answered within --grace are given up, and told as perhaps paid."""
    prompts_table(tmp_path / "in.csv", 50)
    hang = {f"prompt {i}": "hang" for i in range(3)}
    with Sandbox(misbehaviour=Misbehaviour(by_prompt=hang)) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--grace", "0.5", "--json")
        with start(tmp_path, *command) as running:
            wait_until(lambda: sandbox.status_count(200) == 47)
            began = time.monotonic()
            running.signal(signal.SIGINT)
            ended = running.wait()

        assert ended.code == 130
        assert time.monotonic() - began < 5
        assert statuses(tmp_path / OUT) == {"ok": 47, "pending": 3}
        assert ended.summary["may_be_paid"] == 3
        deliveries = query(journal_of(tmp_path / OUT), "SELECT delivery, count(*) FROM requests GROUP BY 1")
        assert dict(deliveries) == {"answered": 47, "unknown": 3}
        # Those rows have one request each, although nobody knows what became of it.
        assert {row["requests"] for row in read_table(tmp_path / OUT)} == {"1"}


def test_ending_by_two_sigints_is_at_once(tmp_path: Path) -> None:
    """A second Ctrl-C does not wait for the grace; nothing finished is lost."""
    prompts_table(tmp_path / "in.csv", 60)
    hang = {f"prompt {i}": "hang" for i in range(20, 60)}
    with Sandbox(misbehaviour=Misbehaviour(by_prompt=hang)) as sandbox, Sandbox() as healthy:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        with start(tmp_path, *command) as running:
            wait_until(lambda: sandbox.status_count(200) == 20 and sandbox.stats()["in_flight"] >= 2)
            running.signal(signal.SIGINT)
            assert "a second time stops at once" in running.read_line()
            began = time.monotonic()
            running.signal(signal.SIGINT)
            ended = running.wait()

        assert (ended.code, ended.summary["exit_reason"]) == (130, "interrupted")
        assert time.monotonic() - began < 5
        assert statuses(tmp_path / OUT) == {"ok": 20, "pending": 40}
        finish_the_job(tmp_path, healthy, 60)
        assert healthy.stats()["requests"] == 40


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_by_a_signal_before_anything_was_sent(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """A signal while the input is still read: the code of the signal, no traceback, nothing sent."""
    with Sandbox() as sandbox:
        read, write = os.pipe()
        prelude = (
            "import sys; from websim_batch.run import session; print('ready', file=sys.stderr, flush=True)"
        )
        command = ("run", "-", "-o", OUT, "--base-url", sandbox.base_url)
        with start(tmp_path, *command, prelude=prelude, stdin=read) as running:
            assert running.read_line() == "ready\n"
            wait_until(lambda: _holds_input(running.pid))
            running.signal(number)
            ended = running.wait()
        os.close(read)
        os.close(write)

        assert ended.code == code
        assert "Traceback" not in ended.err
        assert sandbox.stats()["requests"] == 0
        assert not (tmp_path / OUT).exists()


def _holds_input(pid: int) -> bool:
    """Whether the process waits for its standard input (it sleeps), as far as the system tells."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "S"


SLOW_TABLE = """
import sys, time
from websim_batch.run import finish
def write_output(*arguments):
    print("finishing", file=sys.stderr, flush=True)
    time.sleep(60)
finish.write_output = write_output
"""


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_ending_by_a_signal_while_the_table_is_written(
    tmp_path: Path, number: signal.Signals, code: int, reason: str
) -> None:
    """The journal is the state then; the last line says how to export, and export gives the whole table."""
    prompts_table(tmp_path / "in.csv", 30)
    with Sandbox() as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        with start(tmp_path, *command, prelude=SLOW_TABLE) as running:
            while running.read_line() != "finishing\n":
                pass
            running.signal(number)
            ended = running.wait()

        assert (ended.code, ended.summary["exit_reason"], ended.summary["state"]) == (code, reason, "stopped")
        assert f"websim-batch export {OUT} -o OTHER.csv" in ended.summary["message"]
        assert not (tmp_path / OUT).exists()
        assert run(tmp_path, "export", OUT, "-o", "other.csv").code == 0
        assert statuses(tmp_path / "other.csv") == {"ok": 30}
        finish_the_job(tmp_path, sandbox, 30)
        assert sandbox.stats()["requests"] == 30


SLOW_ROWS = """
import time
from websim_batch.run import finish
class Slow(finish._Tally):
    def __iter__(self):
        time.sleep(0.3)
        return super().__iter__()
finish._Tally = Slow
"""


def test_ending_without_time_for_the_table(tmp_path: Path) -> None:
    """A stop whose table cannot be written within the grace keeps its own code and says how to export."""
    prompts_table(tmp_path / "in.csv", 40)
    with Sandbox(SandboxOptions(latency_ms=100)) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        ended = run(tmp_path, *command, "--time-limit", "0.5s", "--grace", "0.2", prelude=SLOW_ROWS)

        assert (ended.code, ended.summary["exit_reason"]) == (4, "time_limit")
        assert "the table was not written" in ended.summary["message"]
        assert not (tmp_path / OUT).exists()
        assert only_the_files_of_the_job(tmp_path)
        finish_the_job(tmp_path, sandbox, 40)


# -- the disk --------------------------------------------------------------------------------------------------------


def no_file_larger_than(size: int) -> object:
    """What makes a process meet a full disk: no file of its may grow beyond `size` bytes."""
    return lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )


def test_ending_by_a_full_disk_under_the_journal(tmp_path: Path) -> None:
    """Sending stops at once, everything finished is kept, and the run goes on when there is room again."""
    prompts_table(tmp_path / "in.csv", 1500)
    with Sandbox() as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        ended = run(tmp_path, *command, before=no_file_larger_than(300_000))
        sent = sandbox.stats()["requests"]
        kept = query(journal_of(tmp_path / OUT), "SELECT count(*) FROM results WHERE status = 'ok'")[0][0]

        assert (ended.code, ended.summary["exit_reason"]) == (4, "disk_full")
        assert "the journal cannot be written" in ended.summary["message"]
        assert 0 < kept <= sent < 1500
        assert sent - kept <= 16 + 256
        finish_the_job(tmp_path, sandbox, 1500)
        assert sandbox.stats()["requests"] <= 1500 + 16 + 256


def test_ending_by_a_full_disk_under_the_output(tmp_path: Path) -> None:
    """All rows are done and kept; exit 4, no half table, and the same command only writes it."""
    write_table(tmp_path / "in.csv", ([f"prompt {i}", "x" * 100_000] for i in range(40)), ("prompt", "text"))
    with Sandbox() as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        ended = run(tmp_path, *command, before=no_file_larger_than(2_000_000))

        assert (ended.code, ended.summary["exit_reason"]) == (4, "disk_full")
        assert (ended.summary["state"], ended.summary["counts"]) == ("stopped", {"ok": 40})
        assert f"websim-batch export {OUT}" in ended.summary["message"]
        assert not (tmp_path / OUT).exists()
        assert only_the_files_of_the_job(tmp_path)
        finish_the_job(tmp_path, sandbox, 40)
        assert sandbox.stats()["requests"] == 40


def test_ending_by_a_full_disk_under_the_old_output(tmp_path: Path) -> None:
    """The table of the run before stays whole."""
    write_table(tmp_path / "in.csv", ([f"prompt {i}", "x" * 100_000] for i in range(20)), ("prompt", "text"))
    with Sandbox() as sandbox:
        finish_the_job(tmp_path, sandbox, 20)
        before = (tmp_path / OUT).read_bytes()
        write_table(
            tmp_path / "in.csv", ([f"prompt {i}", "x" * 100_000] for i in range(40)), ("prompt", "text")
        )
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url)
        ended = run(tmp_path, *command, before=no_file_larger_than(3_000_000))

        assert ended.code == 4
        assert (tmp_path / OUT).read_bytes() == before


def test_ending_by_a_full_disk_under_the_temporary_file(tmp_path: Path) -> None:
    """Standard input that cannot be spooled: one sentence, exit 4, nothing sent."""
    big = write_table(
        tmp_path / "big.csv", ([f"prompt {i}", "x" * 1000] for i in range(2000)), ("prompt", "text")
    )
    with Sandbox() as sandbox, big.open() as file:
        command = ("run", "-", "-o", OUT, "--base-url", sandbox.base_url)
        ended = run(tmp_path, *command, stdin=file.fileno(), before=no_file_larger_than(500_000))

        assert ended.code == 4
        assert len(ended.err.splitlines()) == 1
        assert sandbox.stats()["requests"] == 0


def drop_the_right_to_override() -> None:
    """Let root be bound by a folder's permissions, as everybody is (Linux: without CAP_DAC_OVERRIDE)."""
    if sys.platform != "linux":
        return
    drop_from_bounding_set, dac_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


def test_ending_in_a_read_only_folder(tmp_path: Path) -> None:
    """A folder that cannot be written is refused before anything is sent."""
    folder = tmp_path / "locked"
    folder.mkdir()
    prompts_table(tmp_path / "in.csv", 5)
    folder.chmod(0o555)
    with Sandbox() as sandbox:
        command = ("run", "in.csv", "-o", f"locked/{OUT}", "--base-url", sandbox.base_url)
        ended = run(tmp_path, *command, before=drop_the_right_to_override)

        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1
        assert "locked" in ended.err
        assert sandbox.stats()["requests"] == 0
    folder.chmod(0o755)


# -- the endpoint ----------------------------------------------------------------------------------------------------


def test_ending_with_an_endpoint_dead_from_the_start(tmp_path: Path) -> None:
    """Nobody listens: exit 4 after --give-up-after, no row blamed, no request counted."""
    prompts_table(tmp_path / "in.csv", 20)
    with Sandbox() as gone:
        pass
    command = ("run", "in.csv", "-o", OUT, "--base-url", gone.base_url, "--give-up-after", "0.5", "--json")
    ended = run(tmp_path, *command)

    assert (ended.code, ended.summary["exit_reason"]) == (4, "no_success")
    assert "nothing was ever answered" in ended.summary["message"]
    assert ended.summary["sent"] == 0
    assert statuses(tmp_path / OUT) == {"pending": 20}
    assert {row["requests"] for row in read_table(tmp_path / OUT)} == {"0"}
    with Sandbox() as sandbox:
        finish_the_job(tmp_path, sandbox, 20)


def test_ending_with_an_endpoint_that_dies_in_the_middle(tmp_path: Path) -> None:
    """No row fails for it; the run gives up, and goes on when the endpoint is back."""
    prompts_table(tmp_path / "in.csv", 200)
    with Sandbox(SandboxOptions(latency_ms=10)) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        with start(tmp_path, *command, "--give-up-after", "1.5") as running:
            wait_until(lambda: sandbox.status_count(200) >= 50)
            sandbox.begin_outage("refused")
            ended = running.wait()
        kept = ended.summary["counts"]["ok"]

        assert (ended.code, ended.summary["exit_reason"]) == (4, "no_success")
        assert ended.summary["counts"] == {"ok": kept, "pending": 200 - kept}
        sandbox.end_outage()
        finish_the_job(tmp_path, sandbox, 200)
        assert answered_twice(sandbox.stats()) <= 16


def test_ending_is_none_when_the_endpoint_comes_back(tmp_path: Path) -> None:
    """An outage of a second is waited out."""
    prompts_table(tmp_path / "in.csv", 200)
    outage = Outage("refused", for_s=1.0, after_requests=60)
    with Sandbox(SandboxOptions(latency_ms=10), Misbehaviour(outages=(outage,))) as sandbox:
        finish_the_job(tmp_path, sandbox, 200)


def test_ending_by_401_from_the_middle_on(tmp_path: Path) -> None:
    """Exit 5 after at most as many refusals as requests in flight; no row is blamed."""
    prompts_table(tmp_path / "in.csv", 300)
    with Sandbox(SandboxOptions(latency_ms=10), Misbehaviour(from_nth=(101, "401"))) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        ended = run(tmp_path, *command)

        assert (ended.code, ended.summary["exit_reason"]) == (5, "auth")
        assert ended.summary["counts"] == {"ok": 100, "pending": 200}
        refused = sandbox.status_count(401)
        assert 1 <= refused <= 16
    unfinished = [row for row in read_table(tmp_path / OUT) if row["status"] == "pending"]
    told = {(row["requests"], row["http_status"], bool(row["started_at"])) for row in unfinished}
    assert told == {("1", "401", True), ("0", "", False)}
    assert sum(row["http_status"] == "401" for row in unfinished) == refused
    with Sandbox() as sandbox:
        finish_the_job(tmp_path, sandbox, 300)
        assert sandbox.stats()["requests"] == 200


# -- ourselves -------------------------------------------------------------------------------------------------------

BROKEN_PARSER = """
from websim_batch.providers import websim
parse = websim.WebsimProvider.parse
def broken(self, request, *arguments):
    if "prompt 7" in str(request.messages):
        raise KeyError("a value with sk-secret in it")
    return parse(self, request, *arguments)
websim.WebsimProvider.parse = broken
"""

BROKEN_RENDERER = """
from websim_batch.render.renderer import Renderer
render = Renderer.render
def broken(self, row):
    if row.position == 7:
        raise ZeroDivisionError("sk-secret")
    return render(self, row)
Renderer.render = broken
"""


@pytest.mark.parametrize("prelude", [BROKEN_PARSER, BROKEN_RENDERER], ids=["parse", "render"])
def test_ending_with_a_fault_of_ours_in_one_row(tmp_path: Path, prelude: str) -> None:
    """That row ends failed / internal, without values in its message; the others are none the worse."""
    prompts_table(tmp_path / "in.csv", 10)
    with Sandbox() as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        ended = run(tmp_path, *command, prelude=prelude)

        assert ended.code == 3
        assert ended.summary["errors"] == {"internal": 1}
        rows = read_table(tmp_path / OUT)
        assert [row["status"] for row in rows] == ["ok"] * 7 + ["failed"] + ["ok"] * 2
        assert "sk-secret" not in (tmp_path / OUT).read_text()
        finish_the_job(tmp_path, sandbox, 10, "--retry-failed")


BROKEN_WRITER = """
from websim_batch.journal.writer import JournalWriter
write, calls = JournalWriter._write, []
def broken(self, group):
    calls.append(group)
    if len(calls) > 8:
        raise RuntimeError("a fault in the writer")
    write(self, group)
JournalWriter._write = broken
"""


def test_ending_with_a_fault_of_ours_in_the_writer(tmp_path: Path) -> None:
    """Exit 1: nothing more is sent, what was committed is kept, and the same command continues."""
    prompts_table(tmp_path / "in.csv", 2000)
    with Sandbox(SandboxOptions(latency_ms=5)) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        ended = run(tmp_path, *command, prelude=BROKEN_WRITER)
        sent, kept = sandbox.stats()["requests"], statuses(tmp_path / OUT)["ok"]

        assert (ended.code, ended.summary["exit_reason"]) == (1, "internal")
        assert 0 < kept <= sent <= kept + 16 + 256
        finish_the_job(tmp_path, sandbox, 2000)
        assert sandbox.stats()["requests"] <= 2000 + 16 + 256


CLOCK_SET_BACK = """
import time
from websim_batch.providers import websim
real_time, real_time_ns, parse, answers = time.time, time.time_ns, websim.WebsimProvider.parse, []
def counted(self, *arguments):
    answers.append(1)
    return parse(self, *arguments)
def shift():
    return 3600 * (len(answers) > 5)
websim.WebsimProvider.parse = counted
time.time = lambda: real_time() - shift()
time.time_ns = lambda: real_time_ns() - shift() * 10**9
"""


def test_ending_with_the_wall_clock_set_back(tmp_path: Path) -> None:
    """An hour back in the middle of a run: no row ends before it began, no wait gets longer, all is finished."""
    prompts_table(tmp_path / "in.csv", 15)
    options = SandboxOptions(capacity="50/s", burst=5, retry_after="date", latency_ms=30)
    with Sandbox(options) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        ended = run(tmp_path, *command, prelude=CLOCK_SET_BACK)

        assert ended.code == 0
        rows = read_table(tmp_path / OUT)
        assert all("" < row["started_at"] <= row["finished_at"] for row in rows)
        assert ended.summary["elapsed_s"] < 20


# -- journals and files that cannot be used -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished job of 50 rows."""
    folder = tmp_path_factory.mktemp("finished")
    prompts_table(folder / "in.csv", 50)
    with Sandbox() as sandbox:
        finish_the_job(folder, sandbox, 50)
    return folder


def cut_short(journal: Path) -> None:
    """The journal loses its second half."""
    journal.write_bytes(journal.read_bytes()[: journal.stat().st_size // 2])


def make_foreign(journal: Path) -> None:
    """Somebody else's SQLite database stands in its place."""
    journal.unlink()
    with closing(sqlite3.connect(journal)) as db:
        db.execute("CREATE TABLE theirs (x)")


def make_text(journal: Path) -> None:
    """No database at all stands in its place."""
    journal.write_text("dear diary")


def make_newer(journal: Path) -> None:
    """It was written by a version of ours that is to come."""
    with closing(sqlite3.connect(journal)) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
        db.commit()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_short, "damaged or was cut short"),
        (make_foreign, "not a journal of websim-batch"),
        (make_text, "not a journal"),
        (make_newer, "newer websim-batch"),
        (Path.unlink, "is gone"),
    ],
    ids=["truncated", "foreign", "no database", "newer", "missing"],
)
def test_ending_with_a_journal_that_cannot_be_used(
    tmp_path: Path, finished: Path, spoil: object, words: str
) -> None:
    """Exit 2 with one sentence; nothing is sent and neither file is touched."""
    folder = tmp_path / "job"
    shutil.copytree(finished, folder)
    journal = journal_of(folder / OUT)
    assert callable(spoil)
    spoil(journal)
    before = journal.read_bytes() if journal.exists() else None
    with Sandbox() as sandbox:
        ended = run(folder, "run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url)

        assert ended.code == 2
        assert words in ended.err
        assert len(ended.err.splitlines()) == 1
        assert sandbox.stats()["requests"] == 0
    assert (journal.read_bytes() if journal.exists() else None) == before
    assert (folder / OUT).read_bytes() == (finished / OUT).read_bytes()


def test_ending_with_an_older_journal_continues(tmp_path: Path, finished: Path) -> None:
    """A journal of an older version is migrated, and its answers count."""
    folder = tmp_path / "job"
    shutil.copytree(finished, folder)
    with closing(sqlite3.connect(journal_of(folder / OUT))) as db:
        for statement in (
            "DROP TRIGGER edited", "DROP VIEW answers", "DROP VIEW ledger", "ALTER TABLE rows DROP COLUMN cells",
            "ALTER TABLE runs DROP COLUMN versions", "UPDATE meta SET value = '0' WHERE key = 'schema_version'",
        ):  # fmt: skip
            db.execute(statement)
        db.commit()
    with Sandbox() as sandbox:
        finish_the_job(folder, sandbox, 50)

        assert sandbox.stats()["requests"] == 0


def test_ending_with_a_foreign_output(tmp_path: Path) -> None:
    """A file that is not ours is left alone unless --overwrite is given."""
    prompts_table(tmp_path / "in.csv", 3)
    (tmp_path / OUT).write_text("name,age\nann,7\n")
    with Sandbox() as sandbox:
        ended = run(tmp_path, "run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url)

        assert ended.code == 2
        assert "--overwrite" in ended.err
        assert (tmp_path / OUT).read_text() == "name,age\nann,7\n"
        assert sandbox.stats()["requests"] == 0
        finish_the_job(tmp_path, sandbox, 3, "--overwrite")


def test_ending_with_an_input_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """Exit 2; what was answered is kept, and the same command goes on with the new input."""
    prompts_table(tmp_path / "in.csv", 3000)
    with Sandbox(SandboxOptions(latency_ms=10)) as sandbox:
        command = ("run", "in.csv", "-o", OUT, "--base-url", sandbox.base_url, "--json")
        with start(tmp_path, *command) as running:
            wait_until(lambda: sandbox.status_count(200) >= 50)
            prompts_table(tmp_path / "in.csv", 3010)
            ended = running.wait()

        assert ended.code == 2
        assert "changed" in ended.summary["message"]
        assert "Traceback" not in ended.err
        finish_the_job(tmp_path, sandbox, 3010)
        assert answered_twice(sandbox.stats()) == 0


def test_ending_of_the_terminal(tmp_path: Path) -> None:
    """Nobody reads stdout or stderr any more: the run goes on to its end."""
    prompts_table(tmp_path / "in.csv", 30)
    with Sandbox() as sandbox:
        command = (
            f"{sys.executable} -m websim_batch run in.csv -o {OUT} --base-url {sandbox.base_url} 2>&1 | true"
        )
        shell = subprocess.run(
            ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, check=False
        )

        assert shell.returncode == 0
        assert statuses(tmp_path / OUT) == {"ok": 30}
