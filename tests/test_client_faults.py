"""What the well-known older client does wrong, line by line; each must be right here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from raw_server import HANG, RawServer, answer
from test_client_websim import HELLO, IMAGE, _hurry, all_of, at

from websim_batch import client
from websim_batch.errors import (
    BadResponseError,
    CloudflareError,
    ConnectionFailedError,
    MissingAuthError,
    OutageError,
    RateLimitError,
    RequestError,
    RequestTimeoutError,
    ResponseStatusError,
)

MODELS = ["gemini-1.5-pro", "flux"]
GOOD = {"gemini-1.5-pro": answer(), "flux": IMAGE}


def ask(script: Callable[[int], bytes], model: str = "", **options: Any) -> tuple[list[Any], int]:
    """What the class yields, and how many requests it made of it."""
    with RawServer(script) as server:
        pieces = all_of(at(server).create_async_generator(model, HELLO, **options))
        return pieces, len(server.requests)


def failing(
    reply: bytes, error: type[RequestError], model: str = "", **options: Any
) -> tuple[RequestError, int]:
    """The error that the class raises, and how many requests it made first."""
    with RawServer(lambda n: reply) as server:
        with pytest.raises(RequestError) as caught:
            all_of(at(server).create_async_generator(model, HELLO, **options))
        assert type(caught.value) is error
        return caught.value, len(server.requests)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits; the list keeps how long they would have."""
    return _hurry(monkeypatch)


@pytest.mark.parametrize("model", MODELS)
def test_a_429_waits_as_long_as_it_says(model: str, slept: list[float]) -> None:
    """Retry-After in seconds, for chats and images alike; never shorter."""
    refused = answer(b"", "429 Too Many", "Retry-After: 7\r\n")

    pieces, requests = ask(lambda n: refused if n < 3 else GOOD[model], model)

    assert (len(pieces), requests) == (1, 3)
    assert len(slept) == 2
    assert all(7 <= wait < 7.2 for wait in slept)


def test_a_429_with_a_date_waits_until_then(slept: list[float]) -> None:
    """By the server's own clock."""
    lines = f"Date: {formatdate(1e9, usegmt=True)}\r\nRetry-After: {formatdate(1e9 + 20, usegmt=True)}\r\n"

    ask(lambda n: answer(b"", "429 Too Many", lines) if n == 1 else answer())

    assert 21 <= slept[0] < 21.2


def test_a_429_without_a_word_waits_longer_each_time(slept: list[float]) -> None:
    """1, 2, 4, 8 s, each a little longer."""
    error, requests = failing(answer(b"", "429 Too Many"), RateLimitError)

    assert requests == 5
    assert [round(wait, 9) >= base for wait, base in zip(slept, (1, 2, 4, 8), strict=True)] == [True] * 4
    assert all(wait <= base * 1.15 for wait, base in zip(slept, (1, 2, 4, 8), strict=True))
    assert isinstance(error, ResponseStatusError)
    assert error.status == 429


@pytest.mark.parametrize("wait_s", [121, 3600, 100_000])
def test_a_limit_beyond_120_s_is_an_error_at_once(wait_s: int, slept: list[float]) -> None:
    """Waiting would be in vain."""
    _, requests = failing(answer(b"", "429 Too Many", f"Retry-After: {wait_s}\r\n"), RateLimitError)

    assert (requests, slept) == (1, [])


def test_no_wait_is_begun_that_ends_after_the_120_s(
    monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    """The error comes instead of the wait."""
    monkeypatch.setattr(client, "LONGEST_S", 0.5)

    _, requests = failing(answer(b"", "429 Too Many"), RateLimitError)

    assert (requests, slept) == (1, [])


@pytest.mark.parametrize("status", ["400 Bad", "403 Forbidden", "500 Oops"])
def test_rate_limit_exceeded_in_other_words_is_a_rate_limit(status: str) -> None:
    """Always an answer or an error, never silence."""
    limited = answer(b'{"error":"Rate limit exceeded"}', status)

    assert ask(lambda n: limited if n == 1 else answer()) == (["hello"], 2)
    error, requests = failing(limited, RateLimitError)
    assert (requests, "Rate limit exceeded" in str(error)) == (5, True)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"error":"boom"}',
        b'{"content":null}',
        b'{"content":7}',
        b'{"content":["a"]}',
        b"[]",
        b"",
        b'{"conte',
    ],
)
@pytest.mark.parametrize("label", ["application/json", "text/plain"])
def test_a_200_that_is_no_answer_is_an_error_after_one_more_try(body: bytes, label: str) -> None:
    """No content, an error, null, a number, a list: neither an empty answer nor a crash."""
    _, requests = failing(answer(body, headers=f"Content-Type: {label}\r\n"), BadResponseError)

    assert requests == 2


