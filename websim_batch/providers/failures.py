"""Replies as exceptions of our tree, for those who ask one thing at a time."""

from __future__ import annotations

from websim_batch.errors import (
    BadResponseError,
    CloudflareError,
    MissingAuthError,
    RateLimitError,
    RequestError,
    ResponseStatusError,
)
from websim_batch.providers.classify import is_challenge
from websim_batch.records import Answer, Reply, WireResponse


def error_of(reply: Reply, response: WireResponse) -> RequestError:
    """The error that an answer other than OK amounts to; `response` is what the reply was read from."""
    message, error_type = reply.message or "", reply.error_type or "bad_request"
    if reply.answer is Answer.INVALID:
        return BadResponseError(message)
    kind = ResponseStatusError
    if reply.answer is Answer.REFUSAL:
        kind = RateLimitError
    elif response.status == 401:
        kind = MissingAuthError
    elif response.status == 403 and is_challenge(response):
        kind = CloudflareError
    return kind(response.status, message, error_type)
