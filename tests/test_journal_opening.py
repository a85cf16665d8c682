"""What may lie at a journal's path: made, migrated, or refused with one clear sentence."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from websim_batch.errors import JournalError, UsageError
from websim_batch.journal import Placed, open_journal, opening, schema
from websim_batch.records import Attempt

VERSION_0 = f"""
PRAGMA application_id = {schema.APPLICATION_ID};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema_version', '0'), ('sandbox', '0');
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, run_id TEXT NOT NULL, started_us INTEGER NOT NULL, finished_us INTEGER,
    state TEXT NOT NULL, settings TEXT NOT NULL, summary TEXT NOT NULL);
INSERT INTO runs VALUES (1, 'old', 5, 9, 'stopped', '{{}}', '{{}}');
CREATE TABLE rows (row_id INTEGER PRIMARY KEY, key BLOB NOT NULL);
INSERT INTO rows VALUES (0, x'6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b');
CREATE TABLE results (
    row_id INTEGER PRIMARY KEY, status TEXT NOT NULL, error_type TEXT, http_status INTEGER,
    requests INTEGER NOT NULL, latency_ms INTEGER, wait_ms INTEGER, prompt_tokens INTEGER,
    completion_tokens INTEGER, finish_reason TEXT, request_kind TEXT, request_model TEXT,
    request_project_id TEXT, request_hash BLOB, started_us INTEGER, finished_us INTEGER NOT NULL,
    run INTEGER NOT NULL, error_message TEXT, image_url TEXT, response TEXT);
INSERT INTO results (row_id, status, requests, finished_us, run, response) VALUES (0, 'ok', 1, 8, 1, 'kept');
CREATE TABLE requests (
    row_id INTEGER NOT NULL, number INTEGER NOT NULL, run INTEGER NOT NULL, started_us INTEGER NOT NULL,
    elapsed_us INTEGER, http_status INTEGER, error_type TEXT, delivery TEXT NOT NULL,
    PRIMARY KEY (row_id, number)) WITHOUT ROWID;
INSERT INTO requests VALUES (0, 1, 1, 6, 2, 200, NULL, 'answered');
"""


def make_version_0(path: Path) -> None:
    """A journal as the layout before the first release had it."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_0)


def make_newer(path: Path) -> None:
    """A journal of a version that does not exist yet."""
    with open_journal(path) as journal:
        journal.note("schema_version", str(schema.VERSION + 1))