def test_a_page_is_no_answer() -> None:
    """200 with HTML."""
    page = answer(
        b"<!DOCTYPE html><html><title>Welcome</title></html>", headers="Content-Type: text/html\r\n"
    )

    error, requests = failing(page, BadResponseError)

    assert requests == 2
    assert "HTML page 'Welcome'" in str(error)


def test_plain_text_is_stripped() -> None:
    """200 text that is no JSON."""
    assert ask(lambda n: answer(b"  Hi there \n", headers="Content-Type: text/plain\r\n")) == (
        ["Hi there"],
        1,
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"boom","code":17}}', "boom"),
        (b'{"error":{"a":[1]}}', "Bad Request"),
        (b'["boom"]', "boom"),
        (b'{"error": "bo', "broken JSON"),
        (b"boom", "boom"),
        (b"", "empty body"),
    ],
)
def test_an_error_body_of_any_shape_is_a_clear_error(body: bytes, words: str) -> None:
    """Objects, lists, broken JSON labelled JSON."""
    error, requests = failing(
        answer(body, "400 Bad Request", "Content-Type: application/json\r\n"), ResponseStatusError
    )

    assert requests == 1
    assert words in str(error)
    assert str(error).startswith("HTTP 400: ")


@pytest.mark.parametrize("body", [b"{}", b'{"url":null}', b'{"url":""}', b'{"url":5}', b'{"content":"x"}'])
def test_an_image_without_url_is_an_error(body: bytes) -> None:
    """Not silence."""
    _, requests = failing(answer(body), BadResponseError, "flux")

    assert requests == 2


@pytest.mark.parametrize(
    "cut", [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{"con']
)
@pytest.mark.parametrize("model", MODELS)
def test_a_dropped_connection_is_retried_then_a_connection_error(cut: bytes, model: str) -> None:
    """Of our own tree, not the library's."""
    pieces, requests = ask(lambda n: cut if n < 3 else GOOD[model], model)
    assert (len(pieces), requests) == (1, 3)

    error, requests = failing(cut, ConnectionFailedError, model)
    assert (requests, error.error_type) == (5, "connection")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_transient_statuses_are_retried(status: int) -> None:
    """502 and 520 as well."""
    broken = answer(b"", f"{status} Oops")

    assert ask(lambda n: broken if n < 5 else answer()) == (["hello"], 5)
    error, requests = failing(broken, ResponseStatusError)
    assert (requests, error.error_type) == (5, "server")


def test_nothing_is_held_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One session for all tries, and no request open during a wait."""
    connections: list[int] = []

    with RawServer(lambda n: answer(b"", "503 Busy") if n < 3 else answer()) as server:
        all_of(at(server).create_async_generator("", HELLO))
        connections.append(server.connections)

    assert connections == [1]


def test_a_proxys_password_is_in_no_error() -> None:
    """Masked."""
    error = _outage(proxy="http://user:secret@127.0.0.1:1")

    assert "127.0.0.1:1" in str(error)
    assert "secret" not in str(error) + repr(error) + repr(error.__cause__)


def _outage(**options: Any) -> RequestError:
    with RawServer(lambda n: answer()) as server, pytest.raises(OutageError) as caught:
        all_of(at(server).create_async_generator("", HELLO, **options))
    return caught.value


def test_the_timeout_argument_counts() -> None:
    """Not 300 s for everything."""
    error, requests = failing(HANG, RequestTimeoutError, timeout=0.05)

    assert requests == 5
    assert "0.05 s" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "error", "error_type"),
    [
        ("401 Unauthorized", b'{"error":"no key"}', MissingAuthError, "auth"),
        ("403 Forbidden", b"<html><title>Just a moment...</title></html>", CloudflareError, "permission"),
        ("403 Forbidden", b'{"error":"not yours"}', ResponseStatusError, "permission"),
        ("404 Not Found", b"", ResponseStatusError, "not_found"),
        ("301 Moved", b"", ResponseStatusError, "redirect"),
        ("400 Bad", b'{"error":"safety"}', ResponseStatusError, "content_policy"),
    ],
)
def test_what_cannot_succeed_is_not_tried_again(
    status: str, body: bytes, error: type[RequestError], error_type: str
) -> None:
    """One request, and the error that says it."""
    raised, requests = failing(answer(body, status), error)

    assert (requests, raised.error_type) == (1, error_type)


def test_a_cancelled_question_ends_at_once() -> None:
    """Ctrl-C in a notebook."""

    async def cancel() -> None:
        task = asyncio.create_task(anext(at(server).create_async_generator("", HELLO)))  # type: ignore[arg-type]
        while not server.requests:  # noqa: ASYNC110 -- the server counts on another thread
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with RawServer(lambda n: HANG) as server:
        asyncio.run(cancel())
