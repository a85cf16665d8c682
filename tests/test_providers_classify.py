"""The design's table of answers: status first, words second; and one clear line from a body of any shape."""

from __future__ import annotations

import json

import pytest

from websim_batch.providers.classify import is_challenge, refused_reply
from websim_batch.providers.errortext import LONGEST
from websim_batch.records import Answer, Reply, WireResponse

URL = "https://api.example/v1/api/run"


def reply_to(status: int, body: object = b"", **headers: str) -> Reply:
    """The reply to an answer with that status and body; names of headers with _ for -."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return refused_reply(WireResponse(status, found, raw, 0.1, URL), 1e9, "https://api.example/v1")


@pytest.mark.parametrize(
    ("status", "answer", "error_type"),
    [
        (429, Answer.REFUSAL, "rate_limit"),
        *((status, Answer.TRANSIENT, "server") for status in (408, 425, 500, 502, 503, 504, 529)),
        *((status, Answer.TRANSIENT, "server") for status in (520, 521, 522, 523, 524, 599)),
        (401, Answer.FATAL, "auth"),
        (402, Answer.FATAL, "quota"),
        (407, Answer.FATAL, "auth"),
        *((status, Answer.FATAL, "redirect") for status in (300, 301, 302, 303, 307, 308)),
        (403, Answer.SUSPECT, "permission"),
        (404, Answer.SUSPECT, "not_found"),
        *((status, Answer.PERMANENT, "bad_request") for status in (400, 405, 410, 413, 418, 422, 451)),
    ],
)
def test_the_status_decides(status: int, answer: Answer, error_type: str) -> None:
    """Each status has its class, whatever else is missing."""
    reply = reply_to(status)

    assert (reply.answer, reply.error_type, reply.http_status) == (answer, error_type, status)


@pytest.mark.parametrize("status", [503, 529])
def test_503_and_529_with_retry_after_are_refusals(status: int) -> None:
    """They are a 429 in other words; a Retry-After that says nothing does not make them one."""
    assert reply_to(status, retry_after="7").answer is Answer.REFUSAL
    assert reply_to(status, retry_after="7").retry_after_s == 7.0
    assert reply_to(status, retry_after="soon").answer is Answer.TRANSIENT
    assert reply_to(502, retry_after="7").answer is Answer.TRANSIENT


@pytest.mark.parametrize(
    "body",
    [
        {"error": "Rate limit exceeded"},
        {"error": "Sorry: rate limit exceeded, try in 20 s"},
        {"error": {"message": "Rate Limit Exceeded", "code": 13}},
        {"error": {"message": "slow down", "code": "rate_limit_exceeded"}},
        {"error": "rate_limit_exceeded"},
        {"message": "RATE LIMIT EXCEEDED"},
        [{"error": {"message": "Rate limit exceeded"}}],
    ],
)
@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_another_status_whose_error_says_rate_limit_exceeded_is_a_refusal(status: int, body: object) -> None:
    """The service's own error field says it."""
    assert reply_to(status, body).answer is Answer.REFUSAL


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (400, {"error": "Invalid prompt 'rate limit exceeded'"}, Answer.PERMANENT),
        (400, {"error": "bad field", "prompt": "rate limit exceeded"}, Answer.PERMANENT),
        (500, b"<html>rate limit exceeded</html>", Answer.TRANSIENT),
        (400, b"rate limit exceeded", Answer.PERMANENT),
        (301, {"error": "Rate limit exceeded"}, Answer.FATAL),
        (429, {"error": "content policy"}, Answer.REFUSAL),
        (500, {"error": "our safety policy server broke"}, Answer.TRANSIENT),
        (404, {"error": "no such moderation page"}, Answer.SUSPECT),
    ],
)
def test_words_elsewhere_do_not_overrule_the_status(status: int, body: object, answer: Answer) -> None:
    """Only the error's own words count, and only where the status leaves room."""
    assert reply_to(status, body).answer is answer


