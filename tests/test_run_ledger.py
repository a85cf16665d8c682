"""The ledger is true: what was sent stands in it before it can be billed, and what became of it afterwards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.live import call, journal_of, prompts_table, query, read_table, start, wait_until, write_table
from websim_batch.sandbox import SandboxOptions
from websim_batch.sandbox.misbehaviour import Misbehaviour
from websim_batch.sandbox.testing import Sandbox
from websim_batch.throttle import Grant, Signal, Throttle


def test_requests_are_in_the_ledger_before_the_server_sees_them(tmp_path: Path) -> None:
    """At any moment a reader of the journal finds at least what the server has counted until just before."""
    prompts_table(tmp_path / "in.csv", 300)
    journal = journal_of(tmp_path / "out.csv")
    with (
        Sandbox(SandboxOptions(latency_ms=30)) as sandbox,
        start(tmp_path, "run", "in.csv", "-o", "out.csv", "--base-url", sandbox.base_url) as running,
    ):
        wait_until(lambda: sandbox.stats()["requests"] > 0)
        while running.is_alive:
            seen = sandbox.stats()["requests"]
            noted = query(journal, "SELECT count(*) FROM requests")[0][0]
            assert seen <= noted
        running.wait()


def test_what_a_kill_left_open_is_told_as_perhaps_paid(tmp_path: Path) -> None:
    """Requests that hang at a kill become `unknown`; the next run tells how many, and each row's count has both."""
    prompts_table(tmp_path / "in.csv", 40)
    hang = {f"prompt {i}": "hang" for i in range(30, 35)}
    with (
        Sandbox(misbehaviour=Misbehaviour(by_prompt=hang)) as sandbox,
        start(tmp_path, "run", "in.csv", "-o", "out.csv", "--base-url", sandbox.base_url) as running,
    ):
        wait_until(lambda: sandbox.status_count(200) == 35 and sandbox.stats()["in_flight"] == 5)
        journal = journal_of(tmp_path / "out.csv")
        wait_until(lambda: query(journal, "SELECT count(*) FROM results") == [(35,)])
        running.kill()
    with Sandbox() as sandbox:
        ended = call(
            "run", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--base-url", sandbox.base_url, "--json"
        )
        assert sandbox.stats()["requests"] == 5

    assert ended.summary["may_be_paid"] == 5
    assert Counter(row["requests"] for row in read_table(tmp_path / "out.csv")) == {"1": 35, "2": 5}
    deliveries = query(journal_of(tmp_path / "out.csv"), "SELECT delivery, count(*) FROM requests GROUP BY 1")
    assert dict(deliveries) == {"answered": 40, "unknown": 5}


def test_what_never_left_is_not_sent(tmp_path: Path) -> None:
    """Without a connection the ledger says `not_sent`, nothing counts as sent, nothing as paid."""
    prompts_table(tmp_path / "in.csv", 3)
    with Sandbox() as gone:
        pass
    command = ("run", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--base-url", gone.base_url, "--json")
    ended = call(*command, "--give-up-after", "0.3")

    assert (ended.summary["sent"], ended.summary["may_be_paid"]) == (0, 0)
    assert query(journal_of(tmp_path / "out.csv"), "SELECT DISTINCT delivery FROM requests") == [
        ("not_sent",)
    ]


def test_views_are_for_human_eyes(tmp_path: Path) -> None:
    """sqlite3 shows times as ISO 8601 and hashes as the output has them."""
    prompts_table(tmp_path / "in.csv", 2)
    with Sandbox() as sandbox:
        call("run", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--base-url", sandbox.base_url)
    journal = journal_of(tmp_path / "out.csv")

    row = read_table(tmp_path / "out.csv")[0]

    facts = query(journal, "SELECT request_hash, started_at, finished_at FROM answers WHERE row_id = 0")[0]
    assert facts == (row["request_hash"], row["started_at"], row["finished_at"])


def test_an_idempotency_key_is_equal_on_all_attempts_of_a_row(tmp_path: Path) -> None:
    """Also in the next run; equal prompts, which are separate rows, have keys of their own."""
    seen: list[tuple[str, str]] = []
    prelude = Path(tmp_path / "seen.txt")
    write_table(tmp_path / "in.csv", [["twin"], ["twin"], ["flaky"]])
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"flaky": ["500", "drop", "500", None]})) as sandbox:
        spy = f"""
from websim_batch.transport import Transport
send = Transport.send
async def spied(self, wire, permit):
    with open({str(prelude)!r}, "a") as file:
        print(wire.headers["Idempotency-Key"], b"flaky" in wire.body, file=file)
    return await send(self, wire, permit)
Transport.send = spied
"""
        options = ("--idempotency-header", "Idempotency-Key", "--max-attempts", "2")
        command = ("run", "in.csv", "-o", "out.csv", "--base-url", sandbox.base_url, *options)
        with start(tmp_path, *command, prelude=spy) as running:
            assert running.wait().code == 3
        with start(tmp_path, *command, "--retry-failed", prelude=spy) as running:
            assert running.wait().code == 0
    seen = [tuple(line.split()) for line in prelude.read_text().splitlines()]

    flaky = [key for key, is_flaky in seen if is_flaky == "True"]
    twins = [key for key, is_flaky in seen if is_flaky == "False"]
    assert (len(flaky), len(set(flaky))) == (4, 1)
    assert (len(twins), len(set(twins))) == (2, 2)


def test_each_request_has_a_grant_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many grants are settled as the server saw requests, retries and refusals included, and each once."""
    given: list[int] = []
    kept: list[Grant] = []  # so that no two have the same id
    settle = Throttle.settle

    def counted(self: Throttle, grant: Grant, signal: Signal) -> None:
        given.append(id(grant))
        kept.append(grant)
        settle(self, grant, signal)

    monkeypatch.setattr(Throttle, "settle", counted)
    prompts_table(tmp_path / "in.csv", 60)
    options = SandboxOptions(capacity="40/s", burst=10, retry_after="seconds", fail_share=0.1, seed=3)
    with Sandbox(options) as sandbox:
        command = ("run", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--base-url", sandbox.base_url)
        assert call(*command).code == 0

        assert len(set(given)) == len(given) == sandbox.stats()["requests"] > 60
