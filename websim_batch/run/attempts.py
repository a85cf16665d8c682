"""One attempt: a provider builds the HTTP request, the transport sends it, the provider reads the answer."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from websim_batch.errors import TransportError
from websim_batch.providers import Provider
from websim_batch.records import Reply, Request
from websim_batch.tables.save import atomic_write
from websim_batch.transport import Transport, reply_of_failure


class Attempts:
    """Makes attempts for the engine. `redact` takes secrets out of messages; images in bytes go to `images_folder`.

    `images_folder` is made when the first image comes; `image_url` is then the image's path relative to its parent.
    """

    def __init__(
        self,
        provider: Provider,
        transport: Transport,
        redact: Callable[[str], str],
        images_folder: Path,
        idempotency_header: str | None = None,
    ) -> None:
        self._provider = provider
        self._transport = transport
        self._redact = redact
        self._images_folder = images_folder
        self._idempotency_header = idempotency_header

    async def __call__(self, request: Request) -> Reply:
        """The outcome of one HTTP try; a failure to get an answer is a Reply too."""
        wire = self._provider.build(request)
        # A generated id stays the same on every attempt of a row.
        request.project_id = wire.project_id
        if self._idempotency_header is not None and request.idempotency_key is not None:
            wire.headers = {**(wire.headers or {}), self._idempotency_header: request.idempotency_key}
        try:
            response = await self._transport.send(wire)
        except TransportError as exc:
            reply = reply_of_failure(exc)
        else:
            reply = self._provider.parse(request, response, time.time())
        if reply.message is not None:
            reply.message = self._redact(reply.message)
        if reply.image_bytes is not None:
            reply.image_url = await asyncio.to_thread(self._keep_image, reply.image_bytes)
        return reply

    def _keep_image(self, image: bytes) -> str:
        """Write the image under the hash of its bytes, so that equal ones share a file and none is written over."""
        self._images_folder.mkdir(exist_ok=True)
        path = self._images_folder / f"{hashlib.blake2b(image, digest_size=16).hexdigest()}.{_suffix(image)}"
        with atomic_write(path) as file:
            file.write(image)
        return f"{self._images_folder.name}/{path.name}"


def _suffix(image: bytes) -> str:
    """The usual suffix for an image, told by its first bytes."""
    if image.startswith(b"\xff\xd8"):
        return "jpg"
    return "webp" if image[:4] == b"RIFF" and image[8:12] == b"WEBP" else "png"
