"""What every provider promises; each one runs this suite."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from websim_batch.providers import PROVIDERS, Provider, get_provider
from websim_batch.providers.wire import merge_headers
from websim_batch.records import ERROR_TYPES, Answer, NumberText, Reply, Request, WireResponse

BASE = "https://host.example/some/path"
MESSAGES = [
    {"role": "system", "content": "Be brief: naïve \U0001f600"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}],
    },
]
CHAT = Request("chat", "some-model", MESSAGES)
IMAGE = Request("image", "some-model", prompt="A cat")
USABLE: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "websim": {"chat": {"content": "hello"}, "image": {"url": "https://i.example/1.png"}},
    "openai": {
        "chat": {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]},
        "image": {"data": [{"url": "https://i.example/1.png"}]},
    },
}


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    """Each provider, behind a base URL with a path."""
    return get_provider(request.param, BASE, {})


def answer(status: int, body: object, content_type: str = "application/json") -> WireResponse:
    """An HTTP answer with that body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WireResponse(status, {"content-type": content_type}, raw, 0.25, BASE + "/x")


@pytest.mark.parametrize("request_", [CHAT, IMAGE], ids=["chat", "image"])
def test_build_writes_json_to_a_place_below_the_base_url(provider: Provider, request_: Request) -> None:
    """One absolute URL, one JSON object."""
    wire = provider.build(request_)

    assert wire.url.startswith(BASE + "/")
    assert isinstance(json.loads(wire.body), dict)


def test_build_passes_messages_and_prompt_on_unchanged(provider: Provider) -> None:
    """What the row says is what is sent; the caller's objects are left alone."""
    before = copy.deepcopy(MESSAGES)

    assert json.loads(provider.build(CHAT).body)["messages"] == MESSAGES == before
    assert json.loads(provider.build(IMAGE).body)["prompt"] == "A cat"


def test_build_is_pure_once_the_project_id_is_given(provider: Provider) -> None:
    """Equal requests give equal bytes, so that a retry asks the same."""
    first = provider.build(Request("chat", "m", MESSAGES, project_id="p"))
    second = provider.build(Request("chat", "m", MESSAGES, project_id="p"))

    assert first == second
    assert first.project_id == "p"


def test_build_sends_the_fields_of_the_request(provider: Provider) -> None:
    """Also a number as its file wrote it."""
    for kind in ("chat", "image"):
        name = next(name for name in provider.facts.known_fields[kind] if name != "n")
        body = provider.build(Request(kind, "m", fields={name: NumberText("1.10")})).body
        assert f'"{name}":1.10'.encode() in body


def test_build_refuses_what_json_cannot_hold(provider: Provider) -> None:
    """NaN would be sent as null."""
    with pytest.raises(ValueError, match="nan"):
        provider.build(Request("chat", "m", MESSAGES, fields={"seed": float("nan")}))


@pytest.mark.parametrize("request_", [CHAT, IMAGE], ids=["chat", "image"])
@pytest.mark.parametrize("status", [200, 201, 206])
def test_a_usable_answer_is_ok(provider: Provider, request_: Request, status: int) -> None:
    """Text for a chat, an address for an image, with status and latency."""
    reply = provider.parse(request_, answer(status, USABLE[provider.name][request_.kind]), 0.0)

    assert reply.answer is Answer.OK
    assert (reply.response, reply.image_url) == (
        ("hello", None) if request_.kind == "chat" else (None, "https://i.example/1.png")
    )
    assert (reply.http_status, reply.latency_s, reply.error_type) == (status, 0.25, None)


@pytest.mark.parametrize("request_", [CHAT, IMAGE], ids=["chat", "image"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"<!DOCTYPE html><html><title>Login</title></html>",
        b'{"content": "cut',
        b"\x1f\x8b\x08garbage",
        b"\x00\xff\xfe",
        b"[" * 100_000,
        [],
        [1],
        None,
        17,
        "text",
        {},
        {"error": "boom"},
        {"error": {"message": "boom"}},
        {"content": None},
        {"content": 7},
        {"content": ["a"]},
        {"content": {"a": 1}},
        {"content": ""},
        {"content": " \n"},
        {"url": None},
        {"url": ""},
        {"url": 5},
        {"choices": []},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]},
        {"choices": [{"message": {"content": 7, "tool_calls": []}}]},
        {"data": []},
        {"data": [{}]},
        {"data": [{"b64_json": "!!"}]},
        {"data": [{"b64_json": ""}]},
        {"data": {"url": "https://x"}},
    ],
)
def test_a_200_that_is_no_answer_is_invalid(provider: Provider, request_: Request, body: object) -> None:
    """Never ok, never an exception; a message says what came."""
    for label in ("application/json", "text/html", ""):
        reply = provider.parse(request_, answer(200, body, label), 0.0)
        assert (reply.answer, reply.error_type) == (Answer.INVALID, "bad_response")
        assert reply.message
        assert "\n" not in reply.message


