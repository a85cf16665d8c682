"""The class Websim, member by member."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from typing import Any

import pytest
from raw_server import RawServer, answer

from websim_batch import client
from websim_batch.client import (
    AsyncGeneratorProvider,
    ImageResponse,
    ProviderModelMixin,
    Websim,
    format_image_prompt,
)
from websim_batch.errors import UsageError

HELLO = [{"role": "user", "content": "Hello, Websim!"}]
HEADERS = {"accept": "*/*", "content-type": "text/plain;charset=UTF-8", "websim-flags;": ""}
IMAGE = answer(b'{"url":"https://i.example/cat.png"}')


def at(server: RawServer) -> type[Websim]:
    """The class, with its endpoints on a server of the test."""

    class Local(Websim):
        chat_api_endpoint = f"http://127.0.0.1:{server.port}/api/v1/inference/run_chat_completion"
        image_api_endpoint = f"http://127.0.0.1:{server.port}/api/v1/inference/run_image_generation"

    return Local


def all_of(generator: Any) -> list[Any]:
    """Everything that an asynchronous generator yields."""

    async def collect() -> list[Any]:
        return [piece async for piece in generator]

    return asyncio.run(collect())


def body_of(server: RawServer, number: int = 1) -> Any:
    """The JSON body of the n-th request."""
    return json.loads(server.requests[number - 1][1])


def test_the_members_have_their_known_values() -> None:
    """The table of the class."""
    assert issubclass(Websim, AsyncGeneratorProvider)
    assert issubclass(Websim, ProviderModelMixin)
    assert (Websim.url, Websim.login_url) == ("https://websim.ai", None)
    assert Websim.chat_api_endpoint == "https://websim.ai/api/v1/inference/run_chat_completion"
    assert Websim.image_api_endpoint == "https://websim.ai/api/v1/inference/run_image_generation"
    assert Websim.working is Websim.supports_system_message is Websim.supports_message_history is True
    assert Websim.needs_auth is Websim.use_nodriver is Websim.supports_stream is False
    assert (Websim.default_model, Websim.default_image_model) == ("gemini-1.5-pro", "flux")
    assert Websim.image_models == ["flux"]
    assert Websim.models == Websim.get_models() == ["gemini-1.5-pro", "gemini-1.5-flash", "flux"]


@pytest.mark.parametrize(
    ("for_image", "form"), [(False, r"[a-z0-9]{3}_[a-z0-9]{16}"), (True, r"[a-z0-9]{7}_[a-z0-9]{12}")]
)
def test_generate_project_id(for_image: bool, form: str) -> None:
    """20 characters, new each time."""
    first, second = (Websim.generate_project_id(for_image=for_image) for _ in range(2))

    assert re.fullmatch(form, first)
    assert first != second


def test_a_chat_yields_its_text() -> None:
    """One piece; the messages are sent as they are and left alone."""
    messages = copy.deepcopy(HELLO)
    with RawServer(lambda n: answer(b'{"content":" Hi \\n"}')) as server:
        pieces = all_of(at(server).create_async_generator(model="gemini-1.5-pro", messages=messages))

    assert pieces == ["Hi"]
    assert messages == HELLO
    assert body_of(server)["messages"] == HELLO
    assert re.fullmatch(r"\w{3}_\w{16}", body_of(server)["project_id"])
    assert "model" not in body_of(server)


def test_an_image_yields_an_image_response() -> None:
    """With its addresses and the text that was asked for."""
    with RawServer(lambda n: IMAGE) as server:
        (image,) = all_of(
            at(server).create_async_generator(
                model="flux", messages=HELLO, prompt="A cat", aspect_ratio="16:9", seed=7
            )
        )

    assert isinstance(image, ImageResponse)
    assert (image.urls, image.alt) == (["https://i.example/cat.png"], "A cat")
    assert image.get_list() == ["https://i.example/cat.png"]
    assert str(image) == "[![A cat](https://i.example/cat.png)](https://i.example/cat.png)"
    body = body_of(server)
    assert re.fullmatch(r"\w{7}_\w{12}", body.pop("project_id"))
    assert body == {"prompt": "A cat", "aspect_ratio": "16:9", "seed": 7}


def test_the_chat_handler_is_called_directly() -> None:
    """With the known header dict, whose `websim-flags;` is mended; the dict is left alone."""
    headers = dict(HEADERS)
    with RawServer(lambda n: answer()) as server:
        pieces = all_of(at(server)._handle_chat_request("test_image_project", HELLO, headers))

    assert pieces == ["hello"]
    assert headers == HEADERS
    head = server.requests[0][0]
    assert "websim-flags: \r\n" in head
    assert "websim-flags;" not in head
    assert body_of(server)["project_id"] == "test_image_project"


def test_the_image_handler_is_called_directly() -> None:
    """By keyword, as named."""
    with RawServer(lambda n: IMAGE) as server:
        (image,) = all_of(
            at(server)._handle_image_request(
                project_id="test_image_project",
                messages=HELLO,
                prompt=None,
                aspect_ratio="1:1",
                headers=HEADERS,
                proxy=None,
            )
        )

    assert image.alt == "Hello, Websim!"
    assert body_of(server) == {
        "project_id": "test_image_project", "prompt": "Hello, Websim!", "aspect_ratio": "1:1",
    }  # fmt: skip


def test_the_default_headers_are_the_services_own() -> None:
    """And the origin is the endpoint's."""
    with RawServer(lambda n: answer()) as server:
        all_of(at(server).create_async_generator("", HELLO))

    head = server.requests[0][0].lower()
    assert f"origin: http://127.0.0.1:{server.port}\r\n" in head
    assert "user-agent: mozilla/5.0" in head
    assert "referer" not in head


