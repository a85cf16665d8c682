"""What a request and a row are known by: blake2b over canonical JSON, equal in every process and version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

from websim_batch import jsontext
from websim_batch.records import Json, Request

HASH_BYTES = 16
CELLS_BYTES = 8


def text_json(text: str) -> bytes:
    """A text as JSON; fast for all but lone surrogates."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return jsontext.dumps(text)


def canonical(request: Request, provider: str) -> bytes:
    """A request as JSON with sorted keys; what it does not say is absent, so that new fields change no hash.

    Raises ValueError for NaN, TypeError for what is no JSON value.
    """
    said: dict[str, Json] = {
        "aspect_ratio": request.aspect_ratio,
        "fields": dict(request.fields),
        "kind": request.kind,
        "messages": list(request.messages),
        "model": request.model,
        "project_id": request.project_id,
        "prompt": request.prompt,
        "provider": provider,
    }
    return jsontext.dumps(_sorted({name: value for name, value in said.items() if value}))


def _sorted(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {name: _sorted(item) for name, item in sorted(value.items())}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value


def request_hash(request: Request, provider: str) -> str:
    """The hash of a request in hexadecimal; a made-up project id is not part of it."""
    return blake2b(canonical(request, provider), digest_size=HASH_BYTES).hexdigest()


def cells_json(cells: list[Any]) -> bytes:
    """Names and values of cells in a row as JSON; what JSON does not know is written as `str` tells it."""
    try:
        return orjson.dumps(cells, default=str)
    except TypeError:  # integers beyond 64 bits, lone surrogates
        return json.dumps(cells, default=str, ensure_ascii=True).encode()
