"""The models that a provider has, asked of the endpoint where the list is not fixed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from websim_batch.job.settings import Settings
from websim_batch.run.prepare import Endpoint, open_endpoint


def models(settings: Settings) -> Sequence[str]:
    """The models, default first; raises RequestError if the endpoint does not tell."""
    endpoint = open_endpoint(settings, os.environ)
    url = endpoint.provider.models_url()
    return (
        endpoint.provider.parse_models(None)
        if url is None
        else asyncio.run(_ask(endpoint, url, settings.timeout_s))
    )


async def _ask(endpoint: Endpoint, url: str, timeout_s: float) -> Sequence[str]:
    from websim_batch.transport import Transport, TransportSettings

    settings = TransportSettings(headers=endpoint.headers, timeout_s=timeout_s, proxy=endpoint.proxy)
    async with Transport(settings) as transport:
        return endpoint.provider.parse_models(await transport.get(url))