@pytest.mark.parametrize(
    ("messages", "prompt", "expected"),
    [
        (HELLO, "given", "given"),
        (HELLO, "", ""),
        ([{"role": "user", "content": " a \n"}, {"role": "user", "content": "b"}], None, "a\nb"),
        (
            [{"role": "user", "content": "old"}, {"role": "assistant", "content": "x"}, *HELLO],
            None,
            "Hello, Websim!",
        ),
        ([*HELLO, {"role": "assistant", "content": "x"}], None, "Hello, Websim!"),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}],
                }
            ],
            None,
            "a\nb",
        ),
        ([{"role": "user", "content": None}, {"role": "user", "content": "  "}], None, ""),
        ([], None, ""),
    ],
)
def test_format_image_prompt(messages: Any, prompt: str | None, expected: str) -> None:
    """The prompt if given, else what the user said last."""
    before = copy.deepcopy(messages)

    assert format_image_prompt(messages, prompt) == expected
    assert messages == before


def test_one_project_id_and_one_connection_for_all_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry asks the same question."""
    _hurry(monkeypatch)
    with RawServer(lambda n: answer(b"", "503 Busy") if n < 3 else answer()) as server:
        assert all_of(at(server).create_async_generator("", HELLO)) == ["hello"]

    assert len({body for _, body in server.requests}) == 1
    assert (len(server.requests), server.connections) == (3, 1)


def _hurry(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps of the class take no time; the list keeps them."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(client, "_sleep", sleep)
    return slept


def test_unknown_arguments_warn_with_their_name() -> None:
    """Not swallowed, and not sent; the value is not shown."""
    with (
        RawServer(lambda n: answer()) as server,
        pytest.warns(UserWarning, match="'api_key' is unknown for a chat") as caught,
    ):
        all_of(at(server).create_async_generator("", HELLO, api_key="secret", json=True))

    assert "secret" not in str(caught[0].message)
    assert {**body_of(server), "project_id": ""} == {"project_id": "", "messages": HELLO, "json": True}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "gpt-4"}, "has no model 'gpt-4'"),
        ({"model": "gemini-1.5-prp"}, "'gemini-1.5-pro' is perhaps meant"),
        ({"model": "flux", "aspect_ratio": "7:1"}, "'7:1' is no aspect ratio"),
        ({"model": "flux", "messages": []}, "no text to make an image of"),
        ({"proxy": "socks5://user:secret@host:1"}, "SOCKS is not supported"),
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": "5"}, "timeout must be"),
        ({"messages": [{"role": "user", "content": float("nan")}]}, "cannot be written as JSON"),
    ],
)
def test_wrong_arguments_are_refused_before_sending(arguments: dict[str, Any], words: str) -> None:
    """With the remedy, and without passwords."""
    with RawServer(lambda n: answer()) as server, pytest.raises(UsageError) as caught:
        all_of(at(server).create_async_generator(**{"model": "", "messages": HELLO, **arguments}))

    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert server.requests == []


def test_create_async_joins_the_pieces() -> None:
    """Text as text, images as Markdown."""
    with RawServer(lambda n: IMAGE if n == 2 else answer()) as server:
        local = at(server)
        assert asyncio.run(local.create_async("", HELLO)) == "hello"
        assert asyncio.run(local.create_async("flux", HELLO)).startswith(
            "[![Hello, Websim!](https://i.example"
        )


def test_mocked_answers_serve_the_class(mocked: Any) -> None:
    """aioresponses stands in for the service."""
    mocked.post(Websim.chat_api_endpoint, payload={"content": "hi"})

    assert all_of(Websim.create_async_generator("gemini-1.5-pro", HELLO)) == ["hi"]
