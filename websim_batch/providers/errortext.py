"""The own words of a failed answer: one clear line from a body of any shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from websim_batch import jsontext
from websim_batch.records import Json, WireResponse

LONGEST = 400
"""Most characters of a message that is made of an answer's body."""

_READ = 20_000  # bytes of a text that are looked at
_INNER_KEYS = ("message", "msg", "detail", "error_description", "description", "error", "title", "reason")
_ERROR_KEYS = ("error", "errors", "error_message", *_INNER_KEYS)
_CODE_KEYS = ("code", "type", "error_code")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_NO_TEXT = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]{0,1000}>", re.IGNORECASE | re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What a body says: `message` is one bounded line, never empty; `field` is its own error field alone,
    or ""; `codes` are its code and type, in lower case."""

    message: str
    field: str = ""
    codes: tuple[str, ...] = ()

    def has_code(self, *names: str) -> bool:
        """Is one of `names` among the codes?"""
        return any(name in self.codes for name in names)


def one_line(text: str, longest: int = LONGEST) -> str:
    """`text` on one line, without control characters, at most `longest` characters."""
    line = _CONTROL.sub(" ", jsontext.clean_text(text[: longest * 20])).strip()
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def read_error(response: WireResponse) -> ErrorText:
    """The error that `response` tells, whatever the shape of its body."""
    if response.defect:
        return ErrorText(f"{reason(response.status)} ({response.defect})")
    body = response.body.strip()
    if not body:
        return ErrorText(f"{reason(response.status)} (empty body)")
    try:
        value = jsontext.loads(body)
    except ValueError:
        return ErrorText(_text_message(response))
    return _json_error(value, response.status)


def reason(status: int) -> str:
    """The usual name of an HTTP status."""
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def _json_error(value: Json, status: int) -> ErrorText:
    field = one_line(_field(value))
    codes = tuple(dict.fromkeys(code.lower() for code in _codes(value)))
    if field:
        return ErrorText(field, field, codes)
    found = ", ".join(codes) or one_line(jsontext.dumps(value).decode("utf-8", "replace"), LONGEST // 2)
    return ErrorText(one_line(f"{reason(status)}: {found}"), "", codes)


def _field(value: Json, depth: int = 0) -> str:
    """The text of an error in any of the usual shapes, or "" where there is none."""
    if isinstance(value, str):
        return value
    if depth > 4:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_field(item, depth + 1) for item in value[:3])))
    if isinstance(value, dict):
        keys = _INNER_KEYS if depth else _ERROR_KEYS
        texts = (_field(value[key], depth + 1) for key in keys if value.get(key))
        return next(filter(None, texts), "")
    return ""


def _codes(value: Json, depth: int = 0) -> Iterator[str]:
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict) or depth > 2:
        return
    inner = value.get("error")
    if isinstance(inner, str) and re.fullmatch(r"\w{1,60}", inner):
        yield inner
    yield from _codes(inner, depth + 1)
    for key in _CODE_KEYS:
        code = value.get(key)
        if isinstance(code, (str, int)) and not isinstance(code, bool):
            yield str(code)[:60]


def _text_message(response: WireResponse) -> str:
    text = response.body[:_READ].decode(_charset(response), "replace").lstrip("\ufeff").strip()
    if is_html(response):
        return one_line(f"{reason(response.status)}: HTML page {html_title(text)!r}")
    if text.startswith(("{", "[")):
        return one_line(f"{reason(response.status)}: broken JSON {one_line(text, 200)}")
    return one_line(text) or reason(response.status)


def _charset(response: WireResponse) -> str:
    match = re.search(r"charset=\"?([\w.:-]+)", response.headers.get("content-type", ""))
    try:
        return match.group(1) if match and "".encode(match.group(1)) == b"" else "utf-8"
    except (LookupError, UnicodeError):
        return "utf-8"


def decode_text(response: WireResponse) -> str:
    """The body as text in the charset that it names; broken characters become U+FFFD."""
    return response.body.decode(_charset(response), "replace").lstrip("\ufeff")


def is_html(response: WireResponse) -> bool:
    """Does the body look like a page, whatever its label says?"""
    start = response.body[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml")):
        return True
    label = response.headers.get("content-type", "").lower()
    return start.startswith(b"<") and (b"<html" in start or "html" in label)


def html_title(page: str) -> str:
    """The title of a page, or else its first words."""
    match = _TITLE.search(page)
    found = one_line(match.group(1) if match else "", 120)
    return found or one_line(_NO_TEXT.sub(" ", page), 120)
