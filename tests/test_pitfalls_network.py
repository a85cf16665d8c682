"""What tools of this kind got wrong with limits, retries, timeouts and secrets; each against a real server."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path

import pytest

from tests.live import Ended, call, prompts_table, read_table, run, start, statuses
from websim_batch.sandbox import SandboxOptions
from websim_batch.sandbox.misbehaviour import Misbehaviour, Outage, Scripted
from websim_batch.sandbox.testing import Sandbox

JSON = {"Content-Type": "application/json"}


def job(folder: Path, sandbox: Sandbox, *options: object) -> Ended:
    """Run the folder's job."""
    command = ("run", folder / "in.csv", "-o", folder / "out.csv", "--base-url", sandbox.base_url, "--json")
    return call(*command, *options)


def after_gaps(times: list[float], gap_s: float, within_s: float) -> list[int]:
    """How many arrivals came within `within_s` after each pause of `gap_s` or more, its first one included."""
    openings = [now for before, now in pairwise(times) if now - before >= gap_s]
    return [sum(opening <= at < opening + within_s for at in times) for opening in openings]


def test_nobody_wakes_together_after_a_shared_pause(tmp_path: Path) -> None:
    """In the first 100 ms after a re-opening at most rate * 0.1 + 1 requests arrive."""
    prompts_table(tmp_path / "in.csv", 250)
    with Sandbox(SandboxOptions(capacity="60/s", burst=60, retry_after="seconds", latency_ms=20)) as sandbox:
        ended = job(tmp_path, sandbox, "--concurrency", 64)
        bursts = after_gaps([arrival.at_s for arrival in sandbox.arrivals], 0.5, 0.1)

    assert ended.summary["counts"] == {"ok": 250}
    assert bursts, "the gate never closed, so nothing was tested"
    assert max(bursts) <= 60 * 0.1 + 1


def test_a_429_slows_everyone_once(tmp_path: Path) -> None:
    """While one refusal's Retry-After lasts, nothing is sent by anyone."""
    prompts_table(tmp_path / "in.csv", 60)
    refusal = Scripted(429, b'{"error": "slow down"}', JSON | {"Retry-After": "1"})
    with Sandbox(SandboxOptions(latency_ms=10), Misbehaviour(by_prompt={"prompt 20": [refusal]})) as sandbox:
        ended = job(tmp_path, sandbox)
        refused_at = next(a.at_s for a in sandbox.arrivals if a.status == 429)
        later = [a.at_s for a in sandbox.arrivals if a.at_s > refused_at + 0.2]

    assert (ended.summary["counts"], ended.summary["refused_429"]) == ({"ok": 60}, 1)
    assert min(later) >= refused_at + 1.0


@pytest.mark.parametrize(
    ("form", "least_s"),
    [
        ("0", 0.0), ("0.5", 0.5), ("2", 2.0), ("date", 0.5), ("past date", 0.0), ("soon", 0.0), ("-5", 0.0),
        (None, 0.0),
    ],
)  # fmt: skip
def test_every_form_of_retry_after_is_understood(tmp_path: Path, form: str | None, least_s: float) -> None:
    """Seconds, fractions, dates: never sent before; past dates and garbage: not waited for."""
    dates = {"date": formatdate(time.time() + 2, usegmt=True), "past date": formatdate(1e9, usegmt=True)}
    header = {} if form is None else {"Retry-After": dates.get(form, form)}
    prompts_table(tmp_path / "in.csv", 5)
    refusal = Scripted(429, b'{"error": "slow down"}', JSON | header)
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"prompt 1": [refusal]})) as sandbox:
        ended = job(tmp_path, sandbox)
        times = [arrival.at_s for arrival in sandbox.arrivals if arrival.prompt == "prompt 1"]

    assert ended.summary["counts"] == {"ok": 5}
    assert len(times) == 2
    assert least_s <= times[1] - times[0] < least_s + 3.5


def test_the_wait_for_a_connection_is_no_timeout(tmp_path: Path) -> None:
    """1,200 rows at 1 s latency, timeout 2 s, concurrency 500: not one timeout."""
    prompts_table(tmp_path / "in.csv", 1200)
    with Sandbox(SandboxOptions(latency_ms=1000)) as sandbox:
        ended = job(tmp_path, sandbox, "--timeout", 2, "--concurrency", 500)

        assert (ended.summary["counts"], ended.summary["sent"]) == ({"ok": 1200}, 1200)
        assert sandbox.stats()["most_in_flight"] > 150


