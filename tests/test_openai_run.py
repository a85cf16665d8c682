"""`--provider openai` end to end: what is sent, what answers become, and who knows of it."""

from __future__ import annotations

import ast
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.live import Ended, call, prompts_table, query, read_table, run, statuses, write_table
from tests.raw_server import RawServer, answer
from websim_batch.job.keywords import RunOptions
from websim_batch.job.options import OPTIONS
from websim_batch.providers import PROVIDERS, own_secrets
from websim_batch.sandbox import Misbehaviour, Sandbox, SandboxOptions, Scripted

ROOT = Path(__file__).parents[1]
JSON = {"Content-Type": "application/json"}
KEY = "sk-0123456789-very-secret"
OK = b'{"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}'


def said(status: int, value: object, headers: Mapping[str, str] | None = None) -> Scripted:
    """An answer with that JSON."""
    return Scripted(status, json.dumps(value).encode(), {**JSON, **(headers or {})})


def chosen(message: object, finish_reason: str = "stop") -> Scripted:
    """A chat's answer with one choice."""
    usage = {"prompt_tokens": 11, "completion_tokens": 22}
    return said(200, {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage})


def failed(
    status: int, code: str | None, kind: str = "invalid_request_error", message: str = "no"
) -> Scripted:
    """An error as the hosted service words it."""
    return said(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})


def ask(sandbox: Sandbox, table: Path, *more: object) -> Ended:
    """Run the table against the stand-in; the output is out.csv beside it."""
    endpoint = ("--provider", "openai", "--base-url", sandbox.openai_base_url, "--model", "m")
    return call("run", table, "-o", table.with_name("out.csv"), "--json", *endpoint, *more)


# What is sent


def test_a_rehearsal_needs_no_key_and_no_address(tmp_path: Path) -> None:
    """`run --provider openai --sandbox` alone: the answers, their tokens and why they ended."""
    table = prompts_table(tmp_path / "in.csv", 3)

    ended = run(tmp_path, "run", table, "--provider", "openai", "--model", "m", "--sandbox")

    rows = read_table(tmp_path / "in.sandbox.csv")
    assert ended.code == 0, ended.err
    assert all(row["response"].endswith(row["prompt"]) for row in rows)
    assert {(row["status"], row["finish_reason"], row["request_model"]) for row in rows} == {
        ("ok", "stop", "m")
    }
    assert all(int(row["prompt_tokens"]) > 0 and int(row["completion_tokens"]) > 0 for row in rows)


def test_fields_of_rows_and_of_the_job_reach_the_server(tmp_path: Path) -> None:
    """--param for all rows, --field by column with its type, a row's own value wins, an empty cell says nothing."""
    table = write_table(
        tmp_path / "in.csv",
        [["a", "0.5", "7", '{"type": "json_object"}', "x"], ["b", "", "", "", "y"]],
        ("prompt", "temperature", "seed", "response_format", "note"),
    )
    given = ("--field", "temperature", "--field", "seed", "--field", "response_format", "--system", "Be brief",
             "--param", "temperature=1", "--param", "max_tokens=9", "--param", 'top_logprobs=2')  # fmt: skip
    with RawServer(lambda n: answer(OK)) as server:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        ended = call("run", table, "--provider", "openai", "--base-url", base_url, "--model", "m",
                     "--concurrency", 1, *given)  # fmt: skip
        bodies = [json.loads(body) for _, body in server.requests]
        lines = [head.splitlines()[0] for head, _ in server.requests]

    common = {"model": "m", "max_tokens": 9, "top_logprobs": 2}
    system = {"role": "system", "content": "Be brief"}
    assert ended.code == 0
    assert lines == ["POST /v1/chat/completions HTTP/1.1"] * 2
    assert bodies == [
        {**common, "messages": [system, {"role": "user", "content": "a"}], "temperature": 0.5, "seed": 7,
         "response_format": {"type": "json_object"}},
        {**common, "messages": [system, {"role": "user", "content": "b"}], "temperature": 1},
    ]  # fmt: skip


def test_an_image_request_has_its_size(tmp_path: Path) -> None:
    """The other route, with the fields of images alone."""
    table = write_table(tmp_path / "in.csv", [["a", "64x64", "0.5"]], ("prompt", "size", "temperature"))
    with RawServer(lambda n: answer(b'{"data": [{"url": "https://images.example/1.png"}]}')) as server:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        call("run", table, "--provider", "openai", "--base-url", base_url, "--model", "gpt-image-1",
             "--field", "size", "--field", "temperature")  # fmt: skip
        ((head, body),) = server.requests

    assert head.startswith("POST /v1/images/generations ")
    assert json.loads(body) == {"model": "gpt-image-1", "prompt": "a", "size": "64x64"}


