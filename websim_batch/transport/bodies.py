"""What came back: the raw answer, and its body without its content encoding."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

from websim_batch.transport.failures import one_line

MOST_BYTES = 256 * 1024 * 1024
"""Largest body of an answer, also after decompression."""


class Heard(NamedTuple):
    """A whole answer, header names in small letters; `defect` says what is wrong with a body that is left out."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    defect: str = ""


def too_large() -> str:
    """The defect of a body that is cut off."""
    return f"more than {MOST_BYTES} bytes"


def decompressed(heard: Heard, encoding: str) -> Heard:
    """The answer with its body unpacked; a broken one is a defect, so that it does not hide the status."""
    name = encoding.strip().lower()
    if name in ("identity", "") or heard.defect or not heard.body:
        return heard
    if name not in ("gzip", "x-gzip", "deflate"):
        return heard._replace(body=b"", defect=f"content-encoding {one_line(name, 40)} was not asked for")
    is_raw = name == "deflate" and heard.body[0] & 0x0F != 8
    inflater = zlib.decompressobj(wbits=-15 if is_raw else 47)
    try:
        data = inflater.decompress(heard.body, MOST_BYTES)
    except zlib.error:
        return heard._replace(body=b"", defect=f"broken {name}")
    if inflater.unconsumed_tail:
        return heard._replace(body=b"", defect=too_large())
    return heard._replace(body=data) if inflater.eof else heard._replace(body=b"", defect=f"cut {name}")
