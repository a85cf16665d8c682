"""The values that flow between the modules; standard library only, and no behaviour worth a test of its own.

One row's way, and what it is called on it:

    PromptRow ──render──> Request ──provider.build──> WireRequest ──transport──> WireResponse ──provider.parse──> Reply
                                                                                        retry.decide(Reply) ──> Result

Units stand in names: `_s` seconds, `_ms` milliseconds, `_us` microseconds; times are UTC since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple, TypeAlias

Status: TypeAlias = Literal["ok", "failed", "invalid", "refused", "skipped", "deferred", "pending"]
STATUSES: tuple[Status, ...] = ("ok", "failed", "invalid", "refused", "skipped", "deferred", "pending")
"""Every status, in the order in which summaries tell them."""

UNFINISHED: frozenset[Status] = frozenset({"deferred", "pending"})
"""Statuses of rows that a resumed run sends (again)."""

Kind: TypeAlias = Literal["chat", "image"]

Delivery: TypeAlias = Literal["not_sent", "unknown", "answered"]
"""Whether the server may have acted on a request: it never left, nobody knows, it answered."""

ERROR_TYPES = (
    "server", "timeout", "connection", "bad_response", "bad_request", "context_length", "content_policy",
    "rate_limit", "quota", "auth", "permission", "not_found", "redirect", "tls", "input", "internal",
)  # fmt: skip
"""Every value of the column `error_type`."""

Json: TypeAlias = Any
"""A JSON value in Python's native types (str, int, float, bool, None, list, dict)."""

ColumnType: TypeAlias = Literal["string", "large_string", "int16", "int32", "timestamp"]

OUTPUT_COLUMNS: tuple[tuple[str, ColumnType], ...] = (
    ("status", "string"),
    ("response", "large_string"),
    ("image_url", "large_string"),
    ("error_type", "string"),
    ("error_message", "string"),
    ("http_status", "int16"),
    ("requests", "int16"),
    ("latency_ms", "int32"),
    ("wait_ms", "int32"),
    ("prompt_tokens", "int32"),
    ("completion_tokens", "int32"),
    ("finish_reason", "string"),
    ("request_kind", "string"),
    ("request_model", "string"),
    ("request_project_id", "string"),
    ("request_hash", "string"),
    ("started_at", "timestamp"),
    ("finished_at", "timestamp"),
    ("run_id", "string"),
)
"""Our columns, in output order; `timestamp` is microseconds since the epoch, UTC."""


class OutputCells(NamedTuple):
    """One row of our columns, in the order of OUTPUT_COLUMNS; None is null; times in microseconds UTC."""

    status: Status
    response: str | None = None
    image_url: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    requests: int = 0
    latency_ms: int | None = None
    wait_ms: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    request_kind: str | None = None
    request_model: str | None = None
    request_project_id: str | None = None
    request_hash: str | None = None
    started_at: int | None = None
    finished_at: int | None = None
    run_id: str | None = None


class NumberText(str):
    """A JSON number as its file wrote it (`1.10`, a 20-digit integer), so that no digit is lost."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the input: where it is, what was found, what to do.

    `kind` is short and stable (counts are told by it); `is_structural` refuses the file, else only the row fails.
    `line` is the 1-based line of a text file, `row` the 1-based data row.
    """

    kind: str
    message: str
    path: str = ""
    line: int | None = None
    row: int | None = None
    column: str | None = None
    is_structural: bool = True

    def __str__(self) -> str:
        place = self.path
        if self.line is not None:
            place += f", line {self.line}"
        elif self.row is not None:
            place += f", row {self.row}"
        if self.column is not None:
            place += f", column {self.column!r}"
        return f"{place.removeprefix(', ')}: {self.message}" if place else self.message


@dataclass(slots=True)
class PromptRow:
    """One input row, with only the cells that a request is made of.

    `position` counts data rows from 0. `line` is the 1-based line on which the row begins (text files; else None).
    `cells` maps column names to values as the file has them: str for CSV; native values, NumberText for JSON numbers.
    """

    position: int
    line: int | None
    cells: Mapping[str, Any]


