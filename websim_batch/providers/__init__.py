"""The services that this tool can speak to, each as pure functions; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping

from websim_batch.errors import UsageError
from websim_batch.providers.base import FieldType, Provider, ProviderFacts
from websim_batch.providers.wire import check_base_url

PROVIDERS = ("websim", "openai")
"""The names that `--provider` takes, the default first."""

__all__ = ["PROVIDERS", "FieldType", "Provider", "ProviderFacts", "get_provider", "own_secrets"]


def get_provider(name: str, base_url: str | None, environ: Mapping[str, str]) -> Provider:
    """The provider of that name behind `base_url` (None: WEBSIM_BATCH_BASE_URL, or else its own default).

    Raises UsageError for an unknown name or an unusable URL.
    """
    if name not in PROVIDERS:
        raise UsageError(f"--provider {name}: unknown; use one of {', '.join(PROVIDERS)}")
    base_url = base_url or environ.get("WEBSIM_BATCH_BASE_URL") or None
    if base_url is not None:
        base_url = check_base_url(base_url)
    if name == "openai":
        from websim_batch.providers.openai import OpenAIProvider

        return OpenAIProvider(base_url, environ)
    from websim_batch.providers.websim import WebsimProvider

    return WebsimProvider(base_url)


def own_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The keys that a provider takes from the environment by itself; they must never be shown."""
    from websim_batch.providers.openai import KEY_VARIABLE

    key = environ.get(KEY_VARIABLE, "").strip()
    return (key,) if key else ()