def test_rows_that_are_never_answered_end_in_time(tmp_path: Path) -> None:
    """Three of them: timeout * attempts + 5 s at most, the other rows done long before."""
    prompts_table(tmp_path / "in.csv", 300)
    hang = {f"prompt {i}": "hang" for i in (0, 1, 150)}
    began = time.monotonic()
    with Sandbox(misbehaviour=Misbehaviour(by_prompt=hang)) as sandbox:
        ended = job(tmp_path, sandbox, "--timeout", 0.6, "--max-attempts", 3)

    assert time.monotonic() - began < 0.6 * 3 + 5
    assert (ended.summary["counts"], ended.summary["errors"]) == ({"ok": 297, "failed": 3}, {"timeout": 3})
    rows = read_table(tmp_path / "out.csv")
    assert {rows[i]["requests"] for i in (0, 1, 150)} == {"3"}
    assert max(row["finished_at"] for row in rows if row["status"] == "ok") < rows[0]["finished_at"]


def test_a_slow_row_holds_up_nobody(tmp_path: Path) -> None:
    """Row 0 takes 4 s; two thousand others are done before it, by the fast answers' pace."""
    prompts_table(tmp_path / "in.csv", 2000)
    slow = Scripted(body=b'{"content": "late"}', headers=JSON, delay_s=4.0)
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"prompt 0": slow})) as sandbox:
        ended = job(tmp_path, sandbox)
        others = [arrival for arrival in sandbox.arrivals if arrival.prompt != "prompt 0"]
        first = next(arrival for arrival in sandbox.arrivals if arrival.prompt == "prompt 0")

    assert ended.summary["counts"] == {"ok": 2000}
    assert max(arrival.at_s for arrival in others) < first.at_s + 3.9


def test_retries_do_not_wait_for_the_first_pass_to_end(tmp_path: Path) -> None:
    """A row that failed once is sent again while most others still wait for their first turn."""
    # 2,000 rows take 2.5 s at 16 in flight, and the backoff after one failure is at most 1 s.
    prompts_table(tmp_path / "in.csv", 2000)
    with Sandbox(SandboxOptions(latency_ms=20), Misbehaviour(by_prompt={"prompt 1": ["500"]})) as sandbox:
        ended = job(tmp_path, sandbox)
        order = [arrival.prompt for arrival in sandbox.arrivals]

    again = len(order) - 1 - order[::-1].index("prompt 1")
    assert ended.summary["counts"] == {"ok": 2000}
    assert again < 1900


@pytest.mark.parametrize("kind", ["503", "reset"])
def test_an_outage_fails_no_row(tmp_path: Path, kind: str) -> None:
    """The service is away for a second and a half in the middle: every row is answered in the end."""
    prompts_table(tmp_path / "in.csv", 150)
    outage = Outage(kind, for_s=1.5, after_requests=40)  # type: ignore[arg-type]
    with Sandbox(SandboxOptions(latency_ms=20), Misbehaviour(outages=(outage,))) as sandbox:
        ended = job(tmp_path, sandbox)

    assert ended.summary["counts"] == {"ok": 150}


def test_chaos_loses_nothing(tmp_path: Path) -> None:
    """Failures, drops, garbage, a limit, all at once: every row once with one status, the server's counts agree."""
    prompts_table(tmp_path / "in.csv", 300)
    options = SandboxOptions(
        capacity="120/s", retry_after="seconds", latency_ms=5, latency_p99_ms=80, fail_share=0.1, drop_share=0.05,
        garbage_share=0.05, seed=7,
    )  # fmt: skip
    with Sandbox(options) as sandbox:
        ended = job(tmp_path, sandbox, "--max-attempts", 6)
        stats = sandbox.stats()
        sends = {f"prompt {i}": sandbox.sends_of(f"prompt {i}") for i in range(300)}

    rows = read_table(tmp_path / "out.csv")
    counts = ended.summary["counts"]
    assert [row["prompt"] for row in rows] == [f"prompt {i}" for i in range(300)]
    assert statuses(tmp_path / "out.csv") == counts
    assert set(counts) <= {"ok", "invalid"}
    assert {row["prompt"]: int(row["requests"]) for row in rows} == sends
    assert ended.summary["sent"] == stats["requests"]
    assert ended.summary["refused_429"] == stats["by_status"].get("429", 0)


# -- secrets ---------------------------------------------------------------------------------------------------------

KEY = "sk-live-Zq8Qk1TTopSecret77"

LEAKS = {
    "ok": None,
    "echoed": Scripted(400, b'{"error": "bad key ' + KEY.encode() + b' in request"}', JSON),
    "echoed again": Scripted(500, b"<html>" + KEY.encode(), {"Content-Type": "text/html"}),
    "redirected": Scripted(302, b"", {"Location": f"https://elsewhere.invalid/?key={KEY}"}),
}