def test_messages_are_sent_as_given(tmp_path: Path) -> None:
    """Parts and roles pass through; the prompt becomes the last user message."""
    messages = [
        {"role": "developer", "content": "Be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "content": "Yes?"},
    ]
    table = write_table(tmp_path / "in.csv", [["What is it?", json.dumps(messages)]], ("prompt", "messages"))
    with RawServer(lambda n: answer(OK)) as server:
        call(
            "run",
            table,
            "--provider",
            "openai",
            "--base-url",
            f"http://127.0.0.1:{server.port}/v1",
            "--model",
            "m",
        )
        ((_, body),) = server.requests

    assert json.loads(body)["messages"] == [*messages, {"role": "user", "content": "What is it?"}]


def test_a_model_is_required(tmp_path: Path) -> None:
    """Exit 2 before anything is sent, with the option that helps."""
    table = prompts_table(tmp_path / "in.csv", 1)
    with Sandbox() as sandbox:
        ended = call("run", table, "--provider", "openai", "--base-url", sandbox.openai_base_url)

        assert ended.code == 2
        assert "--model is needed: openai has none of its own" in ended.err
        assert sandbox.stats()["requests"] == 0


def test_a_row_may_name_its_model(tmp_path: Path) -> None:
    """A column is enough; the row that names none fails alone, and sends nothing."""
    table = write_table(tmp_path / "in.csv", [["a", "x"], ["b", ""], ["c", "y"]], ("prompt", "model"))
    with Sandbox() as sandbox:
        ended = call("run", table, "--provider", "openai", "--base-url", sandbox.openai_base_url,
                     "-o", tmp_path / "out.csv")  # fmt: skip
        assert sandbox.stats()["requests"] == 2

    rows = read_table(tmp_path / "out.csv")
    assert ended.code == 3
    assert [(row["status"], row["error_type"], row["request_model"]) for row in rows] == [
        ("ok", "", "x"), ("failed", "input", ""), ("ok", "", "y"),
    ]  # fmt: skip
    assert "--model" in rows[1]["error_message"]


@pytest.mark.parametrize("param", ["n=2", "stream=true"])
def test_one_row_has_one_answer(tmp_path: Path, param: str) -> None:
    """An option that asks for several, or for a stream, is refused before anything is sent."""
    table = prompts_table(tmp_path / "in.csv", 1)

    ended = call("run", table, "--provider", "openai", "--model", "m", "--sandbox", "--param", param)

    assert ended.code == 2
    assert "one row has one answer" in ended.err


def test_a_row_that_asks_for_several_answers_fails_alone(tmp_path: Path) -> None:
    """Its cell is told; nothing is sent for it."""
    table = write_table(tmp_path / "in.csv", [["a", "2"], ["b", "1"]], ("prompt", "n"))
    with Sandbox() as sandbox:
        ask(sandbox, table, "--field", "n")
        assert sandbox.stats()["requests"] == 1

    first, second = read_table(tmp_path / "out.csv")
    assert (first["status"], first["error_type"], second["status"]) == ("failed", "input", "ok")
    assert "can only be 1" in first["error_message"]


# The key


@pytest.mark.parametrize(
    ("options", "variable"),
    [((), "OPENAI_API_KEY"), (("--header-env", "Authorization: Bearer $MY_KEY"), "MY_KEY")],
    ids=["OPENAI_API_KEY", "--header-env"],
)
def test_the_key_is_sent_and_shown_nowhere(tmp_path: Path, options: tuple[str, ...], variable: str) -> None:
    """Not on a stream, not in a file, not even where the server repeats it in its error."""
    prompts_table(tmp_path / "in.csv", 3)
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}})
    replies = {
        1: answer(OK),
        2: answer(echo.encode(), "400 Bad Request"),
        3: answer(echo.encode(), "401 Unauthorized"),
    }
    with RawServer(lambda n: replies[n]) as server:
        endpoint = ("--provider", "openai", "--base-url", f"http://127.0.0.1:{server.port}/v1", *options)
        ended = run(tmp_path, "run", "in.csv", "-o", "out.csv", "-v", "--json", "--model", "m", "--concurrency", 1,
                    *endpoint, env={variable: KEY})  # fmt: skip
        models = run(tmp_path, "models", *endpoint, env={variable: KEY})
        heads = [head for head, _ in server.requests]

    assert ended.code == 5
    assert all(f"authorization: bearer {KEY}" in head.lower() for head in heads)
    assert "Incorrect API key provided: ***" in ended.summary["message"]
    assert models.code != 0
    assert "Incorrect API key provided: ***" in models.err
    texts = [ended.out, ended.err, models.out, models.err]
    assert not any(KEY in text for text in texts)
    assert [
        path.name for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ] == []


