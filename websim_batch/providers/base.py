"""The seam of the providers.

What a service tells of itself, and the pure functions between requests and HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from websim_batch.providers.errortext import one_line
from websim_batch.records import Answer, Json, Kind, Reply, Request, WireRequest, WireResponse

FieldType: TypeAlias = Literal["int", "number", "bool", "text", "json"]
"""What a request field's value must be: decides how the text of a CSV cell is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """What `render` must know of a provider.

    `models` is None where any name may be right; `known_fields` has the request fields per kind; with
    `takes_other_fields` others are sent as well (as JSON if they are, else as text). `aspect_ratios` is
    None where any may be right, empty where the service has no such field. `fixed_fields` may hold one value
    alone, since one row has one answer. `sandbox_path` is where the stand-in speaks this provider's routes,
    below its own base URL.
    """

    name: str
    models: tuple[str, ...] | None = None
    image_models: tuple[str, ...] = ()
    default_model: str | None = None
    default_image_model: str | None = None
    aspect_ratios: tuple[str, ...] | None = None
    known_fields: Mapping[Kind, Mapping[str, FieldType]] = field(default_factory=dict)
    fixed_fields: Mapping[str, Json] = field(default_factory=dict)
    requires_model: bool = False
    takes_other_fields: bool = False
    sandbox_path: str = ""


class Provider(Protocol):
    """One kind of service. `build` and `parse` are pure: no clock, no I/O, equal arguments give equal values,
    but for a project id that `build` makes up where the request has none.

    A retry sends the `WireRequest` of the first attempt again, so that made-up ids stay the same.
    """

    name: str
    base_url: str
    facts: ProviderFacts

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown, of what the provider took from the environment."""

    def kind_of(self, model: str | None) -> Kind:
        """Whether a request to `model` is a chat or an image."""

    def session_headers(self) -> dict[str, str]:
        """The headers of every request, before the user's own are laid over them."""

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise UsageError if these final headers cannot succeed (no key for a service that wants one)."""

    def build(self, request: Request) -> WireRequest:
        """The HTTP request. Raises ValueError for a value that JSON cannot hold (NaN)."""

    def parse(self, request: Request, response: WireResponse, wall_clock_s: float) -> Reply:
        """What the answer means, whatever its bytes are.

        Raises nothing. `wall_clock_s` is the time of arrival.
        """

    def models_url(self) -> str | None:
        """Where the models are listed (GET); None if the list is fixed."""

    def parse_models(self, response: WireResponse | None) -> Sequence[str]:
        """The models, default first; `response` is None for a fixed list.

        Raises ResponseStatusError, BadResponseError.
        """


def invalid(response: WireResponse, message: str) -> Reply:
    """The reply to a 2xx that is no answer."""
    return _told(Answer.INVALID, "bad_response", response, message)


def declined(response: WireResponse, message: str) -> Reply:
    """The reply to a 2xx that declines the content."""
    return _told(Answer.DECLINED, "content_policy", response, message)


def _told(answer: Answer, error_type: str, response: WireResponse, message: str) -> Reply:
    return Reply(
        answer,
        error_type=error_type,
        message=one_line(message),
        http_status=response.status,
        latency_s=response.elapsed_s,
    )
