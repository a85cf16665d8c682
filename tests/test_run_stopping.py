"""Rules that stop a run before its rows are done: each resumable, each with a sentence that says what to do."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.live import Ended, call, prompts_table, read_table, statuses
from websim_batch.sandbox import SandboxOptions
from websim_batch.sandbox.misbehaviour import Misbehaviour, Scripted
from websim_batch.sandbox.testing import Sandbox

JSON = {"Content-Type": "application/json"}


def job(folder: Path, sandbox: Sandbox, *options: object) -> Ended:
    """Run the folder's job, or continue it."""
    command = ("run", folder / "in.csv", "-o", folder / "out.csv", "--base-url", sandbox.base_url, "--json")
    return call(*command, *options)


def assert_stopped(ended: Ended, reason: str) -> None:
    """Exit 4 for that reason, with one sentence that ends with what to do."""
    assert (ended.code, ended.summary["exit_code"], ended.summary["exit_reason"]) == (4, 4, reason)
    assert ended.summary["state"] == "stopped"
    assert "same command" in ended.summary["message"]


def assert_continues(folder: Path, rows: int, sent: int | None = None) -> None:
    """The same command against a healthy server finishes the job."""
    with Sandbox() as sandbox:
        ended = job(folder, sandbox)
        assert (ended.code, statuses(folder / "out.csv")) == (0, {"ok": rows})
        assert sent is None or sandbox.stats()["requests"] == sent


def test_a_time_limit_drains(tmp_path: Path) -> None:
    """--time-limit: what is in flight then is answered and kept."""
    prompts_table(tmp_path / "in.csv", 100)
    with Sandbox(SandboxOptions(latency_ms=200)) as sandbox:
        ended = job(tmp_path, sandbox, "--time-limit", "0.7s", "--concurrency", 4)
        answered = sandbox.status_count(200)

        assert_stopped(ended, "time_limit")
        assert sandbox.stats()["by_status"] == {"200": answered}
        assert ended.summary["counts"] == {"ok": answered, "pending": 100 - answered}
    assert_continues(tmp_path, 100, 100 - answered)


def test_a_deadline_drains(tmp_path: Path) -> None:
    """--deadline: a local time; the earlier of it and --time-limit counts."""
    prompts_table(tmp_path / "in.csv", 100)
    soon = (datetime.now() + timedelta(seconds=1)).isoformat()
    with Sandbox(SandboxOptions(latency_ms=200)) as sandbox:
        ended = job(tmp_path, sandbox, "--deadline", soon, "--time-limit", "1h", "--concurrency", 4)

    assert_stopped(ended, "deadline")
    assert_continues(tmp_path, 100)


def test_a_deadline_that_is_over_is_refused_or_sends_next_to_nothing(tmp_path: Path) -> None:
    """A moment in the past: no run that goes on for ever."""
    prompts_table(tmp_path / "in.csv", 50)
    past = (datetime.now() - timedelta(hours=1)).isoformat()
    with Sandbox() as sandbox:
        ended = job(tmp_path, sandbox, "--deadline", past)

        assert ended.code in (2, 4)
        assert sandbox.stats()["requests"] <= 2


@pytest.mark.parametrize(("most", "failures"), [("5", 6), ("10%", 31)])
def test_too_many_failures_stop_the_run(tmp_path: Path, most: str, failures: int) -> None:
    """--max-failures N or P%: soon after one more than that, nothing is sent any more."""
    prompts_table(tmp_path / "in.csv", 300)
    with Sandbox(SandboxOptions(latency_ms=20), Misbehaviour(every="400")) as sandbox:
        ended = job(tmp_path, sandbox, "--max-failures", most, "--concurrency", 2)

        assert_stopped(ended, "max_failures")
        # A failure counts once it is durable, and what is in flight then is still answered.
        assert failures <= ended.summary["counts"]["failed"] <= failures + 100
        assert ended.summary["counts"]["pending"] > 100
        assert sandbox.stats()["requests"] == ended.summary["counts"]["failed"]


def test_no_success_for_too_long_stops_the_run(tmp_path: Path) -> None:
    """--give-up-after: a server that takes requests and then answers none; rows stay pending."""
    prompts_table(tmp_path / "in.csv", 100)
    with Sandbox(misbehaviour=Misbehaviour(from_nth=(21, "429"))) as sandbox:
        ended = job(tmp_path, sandbox, "--give-up-after", 1)

        assert_stopped(ended, "no_success")
        assert ended.summary["counts"] == {"ok": 20, "pending": 80}
        assert "Rate limit" in ended.summary["message"] or "429" in ended.summary["message"]
    assert_continues(tmp_path, 100, 80)


@pytest.mark.parametrize(
    ("retry_after", "options"), [("3700", ()), ("60", ("--time-limit", "20s")), ("99999999", ())]
)
def test_a_server_that_puts_us_off_for_long_ends_the_run(
    tmp_path: Path, retry_after: str, options: tuple[object, ...]
) -> None:
    """A Retry-After beyond the deadline, or an hour: `deferred`, at once, and the sentence says how long."""
    prompts_table(tmp_path / "in.csv", 30)
    limit = Scripted(429, b'{"error": "slow down"}', JSON | {"Retry-After": retry_after})
    began = time.monotonic()
    with Sandbox(misbehaviour=Misbehaviour(from_nth=(11, limit))) as sandbox:
        ended = job(tmp_path, sandbox, *options)

    assert_stopped(ended, "deferred")
    assert time.monotonic() - began < 10
    assert retry_after in ended.summary["message"]
    put_off = [row for row in read_table(tmp_path / "out.csv") if row["status"] == "deferred"]
    assert 1 <= len(put_off) <= 16
    assert ended.summary["counts"]["ok"] == 10
    assert_continues(tmp_path, 30, 20)


def test_an_earlier_reason_gives_way_to_a_weightier_one(tmp_path: Path) -> None:
    """Stopped by the time limit, and in the drain the key is refused: 5 is told, which the user must know."""
    prompts_table(tmp_path / "in.csv", 40)
    late_401 = Scripted(401, b'{"error": "no"}', JSON, delay_s=1.0)
    with Sandbox(misbehaviour=Misbehaviour(from_nth=(11, late_401))) as sandbox:
        ended = job(tmp_path, sandbox, "--time-limit", "0.5s")

    assert (ended.code, ended.summary["exit_reason"]) == (5, "auth")


def test_a_stop_whose_rows_were_all_finished_in_the_drain_is_no_stop(tmp_path: Path) -> None:
    """The last answers came within the grace: exit 0."""
    prompts_table(tmp_path / "in.csv", 2)
    with Sandbox(SandboxOptions(latency_ms=800)) as sandbox:
        ended = job(tmp_path, sandbox, "--time-limit", "0.4s")

    assert (ended.code, ended.summary["state"], ended.summary["counts"]) == (0, "finished", {"ok": 2})


def test_nothing_left_to_do_sends_nothing(tmp_path: Path) -> None:
    """A finished job, given again, ends 0 without a request; an empty table too."""
    prompts_table(tmp_path / "in.csv", 5)
    with Sandbox() as sandbox:
        assert job(tmp_path, sandbox).code == 0
        again = job(tmp_path, sandbox)
        assert (again.code, again.summary["sent"]) == (0, 0)
        assert sandbox.stats()["requests"] == 5

        prompts_table(tmp_path / "in.csv", 0)
        empty = job(tmp_path, sandbox)
        assert (empty.code, empty.summary["rows"]) == (0, 0)