def test_the_hosted_service_is_not_asked_without_a_key(tmp_path: Path) -> None:
    """Exit 2, and the message says where the key may come from."""
    prompts_table(tmp_path / "in.csv", 1)

    ended = run(tmp_path, "run", "in.csv", "--provider", "openai", "--model", "m", env={"OPENAI_API_KEY": ""})

    assert ended.code == 2
    assert "set OPENAI_API_KEY" in ended.err


def test_the_projects_id_travels_in_its_header(tmp_path: Path) -> None:
    """By column or --project-id; it is in the output, and none is made up."""
    table = write_table(tmp_path / "in.csv", [["a", "proj_1"], ["b", ""]], ("prompt", "project_id"))
    with RawServer(lambda n: answer(OK)) as server:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        call("run", table, "--provider", "openai", "--base-url", base_url, "--model", "m", "--concurrency", 1,
             "-o", tmp_path / "out.csv")  # fmt: skip
        heads = [head.lower() for head, _ in server.requests]

    assert ["openai-project: proj_1" in head for head in heads] == [True, False]
    assert "openai-project" not in heads[1]
    assert [row["request_project_id"] for row in read_table(tmp_path / "out.csv")] == ["proj_1", ""]


# What answers become

CUT, FILTERED, CALLED = "length", "content_filter", "tool_calls"
TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
POLICY = "Your request was rejected by our safety system"

# prompt -> the answer, and: status, error type, HTTP status, requests, finish reason
ENDS: dict[str, tuple[Scripted, tuple[str, str, str, str, str]]] = {
    "cut by length": (chosen({"content": "as far as"}, CUT), ("ok", "", "200", "1", CUT)),
    "a tool": (chosen({"content": None, "tool_calls": [TOOL_CALL]}, CALLED), ("ok", "", "200", "1", CALLED)),
    "filtered": (chosen({"content": "so"}, FILTERED), ("refused", "content_policy", "200", "1", FILTERED)),
    "refusal": (chosen({"content": None, "refusal": "I will not"}), ("refused", "content_policy", "200", "1", "stop")),
    "no choices": (said(200, {"choices": []}), ("invalid", "bad_response", "200", "2", "")),
    "null content": (chosen({"content": None}), ("invalid", "bad_response", "200", "2", "stop")),
    "all thought": (chosen({"content": ""}, CUT), ("invalid", "bad_response", "200", "2", CUT)),
    "error in 200": (said(200, {"error": {"message": "no"}}), ("invalid", "bad_response", "200", "2", "")),
    "too long": (failed(400, "context_length_exceeded"), ("failed", "context_length", "400", "1", "")),
    "policy": (failed(400, "content_policy_violation"), ("refused", "content_policy", "400", "1", "")),
    "policy in words": (failed(400, None, message=POLICY), ("refused", "content_policy", "400", "1", "")),
    "bad field": (failed(400, "unsupported_value"), ("failed", "bad_request", "400", "1", "")),
    "no such model": (failed(404, "model_not_found"), ("failed", "not_found", "404", "1", "")),
    "no such model, 400": (failed(400, "model_not_found"), ("failed", "not_found", "400", "1", "")),
    "region": (failed(403, "unsupported_country"), ("failed", "permission", "403", "1", "")),
    "overloaded": (failed(500, None, "server_error"), ("failed", "server", "500", "2", "")),
}  # fmt: skip


@pytest.fixture(scope="module")
def ended_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """One run over all kinds of answers, healthy rows between them: the output's rows by prompt."""
    folder = tmp_path_factory.mktemp("answers")
    rows = [
        [prompt]
        for number, name in enumerate(ENDS)
        for prompt in (name, *(f"well {number}.{n}" for n in range(5)))
    ]
    table = write_table(folder / "in.csv", [*([f"well {n}"] for n in range(6)), *rows])
    with Sandbox(
        misbehaviour=Misbehaviour(by_prompt={prompt: script for prompt, (script, _) in ENDS.items()})
    ) as sandbox:
        assert ask(sandbox, table, "--max-attempts", 2, "--concurrency", 4).code == 3
    return {row["prompt"]: row for row in read_table(folder / "out.csv")}


