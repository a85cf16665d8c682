"""Any endpoint that speaks OpenAI's protocol: its wire, as pure functions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from websim_batch import jsontext
from websim_batch.errors import BadResponseError, UsageError
from websim_batch.providers import errortext
from websim_batch.providers.base import FieldType, ProviderFacts, declined, invalid
from websim_batch.providers.classify import refused_reply
from websim_batch.providers.failures import error_of
from websim_batch.providers.retry_after import rate_hint
from websim_batch.records import Answer, Json, Kind, Reply, Request, WireRequest, WireResponse

DEFAULT_BASE_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
IMAGE_MODELS = ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "dall-e-3", "dall-e-2")
_SAMPLING: Mapping[str, FieldType] = {
    "temperature": "number",
    "top_p": "number",
    "top_k": "int",
    "min_p": "number",
    "max_tokens": "int",
    "max_completion_tokens": "int",
    "seed": "int",
    "n": "int",
    "stop": "json",
    "presence_penalty": "number",
    "frequency_penalty": "number",
    "repetition_penalty": "number",
}
KNOWN_FIELDS: Mapping[Kind, Mapping[str, FieldType]] = {
    "chat": {
        **_SAMPLING,
        "response_format": "json",
        "reasoning_effort": "text",
        "verbosity": "text",
        "service_tier": "text",
        "user": "text",
        "tools": "json",
        "tool_choice": "json",
        "parallel_tool_calls": "bool",
        "logit_bias": "json",
        "logprobs": "bool",
        "top_logprobs": "int",
        "metadata": "json",
        "store": "bool",
    },
    "image": {
        "n": "int",
        "size": "text",
        "quality": "text",
        "style": "text",
        "response_format": "text",
        "background": "text",
        "moderation": "text",
        "output_format": "text",
        "output_compression": "int",
        "seed": "int",
        "user": "text",
    },
}
FACTS = ProviderFacts(
    name="openai",
    image_models=IMAGE_MODELS,
    aspect_ratios=(),
    known_fields=KNOWN_FIELDS,
    fixed_fields={"n": 1, "stream": False},
    requires_model=True,
    takes_other_fields=True,
    sandbox_path="/v1",
)


class OpenAIProvider:
    """An OpenAI-compatible endpoint; `base_url` is what the official client takes, with its `/v1`."""

    name = "openai"
    facts = FACTS

    def __init__(self, base_url: str | None, environ: Mapping[str, str]) -> None:
        self.base_url = (base_url or DEFAULT_BASE_URL).rstrip("/")
        self._key = environ.get(KEY_VARIABLE, "").strip()
        self._chat_url = self.base_url + "/chat/completions"
        self._image_url = self.base_url + "/images/generations"

    def __repr__(self) -> str:
        return f"<OpenAIProvider {self.base_url} {'with a key' if self._key else 'without a key'}>"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The key, if there is one."""
        return (self._key,) if self._key else ()

    def kind_of(self, model: str | None) -> Kind:
        """An image for the image models that are known by name, else a chat."""
        return "image" if model in IMAGE_MODELS else "chat"

    def session_headers(self) -> dict[str, str]:
        """Plain JSON, and the key from the environment."""
        headers = {
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "content-type": "application/json",
            "user-agent": "websim-batch",
        }
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return headers

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise UsageError if the hosted service is meant and no key is there.

        Other servers may want none.
        """
        has_key = any(name.lower() == "authorization" for name in headers)
        if self.base_url == DEFAULT_BASE_URL and not has_key:
            raise UsageError(
                f"--provider openai: no key; set {KEY_VARIABLE}, or give "
                "--header-env 'Authorization: Bearer $NAME', or name another server by --base-url"
            )

    def build(self, request: Request) -> WireRequest:
        """One POST, not streamed. Raises ValueError for `n` above 1 or `stream`: one row has one answer."""
        fields = request.fields
        if fields and (fields.get("stream") or str(fields.get("n") or 1) != "1"):
            raise ValueError("n must be 1 and stream must be off: one row has one answer")
        body: dict[str, Json] = {"model": request.model}
        if request.kind == "image":
            body["prompt"] = request.prompt
        else:
            body["messages"] = request.messages
        if fields:
            body.update(fields)
        url = self._image_url if request.kind == "image" else self._chat_url
        project = request.project_id
        headers = {"OpenAI-Project": project} if project else None
        return WireRequest(url, jsontext.dumps(body), headers, project)

    def parse(self, request: Request, response: WireResponse, wall_clock_s: float) -> Reply:
        """The answer's text or image; everything else by the design's table."""
        if not 200 <= response.status < 300:
            return refused_reply(response, wall_clock_s, self.base_url)
        reply = _parse_usable(request, response)
        reply.rate_hint = rate_hint(response.headers, wall_clock_s)
        return reply

    def models_url(self) -> str:
        """Where the models are listed."""
        return self.base_url + "/models"

    def parse_models(self, response: WireResponse | None) -> Sequence[str]:
        """The names in the server's order. Raises ResponseStatusError, BadResponseError."""
        if response is None:
            return ()
        if not 200 <= response.status < 300:
            raise error_of(refused_reply(response, 0.0, self.base_url), response)
        value = _loads(response)
        data = value.get("data") if isinstance(value, dict) else value
        if not isinstance(data, list):
            raise BadResponseError(f"{self.models_url()}: the answer is no list of models")
        return [str(model["id"]) for model in data if isinstance(model, dict) and model.get("id")]


