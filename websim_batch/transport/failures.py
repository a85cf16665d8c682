"""Failures: aiohttp's and the system's errors in our own tree and words, and what a failure means for a row."""

from __future__ import annotations

import os
import re
import ssl

from aiohttp import client_exceptions as foreign

from websim_batch.errors import ConnectionFailedError, OutageError, RequestTimeoutError, TransportError
from websim_batch.records import Answer, Reply

_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def reply_of_failure(error: TransportError) -> Reply:
    """The reply that a request without an answer amounts to."""
    return Reply(
        Answer.OUTAGE if isinstance(error, OutageError) else Answer.TRANSIENT,
        error_type=error.error_type,
        message=str(error),
        delivery=error.delivery,
        latency_s=error.elapsed_s,
    )


def map_error(error: Exception, is_sent: bool, proxy: str = "") -> TransportError:
    """The error of our own tree for one of aiohttp's or of the system's; one of our own as it is.

    `proxy` is the address of the proxy, for words.
    """
    if isinstance(error, TransportError):
        return error
    kind = next((_KINDS[base] for base in type(error).__mro__ if base in _KINDS), "connection")
    if kind == "timeout" and is_sent:
        return RequestTimeoutError("no answer within the timeout")
    if kind in ("timeout", "no_connection"):
        return OutageError(_outage_words(error, proxy))
    if kind == "tls" and not is_sent:
        return OutageError(_tls_words(error), "tls")
    failure = ConnectionFailedError(_broken_words(error))
    failure.delivery = "unknown" if is_sent else "not_sent"
    return failure


_KINDS: dict[type[BaseException], str] = {
    # In the order of aiohttp's own list; the most specific class of an error's ancestry counts.
    foreign.ClientError: "connection",
    foreign.ClientConnectionError: "connection",
    foreign.ClientConnectionResetError: "connection",
    foreign.ClientOSError: "connection",
    foreign.ClientConnectorError: "no_connection",
    foreign.ClientProxyConnectionError: "no_connection",
    foreign.ClientSSLError: "tls",
    foreign.ClientConnectorDNSError: "no_connection",
    foreign.ClientConnectorSSLError: "tls",
    foreign.ClientConnectorCertificateError: "tls",
    foreign.ConnectionTimeoutError: "no_connection",
    foreign.SocketTimeoutError: "timeout",
    foreign.ServerConnectionError: "connection",
    foreign.ServerTimeoutError: "timeout",
    foreign.ServerDisconnectedError: "connection",
    foreign.ServerFingerprintMismatch: "tls",
    foreign.ClientResponseError: "connection",
    foreign.ClientHttpProxyError: "no_connection",
    foreign.ContentTypeError: "connection",
    foreign.ClientPayloadError: "connection",
    foreign.InvalidURL: "no_connection",
    foreign.InvalidUrlClientError: "no_connection",
    foreign.RedirectClientError: "connection",
    foreign.NonHttpUrlClientError: "no_connection",
    foreign.InvalidUrlRedirectClientError: "connection",
    foreign.NonHttpUrlRedirectClientError: "connection",
    foreign.TooManyRedirects: "connection",
    foreign.UnixClientConnectorError: "no_connection",
    ssl.SSLError: "tls",
    TimeoutError: "timeout",
    OSError: "connection",
}
if hasattr(foreign, "UploadAbortedError"):  # newer than the oldest aiohttp we take
    _KINDS[foreign.UploadAbortedError] = "connection"


def _outage_words(error: Exception, proxy: str) -> str:
    if isinstance(error, foreign.ClientProxyConnectionError):
        return f"cannot connect to the proxy {proxy}: {_system_words(error)}"
    if isinstance(error, foreign.ClientConnectorDNSError):
        return f"the host name {error.host} is not known ({_system_words(error)})"
    if isinstance(error, foreign.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {_system_words(error)}"
    if isinstance(error, foreign.ConnectionTimeoutError):
        return f"no connection in time: {one_line(str(error))}"
    return one_line(f"no connection: {error or type(error).__name__}")


def _system_words(error: foreign.ClientConnectorError) -> str:
    cause = error.os_error
    if cause.errno == 24:
        return "too many open files; lower --concurrency or raise `ulimit -n`"
    words = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror
    return one_line(words or str(cause) or type(cause).__name__)


def _tls_words(error: Exception) -> str:
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    words = one_line(str(cause) or type(cause).__name__)
    host = getattr(error, "host", None)
    hint = "; does the server speak plain http?" if "WRONG_VERSION_NUMBER" in words.upper() else ""
    return f"TLS with {host} failed: {words}{hint}" if host else f"TLS failed: {words}{hint}"


def _broken_words(error: Exception) -> str:
    if isinstance(error, foreign.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, foreign.ClientPayloadError):
        words = re.search(r"message=(['\"])(.*?)\1", str(error))
        return one_line(f"the answer was cut: {words.group(2) if words else error}")
    if isinstance(error, foreign.ClientResponseError):
        return one_line(f"the answer is no valid HTTP: {error.message}")
    return one_line(f"the connection broke: {error or type(error).__name__}")


def one_line(text: str, longest: int = 300) -> str:
    """`text` on one line, cut with an ellipsis."""
    line = _BLANKS.sub(" ", text).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"
