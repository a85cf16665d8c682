"""Reads the requests of both providers and answers them; every answer is a function of the request alone.

A request is known by a hash of what it asks. The project id is not part of it: callers make up a new one each
time.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

import orjson

from websim_batch.records import Kind
from websim_batch.sandbox import png

Dialect: TypeAlias = Literal["websim", "openai"]

MODELS = ("sandbox-chat", "sandbox-image")
ASPECT_RATIOS = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21")
IMAGE_PATH = "/__images/"
_CREATED = 1_700_000_000  # an answer says the same whenever it is given
_LONG_SIDE = 256
_QUOTED = 120


@dataclass(frozen=True, slots=True)
class Route:
    """A path that takes requests: in whose words, and for what."""

    dialect: Dialect
    kind: Kind


ROUTES: Mapping[str, Route] = {
    "/api/v1/inference/run_chat_completion": Route("websim", "chat"),
    "/api/v1/inference/run_image_generation": Route("websim", "image"),
    "/v1/chat/completions": Route("openai", "chat"),
    "/v1/images/generations": Route("openai", "image"),
}


class BadRequest(Exception):  # noqa: N818 - the HTTP status of that name
    """The request cannot be understood; the text says why and `code` is its stable name."""

    def __init__(self, message: str, code: str = "invalid_request") -> None:
        self.code = code
        super().__init__(message)


@dataclass(slots=True)
class Ask:
    """One request as understood: `hash` is 8 bytes over what it asks, `prompt` the text it is about."""

    route: Route
    body: dict[str, Any]
    hash: bytes
    prompt: str


def loads(data: bytes) -> Any:
    """JSON with lone surrogates allowed, which the fast parser refuses. Raises ValueError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def dumps(value: Any) -> bytes:
    """JSON bytes of any such value."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value).encode()


def understand(route: Route, data: bytes) -> Ask:
    """The request in `data`. Raises BadRequest."""
    try:
        body = loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not valid JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object")
    if route.dialect == "websim" and not isinstance(body.get("project_id"), str):
        raise BadRequest("project_id is required and must be a string")
    if route.dialect == "openai" and route.kind == "chat":
        _check_openai_chat(body)
    prompt = _chat_prompt(body) if route.kind == "chat" else _image_prompt(body)
    return Ask(route, body, _hash(route, body), prompt)


def answer(ask: Ask, origin: str) -> bytes:
    """The whole body of the 200; `origin` is where this server's pictures are found."""
    if ask.route.kind == "image":
        return _websim_image(ask, origin) if ask.route.dialect == "websim" else _openai_image(ask, origin)
    return _websim_chat(ask) if ask.route.dialect == "websim" else _openai_chat(ask)


def error(dialect: Dialect, status: int, message: str, code: str) -> bytes:
    """The body of an answer that is no 200, in the provider's words."""
    if dialect == "websim":
        return dumps({"error": message})
    kind = {429: "requests"}.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def models() -> bytes:
    """The answer to GET /v1/models."""
    data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "sandbox"} for name in MODELS]
    return dumps({"object": "list", "data": data})


def image(name: str) -> bytes | None:
    """The PNG behind a URL of ours, by the part after IMAGE_PATH; None if no such one was ever given out."""
    stem, dot, suffix = name.rpartition(".")
    digest, _, size = stem.partition("-")
    width, _, height = size.partition("x")
    if not dot or suffix != "png" or not (width.isdecimal() and height.isdecimal()):
        return None
    try:
        return png.picture(bytes.fromhex(digest).ljust(6, b"\0"), int(width[:5]), int(height[:5]))
    except ValueError:
        return None


def _check_openai_chat(body: dict[str, Any]) -> None:
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("you must provide a model parameter", "missing_required_parameter")
    if body.get("stream"):
        raise BadRequest("this stand-in does not stream", "unsupported_value")


