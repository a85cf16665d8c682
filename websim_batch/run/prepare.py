"""What a run needs before it touches the job's files: who is asked, and a table that was found sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websim_batch.errors import InputError
from websim_batch.job.settings import SENSITIVE_HEADERS, Settings, resolve_headers
from websim_batch.providers import Provider, get_provider
from websim_batch.providers.wire import check_proxy, merge_headers, proxy_from_environment
from websim_batch.records import Problem, PromptRow, Redactor
from websim_batch.render import Renderer
from websim_batch.tables import ReadOptions, Source, TableInfo, open_source

MOST_PROBLEMS = 50
"""So many problems are told in full; all are counted."""


@dataclass(slots=True)
class Table:
    """The input, read once and found sound: what it holds and how its rows become requests."""

    source: Source
    info: TableInfo
    renderer: Renderer

    def rows(self) -> Iterator[list[PromptRow]]:
        """Every row with the cells that a request is made of, in batches."""
        return self.source.rows(self.renderer.used_columns) if self.info.rows else iter(())


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who is asked and how: the provider, every request's headers, the proxy, and what must never be shown."""

    provider: Provider
    headers: Mapping[str, str] = field(repr=False)
    proxy: str | None = field(repr=False)
    redact: Redactor


def open_endpoint(settings: Settings, environ: Mapping[str, str]) -> Endpoint:
    """The endpoint that the settings name; raises UsageError for a URL, a header, a variable or a key that is wrong."""
    users, secrets = resolve_headers(settings, environ)
    provider = get_provider(settings.provider, settings.base_url, environ)
    headers = merge_headers(provider.session_headers(), users)
    provider.check(headers)
    proxy = check_proxy(settings.proxy) if settings.proxy else None
    if settings.trust_env:
        proxy = proxy_from_environment(provider.base_url)
    keys = [
        text.partition(" ")[2] or text for name, text in headers.items() if name.lower() in SENSITIVE_HEADERS
    ]
    password = urlsplit(proxy).password if proxy else None
    return Endpoint(provider, headers, proxy, Redactor([*secrets, *keys, password or ""]))


def open_input(settings: Settings, stack: ExitStack, table: object = None) -> Source:
    """The input, not read yet; `table` is a table in memory, in place of the settings' path.

    `stack` closes what a spooled input holds. Raises UsageError for a file that is missing or of no known kind.
    """
    where = table if table is not None else "-" if settings.stdin else settings.input
    source = open_source(where, ReadOptions(settings.encoding, settings.delimiter, settings.limit))
    stack.callback(source.close)
    return source


def read_table(settings: Settings, source: Source, provider: Provider) -> Table:
    """Read the input's structure; raises InputError with every problem it has, also with its columns."""
    problems: list[Problem] = []
    info = source.scan(problems, MOST_PROBLEMS)
    if problems:
        raise InputError(problems)
    # A file with nothing in it, not even a header, is an empty table: no row is there to lack a prompt.
    columns = info.columns if info.columns or info.rows else (settings.prompt_column,)
    return Table(source, info, Renderer(settings, columns, provider.facts))
