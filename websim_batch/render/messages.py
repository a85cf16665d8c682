"""The column `messages`, and what a chat or an image makes of messages, a prompt and a system message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from websim_batch.records import Json
from websim_batch.render.cells import BadCellError, json_of

Message = Mapping[str, Json]


def messages_of(value: Any) -> list[Message]:
    """The messages of a cell, JSON text or native; none for an empty cell or list. Raises BadCellError."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = json_of(value)
    if not isinstance(value, (list, tuple)):
        raise BadCellError("bad_messages", 'is no list; write [{"role": "user", "content": "…"}]')
    for number, message in enumerate(value, 1):
        _check(number, message)
    return list(value)


def _check(number: int, message: Any) -> None:
    if not isinstance(message, Mapping):
        raise BadCellError("bad_messages", f"message {number} is no object with role and content")
    if not isinstance(message.get("role"), str) or not message["role"]:
        raise BadCellError("bad_messages", f"message {number} has no role")
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        if not content or not all(isinstance(part, Mapping) for part in content):
            raise BadCellError("bad_messages", f"the content of message {number} is no list of parts")
    elif not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        raise BadCellError("bad_messages", f"message {number} has no content")


def chat_of(messages: Sequence[Message], prompt: str, system: str) -> list[Message]:
    """What a chat sends: the prompt last, the system message first unless the messages hold one."""
    found = list(messages)
    if prompt:
        found.append({"role": "user", "content": prompt})
    if system and not any(message["role"] in ("system", "developer") for message in found):
        found.insert(0, {"role": "system", "content": system})
    return found


def image_text(messages: Sequence[Message]) -> str:
    """What an image shows where there is no prompt: the trailing user messages, stripped, a line each."""
    texts: list[str] = []
    for message in reversed(messages):
        if message["role"] != "user":
            break
        texts.insert(0, _text(message["content"]).strip())
    return "\n".join(text for text in texts if text)


def _text(content: Json) -> str:
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in content or () if part.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))
