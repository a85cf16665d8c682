"""The head of a POST in bytes, as far as it is the same for every row."""

from __future__ import annotations

import re
from collections.abc import Mapping

from multidict import CIMultiDict
from yarl import URL

_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def post_head(url: URL, headers: Mapping[str, str], over: Mapping[str, str] | None = None) -> bytes:
    """The head up to the value of Content-Length; `over` lies over the headers.

    Raises ValueError for a header that holds a line break or a control character.
    """
    merged = CIMultiDict(headers)
    merged.update(over or {})
    lines = [f"POST {url.raw_path_qs} HTTP/1.1"]
    if "host" not in merged:
        host = url.host_subcomponent or ""
        lines.append(f"Host: {host}" if url.is_default_port() else f"Host: {host}:{url.port}")
    lines += [f"{name}: {value}" for name, value in merged.items()]
    if any(map(_FORBIDDEN.search, lines)):
        raise ValueError("a header holds a line break or a control character")
    lines.append("Content-Length: ")
    return "\r\n".join(lines).encode()
