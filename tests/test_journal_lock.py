"""One run at a time for each output; a dead one holds nothing."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from websim_batch.errors import LockedError, UsageError
from websim_batch.journal import OutputLock, lock_path
from websim_batch.journal.lock import holder_of

HOLDER = """
import sys
from pathlib import Path
from websim_batch.journal import OutputLock
with OutputLock(*map(Path, sys.argv[1:])):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
"""


@contextmanager
def other_process(*paths: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds an output until its standard input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_second_run_is_told_who_holds_the_output(tmp_path: Path) -> None:
    """Endings: another run. LockedError, exit 6, with the holder's process, machine and start."""
    output = tmp_path / "a.csv"
    with other_process(output) as child, pytest.raises(LockedError) as caught:
        OutputLock(output).acquire()

    assert f"{output}: another run holds this output (process {child.pid} on " in str(caught.value)
    assert f"{socket.gethostname()}, since 20" in str(caught.value)
    assert caught.value.exit_code == 6


def test_dead_process_holds_nothing(tmp_path: Path) -> None:
    """Endings: SIGKILL. The output of a killed run is free at once."""
    output = tmp_path / "a.csv"
    with other_process(output) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()

        with OutputLock(output):
            assert holder_of(output) is not None


def test_finished_run_holds_nothing_and_leaves_an_empty_file(tmp_path: Path) -> None:
    """The file stays, so that all runs lock the same one; it names nobody."""
    output = tmp_path / "a.csv"
    for _ in range(2):
        with OutputLock(output):
            assert (tmp_path / "a.csv.lock").stat().st_size > 0
        assert (tmp_path / "a.csv.lock").read_bytes() == b""
    assert holder_of(output) is None


def test_two_paths_to_one_file_are_one_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, a link to the file or to its folder: the second run is refused all the same."""
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "a.csv")
    monkeypatch.chdir(tmp_path / "real")

    with OutputLock(tmp_path / "real" / "a.csv"):
        for path in (Path("a.csv"), tmp_path / "folder" / "a.csv", tmp_path / "link.csv"):
            with pytest.raises(LockedError):
                OutputLock(path).acquire()


def test_two_outputs_with_one_journal_are_refused(tmp_path: Path) -> None:
    """Runs with the same `--journal` do not write into it at once; the usual place given by name is no second lock."""
    journal = tmp_path / "elsewhere" / "j"
    journal.parent.mkdir()
    with OutputLock(tmp_path / "a.csv", journal):
        with pytest.raises(LockedError):
            OutputLock(tmp_path / "b.csv", journal).acquire()
        OutputLock(tmp_path / "b.csv").acquire()
    with OutputLock(tmp_path / "c.csv", tmp_path / "c.csv.journal"):
        assert not (tmp_path / "c.csv.journal.lock").exists()


def test_refused_run_keeps_no_part_of_its_locks(tmp_path: Path) -> None:
    """A run that got the output's lock but not the journal's gives the first one back."""
    with OutputLock(tmp_path / "a.csv", tmp_path / "j"):
        with pytest.raises(LockedError):
            OutputLock(tmp_path / "b.csv", tmp_path / "j").acquire()

        OutputLock(tmp_path / "b.csv").acquire()


def test_look_does_not_take_the_lock_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` looking at the very instant at which a run begins does not make it fail."""
    output = tmp_path / "a.csv"
    OutputLock(output).acquire()
    looks = iter([False, False, True])
    monkeypatch.setattr("websim_batch.journal.lock._is_taken", lambda handle, kind: next(looks))
    monkeypatch.setattr("websim_batch.journal.lock._PAUSE_S", 0)

    OutputLock(output).acquire()

    assert next(looks, None) is None


def test_look_tells_the_holder(tmp_path: Path) -> None:
    """Anybody can ask who holds an output, without holding it."""
    output = tmp_path / "a.csv"
    assert holder_of(output) is None
    with other_process(output) as child:
        holder = holder_of(output)
        assert holder is not None
        assert (holder.pid, holder.host) == (child.pid, socket.gethostname())


def test_holder_that_cannot_be_read_is_still_a_holder(tmp_path: Path) -> None:
    """A lock file without a name in it (a full disk) locks like any other."""
    output = tmp_path / "a.csv"
    with OutputLock(output):
        lock_path(output).write_bytes(b"")
        with pytest.raises(LockedError, match="another run holds this output; wait for it"):
            OutputLock(output).acquire()


def test_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    """An output in a folder that does not exist: one sentence, exit 2, nothing made."""
    with pytest.raises(UsageError, match=r"the folder does not exist.*-o"):
        OutputLock(tmp_path / "missing" / "a.csv").acquire()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_read_only_folder_is_wrong_usage(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endings: a read-only folder. One sentence with the reason and the way out."""

    def refuse(path: object, flags: int, mode: int = 0) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(
        UsageError, match=f"cannot write here .{os.strerror(code)}.; choose another folder with -o"
    ):
        OutputLock(tmp_path / "a.csv").acquire()