@dataclass(slots=True)
class Request:
    """What a row asks for, in no provider's words; made by `render`, turned into HTTP by a provider.

    `messages` is the chat to send (empty for images), `prompt` the text of an image. `project_id` is the one the
    row or the job gave, or None: then the provider makes one up when it builds. `fields` are further request fields.
    `hash_hex` covers all of this and the provider's name: equal hashes ask the same thing.
    """

    kind: Kind
    model: str
    messages: Sequence[Mapping[str, Json]] = ()
    prompt: str = ""
    aspect_ratio: str | None = None
    project_id: str | None = None
    fields: Mapping[str, Json] = field(default_factory=dict)
    hash_hex: str = ""
    idempotency_key: str | None = None


@dataclass(slots=True)
class WireRequest:
    """One HTTP POST: an absolute URL, a JSON body in bytes, and headers of this request beside the session's."""

    url: str
    body: bytes
    headers: Mapping[str, str] | None = None
    project_id: str | None = None


@dataclass(slots=True)
class WireResponse:
    """One whole HTTP answer, header names in small letters; `elapsed_s` is from sending to the last byte.

    `url` is where it was asked; `defect` says what is wrong with a body that could not be had whole ("broken gzip").
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_s: float
    url: str = ""
    defect: str = ""


class Answer(Enum):
    """What kind of answer an attempt met: the classes of DESIGN's answer table."""

    OK = "ok"
    INVALID = "invalid"  # a 2xx that is no answer
    REFUSAL = "refusal"  # a rate limit: says something about everyone
    TRANSIENT = "transient"  # says something about this row only; an attempt
    OUTAGE = "outage"  # no connection: everyone waits, no attempt
    SUSPECT = "suspect"  # 403, 404: fatal, or this row, by what else was seen
    FATAL = "fatal"  # stops the run
    PERMANENT = "permanent"  # this row cannot succeed
    DECLINED = "declined"  # the service declined the content


@dataclass(frozen=True, slots=True)
class RateHint:
    """A rate limit that a server states in headers: `limit` requests per `window_s`; what is left; when it resets."""

    limit: int | None = None
    window_s: float | None = None
    remaining: int | None = None
    reset_s: float | None = None


@dataclass(slots=True)
class Reply:
    """The outcome of one attempt, in no provider's words; `retry_after_s` is a floor in seconds from its arrival.

    `image_bytes` is an image that came inside the answer instead of an address; then `image_url` is None.
    """

    answer: Answer
    response: str | None = None
    image_url: str | None = None
    error_type: str | None = None
    message: str | None = None
    http_status: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    retry_after_s: float | None = None
    rate_hint: RateHint | None = None
    delivery: Delivery = "answered"
    latency_s: float = 0.0
    project_id: str | None = None
    image_bytes: bytes | None = None


class Attempt(NamedTuple):
    """One line of the ledger: a request of a row, in the order of the journal's columns.

    `number` counts the row's requests from 1 over all runs. `elapsed_us`, `http_status` are None without an answer.
    """

    row_id: int
    number: int
    run: int
    started_us: int
    elapsed_us: int | None
    http_status: int | None
    error_type: str | None
    delivery: Delivery


class Result(NamedTuple):
    """The final outcome of a row, in the order of the journal's columns; `run` is the journal's number of the run."""

    row_id: int
    status: Status
    response: str | None = None
    image_url: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    requests: int = 0
    latency_ms: int | None = None
    wait_ms: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    request_kind: str | None = None
    request_model: str | None = None
    request_project_id: str | None = None
    request_hash: bytes | None = None
    started_us: int | None = None
    finished_us: int = 0
    run: int = 0


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The user's own limit: at most `limit` sends in any sliding window of `window_s` seconds."""

    limit: int
    window_s: float

    def __str__(self) -> str:
        unit = {1.0: "s", 60.0: "min", 3600.0: "h"}.get(self.window_s, f"{self.window_s:g}s")
        return f"{self.limit}/{unit}"


@dataclass(frozen=True, slots=True)
class Share:
    """A number of rows, told as a count or as a percentage of all rows."""

    count: int | None = None
    percent: float | None = None

    def of(self, rows: int) -> float:
        """How many of `rows` rows it means."""
        return float(self.count) if self.count is not None else rows * (self.percent or 0.0) / 100


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run ended before all its rows did: the exit code, the short reason, and one sentence for the user."""

    exit_code: int
    exit_reason: str
    message: str


class Redactor:
    """Takes secrets out of texts; its `repr` shows none."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        # Longest first, so that a secret that holds another one is masked whole.
        self._secrets = sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """`text` with every secret replaced by `***`."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._secrets)} secrets>"