def make_foreign(path: Path) -> None:
    """Somebody else's database."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE meta (key TEXT, value TEXT)")


def make_truncated(path: Path) -> None:
    """A journal of which the second half is lost."""
    open_journal(path).close()
    os.truncate(path, path.stat().st_size // 2)


def make_damaged(path: Path) -> None:
    """A journal whose first page, but for its mark, was overwritten."""
    open_journal(path).close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3_900)


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.write_bytes(b""), "is empty, so it was cut short"),
    (lambda path: path.write_text("id,prompt\n1,hello\n" * 50), "not an SQLite database"),
    (make_foreign, "not a journal of websim-batch"),
    (make_newer, "newer websim-batch"),
    (make_truncated, "damaged or was cut short"),
    (make_damaged, "damaged or was cut short"),
    (Path.mkdir, "cannot be read"),
]


@pytest.mark.parametrize("mode", ["write", "read"])
@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_what_is_no_usable_journal_is_refused_in_one_sentence(
    make: Callable[[Path], object], words: str, mode: opening.Mode, tmp_path: Path
) -> None:
    """Each kind of unusable file: JournalError, exit 2, one line with the path and the fault."""
    path = tmp_path / "answers.csv.journal"
    make(path)

    with pytest.raises(JournalError) as caught:
        open_journal(path, mode)

    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_refused_file_is_left_as_it_was(make: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    """A file that is refused keeps every byte, and nothing is put beside it."""
    path = tmp_path / "j"
    make(path)
    before = path.read_bytes() if path.is_file() else b""

    with pytest.raises(JournalError):
        open_journal(path)

    assert [entry.name for entry in tmp_path.iterdir()] == ["j"]
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_older_version_is_migrated_and_keeps_its_answers(tmp_path: Path) -> None:
    """A version 0 journal opens as the present version; its results, requests and runs are there."""
    make_version_0(tmp_path / "j")

    with open_journal(tmp_path / "j") as journal:
        cells = list(journal.output_cells([Placed(0, b"k" * 16, False)]))
        assert journal.noted("schema_version") == str(schema.VERSION)
        assert [(cell.status, cell.response, cell.run_id) for cell in cells] == [("ok", "kept", "old")]
        assert list(journal.attempts()) == [Attempt(0, 1, 1, 6, 2, 200, None, "answered")]
        assert [run.versions for run in journal.runs()] == ["{}"]


def test_migrated_journal_has_the_layout_of_a_new_one(tmp_path: Path) -> None:
    """After the migration the tables have the columns, views and triggers of a journal made today."""
    make_version_0(tmp_path / "old")
    open_journal(tmp_path / "old").close()
    open_journal(tmp_path / "new").close()

    assert layout(tmp_path / "old") == layout(tmp_path / "new")


def layout(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Every table, view and trigger with its columns."""
    with closing(sqlite3.connect(path)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL")]
        return {
            name: sorted(db.execute("SELECT name, type FROM pragma_table_info(?)", (name,))) for name in names
        }


def test_failed_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a step of a migration fails, the steps before it are taken back."""
    make_version_0(tmp_path / "j")

    def half(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE rows ADD COLUMN cells BLOB")
        db.execute("SELECT no_such_column FROM rows")

    monkeypatch.setattr(schema, "MIGRATIONS", {0: half})
    before = layout(tmp_path / "j")

    with pytest.raises(Exception, match="no_such_column"):
        open_journal(tmp_path / "j")

    assert layout(tmp_path / "j") == before


def test_missing_journal_is_made_to_write_and_refused_to_read(tmp_path: Path) -> None:
    """Readers make no file; the message says what to look at."""
    with pytest.raises(JournalError, match="there is no journal here"):
        open_journal(tmp_path / "j", "read")
    assert list(tmp_path.iterdir()) == []

    with open_journal(tmp_path / "j") as journal:
        assert journal.runs() == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["j"]


def test_commits_are_durable(tmp_path: Path) -> None:
    """The journal is written with a write-ahead log and an fsync for each commit."""
    with open_journal(tmp_path / "j"), closing(opening.connect_writing(tmp_path / "j")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA fullfsync").fetchone() == (1,)


def test_reader_cannot_write(tmp_path: Path) -> None:
    """A journal opened to read refuses to be changed."""
    open_journal(tmp_path / "j").close()

    with (
        open_journal(tmp_path / "j", "read") as journal,
        pytest.raises(JournalError, match="cannot be written"),
    ):
        journal.note("input", "x")


@pytest.mark.parametrize(
    ("first", "then", "words"), [(True, False, "sandbox"), (False, True, "real answers")]
)
def test_sandbox_and_real_answers_never_mix(first: bool, then: bool, words: str, tmp_path: Path) -> None:
    """A journal of the sandbox refuses a real run, and the other way round; readers may look at both."""
    open_journal(tmp_path / "j", is_sandbox=first).close()

    with pytest.raises(JournalError, match=words):
        open_journal(tmp_path / "j", is_sandbox=then)

    open_journal(tmp_path / "j", is_sandbox=first).close()
    with open_journal(tmp_path / "j", "read") as journal:
        assert journal.is_sandbox is first


def test_network_file_system_is_refused_and_the_option_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network file system nothing is made; the message names the type and `--journal PATH`."""
    monkeypatch.setattr(opening, "network_type", lambda folder: "nfs4")

    with pytest.raises(JournalError, match=r"network file system \(nfs4\).*--journal PATH"):
        open_journal(tmp_path / "j")

    assert list(tmp_path.iterdir()) == []


def test_file_system_without_shared_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SQLite keeps no write-ahead log, it is found by trying; the message names `--journal PATH`."""
    whole = opening.uri_of
    monkeypatch.setattr(opening, "uri_of", lambda path, options: whole(path, options + "&vfs=unix-dotfile"))

    with pytest.raises(JournalError, match="--journal PATH"):
        open_journal(tmp_path / "j")

    assert not (tmp_path / "j").exists()


def test_folder_that_is_missing_or_no_folder_is_wrong_usage(tmp_path: Path) -> None:
    """A journal in a place that cannot be written: UsageError with the way out."""
    (tmp_path / "file").write_text("x")

    for path in (tmp_path / "missing" / "j", tmp_path / "file" / "j"):
        with pytest.raises(UsageError, match=r"cannot write here .*-o or --journal PATH"):
            open_journal(path)


def test_death_while_a_journal_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands at the path is a whole journal or nothing, and the next run makes a new one."""
    monkeypatch.setattr(schema, "_VIEWS", "CREATE VIEW broken AS nonsense")
    with pytest.raises(Exception, match="syntax error"):
        open_journal(tmp_path / "j")
    assert not (tmp_path / "j").exists()

    monkeypatch.undo()
    open_journal(tmp_path / "j").close()


def test_log_of_a_deleted_journal_is_not_replayed_into_a_new_one(tmp_path: Path) -> None:
    """A user who deletes a journal by hand, but not its log, gets an empty journal."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        journal.begin_run("gone", 1, b"{}")
        log = Path(f"{path}-wal").read_bytes()
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)

    with open_journal(path) as journal:
        assert journal.runs() == []


def test_odd_names_are_opened_as_they_are(tmp_path: Path) -> None:
    """Blanks, question marks, percent signs and bytes that are no text belong to the name."""
    for name in ("a b?mode=memory#x%41.journal", os.fsdecode(b"caf\xe9.journal")):
        with open_journal(tmp_path / name) as journal:
            journal.note("input", "here")

        assert (tmp_path / name).exists()
        with open_journal(tmp_path / name, "read") as journal:
            assert journal.noted("input") == "here"


def test_journal_in_a_folder_that_cannot_be_written_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished journal on a read-only medium can be exported, without a file beside it."""
    with open_journal(tmp_path / "j") as journal:
        journal.note("input", "here")
    monkeypatch.setattr(os, "access", lambda path, kind: False)

    with open_journal(tmp_path / "j", "read") as journal:
        assert journal.noted("input") == "here"
        assert [entry.name for entry in tmp_path.iterdir()] == ["j"]
