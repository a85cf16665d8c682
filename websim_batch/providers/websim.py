"""The websim service: its wire, as pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any
from urllib.parse import urljoin

from websim_batch import jsontext
from websim_batch.providers import errortext, wire
from websim_batch.providers.base import FieldType, ProviderFacts, invalid
from websim_batch.providers.classify import refused_reply
from websim_batch.providers.retry_after import rate_hint
from websim_batch.records import Answer, Json, Kind, Reply, Request, WireRequest, WireResponse

DEFAULT_BASE_URL = "https://websim.ai"
CHAT_PATH = "/api/v1/inference/run_chat_completion"
IMAGE_PATH = "/api/v1/inference/run_image_generation"
DEFAULT_MODEL = "gemini-1.5-pro"
DEFAULT_IMAGE_MODEL = "flux"
IMAGE_MODELS = ("flux",)
MODELS = ("gemini-1.5-pro", "gemini-1.5-flash", "flux")
ASPECT_RATIOS = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21")
USER_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36"
)
KNOWN_FIELDS: Mapping[Kind, Mapping[str, FieldType]] = {
    "chat": {"json": "bool"},
    "image": {"width": "int", "height": "int", "seed": "int", "transparent": "bool", "image_inputs": "json"},
}
FACTS = ProviderFacts(
    name="websim",
    models=MODELS,
    image_models=IMAGE_MODELS,
    default_model=DEFAULT_MODEL,
    default_image_model=DEFAULT_IMAGE_MODEL,
    aspect_ratios=ASPECT_RATIOS,
    known_fields=KNOWN_FIELDS,
)

# A byte to a letter or digit; the first four come 8 times in 256, the others 7: no matter for an id.
_LETTERS = bytes(b"abcdefghijklmnopqrstuvwxyz0123456789"[byte % 36] for byte in range(256))
_random = Random()
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL | re.IGNORECASE)


def make_project_id(for_image: bool) -> str:
    """A project id as the service's own: 3 + 16 letters and digits for a chat, 7 + 12 for an image."""
    letters = _random.randbytes(19).translate(_LETTERS).decode("ascii")
    cut = 7 if for_image else 3
    return f"{letters[:cut]}_{letters[cut:]}"


class WebsimProvider:
    """The websim service behind `base_url`; the two endpoints can be set apart, as class `Websim` does."""

    name = "websim"
    facts = FACTS
    secrets: tuple[str, ...] = ()

    def __init__(
        self, base_url: str | None = None, chat_url: str | None = None, image_url: str | None = None
    ) -> None:
        self.base_url = (base_url or DEFAULT_BASE_URL).rstrip("/")
        self.chat_url = chat_url or self.base_url + CHAT_PATH
        self.image_url = image_url or self.base_url + IMAGE_PATH

    def kind_of(self, model: str | None) -> Kind:
        """An image for the image models, else a chat."""
        return "image" if model in IMAGE_MODELS else "chat"

    def session_headers(self) -> dict[str, str]:
        """What the service's own pages send; the body is JSON in spite of its label."""
        return {
            "accept": "*/*",
            "accept-encoding": "gzip, deflate",
            "accept-language": "en-US,en;q=0.9",
            "content-type": "text/plain;charset=UTF-8",
            "origin": wire.origin(self.base_url),
            "user-agent": USER_AGENT,
            "websim-flags": "",
        }

    def check(self, headers: Mapping[str, str]) -> None:
        """Nothing is required: the service wants no key."""

    def build(self, request: Request) -> WireRequest:
        """One POST; the model is not on the wire."""
        is_image = request.kind == "image"
        project_id = request.project_id or make_project_id(is_image)
        body: dict[str, Json] = {"project_id": project_id}
        if is_image:
            body["prompt"] = request.prompt
            body["aspect_ratio"] = request.aspect_ratio or "1:1"
        else:
            body["messages"] = request.messages
        if request.fields:
            body.update(request.fields)
        return WireRequest(
            self.image_url if is_image else self.chat_url, jsontext.dumps(body), project_id=project_id
        )

    def parse(self, request: Request, response: WireResponse, wall_clock_s: float) -> Reply:
        """The answer's text or image address; everything else by the design's table."""
        if not 200 <= response.status < 300:
            return refused_reply(response, wall_clock_s, self.base_url)
        reply = _parse_usable(request, response)
        reply.rate_hint = rate_hint(response.headers, wall_clock_s)
        return reply

    def models_url(self) -> None:
        """The list is fixed."""
        return

    def parse_models(self, response: WireResponse | None) -> Sequence[str]:
        """The models, default first."""
        return MODELS