def _chat_prompt(body: dict[str, Any]) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages is required and must be a list that is not empty")
    last = ""
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest("each message must be an object with a role and a content")
        if message["role"] == "user":
            last = _text(message.get("content"))
    return last


def _image_prompt(body: dict[str, Any]) -> str:
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise BadRequest("prompt is required and must be a string")
    if body.get("aspect_ratio", "1:1") not in ASPECT_RATIOS:
        raise BadRequest(f"aspect_ratio must be one of {', '.join(ASPECT_RATIOS)}")
    return prompt


def _text(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))


def _hash(route: Route, body: dict[str, Any]) -> bytes:
    asked = {key: value for key, value in body.items() if key != "project_id"}
    asked["\0"] = f"{route.dialect} {route.kind}"
    try:
        text = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        text = json.dumps(asked, sort_keys=True).encode()
    return blake2b(text, digest_size=8).digest()


def _words(ask: Ask) -> str:
    quoted = " ".join(ask.prompt.split())
    if len(quoted) > _QUOTED:
        quoted = quoted[:_QUOTED] + "…"
    return f"Stand-in answer {ask.hash.hex()} to: {quoted}"


def _websim_chat(ask: Ask) -> bytes:
    content = _words(ask)
    if ask.body.get("json") is True:
        content = dumps({"answer": content}).decode()
    return dumps({"content": content})


def _websim_image(ask: Ask, origin: str) -> bytes:
    return dumps({"url": _image_url(ask, origin)})


def _openai_chat(ask: Ask) -> bytes:
    content, finish_reason = _words(ask), "stop"
    form = ask.body.get("response_format")
    if isinstance(form, dict) and "json" in str(form.get("type")):
        content = dumps({"answer": content}).decode()
    most = ask.body.get("max_completion_tokens", ask.body.get("max_tokens"))
    words = content.split(" ")
    if isinstance(most, int) and 0 < most < len(words):
        content, finish_reason = " ".join(words[:most]), "length"
    message = {"role": "assistant", "content": content, "refusal": None}
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}
        for index in range(_count(ask))
    ]
    return dumps(
        {
            "id": f"chatcmpl-{ask.hash.hex()}",
            "object": "chat.completion",
            "created": _CREATED,
            "model": ask.body["model"],
            "choices": choices,
            "usage": _usage(len(ask.prompt.split()) + 8, len(content.split())),
        }
    )


def _usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def _openai_image(ask: Ask, origin: str) -> bytes:
    if ask.body.get("response_format") == "b64_json":
        one = {"b64_json": base64.b64encode(png.picture(ask.hash, *_size(ask))).decode()}
    else:
        one = {"url": _image_url(ask, origin)}
    return dumps({"created": _CREATED, "data": [one] * _count(ask)})


def _count(ask: Ask) -> int:
    number = ask.body.get("n")
    return number if isinstance(number, int) and 1 <= number <= 16 else 1


def _image_url(ask: Ask, origin: str) -> str:
    width, height = _size(ask)
    return f"{origin}{IMAGE_PATH}{ask.hash.hex()}-{width}x{height}.png"


def _size(ask: Ask) -> tuple[int, int]:
    """Pixels: `width` and `height`, or `size` as `1024x1024`, or a small picture of the aspect ratio."""
    width, height = ask.body.get("width"), ask.body.get("height")
    if isinstance(width, int) and isinstance(height, int):
        return max(1, min(width, png.MAX_SIDE)), max(1, min(height, png.MAX_SIDE))
    across, _, down = str(ask.body.get("size")).partition("x")
    if across.isdecimal() and down.isdecimal():
        return max(1, min(int(across), png.MAX_SIDE)), max(1, min(int(down), png.MAX_SIDE))
    wide, _, high = str(ask.body.get("aspect_ratio", "1:1")).partition(":")
    longest = max(int(wide), int(high))
    return _LONG_SIDE * int(wide) // longest, _LONG_SIDE * int(high) // longest