@pytest.mark.parametrize("request_", [CHAT, IMAGE], ids=["chat", "image"])
def test_an_error_beside_an_answer_is_invalid(provider: Provider, request_: Request) -> None:
    """`{"error": …}` in a 200 is never ok; `"error": null` is nothing."""
    usable = USABLE[provider.name][request_.kind]

    assert provider.parse(request_, answer(200, {**usable, "error": "boom"}), 0.0).answer is Answer.INVALID
    assert provider.parse(request_, answer(200, {**usable, "error": None}), 0.0).answer is Answer.OK


def test_a_broken_body_is_invalid(provider: Provider) -> None:
    """A defect that the transport found is told."""
    response = WireResponse(200, {}, b"", 0.1, BASE, "broken gzip")

    reply = provider.parse(CHAT, response, 0.0)

    assert reply.answer is Answer.INVALID
    assert "broken gzip" in (reply.message or "")


@pytest.mark.parametrize(
    ("status", "answer_"),
    [
        (429, Answer.REFUSAL),
        (500, Answer.TRANSIENT),
        (401, Answer.FATAL),
        (403, Answer.SUSPECT),
        (400, Answer.PERMANENT),
    ],
)
def test_other_statuses_go_by_the_designs_table(provider: Provider, status: int, answer_: Answer) -> None:
    """Whatever the body says of success."""
    assert provider.parse(CHAT, answer(status, USABLE[provider.name]["chat"]), 0.0).answer is answer_


def test_rate_headers_are_read_from_every_answer(provider: Provider) -> None:
    """From a good one, too."""
    headers = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "3"}
    for status in (200, 429):
        body = json.dumps(USABLE[provider.name]["chat"]).encode()
        hint = provider.parse(CHAT, WireResponse(status, headers, body, 0.1), 0.0).rate_hint
        assert hint is not None
        assert (hint.limit, hint.remaining) == (60, 3)


def test_a_redirect_proposes_the_base_url_of_the_new_place(provider: Provider) -> None:
    """With the base URL's own path, as this provider takes it."""
    wire = provider.build(CHAT)
    place = wire.url.replace("https://host.example", "https://new.example")

    reply = provider.parse(CHAT, WireResponse(301, {"location": place}, b"", 0.1, wire.url), 0.0)

    assert reply.answer is Answer.FATAL
    assert (reply.message or "").endswith("try --base-url https://new.example/some/path")


@settings(max_examples=150, deadline=None)
@given(
    status=st.sampled_from([200, 204, 301, 400, 401, 403, 404, 429, 500, 503]),
    body=st.binary()
    | st.text().map(str.encode)
    | st.sampled_from([b'{"content":', b'[{"a":[null', b'"x"', b"{}"]),
    headers=st.dictionaries(
        st.sampled_from(
            ["content-type", "retry-after", "date", "location", "ratelimit", "x-ratelimit-limit-requests"]
        ),
        st.text(max_size=30),
    ),
    name=st.sampled_from(PROVIDERS),
    kind=st.sampled_from(["chat", "image"]),
)
def test_parse_raises_nothing_whatever_comes(
    status: int, body: bytes, headers: dict[str, str], name: str, kind: Any
) -> None:
    """Any bytes, any headers: a reply with a known error type and one bounded line."""
    parsed = get_provider(name, BASE, {}).parse(
        Request(kind, "m", MESSAGES), WireResponse(status, headers, body, 0.1, BASE + "/x"), 1e9
    )

    assert isinstance(parsed, Reply)
    assert parsed.answer is Answer.OK or parsed.error_type in ERROR_TYPES
    assert len(parsed.message or "") <= 400
    assert len((parsed.message or "").splitlines()) <= 1


def test_the_session_headers_are_legal_and_can_be_replaced(provider: Provider) -> None:
    """Each can be replaced or removed by the user."""
    ours = provider.session_headers()

    assert merge_headers({}, [(name, value or "x") for name, value in ours.items()])
    assert merge_headers(ours, [(name.upper(), "") for name in ours]) == {}


def test_the_kind_goes_by_the_model(provider: Provider) -> None:
    """Image models make images, all others chats."""
    assert {provider.kind_of(model) for model in provider.facts.image_models} == {"image"}
    assert provider.kind_of("some-model") == provider.kind_of(None) == "chat"


def test_the_facts_agree_with_themselves(provider: Provider) -> None:
    """Defaults are models of the list; a provider without a default requires a model."""
    facts = provider.facts

    assert facts.name == provider.name
    assert facts.models is None or {facts.default_model, facts.default_image_model} <= set(facts.models)
    assert facts.requires_model == (facts.default_model is None)
    assert set(facts.known_fields) == {"chat", "image"}