def _parse_usable(request: Request, response: WireResponse) -> Reply:
    if response.defect:
        return invalid(response, f"the answer's body is unusable: {response.defect}")
    try:
        value = jsontext.loads(response.body)
    except ValueError:
        return _parse_text(request, response)
    if not isinstance(value, dict):
        return _parse_text(request, response, is_json=True)
    if value.get("error"):
        error = errortext.read_error(response)
        return invalid(response, f"HTTP {response.status} with an error: {error.message}")
    return _image(value, response) if request.kind == "image" else _chat(request, value, response)


def _chat(request: Request, value: dict[str, Any], response: WireResponse) -> Reply:
    content = value.get("content")
    if not isinstance(content, str):
        return invalid(response, _lacks("content", value))
    text = content.strip()
    if not text:
        return invalid(response, "the answer's content is empty")
    if request.fields.get("json") is True:
        text = _unfenced(text)
    return Reply(Answer.OK, text, http_status=response.status, latency_s=response.elapsed_s)


def _image(value: dict[str, Any], response: WireResponse) -> Reply:
    url = value.get("url")
    if not isinstance(url, str):
        return invalid(response, _lacks("url", value))
    url = url.strip()
    if url.startswith("/"):
        url = urljoin(response.url, url)
    if not re.match(r"https?://[^\s/]|data:image/", url, re.IGNORECASE) or re.search(r"[\s\x00-\x1f]", url):
        return invalid(response, f"the answer's url is no address: {errortext.one_line(repr(url), 120)}")
    return Reply(Answer.OK, image_url=url, http_status=response.status, latency_s=response.elapsed_s)


def _lacks(name: str, value: dict[str, Any]) -> str:
    if name not in value:
        found = ", ".join(sorted(map(str, value))[:8]) or "nothing"
        return errortext.one_line(f"the answer has no {name} (it has: {found})")
    kind = {type(None): "null", list: "a list", dict: "an object"}.get(type(value[name]), "no text")
    return f"the answer's {name} is {kind}"


def _parse_text(request: Request, response: WireResponse, is_json: bool = False) -> Reply:
    """A body that is no JSON object: an answer only as plain text of a chat, not as cut JSON or a page."""
    text = errortext.decode_text(response).strip()
    if not text:
        return invalid(response, "the answer's body is empty")
    if errortext.is_html(response):
        return invalid(response, f"the answer is an HTML page {errortext.html_title(text)!r}")
    if request.kind == "image" or not _is_plain_text(text, response):
        what = "JSON, but no object" if is_json else "broken or cut JSON" if text[0] in '{["' else "not JSON"
        return invalid(response, f"the answer is {what}: {errortext.one_line(text, 120)}")
    return Reply(Answer.OK, text, http_status=response.status, latency_s=response.elapsed_s)


def _is_plain_text(text: str, response: WireResponse) -> bool:
    label = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return label == "text/plain" and text[0] not in '{["<' and text != "null" and "\x00" not in text


def _unfenced(text: str) -> str:
    """The JSON inside a ```json fence, if the text is that alone."""
    match = _FENCE.fullmatch(text)
    if match is None:
        return text
    inner = match.group(1).strip()
    try:
        jsontext.loads(inner.encode())
    except ValueError:
        return text
    return inner
