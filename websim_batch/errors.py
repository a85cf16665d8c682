"""Everything that can go wrong, as one tree.

A row that fails is a value in a column; only what stops a whole run, or one call of the class `Websim`, is raised.

    WebsimBatchError                 anything this package raises on purpose
    ├── UsageError                   wrong usage: an option, a job file, a path; nothing was sent (exit 2)
    │   ├── InputError               the table's structure is broken; carries every problem found
    │   ├── InputChangedError        the input file changed while a run was reading it
    │   ├── DriftError               settings that change answers differ from those the journal began with
    │   ├── ForeignFileError         a file in the way is not ours
    │   └── JournalError             the journal cannot be used: newer version, damaged, network file system
    ├── LockedError                  another run holds this output; nothing was sent (exit 6)
    ├── EndpointRefusesError         the endpoint refuses everything; what finished is saved (exit 5)
    ├── DiskFullError                the disk is full or failed under the journal or the output (exit 4)
    ├── InternalError                a fault of ours; what finished is saved (exit 1)
    ├── HeldBackError                a request that the throttle called back before its first byte; stays inside
    └── RequestError                 one request failed; `error_type` says how
        ├── TransportError           no answer came back
        │   ├── RequestTimeoutError  nothing within the timeout
        │   ├── ConnectionFailedError  the connection broke after it stood
        │   └── OutageError          no connection at all: refused, DNS, TLS, proxy
        ├── BadResponseError         a 200 that is no answer
        └── ResponseStatusError      the service refused by status code
            ├── MissingAuthError     401
            ├── CloudflareError      403 with a challenge page
            └── RateLimitError       429, or a rate limit told in other words
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from websim_batch.records import Delivery, Problem


class WebsimBatchError(Exception):
    """Anything this package raises on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(WebsimBatchError):
    """Wrong usage: the message says what was found, where, and what to do. Nothing was sent."""

    exit_code = 2


class InputError(UsageError):
    """The input table cannot be used as it is; `problems` holds each one with its place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InputChangedError(UsageError):
    """The input changed while it was read; what finished is in the journal."""


class DriftError(UsageError):
    """Settings that change answers differ from those the journal began with."""


class ForeignFileError(UsageError):
    """A file at a path we want to write is not ours, or belongs to another job."""


class JournalError(UsageError):
    """The journal cannot be used: a newer version, damaged, or on a network file system."""


class LockedError(WebsimBatchError):
    """Another run holds this output; nothing was sent."""

    exit_code = 6


class EndpointRefusesError(WebsimBatchError):
    """The endpoint refuses everything (`error_type` says how); what finished is saved, the job can be resumed."""

    exit_code = 5

    def __init__(self, error_type: str, message: str) -> None:
        self.error_type = error_type
        super().__init__(message)


class DiskFullError(WebsimBatchError):
    """A disk is full, or failed, under the journal or the output; what was committed is kept."""

    exit_code = 4


class InternalError(WebsimBatchError):
    """A fault of ours; what finished is saved."""


class HeldBackError(WebsimBatchError):
    """The request's connection stands, but it may not be sent any more; it waits for its turn again."""


class RequestError(WebsimBatchError):
    """One request failed; `error_type` is the short stable kind of DESIGN's answer table."""

    error_type = "internal"
    exit_code = 5


class TransportError(RequestError):
    """No usable HTTP answer came back; `delivery` says whether the server may have acted on the request."""

    error_type = "connection"
    exit_code = 4
    delivery: Delivery = "unknown"
    elapsed_s = 0.0


class RequestTimeoutError(TransportError):
    """Nothing, or not everything, arrived within the timeout."""

    error_type = "timeout"


class ConnectionFailedError(TransportError):
    """The connection was reset or cut after it stood; the request may have been paid for."""


class OutageError(TransportError):
    """No connection could be made (refused, DNS, TLS, proxy), so the request was not sent."""

    delivery: Delivery = "not_sent"

    def __init__(self, message: str, error_type: str = "connection") -> None:
        super().__init__(message)
        self.error_type = error_type


class BadResponseError(RequestError):
    """The service said 200, but what came is no answer: empty, cut, HTML, an error object."""

    error_type = "bad_response"


class ResponseStatusError(RequestError):
    """The service refused the request; `status` is the HTTP status, `error_type` the kind."""

    def __init__(self, status: int, message: str, error_type: str = "bad_request") -> None:
        self.status = status
        self.message = message
        self.error_type = error_type
        super().__init__(f"HTTP {status}: {message}")


class MissingAuthError(ResponseStatusError):
    """401: the service wants a key, or refuses the one it got."""


class CloudflareError(ResponseStatusError):
    """403 with a challenge page: a shield in front of the service takes us for a robot."""


class RateLimitError(ResponseStatusError):
    """A rate limit that did not end in time."""