FAULT_WITH_KEY = f"""
from websim_batch.providers import websim
def broken(self, *arguments):
    raise RuntimeError("{KEY}")
websim.WebsimProvider.parse = broken
"""

FAULT_IN_PREPARE = f"""
from websim_batch.run import session
def broken(*arguments):
    raise RuntimeError("{KEY}")
session.read_table = broken
"""


def assert_secret(folder: Path, *ends: Ended) -> None:
    """The key is in no file of the folder and in nothing that was said."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert KEY.encode() not in path.read_bytes(), path.name
    for ended in ends:
        assert KEY not in ended.out + ended.err


@pytest.mark.parametrize(
    "prompts", [["ok", "echoed", "echoed again"], ["ok", "redirected"]], ids=["rows", "stop"]
)
def test_a_key_is_nowhere_even_if_the_server_repeats_it(tmp_path: Path, prompts: list[str]) -> None:
    """Output, journal, manifest, both streams, under -v and as JSON log: nothing holds it."""
    (tmp_path / "in.csv").write_text("\n".join(["prompt", *prompts]) + "\n")
    with Sandbox(misbehaviour=Misbehaviour(by_prompt=LEAKS)) as sandbox:
        command = (
            "run",
            "in.csv",
            "-o",
            "out.csv",
            "--base-url",
            sandbox.base_url,
            "--max-attempts",
            2,
            "-v",
        )
        key = ("--header-env", "Authorization: Bearer $MY_KEY", "--log-format", "json", "--json")
        ended = run(tmp_path, *command, *key, env={"MY_KEY": KEY})
        told = [run(tmp_path, "status", "out.csv"), run(tmp_path, "export", "out.csv", "-o", "other.jsonl")]

    assert ended.code in (3, 5)
    assert ended.code == 5 or "***" in (tmp_path / "out.csv").read_text()
    assert_secret(tmp_path, ended, *told)
    assert "$MY_KEY" in (tmp_path / "out.csv.run.json").read_text()


@pytest.mark.parametrize("prelude", [FAULT_WITH_KEY, FAULT_IN_PREPARE], ids=["in a row", "before the run"])
def test_a_key_is_in_no_fault_of_ours(tmp_path: Path, prelude: str) -> None:
    """An exception that holds it, in a row or before the run, with the traceback of -v."""
    prompts_table(tmp_path / "in.csv", 2)

    with Sandbox() as sandbox:
        command = ("run", "in.csv", "-o", "out.csv", "--base-url", sandbox.base_url, "-v")
        key = ("--header-env", "Authorization: Bearer $MY_KEY")
        with start(tmp_path, *command, *key, prelude=prelude, env={"MY_KEY": KEY}) as running:
            ended = running.wait()

    assert ended.code in (1, 3)
    assert_secret(tmp_path, ended)


def test_a_proxys_password_is_nowhere(tmp_path: Path) -> None:
    """A proxy that does not answer is told without its password; nothing was sent."""
    prompts_table(tmp_path / "in.csv", 2)
    with Sandbox() as gone:
        pass
    proxy = gone.base_url.replace("http://", f"http://ann:{KEY}@")
    options = (
        "--proxy",
        proxy,
        "--base-url",
        "http://service.invalid",
        "--give-up-after",
        "0.3",
        "-v",
        "--json",
    )
    ended = run(tmp_path, "run", "in.csv", "-o", "out.csv", *options)

    assert (ended.code, ended.summary["exit_reason"]) == (4, "no_success")
    assert "127.0.0.1" in ended.summary["message"]
    assert_secret(tmp_path, ended)


def test_an_openai_key_of_the_environment_is_nowhere(tmp_path: Path) -> None:
    """The key that the provider takes by itself, refused by the server in its own words."""
    prompts_table(tmp_path / "in.csv", 2)
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    with Sandbox(misbehaviour=Misbehaviour(every=Scripted(401, body, JSON))) as sandbox:
        options = (
            "--provider",
            "openai",
            "--model",
            "gpt-4o-mini",
            "--base-url",
            sandbox.openai_base_url,
            "--json",
        )
        ended = run(tmp_path, "run", "in.csv", "-o", "out.csv", *options, env={"OPENAI_API_KEY": KEY})

    assert (ended.code, ended.summary["exit_reason"]) == (5, "auth")
    assert "Incorrect API key provided: ***" in ended.summary["message"]
    assert_secret(tmp_path, ended)