@pytest.mark.parametrize(
    ("status", "error", "answer", "error_type"),
    [
        (429, {"code": "insufficient_quota"}, Answer.FATAL, "quota"),
        (429, {"type": "insufficient_quota"}, Answer.FATAL, "quota"),
        (400, {"code": "billing_hard_limit_reached"}, Answer.FATAL, "quota"),
        (400, {"code": "invalid_api_key"}, Answer.FATAL, "auth"),
        (400, {"code": "model_not_found"}, Answer.SUSPECT, "not_found"),
        (400, {"code": "context_length_exceeded", "message": "see our policy"}, Answer.PERMANENT, "context_length"),
        (400, {"message": "maximum context length is 8192 tokens"}, Answer.PERMANENT, "context_length"),
        (413, {"message": "prompt is too long: 9 tokens > 8 maximum"}, Answer.PERMANENT, "context_length"),
        (400, {"code": "content_policy_violation"}, Answer.DECLINED, "content_policy"),
        (400, {"code": "content_filter"}, Answer.DECLINED, "content_policy"),
        (400, {"message": "blocked by our Safety system"}, Answer.DECLINED, "content_policy"),
        (422, {"message": "failed moderation"}, Answer.DECLINED, "content_policy"),
        (400, {"message": "violates the usage policies"}, Answer.DECLINED, "content_policy"),
        (400, {"message": "temperature must be below 2"}, Answer.PERMANENT, "bad_request"),
    ],
)  # fmt: skip
def test_codes_and_words_tell_permanent_errors_apart(
    status: int, error: dict[str, str], answer: Answer, error_type: str
) -> None:
    """Quota, key, model, context length and content policy are told by code, then by words."""
    reply = reply_to(status, {"error": error})

    assert (reply.answer, reply.error_type) == (answer, error_type)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": "boom"}, "boom"),
        ({"error": {"message": "boom", "code": "x"}}, "boom"),
        ({"error": {"code": "E17"}}, "Bad Request: e17"),
        ({"error": {"foo": 1}}, 'Bad Request: {"error":{"foo":1}}'),
        ({"message": "boom"}, "boom"),
        ({"error": "invalid_request", "error_description": "boom"}, "invalid_request"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ({"errors": ["one", {"message": "two"}]}, "one; two"),
        ([{"error": {"message": "boom"}}], "boom"),
        ("boom", "boom"),
        ({}, "Bad Request: {}"),
        (None, "Bad Request: null"),
        (17, "Bad Request: 17"),
        (b"", "Bad Request (empty body)"),
        (b" \n ", "Bad Request (empty body)"),
        (b"plain\r\n  words", "plain words"),
        (b'{"error": "bo', 'Bad Request: broken JSON {"error": "bo'),
        (
            b"<html><head><title>Bad &\n gateway</title></head></html>",
            "Bad Request: HTML page 'Bad & gateway'",
        ),
        (b"<!DOCTYPE html><body><script>x()</script><h1>Oops</h1></body>", "Bad Request: HTML page 'Oops'"),
        (b"\xff\xfe\x00", "\ufffd\ufffd"),
        (b'{"error":"a\\ud800b"}', "a\ufffdb"),
        ({"error": "line one\nline\ttwo\x1b[31m\u2028three"}, "line one line two [31m three"),
    ],
)
def test_an_error_body_of_any_shape_ends_in_one_clear_line(body: object, expected: str) -> None:
    """Text, object, list, HTML, broken JSON, nothing: always a message, on one line."""
    assert reply_to(400, body).message == expected


@pytest.mark.parametrize(
    "body",
    [
        {"error": "x" * 100_000},
        b"y" * 1_000_000,
        [[[[[[["deep"]]]]]]],
        b"[" * 50_000,
        {"error": ["z" * 999] * 9},
    ],
)
def test_an_error_message_is_bounded(body: object) -> None:
    """However long or deep the body, the message is a short line."""
    message = reply_to(500, body).message

    assert message
    assert len(message) <= LONGEST
    assert "\n" not in message


def test_a_redirect_names_the_new_place_and_the_base_url_to_try() -> None:
    """The path of the endpoint is taken off the new place; credentials and queries are not shown."""
    reply = reply_to(308, location="https://user:secret@new.example/v2/api/run?token=abc")

    assert (
        reply.message == "redirected to https://new.example/v2/api/run; try --base-url https://new.example/v2"
    )


@pytest.mark.parametrize(
    ("location", "place", "base"),
    [
        ("https://new.example/login", "https://new.example/login", "https://new.example"),
        ("/v9/api/run", "https://api.example/v9/api/run", "https://api.example/v9"),
        ("//new.example/api/run", "https://new.example/api/run", "https://new.example"),
    ],
)
def test_a_redirect_may_be_relative(location: str, place: str, base: str) -> None:
    """Relative places count from the URL that was asked."""
    assert reply_to(302, location=location).message == f"redirected to {place}; try --base-url {base}"


def test_a_redirect_without_a_place_is_told() -> None:
    """No Location: the message says so."""
    assert reply_to(301).message == "redirected (HTTP 301) without a new place"


def test_a_challenge_page_is_named() -> None:
    """A 403 that asks for a browser says that a shield stands in front of the service."""
    page = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>"
    response = WireResponse(403, {"content-type": "text/html"}, page, 0.1)

    assert is_challenge(response)
    assert "Cloudflare" in (refused_reply(response, 0.0).message or "")
    assert not is_challenge(WireResponse(403, {}, b'{"error":"no"}', 0.1))


def test_a_broken_body_does_not_hide_the_status() -> None:
    """A refusal whose gzip is broken is still that refusal."""
    reply = refused_reply(WireResponse(429, {}, b"", 0.1, URL, "broken gzip"), 0.0)

    assert (reply.answer, reply.message) == (Answer.REFUSAL, "Too Many Requests (broken gzip)")