@pytest.mark.parametrize("prompt", ENDS)
def test_each_answer_ends_its_row_as_the_design_says(
    ended_rows: dict[str, dict[str, str]], prompt: str
) -> None:
    """Status, error type, HTTP status, requests and finish reason."""
    row = ended_rows[prompt]

    found = tuple(row[name] for name in ("status", "error_type", "http_status", "requests", "finish_reason"))

    assert found == ENDS[prompt][1]
    assert bool(row["response"]) == (row["status"] == "ok") != bool(row["error_message"])


def test_answers_come_with_their_tokens(ended_rows: dict[str, dict[str, str]]) -> None:
    """Also where they are no use: they were paid for."""
    counted = {prompt: (row["prompt_tokens"], row["completion_tokens"]) for prompt, row in ended_rows.items()}

    assert {counted[name] for name in ("cut by length", "a tool", "filtered", "refusal", "null content")} == {
        ("11", "22")
    }
    assert counted["no choices"] == counted["too long"] == ("", "")
    assert json.loads(ended_rows["a tool"]["response"]) == [TOOL_CALL]
    assert "raise max_tokens" in ended_rows["all thought"]["error_message"]


def test_no_bad_row_harms_another(ended_rows: dict[str, dict[str, str]]) -> None:
    """All healthy rows are answered with one request each."""
    well = [row for prompt, row in ended_rows.items() if prompt.startswith("well")]

    assert {(row["status"], row["requests"]) for row in well} == {("ok", "1")}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (failed(401, "invalid_api_key"), "auth"),
        (failed(400, "invalid_api_key"), "auth"),
        (failed(429, "insufficient_quota", "insufficient_quota"), "quota"),
        (failed(429, None, "insufficient_quota"), "quota"),
        (failed(403, "insufficient_quota"), "quota"),
        (failed(404, "model_not_found"), "not_found"),
        (failed(403, "model_not_found"), "not_found"),
        (failed(403, None), "permission"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.status),
)
def test_an_endpoint_that_refuses_everything_stops_the_run(
    tmp_path: Path, script: Scripted, reason: str
) -> None:
    """Exit 5 after at most max(3, concurrency) requests; every row stays pending."""
    table = prompts_table(tmp_path / "in.csv", 50)
    with Sandbox(misbehaviour=Misbehaviour(every=script)) as sandbox:
        ended = ask(sandbox, table, "--concurrency", 4, "--give-up-after", 5)

        assert sandbox.stats()["requests"] <= 4
    assert (ended.code, ended.summary["exit_reason"]) == (5, reason)
    assert statuses(tmp_path / "out.csv") == {"pending": 50}


def test_models_are_asked_of_the_endpoint() -> None:
    """One name a line in the server's order; as JSON on demand."""
    with Sandbox() as sandbox:
        endpoint = ("--provider", "openai", "--base-url", sandbox.openai_base_url)

        plain, listed = call("models", *endpoint), call("models", *endpoint, "--json")

    assert (plain.code, plain.out) == (0, "sandbox-chat\nsandbox-image\n")
    assert json.loads(listed.out) == ["sandbox-chat", "sandbox-image"]


# Limits


def test_a_limit_is_waited_out_and_costs_no_attempt(tmp_path: Path) -> None:
    """rate_limit_exceeded under any status: each row is `ok` though it may be tried only once."""
    table = prompts_table(tmp_path / "in.csv", 12)
    plan = Misbehaviour(by_prompt={
        "prompt 3": [failed(429, "rate_limit_exceeded", "requests"), None],
        "prompt 6": [failed(403, "rate_limit_exceeded", "requests"), None],
        "prompt 9": [failed(400, None, message="Rate limit exceeded for this key"), None],
    })  # fmt: skip
    with Sandbox(misbehaviour=plan) as sandbox:
        ended = ask(sandbox, table, "--max-attempts", 1)

    assert (ended.code, ended.summary["refused_429"]) == (0, 3)
    assert statuses(tmp_path / "out.csv") == {"ok": 12}


