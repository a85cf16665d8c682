"""What an answer means, by its status first and its words second.

The design's table, and nothing of a provider.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

from websim_batch.providers.errortext import ErrorText, one_line, read_error
from websim_batch.providers.retry_after import rate_hint, retry_after_s
from websim_batch.records import Answer, Reply, WireResponse

_FATAL = {401: "auth", 402: "quota", 407: "auth"}
_SUSPECT = {403: "permission", 404: "not_found"}
_TRANSIENT_4XX = frozenset({408, 425})
_QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_REFUSALS_IF_DATED = frozenset({503, 529})  # with Retry-After they are a 429 in other words

_CHALLENGE_MARKS = (
    b"challenge-platform",
    b"cf-chl",
    b"cf_chl",
    b"just a moment...",
    b"attention required! | cloudflare",
)
# Not right after a quotation mark: a message that quotes the prompt says nothing about the limit.
_RATE_LIMIT = re.compile(
    r"(?<![\"'`\u201c\u2018])\brate[ _-]?limit[ _-](?:is |was |has been )?exceeded", re.IGNORECASE
)
_CONTENT_POLICY = re.compile(r"policy|policies|safety|moderation|content_filter", re.IGNORECASE)
_CONTEXT_LENGTH = re.compile(
    r"context[ _-](?:length|window|size)|maximum context|too many (?:input )?tokens|prompt is too long"
    r"|(?:input|prompt|request)\b.{0,40}\b(?:exceeds|longer than)\b.{0,60}\btokens",
    re.IGNORECASE,
)


def refused_reply(response: WireResponse, wall_clock_s: float, base_url: str = "") -> Reply:
    """The reply that a non-2xx answer amounts to; `base_url` is the one used, for the word on a redirect."""
    error = read_error(response)
    wait_s = retry_after_s(response.headers, wall_clock_s)
    answer, error_type = classify(response.status, error, has_retry_after=wait_s is not None)
    return Reply(
        answer,
        error_type=error_type,
        message=_message(response, error, base_url),
        http_status=response.status,
        retry_after_s=wait_s,
        rate_hint=rate_hint(response.headers, wall_clock_s),
        latency_s=response.elapsed_s,
    )


def classify(status: int, error: ErrorText, has_retry_after: bool) -> tuple[Answer, str]:
    """The class of a non-2xx answer, and its `error_type`."""
    if 300 <= status < 400:
        return Answer.FATAL, "redirect"
    if status >= 400 and error.has_code(*_QUOTA_CODES):
        return Answer.FATAL, "quota"
    if status == 429 or (status in _REFUSALS_IF_DATED and has_retry_after) or _says_rate_limit(error):
        return Answer.REFUSAL, "rate_limit"
    if status in _FATAL:
        return Answer.FATAL, _FATAL[status]
    if status < 400 or status >= 500 or status in _TRANSIENT_4XX:
        return Answer.TRANSIENT, "server"
    if error.has_code("invalid_api_key"):
        return Answer.FATAL, "auth"
    if error.has_code("model_not_found"):
        return Answer.SUSPECT, "not_found"
    if status in _SUSPECT:
        return Answer.SUSPECT, _SUSPECT[status]
    return _permanent(error)


def _says_rate_limit(error: ErrorText) -> bool:
    return error.has_code("rate_limit_exceeded") or bool(_RATE_LIMIT.search(error.field))


def _permanent(error: ErrorText) -> tuple[Answer, str]:
    """400, 413, 422 and the other 4xx: codes before words."""
    if error.has_code("context_length_exceeded"):
        return Answer.PERMANENT, "context_length"
    if any(_CONTENT_POLICY.search(code) for code in error.codes) or _CONTENT_POLICY.search(error.field):
        return Answer.DECLINED, "content_policy"
    if _CONTEXT_LENGTH.search(error.field):
        return Answer.PERMANENT, "context_length"
    return Answer.PERMANENT, "bad_request"


def is_challenge(response: WireResponse) -> bool:
    """Is it the page with which a shield in front of the service asks for a browser?"""
    if response.headers.get("cf-mitigated", "").lower() == "challenge":
        return True
    page = response.body[:50_000].lower()
    return any(mark in page for mark in _CHALLENGE_MARKS)


def _message(response: WireResponse, error: ErrorText, base_url: str) -> str:
    if 300 <= response.status < 400:
        return _redirect_message(response, base_url)
    if response.status == 403 and is_challenge(response):
        return one_line(f"Cloudflare asks for a browser (challenge page): {error.message}")
    if response.status == 407:
        return one_line(f"the proxy wants a user name and a password: {error.message}")
    return error.message


def _redirect_message(response: WireResponse, base_url: str) -> str:
    place = response.headers.get("location", "").strip()
    if not place:
        return f"redirected (HTTP {response.status}) without a new place"
    target = urljoin(response.url, place)
    parts = urlsplit(target)
    # Credentials and queries of the new place are not for a message.
    target = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    endpoint = response.url.removeprefix(base_url)
    base = target.removesuffix(endpoint) if target.endswith(endpoint) else target.removesuffix(parts.path)
    return one_line(f"redirected to {target}; try --base-url {base}")
