"""Where the journal and its lock lie, which file systems are a network's, and how an old journal is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from websim_batch.journal import journal_path, lock_path, open_journal, places, retire_journal

LINUX = r"""
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/export /mnt/team\040share nfs4 rw,vers=4.2 0 0
/dev/vdb /mnt/team\040share/local xfs rw 0 0
//server/c /mnt/win cifs rw 0 0
tmpfs /mnt/over tmpfs rw 0 0
server:/x /mnt/over nfs rw 0 0
ann@host: /home/ann/far fuse.sshfs rw 0 0
"""

MACOS = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//ann@server/data on /Volumes/data (smbfs, nodev, nosuid, mounted by ann)
server:/export on /Volumes/team (on call) (nfs, nodev)
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/ann", None),
        ("/home/ann/far", "fuse.sshfs"),
        ("/home/ann/farther", None),
        ("/mnt/team share", "nfs4"),
        ("/mnt/team share/jobs", "nfs4"),
        ("/mnt/team share/local/jobs", None),
        ("/mnt/win/a/b", "cifs"),
        ("/mnt/over", "nfs"),
    ],
)
def test_innermost_mount_says_whether_a_folder_is_far(folder: str, kind: str | None) -> None:
    """The type of the file system that really holds the folder counts, names with blanks included."""
    assert places._type_of(folder, places.parse_proc_mounts(LINUX)) == kind


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/Users/ann", None), ("/Volumes/data/x", "smbfs"), ("/Volumes/team (on call)", "nfs")],
)
def test_mounts_are_read_from_the_tool_where_there_is_no_table(folder: str, kind: str | None) -> None:
    """macOS tells its mounts in lines for people."""
    assert places._type_of(folder, places.parse_mount_tool(MACOS)) == kind


def test_this_machine_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of mounts of the system in use is found and read."""
    assert "/" in dict(places._mounts())
    monkeypatch.setattr(places, "_mounts", lambda: [("/", "nfs")])
    assert places.network_type(tmp_path) == "nfs"


def test_all_paths_to_one_output_have_one_journal_and_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path, a link to the file and a link to its folder lead to the same journal and lock."""
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "a.csv")
    monkeypatch.chdir(tmp_path)
    paths = [Path("real/a.csv"), Path("folder/../real/a.csv"), Path("folder/a.csv"), Path("link.csv")]

    assert {journal_path(path) for path in paths} == {tmp_path / "real" / "a.csv.journal"}
    assert {lock_path(path) for path in paths} == {tmp_path / "real" / "a.csv.lock"}


def journal_with(path: Path, run_id: str) -> None:
    """A journal that tells itself from others by its run."""
    with open_journal(path) as journal:
        journal.begin_run(run_id, 1, b"{}")


def run_ids(path: Path) -> list[str]:
    """The runs of the journal at `path`."""
    with open_journal(path, "read") as journal:
        return [run.run_id for run in journal.runs()]


def test_retired_journal_is_kept_for_one_generation(tmp_path: Path) -> None:
    """`….old` is the journal before this one; what was there before is gone."""
    path = tmp_path / "j"
    for run_id in ("first", "second", "third"):
        old = retire_journal(path)
        journal_with(path, run_id)

    assert old == tmp_path / "j.old"
    assert run_ids(path) == ["third"]
    assert run_ids(old) == ["second"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["j", "j.old"]


def test_retired_journal_holds_what_was_still_in_its_log(tmp_path: Path) -> None:
    """Commits of a killed run, that are in the log alone, move along."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        journal.begin_run("in the log", 1, b"{}")
        copy = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
    for name, content in copy.items():
        Path(f"{path}{name}").write_bytes(content)

    old = retire_journal(path)

    assert old is not None
    assert run_ids(old) == ["in the log"]
    assert not path.exists()


def test_log_of_the_older_generation_is_not_replayed(tmp_path: Path) -> None:
    """A log left beside `….old` does not get into the journal that takes its name."""
    path = tmp_path / "j"
    journal_with(path, "new")
    with open_journal(tmp_path / "other") as journal:
        journal.begin_run("stale", 1, b"{}")
        Path(f"{path}.old-wal").write_bytes((tmp_path / "other-wal").read_bytes())

    retire_journal(path)

    assert run_ids(tmp_path / "j.old") == ["new"]


def test_journal_that_is_being_read_can_be_retired(tmp_path: Path) -> None:
    """An export in another window does not stop `--overwrite`; its log does not get into the new journal."""
    path = tmp_path / "j"
    journal_with(path, "before")
    with open_journal(path, "read") as reader:
        assert len(reader.runs()) == 1

        retire_journal(path)
        journal_with(path, "after")

        assert run_ids(path) == ["after"]
    assert run_ids(tmp_path / "j.old") == ["before"]


def test_file_that_is_no_journal_is_kept_as_it_is(tmp_path: Path) -> None:
    """Whatever lay at the journal's path is moved, not destroyed."""
    (tmp_path / "j").write_text("something else")

    assert retire_journal(tmp_path / "j") == tmp_path / "j.old"

    assert (tmp_path / "j.old").read_text() == "something else"


def test_nothing_to_retire(tmp_path: Path) -> None:
    """Without a journal nothing happens."""
    assert retire_journal(tmp_path / "j") is None
    assert list(tmp_path.iterdir()) == []
