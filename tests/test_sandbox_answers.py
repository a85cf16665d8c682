"""What the stand-in answers: a function of the request alone, in both providers' words."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any

import pytest

from websim_batch.sandbox import answers
from websim_batch.sandbox.answers import ROUTES, BadRequest, answer, understand

WEBSIM_CHAT, WEBSIM_IMAGE, OPENAI_CHAT, OPENAI_IMAGE = ROUTES.values()
ORIGIN = "http://127.0.0.1:1"


def chat(prompt: Any, **more: Any) -> dict[str, Any]:
    """The body of a websim chat."""
    return {"project_id": "p", "messages": [{"role": "user", "content": prompt}], **more}


def asked(route: answers.Route, body: Any) -> dict[str, Any]:
    """The answer to a body, parsed."""
    parsed: dict[str, Any] = json.loads(answer(understand(route, json.dumps(body).encode()), ORIGIN))
    return parsed


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose checksums and pixels are right."""
    file = io.BytesIO(data)
    assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    while head := file.read(8):
        length, kind = struct.unpack(">I4s", head)
        chunks[kind] = file.read(length)
        assert struct.unpack(">I", file.read(4))[0] == zlib.crc32(kind + chunks[kind])
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (width + 1)
    return width, height


@pytest.mark.parametrize("prompt", ["Hello", "", " ", "=1+1", "emoji 🐋", "a\r\nb", "\ud800", "x" * 200_000])
def test_equal_requests_get_equal_answers_whatever_the_project_id(prompt: str) -> None:
    """The project id is made up anew for each call, so it changes neither answer nor identity."""
    first, second = (
        understand(WEBSIM_CHAT, json.dumps(chat(prompt) | {"project_id": name}).encode())
        for name in ("p1", "p2")
    )

    assert first.hash == second.hash
    assert answer(first, ORIGIN) == answer(second, ORIGIN)
    assert first.prompt == prompt


def test_different_requests_get_different_answers() -> None:
    """A prompt, a system message or a field more is another request."""
    bodies = [
        chat("a"),
        chat("b"),
        chat("a", json=True),
        chat("a") | {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]},
    ]

    contents = {asked(WEBSIM_CHAT, body)["content"] for body in bodies}

    assert len(contents) == len(bodies)


def test_the_order_of_keys_is_no_difference() -> None:
    """The same request in another order of keys has the same hash."""
    one, other = chat("a", json=True), dict(reversed(chat("a", json=True).items()))

    assert (
        understand(WEBSIM_CHAT, json.dumps(one).encode()).hash
        == understand(WEBSIM_CHAT, json.dumps(other).encode()).hash
    )


def test_json_mode_answers_json() -> None:
    """With `json: true` the content is a JSON text."""
    assert "answer" in json.loads(asked(WEBSIM_CHAT, chat("a", json=True))["content"])


def test_the_text_of_message_parts_is_the_prompt() -> None:
    """Parts that are no text are passed over."""
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}]

    assert understand(WEBSIM_CHAT, json.dumps(chat(parts)).encode()).prompt == "look"


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (256, 256)),
        ({"aspect_ratio": "16:9"}, (256, 144)),
        ({"aspect_ratio": "9:21"}, (109, 256)),
        ({"width": 40, "height": 30, "aspect_ratio": "16:9"}, (40, 30)),
        ({"width": 10**9, "height": 1}, (2048, 1)),
    ],
)
def test_an_image_url_leads_to_a_real_png(fields: dict[str, Any], size: tuple[int, int]) -> None:
    """Of the size asked for, within bounds."""
    url = asked(WEBSIM_IMAGE, {"project_id": "p", "prompt": "a cat", **fields})["url"]

    picture = answers.image(url.removeprefix(ORIGIN + answers.IMAGE_PATH))

    assert picture is not None
    assert png_size(picture) == size


@pytest.mark.parametrize(
    "name", ["", "x.png", "zz-1x1.png", "ab-1x1.gif", "ab-1x.png", "../secret", "ab-²x1.png"]
)
def test_other_image_names_lead_nowhere(name: str) -> None:
    """What was never given out is not there, and breaks nothing."""
    assert answers.image(name) is None


def test_an_openai_chat_has_the_parts_its_client_wants() -> None:
    """Choices, a finish reason, and usage that adds up."""
    told = asked(OPENAI_CHAT, {"model": "m", "messages": [{"role": "user", "content": "a b c"}]})

    assert told["object"] == "chat.completion"
    assert told["choices"][0]["finish_reason"] == "stop"
    assert (
        told["usage"]["total_tokens"] == told["usage"]["prompt_tokens"] + told["usage"]["completion_tokens"]
    )


def test_max_tokens_cuts_an_openai_chat() -> None:
    """And says so."""
    body = {"model": "m", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 2}

    choice = asked(OPENAI_CHAT, body)["choices"][0]

    assert (choice["message"]["content"], choice["finish_reason"]) == ("Stand-in answer", "length")


def test_an_openai_image_comes_as_url_or_base64() -> None:
    """The base64 is the picture itself."""
    body = {"model": "m", "prompt": "a cat", "size": "64x32"}

    url = asked(OPENAI_IMAGE, body)["data"][0]["url"]
    data = asked(OPENAI_IMAGE, body | {"response_format": "b64_json"})["data"][0]["b64_json"]

    assert url.endswith("-64x32.png")
    assert png_size(base64.b64decode(data)) == (64, 32)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (WEBSIM_CHAT, b"{"),
        (WEBSIM_CHAT, b"\xff"),
        (WEBSIM_CHAT, b"[]"),
        (WEBSIM_CHAT, b"{}"),
        (WEBSIM_CHAT, b"[" * 100_000),
        (WEBSIM_CHAT, json.dumps({"project_id": "p", "messages": []}).encode()),
        (WEBSIM_CHAT, json.dumps({"project_id": "p", "messages": ["a"]}).encode()),
        (WEBSIM_CHAT, json.dumps({"messages": chat("a")["messages"]}).encode()),
        (WEBSIM_IMAGE, json.dumps({"project_id": "p"}).encode()),
        (WEBSIM_IMAGE, json.dumps({"project_id": "p", "prompt": "a", "aspect_ratio": "5:1"}).encode()),
        (OPENAI_CHAT, json.dumps({"messages": chat("a")["messages"]}).encode()),
        (OPENAI_CHAT, json.dumps({"model": "m", "stream": True, "messages": chat("a")["messages"]}).encode()),
        (OPENAI_IMAGE, json.dumps({"model": "m"}).encode()),
    ],
)
def test_requests_that_cannot_be_understood_are_told_so(route: answers.Route, body: bytes) -> None:
    """Nothing else is raised, whatever comes."""
    with pytest.raises(BadRequest):
        understand(route, body)
