"""The answer table of the design, end to end: what the server says, how the row ends, how often it was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live import call, journal_of, prompts_table, query, read_table, statuses, write_table
from websim_batch.sandbox.misbehaviour import Misbehaviour, Script, Scripted
from websim_batch.sandbox.testing import Sandbox

JSON = {"Content-Type": "application/json"}
TOO_LONG = Scripted(
    400,
    b'{"error": {"message": "maximum context length is 8 tokens", "code": "context_length_exceeded"}}',
    JSON,
)
BUSY_503 = Scripted(503, b'{"error": "busy"}', JSON | {"Retry-After": "0"})
BUSY_529 = Scripted(529, b'{"error": "busy"}', JSON | {"Retry-After": "0.1"})

# prompt -> what the server does, and: status, error type, HTTP status, requests
ENDS: dict[str, tuple[Script | list[Script], tuple[str, str, str, int]]] = {
    "empty": ("empty", ("invalid", "bad_response", "200", 2)),
    "html": ("html", ("invalid", "bad_response", "200", 2)),
    "cut json": ("cut_json", ("invalid", "bad_response", "200", 2)),
    "error in 200": ("error_in_200", ("invalid", "bad_response", "200", 2)),
    "no content": ("no_content", ("invalid", "bad_response", "200", 2)),
    "null": ("null_content", ("invalid", "bad_response", "200", 2)),
    "broken gzip": ("bad_gzip", ("invalid", "bad_response", "200", 2)),
    "invalid once": (["html", None], ("ok", "", "200", 2)),
    "429 once": (["429", None], ("ok", "", "200", 2)),
    "503 with Retry-After": ([BUSY_503, BUSY_503, BUSY_503, None], ("ok", "", "200", 4)),
    "529 with Retry-After": ([BUSY_529, None], ("ok", "", "200", 2)),
    "limit in words": (["limit_in_words", None], ("ok", "", "200", 2)),
    "408": ("408", ("failed", "server", "408", 2)),
    "425": ("425", ("failed", "server", "425", 2)),
    "500": ("500", ("failed", "server", "500", 2)),
    "502": ("502", ("failed", "server", "502", 2)),
    "503": ("503", ("failed", "server", "503", 2)),
    "504": ("504", ("failed", "server", "504", 2)),
    "520": ("520", ("failed", "server", "520", 2)),
    "524": ("524", ("failed", "server", "524", 2)),
    "529": ("529", ("failed", "server", "529", 2)),
    "500 once": (["500", None], ("ok", "", "200", 2)),
    "no answer": ("hang", ("failed", "timeout", "", 2)),
    "reset": ("reset", ("failed", "connection", "", 2)),
    "dropped": ("drop", ("failed", "connection", "", 2)),
    "dropped once": (["drop", None], ("ok", "", "200", 2)),
    "403": ("403", ("failed", "permission", "403", 1)),
    "404": ("404", ("failed", "not_found", "404", 1)),
    "400": ("400", ("failed", "bad_request", "400", 1)),
    "413": ("413", ("failed", "bad_request", "413", 1)),
    "422": ("422", ("failed", "bad_request", "422", 1)),
    "too long": (TOO_LONG, ("failed", "context_length", "400", 1)),
    "policy": ("policy", ("refused", "content_policy", "400", 1)),
}  # fmt: skip


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, str]], dict[str, int], Path]:
    """One run over all kinds of answers, healthy rows in between: rows by prompt, sends by prompt, the journal."""
    folder = tmp_path_factory.mktemp("answers")
    rows = [[prompt] for number, name in enumerate(ENDS) for prompt in (name, *_healthy(number))]
    table = write_table(folder / "in.csv", [*([f"well {n}"] for n in range(8)), *rows])
    scripts = {prompt: script for prompt, (script, _) in ENDS.items()}
    with Sandbox(misbehaviour=Misbehaviour(by_prompt=scripts)) as sandbox:
        output = folder / "out.csv"
        options = ("--max-attempts", 2, "--timeout", 1, "--concurrency", 4)
        code = call("run", table, "-o", output, "--base-url", sandbox.base_url, *options).code
        sends = {prompt: sandbox.sends_of(prompt) for prompt in ENDS}
    assert code == 3
    return {row["prompt"]: row for row in read_table(output)}, sends, journal_of(output)


def _healthy(number: int) -> list[str]:
    return [f"well {number}.{n}" for n in range(6)]


@pytest.mark.parametrize("prompt", ENDS)
def test_each_answer_ends_its_row_as_the_design_says(
    ended: tuple[dict[str, dict[str, str]], dict[str, int], Path], prompt: str
) -> None:
    """Status, error type, HTTP status, and the number of requests that the server really saw."""
    rows, sends, _ = ended
    status, error_type, http_status, requests = ENDS[prompt][1]

    row = rows[prompt]

    assert (row["status"], row["error_type"], row["http_status"]) == (status, error_type, http_status)
    assert (row["requests"], sends[prompt]) == (str(requests), requests)
    assert bool(row["error_message"]) == (status != "ok")
    assert bool(row["response"]) == (status == "ok")
    assert "\n" not in row["error_message"]


def test_no_bad_row_harms_another(ended: tuple[dict[str, dict[str, str]], dict[str, int], Path]) -> None:
    """All healthy rows are answered, each with one request."""
    well = [row for prompt, row in ended[0].items() if prompt.startswith("well")]

    assert {(row["status"], row["requests"]) for row in well} == {("ok", "1")}


def test_the_ledger_has_every_request_with_its_delivery(
    ended: tuple[dict[str, dict[str, str]], dict[str, int], Path],
) -> None:
    """answered with a status, unknown without one; as many lines as the server saw requests."""
    rows, sends, journal = ended
    ledger = query(
        journal, "SELECT row_id, http_status, error_type, delivery FROM requests ORDER BY row_id, number"
    )
    names = list(rows)
    by_prompt: dict[str, list[tuple[int | None, str | None, str]]] = {}
    for row_id, *facts in ledger:
        by_prompt.setdefault(names[row_id], []).append(tuple(facts))

    assert {prompt: len(by_prompt[prompt]) for prompt in ENDS} == sends
    assert by_prompt["429 once"] == [(429, "rate_limit", "answered"), (200, None, "answered")]
    assert by_prompt["no answer"] == [(None, "timeout", "unknown")] * 2
    assert by_prompt["reset"] == [(None, "connection", "unknown")] * 2
    assert by_prompt["400"] == [(400, "bad_request", "answered")]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("401", "auth"), ("402", "quota"), ("407", "auth"), ("redirect", "redirect"), ("quota", "quota"),
        ("403", "permission"), ("challenge", "permission"), ("404", "not_found"),
    ],
)  # fmt: skip
def test_an_endpoint_that_refuses_everything_stops_the_run(tmp_path: Path, script: str, reason: str) -> None:
    """Exit 5 after at most max(3, concurrency) requests; all rows stay pending, and the message says what to do."""
    table = prompts_table(tmp_path / "in.csv", 100)
    with Sandbox(misbehaviour=Misbehaviour(every=script)) as sandbox:
        output = tmp_path / "out.csv"
        ended = call("run", table, "-o", output, "--base-url", sandbox.base_url, "--json", "--concurrency", 4)

        assert (ended.code, ended.summary["exit_reason"]) == (5, reason)
        assert sandbox.stats()["requests"] <= 4
        assert statuses(output) == {"pending": 100}
        assert ended.summary["message"].startswith("the endpoint refuses everything")


def test_404_for_everything_after_a_success_stops_the_run_too(tmp_path: Path) -> None:
    """A model that is taken away: after max(3, concurrency) in a row nothing more is sent."""
    table = prompts_table(tmp_path / "in.csv", 100)
    with Sandbox(misbehaviour=Misbehaviour(from_nth=(11, "404"))) as sandbox:
        output = tmp_path / "out.csv"
        ended = call("run", table, "-o", output, "--base-url", sandbox.base_url, "--json", "--concurrency", 4)

        assert (ended.code, ended.summary["exit_reason"]) == (5, "not_found")
        # Three may be refused before the last success is heard, four are in a row, three were on their way then.
        assert sandbox.status_count(404) <= 3 + 4 + 3
        assert ended.summary["counts"]["ok"] == 10


def test_a_404_in_a_continued_job_is_its_rows_own(tmp_path: Path) -> None:
    """Rows that succeeded in an earlier run speak for the endpoint; the one that is left fails, and the job ends."""
    table = prompts_table(tmp_path / "in.csv", 10)
    output = tmp_path / "out.csv"
    with Sandbox() as sandbox:
        call("run", table, "-o", output, "--base-url", sandbox.base_url)
    prompts_table(table, 11)
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"prompt 10": "404"})) as sandbox:
        ended = call("run", table, "-o", output, "--base-url", sandbox.base_url, "--json")

    assert (ended.code, ended.summary["errors"]) == (3, {"not_found": 1})


def test_a_row_that_alone_is_refused_fails_and_holds_nobody(tmp_path: Path) -> None:
    """The poisoned row ends failed / rate_limit; all others are answered, the first ones before it."""
    table = prompts_table(tmp_path / "in.csv", 60)
    output = tmp_path / "out.csv"
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"prompt 5": "429"}, retry_after="0")) as sandbox:
        ended = call(
            "run",
            table,
            "-o",
            output,
            "--base-url",
            sandbox.base_url,
            "--json",
        )

    rows = read_table(output)
    assert ended.code == 3
    assert ended.summary["counts"] == {"ok": 59, "failed": 1}
    assert (rows[5]["status"], rows[5]["error_type"]) == ("failed", "rate_limit")
    assert rows[5]["finished_at"] > max(row["finished_at"] for row in rows if row is not rows[5])


@pytest.mark.parametrize(("attempts", "seen"), [(1, 1), (3, 3)])
def test_max_attempts_is_what_the_server_sees(tmp_path: Path, attempts: int, seen: int) -> None:
    """No retry layer below another one: --max-attempts 3 against a server of 500s means three requests."""
    table = prompts_table(tmp_path / "in.csv", 2)
    with Sandbox(misbehaviour=Misbehaviour(every="500")) as sandbox:
        output = tmp_path / "out.csv"
        ended = call("run", table, "-o", output, "--base-url", sandbox.base_url, "--max-attempts", attempts)

        assert ended.code == 3
        assert [sandbox.sends_of(f"prompt {i}") for i in range(2)] == [seen, seen]
        assert statuses(output) == {"failed": 2}


def test_a_server_that_was_ill_for_a_whole_run_is_asked_again_on_demand(tmp_path: Path) -> None:
    """All rows failed; the same command leaves them, --retry-failed=TYPE takes those, --retry-failed all."""
    table = prompts_table(tmp_path / "in.csv", 6)
    output = tmp_path / "out.csv"
    ill = {f"prompt {i}": "400" if i < 2 else "500" for i in range(6)}
    command = ("run", table, "-o", output, "--max-attempts", 1, "--json", "--base-url")
    with Sandbox(misbehaviour=Misbehaviour(by_prompt=ill)) as sandbox:
        # Nothing succeeds here, and the gate never closes for it.
        assert call(*command, sandbox.base_url).code == 3
    with Sandbox() as sandbox:
        left = call(*command, sandbox.base_url)
        assert (left.code, left.summary["sent"]) == (3, 0)
        some = call(*command, sandbox.base_url, "--retry-failed=server")
        assert (some.code, some.summary["counts"]) == (3, {"ok": 4, "failed": 2})
        rest = call(*command, sandbox.base_url, "--retry-failed")
        assert (rest.code, rest.summary["counts"], rest.summary["errors"]) == (0, {"ok": 6}, {})
        assert sandbox.stats()["requests"] == 6
    assert {row["requests"] for row in read_table(output)} == {"2"}


def test_tolerated_failures_end_0(tmp_path: Path) -> None:
    """--tolerate N or P% describes what is good enough; one more ends 3."""
    table = prompts_table(tmp_path / "in.csv", 20)
    bad = {"prompt 3": "400", "prompt 4": "400"}
    with Sandbox(misbehaviour=Misbehaviour(by_prompt=bad)) as sandbox:
        command = ("run", table, "-o", tmp_path / "out.csv", "--base-url", sandbox.base_url)

        assert call(*command).code == 3
        assert call(*command, "--tolerate", "2").code == 0
        assert call(*command, "--tolerate", "10%").code == 0
        assert call(*command, "--tolerate", "1").code == 3


def test_skipped_and_bad_rows_send_nothing(tmp_path: Path) -> None:
    """An empty prompt is skipped, broken messages fail as input; a blank is a prompt."""
    rows = [["a", ""], ["", ""], [" ", ""], ["", "not json"]]
    table = write_table(tmp_path / "in.csv", rows, ("prompt", "messages"))
    with Sandbox() as sandbox:
        output = tmp_path / "out.csv"
        ended = call("run", table, "-o", output, "--base-url", sandbox.base_url, "--json")

        assert ended.code == 3
        assert [row["status"] for row in read_table(output)] == ["ok", "skipped", "ok", "failed"]
        assert ended.summary["errors"] == {"input": 1}
        assert sandbox.stats()["requests"] == 2
