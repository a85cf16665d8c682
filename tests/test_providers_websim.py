"""The websim service's own wire."""

from __future__ import annotations

import json
import re

import pytest

from websim_batch.providers.websim import ASPECT_RATIOS, MODELS, WebsimProvider, make_project_id
from websim_batch.records import Answer, Request, WireResponse

PROVIDER = WebsimProvider()
CHAT = Request("chat", "gemini-1.5-pro", [{"role": "user", "content": "Hi"}])
IMAGE = Request("image", "flux", prompt="A cat")


def test_a_chat_is_asked_as_the_service_wants_it() -> None:
    """The path, the project id and the messages; no model."""
    wire = PROVIDER.build(CHAT)

    assert wire.url == "https://websim.ai/api/v1/inference/run_chat_completion"
    assert json.loads(wire.body) == {"project_id": wire.project_id, "messages": CHAT.messages}


def test_an_image_is_asked_as_the_service_wants_it() -> None:
    """The path, the project id, the prompt and the ratio, which is 1:1 if nothing is said."""
    wire = PROVIDER.build(IMAGE)

    assert wire.url == "https://websim.ai/api/v1/inference/run_image_generation"
    assert json.loads(wire.body) == {"project_id": wire.project_id, "prompt": "A cat", "aspect_ratio": "1:1"}
    wide = Request("image", "flux", prompt="", aspect_ratio="16:9", fields={"seed": 7})
    assert json.loads(PROVIDER.build(wide).body) | {"project_id": ""} == {
        "project_id": "", "prompt": "", "aspect_ratio": "16:9", "seed": 7,
    }  # fmt: skip


def test_project_ids_look_like_the_services_own() -> None:
    """20 characters: 3, an underscore and 16 for a chat; 7, an underscore and 12 for an image; never twice."""
    chats = {make_project_id(False) for _ in range(1000)}
    images = {make_project_id(True) for _ in range(1000)}

    assert len(chats | images) == 2000
    assert all(re.fullmatch(r"[a-z0-9]{3}_[a-z0-9]{16}", text) for text in chats)
    assert all(re.fullmatch(r"[a-z0-9]{7}_[a-z0-9]{12}", text) for text in images)
    assert set("".join(chats)) == set("abcdefghijklmnopqrstuvwxyz0123456789_")


def test_a_given_project_id_is_used() -> None:
    """Also one that needs quoting."""
    wire = PROVIDER.build(Request("chat", "m", project_id='my "id"'))

    assert json.loads(wire.body)["project_id"] == wire.project_id == 'my "id"'


def test_the_headers_are_those_of_the_services_pages() -> None:
    """`websim-flags` is empty and has no semicolon; the origin is the base URL's; no referer."""
    headers = WebsimProvider("https://api.websim.com/base").session_headers()

    assert headers["websim-flags"] == ""
    assert headers["origin"] == "https://api.websim.com"
    assert headers["accept"] == "*/*"
    assert headers["accept-language"] == "en-US,en;q=0.9"
    assert headers["content-type"] == "text/plain;charset=UTF-8"
    assert headers["user-agent"].startswith("Mozilla/5.0")
    assert "referer" not in headers


def test_the_answers_text_is_stripped() -> None:
    """Blanks around the content are not part of it."""
    response = WireResponse(200, {"content-type": "application/json"}, b'{"content":"  a\\n b \\n"}', 0.1)

    assert PROVIDER.parse(CHAT, response, 0.0).response == "a\n b"


@pytest.mark.parametrize("body", [" Hello\n", "42", "true story", "(see below)", "naïve \U0001f600"])
def test_plain_text_is_an_answer_of_a_chat(body: str) -> None:
    """`text/plain` that looks like neither JSON nor a page: the stripped text."""
    response = WireResponse(200, {"content-type": "text/plain; charset=utf-8"}, body.encode(), 0.1)

    reply = PROVIDER.parse(CHAT, response, 0.0)

    assert (reply.answer, reply.response) == (Answer.OK, body.strip())
    assert PROVIDER.parse(IMAGE, response, 0.0).answer is Answer.INVALID


@pytest.mark.parametrize(
    ("label", "body"),
    [
        ("text/plain", '{"content": "cut'),
        ("text/plain", "[1, 2"),
        ("text/plain", "[1, 2]"),
        ("text/plain", '"cut'),
        ("text/plain", "null"),
        ("text/plain", "<p>page</p>"),
        ("text/plain", "<!doctype html>"),
        ("text/plain", "nul\x00"),
        ("text/plain", ""),
        ("application/json", "Hello"),
        ("text/html", "Hello"),
        ("", "Hello"),
    ],
)
def test_other_text_is_no_answer(label: str, body: str) -> None:
    """Cut JSON, a page, another label, nothing."""
    response = WireResponse(200, {"content-type": label}, body.encode(), 0.1)

    assert PROVIDER.parse(CHAT, response, 0.0).answer is Answer.INVALID


def test_json_counts_whatever_its_label() -> None:
    """The service labels its own JSON as text."""
    for label in ("text/plain", "text/html", ""):
        response = WireResponse(200, {"content-type": label}, b'\xef\xbb\xbf {"content":"x"}', 0.1)
        assert PROVIDER.parse(CHAT, response, 0.0).response == "x"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('```\n{"a": 1}```', '{"a": 1}'),
        ('{"a": 1}', '{"a": 1}'),
        ("```json\nno json\n```", "```json\nno json\n```"),
        ('So: ```json\n{"a": 1}\n```', 'So: ```json\n{"a": 1}\n```'),
    ],
)
def test_a_fence_around_asked_for_json_is_taken_off(content: str, expected: str) -> None:
    """Only with `json: true`, and only if the inside is JSON."""
    response = WireResponse(200, {}, json.dumps({"content": content}).encode(), 0.1)
    asking = Request("chat", "m", fields={"json": True})

    assert PROVIDER.parse(asking, response, 0.0).response == expected
    assert PROVIDER.parse(CHAT, response, 0.0).response == content


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://i.example/a.png", "https://i.example/a.png"),
        (" https://i.example/a.png\n", "https://i.example/a.png"),
        ("/images/a.png", "http://host:1/images/a.png"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,AAAA"),
        ("undefined", None),
        ("https://", None),
        ("https://a b", None),
        ("javascript:alert(1)", None),
    ],
)
def test_an_images_url_must_be_an_address(url: str, expected: str | None) -> None:
    """Absolute, a data URL, or a path on the same host."""
    response = WireResponse(200, {}, json.dumps({"url": url}).encode(), 0.1, "http://host:1/api/run")

    reply = PROVIDER.parse(IMAGE, response, 0.0)

    assert reply.image_url == expected
    assert (reply.answer is Answer.OK) == (expected is not None)


def test_the_models_are_fixed_with_the_default_first() -> None:
    """Nobody is asked."""
    assert PROVIDER.models_url() is None
    assert tuple(PROVIDER.parse_models(None)) == MODELS == ("gemini-1.5-pro", "gemini-1.5-flash", "flux")
    assert len(ASPECT_RATIOS) == 11
    assert PROVIDER.secrets == ()
    PROVIDER.check({})


def test_a_missing_content_says_what_is_there() -> None:
    """The message helps to see what changed."""
    response = WireResponse(200, {}, b'{"text":"x","id":1}', 0.1)

    assert PROVIDER.parse(CHAT, response, 0.0).message == "the answer has no content (it has: id, text)"
