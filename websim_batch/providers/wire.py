"""The parts of the wire that a user may set (headers, base URL, proxy), checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, urlsplit

from websim_batch.errors import UsageError

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_FORBIDDEN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS_ALONE = frozenset({"content-length", "transfer-encoding", "content-encoding", "connection", "upgrade"})


def check_header(name: str, value: str) -> None:
    """Raise UsageError for a header that cannot be sent; the message never shows the value."""
    if not _TOKEN.fullmatch(name):
        hint = f"; {name.rstrip(';')!r} is meant" if _TOKEN.fullmatch(name.rstrip(";")) else ""
        raise UsageError(f"--header: {name!r} is no legal header name{hint}")
    if _FORBIDDEN_VALUE.search(value):
        raise UsageError(f"--header {name}: the value holds a line break or a control character")
    if name.lower() in _OURS_ALONE:
        raise UsageError(f"--header {name}: this header is made for each request; leave it out")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"--header {name}: the value is no valid text") from None


def merge_headers(ours: Mapping[str, str], theirs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Our headers with the user's over them, whatever the case of the names; an empty value removes ours.

    Raises UsageError for an illegal name or value.
    """
    merged = {name.lower(): (name, value) for name, value in ours.items()}
    for name, value in theirs:
        name, value = name.strip(), value.strip()
        check_header(name, value)
        merged.pop(name.lower(), None)
        if value:
            merged[name.lower()] = (name, value)
    return dict(merged.values())


def mend_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` with curl's notation `websim-flags;` (send it empty) turned into the header that is meant."""
    return {(name.rstrip(";") if name.endswith(";") else name): value for name, value in headers.items()}


def check_base_url(url: str) -> str:
    """The base URL without a slash at its end. Raises UsageError with what is wrong."""
    parts = _split(url, "--base-url")
    if parts.scheme not in ("http", "https"):
        hint = f"; https://{url} is perhaps meant" if "://" not in url else ""
        raise UsageError(f"--base-url {mask_url(url)}: must begin with https:// or http://{hint}")
    if not parts.hostname:
        raise UsageError(f"--base-url {mask_url(url)}: names no host")
    if parts.username or parts.password:
        raise UsageError(f"--base-url {mask_url(url)}: holds a password; use --header-env 'Authorization: …'")
    if parts.query or parts.fragment:
        raise UsageError(f"--base-url {mask_url(url)}: must end with the path, without ? and #")
    return url.rstrip("/")


def check_proxy(url: str) -> str:
    """The proxy's URL as it is. Raises UsageError for kinds that are not spoken, with the password masked."""
    shown = mask_url(url)
    if "://" not in url:
        raise UsageError(f"--proxy {shown}: must be a URL; http://{shown} is perhaps meant")
    parts = _split(url, "--proxy")
    if parts.scheme.startswith("socks"):
        raise UsageError(
            f"--proxy {shown}: SOCKS is not supported; name an HTTP proxy (http://host:port), "
            "or put one in front of it"
        )
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"--proxy {shown}: must begin with http:// or https://")
    if not parts.hostname:
        raise UsageError(f"--proxy {shown}: names no host")
    return url


def _split(url: str, option: str) -> SplitResult:
    if re.search(r"[\x00-\x20\x7f]", url):
        raise UsageError(f"{option} {mask_url(url)!r}: holds a blank or a control character")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{option} {mask_url(url)}: {error}") from None
    return parts


def origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def mask_url(url: str) -> str:
    """The URL with its password masked, for messages; a user name alone may be a token, and is masked too."""
    credentials, at, rest = url.rpartition("@")
    if not at:
        return url
    scheme, separator, user = credentials.rpartition("://")
    name, colon, _ = user.partition(":")
    return f"{scheme}{separator}{name + ':***' if colon else '***'}@{rest}"


def proxy_from_environment(url: str) -> str | None:
    """The proxy that HTTP(S)_PROXY and NO_PROXY name for `url`; looked up once per run, not per request."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return check_proxy(proxy) if proxy else None
