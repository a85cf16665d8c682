"""The OpenAI-compatible wire."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from websim_batch.errors import BadResponseError, MissingAuthError, UsageError
from websim_batch.providers.openai import OpenAIProvider
from websim_batch.records import Answer, Reply, Request, WireResponse

BASE = "http://localhost:8000/v1"
PROVIDER = OpenAIProvider(BASE, {})
CHAT = Request("chat", "llama", [{"role": "user", "content": "Hi"}])
IMAGE = Request("image", "dall-e-3", prompt="A cat")


def parse(request: Request, body: Any) -> Reply:
    """The reply to a 200 with that JSON body."""
    return PROVIDER.parse(request, WireResponse(200, {}, json.dumps(body).encode(), 0.1), 0.0)


def chat(message: Any, finish_reason: str | None = "stop", **more: Any) -> Reply:
    """The reply to a chat's only choice."""
    return parse(CHAT, {"choices": [{"message": message, "finish_reason": finish_reason}], **more})


def test_a_chat_is_asked_in_the_protocols_words() -> None:
    """Model, messages, and the fields of the job."""
    request = Request("chat", "llama", CHAT.messages, fields={"temperature": 0.5, "n": 1})

    wire = PROVIDER.build(request)

    assert wire.url == BASE + "/chat/completions"
    assert json.loads(wire.body) == {"model": "llama", "messages": CHAT.messages, "temperature": 0.5, "n": 1}


def test_an_image_is_asked_in_the_protocols_words() -> None:
    """Model, prompt, and the fields of the job."""
    wire = PROVIDER.build(Request("image", "dall-e-3", prompt="A cat", fields={"size": "1024x1024"}))

    assert wire.url == BASE + "/images/generations"
    assert json.loads(wire.body) == {"model": "dall-e-3", "prompt": "A cat", "size": "1024x1024"}


@pytest.mark.parametrize("fields", [{"n": 2}, {"n": "3"}, {"stream": True}])
def test_one_row_has_one_answer(fields: dict[str, Any]) -> None:
    """Several answers or a stream are refused, not paid and dropped."""
    with pytest.raises(ValueError, match="one row has one answer"):
        PROVIDER.build(Request("chat", "llama", fields=fields))


def test_the_project_is_named_in_its_header() -> None:
    """No id is made up where none is given."""
    assert PROVIDER.build(CHAT).headers is None
    wire = PROVIDER.build(Request("chat", "llama", project_id="proj_1"))
    assert (wire.headers, wire.project_id) == ({"OpenAI-Project": "proj_1"}, "proj_1")


def test_the_key_comes_from_the_environment_and_is_never_shown() -> None:
    """It is in the header and among the secrets, not in the repr."""
    provider = OpenAIProvider(None, {"OPENAI_API_KEY": " sk-verysecret "})

    assert provider.session_headers()["authorization"] == "Bearer sk-verysecret"
    assert provider.secrets == ("sk-verysecret",)
    assert "sk-verysecret" not in repr(provider)
    assert "authorization" not in PROVIDER.session_headers()


def test_the_hosted_service_wants_a_key_and_others_may_not() -> None:
    """A missing key is told before anything is sent."""
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        OpenAIProvider(None, {}).check({})
    OpenAIProvider(None, {}).check({"Authorization": "Bearer x"})
    PROVIDER.check({})


def test_the_answer_comes_with_tokens_and_reason() -> None:
    """`length` is ok, and told; the text is as it came."""
    reply = chat({"content": " hello\n"}, "length", usage={"prompt_tokens": 5, "completion_tokens": 7})

    assert (reply.answer, reply.response, reply.finish_reason) == (Answer.OK, " hello\n", "length")
    assert (reply.prompt_tokens, reply.completion_tokens) == (5, 7)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {"prompt_tokens": "5", "completion_tokens": True},
        {"prompt_tokens": -1},
        {"prompt_tokens": 1e9},
    ],
)
def test_odd_usage_is_no_usage(usage: Any) -> None:
    """Tokens are whole numbers or null."""
    reply = chat({"content": "x"}, usage=usage)

    assert (reply.answer, reply.prompt_tokens, reply.completion_tokens) == (Answer.OK, None, None)


@pytest.mark.parametrize(
    ("message", "finish_reason"),
    [
        ({"content": "partly"}, "content_filter"),
        ({"content": None}, "content_filter"),
        ({"refusal": "I won't"}, "stop"),
    ],
)
def test_declined_content_is_refused(message: Any, finish_reason: str) -> None:
    """A filter's stop and the model's own refusal."""
    reply = chat(message, finish_reason, usage={"prompt_tokens": 5})

    assert (reply.answer, reply.error_type) == (Answer.DECLINED, "content_policy")
    assert (reply.finish_reason, reply.prompt_tokens) == (finish_reason, 5)


def test_a_tool_call_is_an_answer() -> None:
    """As JSON, where there is no text."""
    calls = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]

    assert json.loads(chat({"content": None, "tool_calls": calls}, "tool_calls").response or "") == calls


def test_content_in_parts_is_joined() -> None:
    """Text parts count."""
    parts = [{"type": "text", "text": "a"}, {"type": "other"}, {"type": "text", "text": "b"}, "c"]

    assert chat({"content": parts}).response == "ab"


def test_an_image_comes_by_address_or_in_bytes() -> None:
    """`b64_json` is decoded."""
    png = b"\x89PNG\r\n\x1a\n"

    assert parse(IMAGE, {"data": [{"url": "https://i.example/1.png"}]}).image_url == "https://i.example/1.png"
    reply = parse(
        IMAGE, {"data": [{"b64_json": base64.b64encode(png).decode()}], "usage": {"input_tokens": 3}}
    )
    assert (reply.answer, reply.image_bytes, reply.image_url) == (Answer.OK, png, None)
    assert reply.prompt_tokens == 3


def test_empty_content_cut_by_length_names_the_remedy() -> None:
    """A reasoning model that spent its tokens on thinking."""
    assert "raise max_tokens" in (chat({"content": ""}, "length").message or "")


def test_rate_headers_and_milliseconds_reach_the_reply() -> None:
    """What the throttle needs."""
    headers = {
        "retry-after-ms": "1500",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
    }

    reply = PROVIDER.parse(CHAT, WireResponse(429, headers, b"{}", 0.1), 0.0)

    assert (reply.answer, reply.retry_after_s) == (Answer.REFUSAL, 1.5)
    assert reply.rate_hint is not None
    assert reply.rate_hint.window_s == 60.0


def test_models_are_listed() -> None:
    """Names in the server's order."""
    body = b'{"object":"list","data":[{"id":"b"},{"id":"a"},{}]}'

    assert PROVIDER.models_url() == BASE + "/models"
    assert PROVIDER.parse_models(WireResponse(200, {}, body, 0.1)) == ["b", "a"]


def test_a_list_that_cannot_be_had_is_an_error() -> None:
    """401 and nonsense."""
    with pytest.raises(MissingAuthError, match="no key"):
        PROVIDER.parse_models(WireResponse(401, {}, b'{"error":{"message":"no key"}}', 0.1))
    for body in (b"<html>", b"{}", b"7", b'{"data":{}}'):
        with pytest.raises(BadResponseError, match="no list of models"):
            PROVIDER.parse_models(WireResponse(200, {}, body, 0.1))
