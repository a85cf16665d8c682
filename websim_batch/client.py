"""The class `Websim`: one question at a time, with the build, send, retry and parse of a whole run."""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar, TypeAlias

from websim_batch.errors import RequestError, TransportError, UsageError
from websim_batch.providers import websim, wire
from websim_batch.providers.failures import error_of
from websim_batch.records import Answer, Json, Kind, Reply, Request, WireRequest
from websim_batch.retry import FRESH, Again, RetryPolicy, RunFacts, backoff_s, decide
from websim_batch.transport import Transport, TransportSettings, reply_of_failure

MAX_TRIES = 5
"""Most requests for one question."""

LONGEST_S = 120.0
"""Longest that one question is tried, waits included, in seconds."""

DEFAULT_TIMEOUT_S = 120.0

Messages: TypeAlias = Sequence[Mapping[str, Json]]
"""A chat: `{"role", "content"}`, where content is a text or a list of parts."""


@dataclass(frozen=True)
class ImageResponse:
    """Images that were made: their addresses, and the text that they show."""

    urls: str | Sequence[str]
    alt: str = ""
    options: Mapping[str, Json] = field(default_factory=dict)

    def get(self, key: str) -> Json:
        """One of the options, or None."""
        return self.options.get(key)

    def get_list(self) -> list[str]:
        """The addresses, as a list even if there is one."""
        return [self.urls] if isinstance(self.urls, str) else list(self.urls)

    def __str__(self) -> str:
        alt = self.alt.replace("[", "(").replace("]", ")").replace("\n", " ")
        return "\n".join(f"[![{alt}]({url})]({url})" for url in self.get_list())


AsyncResult: TypeAlias = AsyncIterator[str | ImageResponse]
"""What a provider's generator yields."""


def format_image_prompt(messages: Messages, prompt: str | None = None) -> str:
    """The text of an image: `prompt` if given (the empty string too), else what the user said last.

    That is every message of the user after the last answer, stripped, joined by a newline; of list contents
    the text parts count.
    """
    if prompt is not None:
        return prompt
    texts: list[str] = []
    for message in reversed(messages):
        if message.get("role") == "user":
            texts.append(_text_of(message.get("content")).strip())
        elif texts:
            break
    return "\n".join(text for text in reversed(texts) if text)


def _text_of(content: Json) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        return ""
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in content)
    return "\n".join(text for text in texts if isinstance(text, str))


class AsyncGeneratorProvider:
    """A service whose answer comes as an asynchronous generator."""

    supports_stream: ClassVar[bool] = True

    @classmethod
    def create_async_generator(cls, model: str, messages: Messages, **kwargs: Any) -> AsyncResult:
        """The answer, piece by piece."""
        raise NotImplementedError

    @classmethod
    async def create_async(cls, model: str, messages: Messages, **kwargs: Any) -> str:
        """The whole answer as text; images as Markdown."""
        pieces = [str(piece) async for piece in cls.create_async_generator(model, messages, **kwargs)]
        return "".join(pieces)


class ProviderModelMixin:
    """A service with a list of models."""

    default_model: ClassVar[str] = ""
    models: ClassVar[list[str]] = []
    image_models: ClassVar[list[str]] = []
    model_aliases: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def get_models(cls) -> list[str]:
        """The models; the default alone if no list is kept."""
        return cls.models or [cls.default_model]

    @classmethod
    def get_model(cls, model: str | None) -> str:
        """The model's own name; the default for an empty one. Raises UsageError for an unknown one."""
        name = cls.model_aliases.get(model or "", model) or cls.default_model
        models = list(dict.fromkeys([*cls.get_models(), *cls.image_models]))
        if name not in models:
            near = get_close_matches(name, models, 1)
            hint = f"; {near[0]!r} is perhaps meant" if near else f"; there are {', '.join(models)}"
            raise UsageError(f"{cls.__name__} has no model {name!r}{hint}")
        return name


