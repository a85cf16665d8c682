"""A real OpenAI-compatible server that is not ours: LiteLLM's proxy, with mocked models and its own rate limit."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live import Ended, prompts_table, query, read_table, run, statuses, wait_until

KEY = "sk-a-key-of-this-test"
LIMIT, WINDOW_S = 60, 5
"""So many requests of a key pass in each window, which begins with a request; then 429 and Retry-After."""

CONFIG = """
model_list:
  - {model_name: chat, litellm_params: {model: openai/x, api_key: none, mock_response: A mocked answer}}
  - model_name: long
    litellm_params: {model: openai/x, api_key: none, mock_response: litellm.ContextWindowExceededError}
  - model_name: picture
    litellm_params: {model: openai/dall-e-3, api_key: none, mock_response: https://images.example/1.png}
    model_info: {mode: image_generation}
general_settings:
  master_key: sk-0123456789abcdef0123456789abcdef
  custom_auth: keys.check
"""
KEYS = f"""
from litellm.proxy._types import ProxyException, UserAPIKeyAuth


async def check(request, api_key):
    if not api_key.startswith("{KEY}"):
        raise ProxyException(message=f"Unknown key {{api_key}}", type="auth_error", param=None, code=401)
    return UserAPIKeyAuth(api_key=api_key, rpm_limit={LIMIT})
"""
_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """The running server: where it is, and its own log of what it answered."""

    base_url: str
    log: Path

    def answered(self) -> Counter[str]:
        """How many posts it answered with each status, by its log."""
        return Counter(re.findall(r'"POST \S+ HTTP/1\.1" (\d+)', self.log.read_text()))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """LiteLLM's proxy on a free port of the loopback interface; it needs no network, no database and no key of ours."""
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "keys.py").write_text(KEYS)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "NO_PROXY": "*",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_RATE_LIMIT_WINDOW_SIZE": str(WINDOW_S),
    }
    program = Path(sysconfig.get_path("scripts")) / "litellm"
    command = [
        program,
        "--config",
        "config.yaml",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--telemetry",
        "False",
    ]
    log = folder / "log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: child.poll() is not None or _address(log), _START_S)
        assert child.poll() is None, log.read_text()
        yield Proxy(f"{_address(log)}/v1", log)
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()
        child.wait()


def _address(log: Path) -> str:
    found = re.search(r"Uvicorn running on (http://127\.0\.0\.1:\d+)", log.read_text())
    return found[1] if found else ""


def ask(proxy: Proxy, folder: Path, *more: object, key: str) -> Ended:
    """Run in.csv against the proxy; the output is out.csv."""
    endpoint = ("--provider", "openai", "--base-url", proxy.base_url, "--json")
    return run(folder, "run", "in.csv", "-o", "out.csv", *endpoint, *more, env={"OPENAI_API_KEY": key})


def test_two_hundred_rows_pass_a_real_limit(proxy: Proxy, tmp_path: Path) -> None:
    """All are ok; the server's own count is the ledger's; after a 429 nothing is sent until its window is over."""
    prompts_table(tmp_path / "in.csv", 200)
    before = proxy.answered()

    ended = ask(proxy, tmp_path, "--model", "chat", key=KEY)

    rows = read_table(tmp_path / "out.csv")
    refused = ended.summary["refused_429"]
    assert (ended.code, ended.summary["counts"]) == (0, {"ok": 200}), ended.err
    assert {(row["response"], row["finish_reason"]) for row in rows} == {("A mocked answer", "stop")}
    assert all(int(row["prompt_tokens"]) > 0 and int(row["completion_tokens"]) > 0 for row in rows)
    assert proxy.answered() - before == Counter({"200": 200, "429": refused})
    assert ended.summary["sent"] == 200 + refused
    assert 0 < refused <= 3 * 16
    assert _sent_while_closed(tmp_path / "out.csv.journal") == 0


def _sent_while_closed(journal: Path) -> int:
    """How many requests were sent within a second after a 429 was taken in, for which 50 ms are allowed."""
    (count,) = query(
        journal,
        "SELECT count(*) FROM requests AS later WHERE EXISTS (SELECT 1 FROM requests AS refusal"
        " WHERE refusal.http_status = 429 AND later.started_us > refusal.started_us + refusal.elapsed_us + 50000"
        " AND later.started_us < refusal.started_us + refusal.elapsed_us + 1000000)",
    )
    return int(count[0])


def test_its_other_answers_are_understood(proxy: Proxy, tmp_path: Path) -> None:
    """A picture, a prompt that is too long, a model that it does not have: each in the server's own words."""
    lines = ["prompt,model,kind", "a,chat,", "b,picture,image", "c,long,", "d,nobody,"]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")

    ended = ask(proxy, tmp_path, key=f"{KEY}-2")

    rows = read_table(tmp_path / "out.csv")
    assert ended.code == 3
    assert [(row["status"], row["error_type"]) for row in rows] == [
        ("ok", ""), ("ok", ""), ("failed", "context_length"), ("failed", "bad_request"),
    ]  # fmt: skip
    assert rows[1]["image_url"] == "https://images.example/1.png"
    assert "Invalid model name" in rows[3]["error_message"]


def test_a_key_that_it_does_not_know_stops_the_run(proxy: Proxy, tmp_path: Path) -> None:
    """Exit 5, nothing lost, and the key that the server repeats is masked."""
    prompts_table(tmp_path / "in.csv", 30)

    ended = ask(proxy, tmp_path, "--model", "chat", key="sk-somebody-else")

    assert (ended.code, ended.summary["exit_reason"]) == (5, "auth")
    assert statuses(tmp_path / "out.csv") == {"pending": 30}
    assert "Unknown key ***" in ended.summary["message"]


def test_it_tells_its_models(proxy: Proxy, tmp_path: Path) -> None:
    """`models` asks it."""
    endpoint = ("--provider", "openai", "--base-url", proxy.base_url)

    ended = run(tmp_path, "models", *endpoint, env={"OPENAI_API_KEY": f"{KEY}-3"})

    assert (ended.code, ended.out.split()) == (0, ["chat", "long", "picture"])
