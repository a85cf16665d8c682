"""One attempt: a provider builds the HTTP request, the transport sends it, the provider reads the answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from websim_batch.errors import TransportError
from websim_batch.providers import Provider
from websim_batch.records import Reply, Request
from websim_batch.run.images import ImageFolder
from websim_batch.throttle import Grant
from websim_batch.transport import Transport, reply_of_failure


class Attempts:
    """Makes attempts for the engine. `redact` takes secrets out of messages; images in bytes go to `images`."""

    def __init__(
        self,
        provider: Provider,
        transport: Transport,
        redact: Callable[[str], str],
        images: ImageFolder,
        idempotency_header: str | None = None,
    ) -> None:
        self._provider = provider
        self._transport = transport
        self._redact = redact
        self._images = images
        self._idempotency_header = idempotency_header

    async def __call__(self, request: Request, grant: Grant) -> Reply:
        """The outcome of one HTTP try; a failure to get an answer is a Reply too.

        Raises HeldBackError if the grant was called back before anything was sent, and DiskFullError, or UsageError,
        for an image that cannot be kept.
        """
        wire = self._provider.build(request)
        # A generated id stays the same on every attempt of a row.
        request.project_id = wire.project_id
        if self._idempotency_header is not None and request.idempotency_key is not None:
            wire.headers = {**(wire.headers or {}), self._idempotency_header: request.idempotency_key}
        try:
            response = await self._transport.send(wire, grant)
        except TransportError as exc:
            reply = reply_of_failure(exc)
        else:
            reply = self._provider.parse(request, response, time.time())
        if reply.message is not None:
            reply.message = self._redact(reply.message)
        if reply.image_bytes is not None:
            reply.image_url = await self._images.keep(reply.image_bytes)
        return reply