class Websim(AsyncGeneratorProvider, ProviderModelMixin):
    """The websim service.

    Its endpoints are read when it is asked, so that a subclass or a test can set them.
    """

    url = "https://websim.ai"
    login_url = None
    chat_api_endpoint = websim.DEFAULT_BASE_URL + websim.CHAT_PATH
    image_api_endpoint = websim.DEFAULT_BASE_URL + websim.IMAGE_PATH

    working = True
    needs_auth = False
    use_nodriver = False
    supports_stream = False
    supports_system_message = True
    supports_message_history = True

    default_model = websim.DEFAULT_MODEL
    default_image_model = websim.DEFAULT_IMAGE_MODEL
    image_models: ClassVar[list[str]] = list(websim.IMAGE_MODELS)
    models: ClassVar[list[str]] = list(websim.MODELS)

    @staticmethod
    def generate_project_id(for_image: bool = False) -> str:
        """A new project id: `ke3_xh5gai3gjkmruomu` for a chat, `kx0m131_rzz66qb2xoy7` for an image."""
        return websim.make_project_id(for_image)

    @classmethod
    async def create_async_generator(
        cls,
        model: str,
        messages: Messages,
        prompt: str | None = None,
        proxy: str | None = None,
        aspect_ratio: str = "1:1",
        project_id: str | None = None,
        **kwargs: Any,
    ) -> AsyncResult:
        """Yields the text of a chat, or the ImageResponse of an image model.

        Raises UsageError before anything is sent, RequestError if no answer could be had (see `errors`).
        """
        is_image = cls.get_model(model) in cls.image_models
        project_id = project_id or cls.generate_project_id(for_image=is_image)
        headers = cls._provider("image" if is_image else "chat").session_headers()
        if is_image:
            answers = cls._handle_image_request(
                project_id, messages, prompt, aspect_ratio, headers, proxy=proxy, **kwargs
            )
        else:
            answers = cls._handle_chat_request(project_id, messages, headers, proxy=proxy, **kwargs)
        async for answer in answers:
            yield answer

    @classmethod
    async def _handle_chat_request(
        cls,
        project_id: str,
        messages: Messages,
        headers: Mapping[str, str],
        proxy: str | None = None,
        **kwargs: Any,
    ) -> AsyncResult:
        """Yields the text that answers `messages`."""
        fields, timeout_s = _fields("chat", kwargs)
        request = Request("chat", cls.default_model, messages, project_id=project_id, fields=fields)
        reply = await cls._ask(request, headers, proxy, timeout_s)
        yield reply.response or ""

    @classmethod
    async def _handle_image_request(
        cls,
        project_id: str,
        messages: Messages,
        prompt: str | None,
        aspect_ratio: str,
        headers: Mapping[str, str],
        proxy: str | None = None,
        **kwargs: Any,
    ) -> AsyncResult:
        """Yields the image that `prompt`, or else the last words of the user, asks for."""
        if aspect_ratio not in websim.ASPECT_RATIOS:
            known = ", ".join(websim.ASPECT_RATIOS)
            raise UsageError(f"{aspect_ratio!r} is no aspect ratio; there are {known}")
        text = format_image_prompt(messages, prompt)
        if prompt is None and not text:
            raise UsageError("no text to make an image of: give prompt, or messages with a text of the user")
        fields, timeout_s = _fields("image", kwargs)
        request = Request(
            "image",
            cls.default_image_model,
            prompt=text,
            aspect_ratio=aspect_ratio,
            project_id=project_id,
            fields=fields,
        )
        reply = await cls._ask(request, headers, proxy, timeout_s)
        yield ImageResponse([reply.image_url or ""], alt=text)

    @classmethod
    def _provider(cls, kind: Kind) -> websim.WebsimProvider:
        """The service at the endpoints that the class has now."""
        endpoint = cls.image_api_endpoint if kind == "image" else cls.chat_api_endpoint
        return websim.WebsimProvider(wire.origin(endpoint), cls.chat_api_endpoint, cls.image_api_endpoint)

    @classmethod
    async def _ask(
        cls, request: Request, headers: Mapping[str, str], proxy: str | None, timeout_s: float
    ) -> Reply:
        checked = dict(wire.mend_headers(headers))
        for name, value in checked.items():
            wire.check_header(name, value)
        if proxy is not None:
            wire.check_proxy(proxy)
        provider = cls._provider(request.kind)
        try:
            message = provider.build(request)
        except (ValueError, TypeError) as error:
            raise UsageError(f"the request cannot be written as JSON: {error}") from error
        message.headers = checked
        async with Transport(TransportSettings(timeout_s=timeout_s, proxy=proxy, concurrency=1)) as transport:
            return await _Question(provider, transport, request, message).ask()


def _fields(kind: Kind, kwargs: Mapping[str, Any]) -> tuple[dict[str, Json], float]:
    """The request fields among the keyword arguments, and the timeout in seconds; warns of unknown names."""
    fields = {name: value for name, value in kwargs.items() if name in websim.KNOWN_FIELDS[kind]}
    for name in kwargs.keys() - fields.keys() - {"timeout"}:
        warnings.warn(f"Websim: the argument {name!r} is unknown for a {kind} and is not sent", stacklevel=2)
    timeout_s = kwargs.get("timeout")
    if timeout_s is None:
        return fields, DEFAULT_TIMEOUT_S
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s > 0:
        raise UsageError(f"timeout must be a number of seconds above 0, not {timeout_s!r}")
    return fields, float(timeout_s)


class _Question:
    """One question, asked until it is answered.

    At most five tries and 120 s, then the last failure is raised.
    """

    def __init__(
        self, provider: websim.WebsimProvider, transport: Transport, request: Request, message: WireRequest
    ) -> None:
        self._provider = provider
        self._transport = transport
        self._request = request
        self._message = message
        self._failure: RequestError | None = None

    async def ask(self) -> Reply:
        """The answer. Raises RequestError."""
        now = asyncio.get_running_loop().time
        until = now() + LONGEST_S
        policy, history = RetryPolicy(max_attempts=MAX_TRIES), FRESH
        for number in range(1, MAX_TRIES + 1):
            reply = await self._attempt()
            if self._failure is None:
                return reply
            run = RunFacts(ok_rows=1, deadline_in_s=until - now(), random=random.random())
            verdict = decide(policy, history, reply, run)
            if not isinstance(verdict, Again) or number == MAX_TRIES:
                raise self._failure
            history = verdict.history
            wait_s = _wait_s(policy, reply, verdict, number)
            if now() + wait_s >= until:
                raise self._failure
            await _sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    async def _attempt(self) -> Reply:
        try:
            response = await self._transport.send(self._message)
        except TransportError as error:
            self._failure = error
            return reply_of_failure(error)
        reply = self._provider.parse(self._request, response, time.time())
        self._failure = None if reply.answer is Answer.OK else error_of(reply, response)
        return reply


async def _sleep(seconds: float) -> None:
    """A name of its own, so that a test can wait for nothing."""
    await asyncio.sleep(seconds)


def _wait_s(policy: RetryPolicy, reply: Reply, verdict: Again, number: int) -> float:
    """Seconds before the next try.

    A run waits for limits and outages at its shared gate; alone, one waits here.
    """
    if verdict.kind == "rate_limit":
        least = reply.retry_after_s
        jitter = random.uniform(1.0, 1.15)
        # Retry-After is a minimum: jitter only adds.
        return float(2 ** (number - 1)) * jitter if least is None else least + 0.1 * jitter
    if verdict.kind == "outage":
        return backoff_s(policy, number, random.random())
    return verdict.delay_s