def _loads(response: WireResponse) -> Json:
    try:
        return None if response.defect else jsontext.loads(response.body)
    except ValueError:
        return None


def _parse_usable(request: Request, response: WireResponse) -> Reply:
    value = _loads(response)
    if not isinstance(value, dict):
        error = errortext.read_error(response)
        return invalid(response, f"the answer is no JSON object: {error.message}")
    if value.get("error"):
        error = errortext.read_error(response)
        return invalid(response, f"HTTP {response.status} with an error: {error.message}")
    reply = _image(value, response) if request.kind == "image" else _chat(value, response)
    usage = value.get("usage")
    if isinstance(usage, dict):
        reply.prompt_tokens = _tokens(usage, "prompt_tokens", "input_tokens")
        reply.completion_tokens = _tokens(usage, "completion_tokens", "output_tokens")
    return reply


def _tokens(usage: Mapping[str, Any], *names: str) -> int | None:
    counts = (usage.get(name) for name in names)
    return next((count for count in counts if type(count) is int and 0 <= count < 2**31), None)


def _first(value: Any) -> Mapping[str, Any] | None:
    """The first item of a list, if it is an object."""
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def _chat(value: dict[str, Any], response: WireResponse) -> Reply:
    choice = _first(value.get("choices"))
    if choice is None:
        return invalid(response, "the answer has no choices")
    message = choice.get("message")
    reply = _message(message if isinstance(message, dict) else {}, choice.get("finish_reason"), response)
    reason = choice.get("finish_reason")
    reply.finish_reason = errortext.one_line(reason, 60) if isinstance(reason, str) else None
    return reply


def _message(message: Mapping[str, Any], finish_reason: Any, response: WireResponse) -> Reply:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        return declined(response, f"the model declined: {refusal}")
    if finish_reason == "content_filter":
        return declined(response, "the service's content filter stopped the answer")
    text = _content_text(message.get("content"))
    if not text.strip():
        calls = message.get("tool_calls") or message.get("function_call")
        if not calls:
            hint = "; raise max_tokens" if finish_reason == "length" else ""
            return invalid(response, f"the answer's content is empty (finish_reason {finish_reason}){hint}")
        text = jsontext.dumps(calls).decode()
    return Reply(Answer.OK, text, http_status=response.status, latency_s=response.elapsed_s)


def _content_text(content: Any) -> str:
    """The text of a message's content: a string, or a list with text parts; else nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _image(value: dict[str, Any], response: WireResponse) -> Reply:
    item = _first(value.get("data"))
    if item is None:
        return invalid(response, "the answer has no image")
    url = item.get("url")
    if isinstance(url, str) and url.strip():
        reply = Reply(Answer.OK, image_url=url.strip())
    else:
        reply = Reply(Answer.OK, image_bytes=_decoded(item.get("b64_json")))
    if not reply.image_url and not reply.image_bytes:
        return invalid(response, "the answer's image has neither a url nor a readable b64_json")
    reply.http_status, reply.latency_s = response.status, response.elapsed_s
    return reply


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
