"""One run at a time for each output; who dies holds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live import call, journal_of, prompts_table, query, run, start, statuses, wait_until
from websim_batch.sandbox import SandboxOptions
from websim_batch.sandbox.testing import Sandbox


@pytest.mark.parametrize("second", ["out.csv", "./out.csv", "link.csv", "folder/out.csv"])
def test_a_second_run_on_the_same_output_ends_6(tmp_path: Path, second: str) -> None:
    """By whatever path it is named: nothing is sent, the first run goes on, and its lock is told with its process."""
    prompts_table(tmp_path / "in.csv", 60)
    (tmp_path / "link.csv").symlink_to("out.csv")
    (tmp_path / "folder").symlink_to(".", target_is_directory=True)
    with Sandbox(SandboxOptions(latency_ms=200)) as sandbox, Sandbox() as other:
        command = ("run", "in.csv", "-o", "out.csv", "--base-url", sandbox.base_url)
        with start(tmp_path, *command) as first:
            wait_until(lambda: sandbox.stats()["requests"])
            ended = run(tmp_path, "run", "in.csv", "-o", second, "--base-url", other.base_url)
            pid = first.pid
            assert first.wait().code == 0

        assert ended.code == 6
        assert f"process {pid}" in ended.err
        assert other.stats()["requests"] == 0
    assert statuses(tmp_path / "out.csv") == {"ok": 60}


def test_one_journal_under_two_outputs_is_locked_too(tmp_path: Path) -> None:
    """Two jobs that name the same --journal do not write it at once."""
    prompts_table(tmp_path / "in.csv", 40)
    with Sandbox(SandboxOptions(latency_ms=200)) as sandbox:
        command = ("run", "in.csv", "--journal", "shared.journal", "--base-url", sandbox.base_url)
        with start(tmp_path, *command, "-o", "one.csv") as first:
            wait_until(lambda: sandbox.stats()["requests"])
            assert run(tmp_path, *command, "-o", "two.csv").code == 6
            assert first.wait().code == 0


def test_the_lock_of_a_killed_run_is_free_at_once(tmp_path: Path) -> None:
    """Its lock file still names it, but the next run starts."""
    prompts_table(tmp_path / "in.csv", 60)
    with Sandbox(SandboxOptions(latency_ms=100)) as sandbox:
        command = ("run", "in.csv", "-o", "out.csv", "--base-url", sandbox.base_url)
        with start(tmp_path, *command) as first:
            wait_until(lambda: sandbox.status_count(200) >= 5)
            first.kill()

        assert (tmp_path / "out.csv.lock").read_text() != ""
        assert run(tmp_path, *command).code == 0


def test_a_link_and_its_target_are_one_job(tmp_path: Path) -> None:
    """The same journal serves both names; the link stays a link."""
    prompts_table(tmp_path / "in.csv", 5)
    (tmp_path / "link.csv").symlink_to("real.csv")
    with Sandbox() as sandbox:
        url = ("--base-url", sandbox.base_url)
        assert call("run", tmp_path / "in.csv", "-o", tmp_path / "link.csv", *url).code == 0
        assert call("run", tmp_path / "in.csv", "-o", tmp_path / "real.csv", *url).code == 0

        assert sandbox.stats()["requests"] == 5
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv.run.json").exists()
    assert not list(tmp_path.glob("link.csv.*"))
    assert call("status", tmp_path / "link.csv", "--json").summary["counts"] == {"ok": 5}
    assert call("verify", tmp_path / "link.csv", tmp_path / "in.csv").code == 0


def test_a_journal_elsewhere_is_found_without_being_named(tmp_path: Path) -> None:
    """After --journal PATH, status, export, verify and the next run find it by the output alone."""
    prompts_table(tmp_path / "in.csv", 5)
    table, output, elsewhere = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / "far" / "away.journal"
    elsewhere.parent.mkdir()
    with Sandbox() as sandbox:
        url = ("--base-url", sandbox.base_url)
        assert call("run", table, "-o", output, "--journal", elsewhere, *url).code == 0
        assert query(elsewhere, "SELECT count(*) FROM results") == [(5,)]
        assert call("status", output, "--json").summary["counts"] == {"ok": 5}
        assert call("export", output, "-o", tmp_path / "other.jsonl").code == 0
        assert call("verify", output, table).code == 0
        assert call("run", table, "-o", output, *url).code == 0

        assert sandbox.stats()["requests"] == 5
    assert journal_of(output).resolve() == elsewhere.resolve()
