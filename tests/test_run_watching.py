"""`status`, `export` and `verify` from another process, while a run goes on and after it was killed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tests.live import (
    call,
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
from websim_batch.sandbox.misbehaviour import Misbehaviour
from websim_batch.sandbox.testing import Sandbox

SUMMARY_KEYS = {
    "output", "run_id", "state", "rows", "counts", "errors", "sent", "refused_429", "retries", "elapsed_s",
    "rows_per_s", "latency_ms", "exit_code", "exit_reason",
}  # fmt: skip


def test_a_run_is_watched_from_other_processes(tmp_path: Path) -> None:
    """status says how far it is, export gives the table as it stands; the run is none the worse and sends no more."""
    prompts_table(tmp_path / "in.csv", 400)
    with Sandbox(SandboxOptions(latency_ms=100)) as sandbox:
        command = ("run", "in.csv", "-o", "out.csv", "--base-url", sandbox.base_url, "--json")
        with start(tmp_path, *command) as running:
            wait_until(lambda: sandbox.status_count(200) >= 60)
            status = run(tmp_path, "status", "out.csv", "--json").summary
            exported = run(tmp_path, "export", "out.csv", "-o", "now.jsonl")
            # A second look counts more.
            later = run(tmp_path, "status", "out.csv", "--json").summary
            assert running.is_alive
            ended = running.wait()

        assert status["state"] == later["state"] == "running"
        assert status.keys() >= SUMMARY_KEYS
        assert (status["rows"], sum(status["counts"].values())) == (400, 400)
        assert 0 < status["counts"]["ok"] < later["counts"]["ok"] < 400
        assert status["limited_by"]
        assert exported.code == 0
        table = [json.loads(line) for line in (tmp_path / "now.jsonl").read_text().splitlines()]
        assert [row["prompt"] for row in table] == [f"prompt {i}" for i in range(400)]
        assert 60 <= sum(row["status"] == "ok" for row in table) < 400
        assert {row["status"] for row in table} == {"ok", "pending"}
        assert (ended.code, ended.summary["counts"]) == (0, {"ok": 400})
        assert sandbox.stats()["requests"] == 400


def test_the_state_of_a_killed_run_is_told_as_of_its_last_commit(tmp_path: Path) -> None:
    """state `stopped`, all keys of a summary, counts as the journal has them."""
    prompts_table(tmp_path / "in.csv", 300)
    with (
        Sandbox(SandboxOptions(latency_ms=30)) as sandbox,
        start(tmp_path, "run", "in.csv", "-o", "out.csv", "--base-url", sandbox.base_url) as running,
    ):
        wait_until(lambda: sandbox.status_count(200) >= 80)
        running.kill()
    status = call("status", tmp_path / "out.csv", "--json").summary
    kept = query(journal_of(tmp_path / "out.csv"), "SELECT count(*) FROM results")[0][0]

    assert status.keys() >= SUMMARY_KEYS
    assert (status["state"], status["exit_code"]) == ("stopped", None)
    # The summary of a group is written with it, so it may miss that group's own rows.
    assert 0 <= kept - status["counts"].get("ok", 0) <= 256
    assert call("export", tmp_path / "out.csv", "-o", tmp_path / "other.csv").code == 0
    assert statuses(tmp_path / "other.csv") == {"ok": kept, "pending": 300 - kept}


def test_the_state_of_a_run_that_never_sent_is_whole_too(tmp_path: Path) -> None:
    """Killed before its first commit: status still answers, with every key."""
    prompts_table(tmp_path / "in.csv", 10)
    prelude = "\n".join(
        [
            "import os; from websim_batch.run import session",
            "session.run_loop = lambda coroutine: os.kill(os.getpid(), 9)",
        ]
    )
    with start(tmp_path, "run", "in.csv", "-o", "out.csv", prelude=prelude) as running:
        assert running.wait().code == -9

    ended = call("status", tmp_path / "out.csv", "--json")

    assert (ended.code, ended.summary["state"]) == (0, "stopped")
    assert ended.summary.keys() >= SUMMARY_KEYS


def test_the_summary_is_the_same_everywhere(tmp_path: Path) -> None:
    """stdout, the manifest, and status after the run tell the same facts."""
    prompts_table(tmp_path / "in.csv", 30)
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"prompt 3": "400"})) as sandbox:
        output = tmp_path / "out.csv"
        ended = call("run", tmp_path / "in.csv", "-o", output, "--base-url", sandbox.base_url, "--json")
    manifest = json.loads((tmp_path / "out.csv.run.json").read_text())
    status = call("status", output, "--json").summary

    assert ended.summary.keys() >= SUMMARY_KEYS
    assert ended.summary["counts"] == {"ok": 29, "failed": 1}
    assert ended.summary["errors"] == {"bad_request": 1}
    assert (ended.summary["sent"], ended.summary["exit_code"]) == (30, 3)
    for key in SUMMARY_KEYS:
        assert manifest[key] == ended.summary[key] == status[key], key


def test_verify_trusts_nothing_but_the_two_tables(tmp_path: Path) -> None:
    """It says in one line that all is well, and finds a row that was dropped from the output, with exit 3."""
    write_table(tmp_path / "in.csv", ([i, f"prompt {i}"] for i in range(1200)), ("id", "prompt"))
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"prompt 7": "400"})) as sandbox:
        output = tmp_path / "out.csv"
        call("run", tmp_path / "in.csv", "-o", output, "--base-url", sandbox.base_url)
    good = call("verify", output, tmp_path / "in.csv")
    rows = read_table(output)
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[:500] + rows[501:])
    bad = call("verify", output, tmp_path / "in.csv")

    assert good.code == 0
    assert good.out == "1,200 rows: 1,199 ok, 1 failed; every input row once, in order, cells equal\n"
    assert bad.code == 3
    assert "the input has 1200 rows, the output 1199" in bad.out
    assert "row 501, column 'id': is '501', in the input '500'" in bad.out
    assert len(bad.out.splitlines()) == 1
