"""What users were once told wrongly, too late or not at all."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from websim_batch.cli import main
from websim_batch.cli.show import told_summary
from websim_batch.sandbox import Sandbox


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a table of two prompts, and no endpoint in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WEBSIM_BATCH_BASE_URL", raising=False)
    (tmp_path / "prompts.csv").write_text("id,prompt\n1,Hello\n2,World\n")
    return tmp_path


def test_a_suffix_that_no_table_has_is_refused_before_anything_is_sent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-o answers.xlsx` is exit 2 with the suffixes that there are, and the server sees nothing."""
    with Sandbox() as sandbox:
        assert main(["run", "prompts.csv", "--base-url", sandbox.base_url, "-o", "answers.xlsx"]) == 2
        assert sandbox.stats()["requests"] == 0

    assert ".parquet" in capsys.readouterr().err
    assert not list(folder.glob("*.journal"))


@pytest.mark.parametrize("name", ["empty.csv", "empty.jsonl"])
def test_an_empty_file_is_an_empty_table(name: str, folder: Path) -> None:
    """A file of no bytes is a table of no rows: exit 0, our columns alone, and verify agrees."""
    (folder / name).touch()

    assert main(["check", name]) == 0
    assert main(["run", name, "--base-url", "http://127.0.0.1:9", "-o", "out.csv"]) == 0
    assert (folder / "out.csv").read_text().startswith("status,response,")
    assert main(["verify", "out.csv", name]) == 0


def test_a_folder_is_called_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder as INPUT is not a matter of suffixes."""
    (folder / "tables").mkdir()

    assert main(["run", "tables"]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_other_outputs_are_told_once_and_only_if_they_hold_answers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line however many there are; none for a job that got no answer, and none for a rehearsal."""
    dead = ["--base-url", "http://127.0.0.1:9", "--give-up-after", "0.1"]
    assert main(["run", "prompts.csv", *dead, "-o", "dead.csv"]) == 4
    capsys.readouterr()
    with Sandbox() as sandbox:
        told = []
        for output in ("a.csv", "b.csv", "c.csv"):
            assert main(["run", "prompts.csv", "--base-url", sandbox.base_url, "-o", output]) == 0
            told.append(capsys.readouterr().err.count("already holds answers"))
    assert main(["run", "prompts.csv", "--sandbox", "-o", "d.csv"]) == 0

    assert told == [0, 1, 1]
    assert "already holds" not in capsys.readouterr().err


def test_the_models_name_is_told_to_stay_here_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that names a model says once that websim does not receive it; a run that continues does not."""
    with Sandbox() as sandbox:
        command = ["run", "prompts.csv", "--base-url", sandbox.base_url, "--model", "gemini-1.5-flash"]
        told = []
        for _ in range(2):
            assert main(command) == 0
            told.append(capsys.readouterr().err.count("does not receive the model's name"))

    assert told == [1, 0]


def test_a_run_that_leaves_failed_rows_says_again_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also a run with nothing to send tells the errors; a bad cell is to be mended, not tried again."""
    (folder / "prompts.csv").write_text("prompt,seed\nHello,1\nWorld,x\n")
    with Sandbox() as sandbox:
        command = ["run", "prompts.csv", "--base-url", sandbox.base_url, "--kind", "image", "--field", "seed"]
        for _ in range(2):
            assert main(command) == 3
            told = capsys.readouterr().out
            assert "errors: input 1" in told
            assert "websim-batch check" in told
            assert "--retry-failed" not in told


def test_failed_rows_may_be_tried_again() -> None:
    """The summary of a run with rows that failed on the way proposes --retry-failed."""
    facts = {
        "output": "a.csv", "state": "finished", "rows": 2, "counts": {"ok": 1, "failed": 1},
        "errors": {"server": 1}, "sent": 0, "retries": 0, "refused_429": 0, "exit_code": 3,
    }  # fmt: skip

    assert "--retry-failed" in told_summary(facts)


def test_a_job_that_never_ran_has_no_table_to_export(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`export` of an output that is not there says that no journal is there."""
    assert main(["export", "nothing.csv", "-o", "other.csv"]) == 2
    assert "no journal" in capsys.readouterr().err


def test_json_lines_tell_beginning_and_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--log-format json`: each line is an object with the stable keys; a run is `start` … `end`."""
    with Sandbox() as sandbox:
        assert main(["run", "prompts.csv", "--base-url", sandbox.base_url, "--log-format", "json"]) == 0

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["start", "end"]
    assert all({"time", "level", "event", "message"} <= set(line) for line in lines)
    assert lines[0]["rows"] == 2
    assert (lines[1]["counts"], lines[1]["exit_code"]) == ({"ok": 2}, 0)


def test_models_of_an_endpoint_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no fault of ours (1) but no answer (4), in one sentence."""
    assert main(["models", "--provider", "openai", "--base-url", "http://127.0.0.1:9/v1"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_check_of_a_rehearsal_names_no_real_address(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The requests that `check --sandbox` shows do not look as if they went to the real service."""
    assert main(["check", "prompts.csv", "--sandbox"]) == 0
    assert "websim.ai" not in capsys.readouterr().out


def test_a_killed_run_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` of a run that ended without a word tells that, and what to do."""
    journal = folder / "out.csv.journal"
    with Sandbox() as sandbox:
        assert main(["run", "prompts.csv", "--base-url", sandbox.base_url, "-o", "out.csv"]) == 0
    with closing(sqlite3.connect(journal)) as db:
        summary = json.loads(db.execute("SELECT summary FROM runs").fetchone()[0])
        summary |= {"state": "running", "exit_code": None}
        db.execute("UPDATE runs SET state = 'running', summary = ?", (json.dumps(summary),))
        db.commit()
    capsys.readouterr()

    assert main(["status", "out.csv"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("out.csv: stopped")
    assert "the same command continues" in told