def test_milliseconds_of_retry_after_are_the_floor(tmp_path: Path) -> None:
    """Nothing is sent before they are over, and the coarser header beside them is not waited for."""
    table = prompts_table(tmp_path / "in.csv", 8)
    headers = {**JSON, "retry-after-ms": "400", "Retry-After": "30"}
    refusal = Scripted(429, b'{"error": {"code": "rate_limit_exceeded"}}', headers)
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"prompt 2": [refusal, None]})) as sandbox:
        ended = ask(sandbox, table, "--concurrency", 1)
        refused = next(index for index, arrival in enumerate(sandbox.arrivals) if arrival.status == 429)
        pause_s = sandbox.arrivals[refused + 1].at_s - sandbox.arrivals[refused].at_s

    assert ended.code == 0
    assert 0.4 <= pause_s < 20
    assert ended.summary["elapsed_s"] < 20


def test_the_limit_that_headers_state_is_kept(tmp_path: Path) -> None:
    """1 of 1,200 requests comes back in 50 ms: that is 20 a second, and no request is ever refused."""
    table = prompts_table(tmp_path / "in.csv", 40)
    headers = {
        "x-ratelimit-limit-requests": "1200",
        "x-ratelimit-remaining-requests": "1199",
        "x-ratelimit-reset-requests": "50ms",
    }
    with Sandbox(misbehaviour=Misbehaviour(headers=headers)) as sandbox:
        ended = ask(sandbox, table)
        arrivals = [arrival.at_s for arrival in sandbox.arrivals]

    assert ended.code == 0
    assert arrivals[-1] - arrivals[0] >= 1.5
    assert ended.summary["refused_429"] == 0


def test_a_real_limit_with_the_hosted_services_headers(tmp_path: Path) -> None:
    """All rows are `ok`, and few requests are refused on the way."""
    table = prompts_table(tmp_path / "in.csv", 60)
    options = SandboxOptions(capacity="20/s", burst=5, retry_after="seconds")
    with Sandbox(options, Misbehaviour(rate_headers="openai")) as sandbox:
        ended = ask(sandbox, table)

        assert sandbox.status_count(200) == 60
    assert (ended.code, ended.summary["counts"]) == (0, {"ok": 60})
    assert ended.summary["refused_429"] <= 16


# The job file, and going on


def test_the_repositorys_job_runs_against_the_stand_in(tmp_path: Path) -> None:
    """jobs/openai.toml, with no key set: every row ok, and the model as it says."""
    output = tmp_path / "out.parquet"

    ended = run(tmp_path, "run", ROOT / "jobs/openai.toml", "--sandbox", "-o", output, "--limit", 12, "--json",
                env={"OPENAI_API_KEY": ""})  # fmt: skip

    assert (ended.code, ended.summary["counts"]) == (0, {"ok": 12})
    models = query(output.with_name("out.parquet.journal"), "SELECT DISTINCT request_model FROM results")
    assert models == [("gpt-4o-mini",)]


def test_another_provider_is_drift(tmp_path: Path) -> None:
    """The same output is not continued by another service."""
    table = prompts_table(tmp_path / "in.csv", 2)
    with Sandbox() as sandbox:
        assert ask(sandbox, table).code == 0
        other = call("run", table, "-o", tmp_path / "out.csv", "--base-url", sandbox.base_url)

        assert other.code == 2
        assert "provider was 'openai', now it is 'websim'" in other.err
        assert ask(sandbox, table).summary["sent"] == 0
        assert sandbox.stats()["requests"] == 2


# Who knows of it


def words_of(path: Path) -> set[str]:
    """Every name and text of a module, docstrings apart."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_only_providers_and_the_stand_in_know_of_openai() -> None:
    """Elsewhere the name stands in the list of what --provider may be, and nothing is done by it."""
    package = ROOT / "websim_batch"
    elsewhere = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in ("providers", "sandbox")
        and any("openai" in word.lower() or "/v1" in word for word in words_of(path))
    ]

    assert sorted(elsewhere) == ["job/keywords.py", "job/options.py"]


def test_the_lists_of_providers_agree() -> None:
    """The option, the keyword's type and the providers themselves name the same ones."""
    hint: Any = typing.get_type_hints(RunOptions)["provider"]
    literals = [name for part in typing.get_args(hint) for name in typing.get_args(part)]

    assert tuple(literals) == PROVIDERS
    for name in PROVIDERS:
        assert OPTIONS["provider"].parse(name, Path()) == name
    with pytest.raises(ValueError, match=", ".join(PROVIDERS)):
        OPTIONS["provider"].parse("another", Path())


def test_every_key_of_the_environment_is_known_as_a_secret() -> None:
    """What a provider reads by itself is masked wherever messages go."""
    assert own_secrets({"OPENAI_API_KEY": f" {KEY} "}) == (KEY,)
    assert own_secrets({}) == ()
