"""The official `openai` client is satisfied by the stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from websim_batch.sandbox import Misbehaviour, Sandbox, SandboxOptions, Scripted

TOO_LONG = Scripted(
    400,
    b'{"error": {"message": "too long", "type": "invalid_request_error", "param": "messages",'
    b' "code": "context_length_exceeded"}}',
)


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    """A client of a stand-in that takes four requests and tells so in headers."""
    options = SandboxOptions(capacity="4/h", burst=4, retry_after="seconds")
    plan = Misbehaviour(rate_headers="openai", by_prompt={"long": TOO_LONG})
    with (
        Sandbox(options, plan) as sandbox,
        openai.OpenAI(base_url=sandbox.openai_base_url, api_key="none", max_retries=0, timeout=10) as client,
    ):
        yield client


def ask(client: openai.OpenAI, prompt: str) -> openai.types.chat.ChatCompletion:
    """One chat."""
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])


def test_chat_image_and_models(client: openai.OpenAI) -> None:
    """Parsed by the client's own models."""
    chat = ask(client, "hello")
    image = client.images.generate(model="i", prompt="a cat")

    assert chat.choices[0].finish_reason == "stop"
    assert chat.usage is not None
    assert chat.usage.completion_tokens > 0
    assert image.data is not None
    assert str(image.data[0].url).endswith(".png")
    assert [model.id for model in client.models.list()] == ["sandbox-chat", "sandbox-image"]


def test_an_error_has_its_code(client: openai.OpenAI) -> None:
    """The client raises its own class for it."""
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "long")

    assert caught.value.code == "context_length_exceeded"


def test_a_rate_limit_comes_with_headers(client: openai.OpenAI) -> None:
    """What is left, when it is back, and how long to wait, in both units."""
    for number in range(4):
        ask(client, f"q{number}")

    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "one too many")

    headers = caught.value.response.headers
    assert caught.value.code == "rate_limit_exceeded"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 890 <= float(headers["retry-after"]) <= 900
    assert 890_000 <= float(headers["retry-after-ms"]) <= 900_000
