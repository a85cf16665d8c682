"""The settings of one run, as one frozen value; every door (command line, job file, Python) ends here.

Fields have the option's name with its unit. Defaults stand here and nowhere else: `options.py` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from websim_batch.errors import UsageError
from websim_batch.records import Ceiling, Json, Share

Header: TypeAlias = tuple[str, str]

SENSITIVE_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})
"""Header names (lower case) whose values are secrets wherever they come from."""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_USERINFO = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """What a run is to do, checked; `input` None means standard input if `stdin`, else a table in memory.

    `template` is the text itself (an `@FILE` is read), `headers_env` holds `$NAMES` unexpanded,
    `retry_failed` () means all error types, `output` may hold `{date}`, `deadline` knows its zone.
    """

    input: Path | None = None
    stdin: bool = False
    prompt_column: str = "prompt"
    id_column: str | None = None
    template: str | None = None
    fields: tuple[str, ...] = ()
    data_columns: tuple[str, ...] = ()
    encoding: str | None = None
    delimiter: str | None = None
    limit: int | None = None

    provider: str = "websim"
    base_url: str | None = None
    sandbox: bool = False
    kind: Literal["auto", "chat", "image"] = "auto"
    model: str | None = None
    system: str | None = None
    aspect_ratio: str | None = None
    project_id: str | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    headers: tuple[Header, ...] = ()
    headers_env: tuple[Header, ...] = ()
    proxy: str | None = None
    trust_env: bool = False
    idempotency_header: str | None = None

    rate: tuple[Ceiling, ...] = ()
    concurrency: int = 16
    timeout_s: float = 120.0

    max_attempts: int = 5
    give_up_after_s: float = 600.0
    retry_failed: tuple[str, ...] | None = None
    on_drift: Literal["refuse", "keep", "resend"] = "refuse"
    overwrite: bool = False

    output: Path | None = None
    journal: Path | None = None
    prefix: str = ""
    bom: bool = False
    csv_safe: bool = False
    tolerate: Share | None = None

    max_failures: Share | None = None
    time_limit_s: float | None = None
    deadline: datetime | None = None
    grace_s: float = 30.0

    progress: Literal["auto", "bar", "log", "none"] = "auto"
    log_format: Literal["text", "json"] = "text"
    quiet: bool = False
    verbose: bool = False
    json: bool = False

    job_file: Path | None = None

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in public_settings(self).items())
        return f"<Settings {shown}>"


def public_settings(settings: Settings) -> dict[str, Json]:
    """The settings that differ from their defaults, as JSON values without secrets.

    For the manifest and `repr`. Header values are never shown; of `headers_env` the variables' names are.
    """
    plain = Settings()
    return {
        f.name: _public(f.name, getattr(settings, f.name))
        for f in fields(settings)
        if getattr(settings, f.name) != getattr(plain, f.name)
    }


def _public(name: str, value: object) -> Json:
    if name == "headers":
        return {key: "***" if text else "" for key, text in value}  # type: ignore[attr-defined]  # pairs
    if name == "headers_env":
        return {key: " ".join(f"${v}" for v in variables(text)) for key, text in value}  # type: ignore[attr-defined]
    if name in ("proxy", "base_url"):
        return mask_url(str(value))
    return _json(value)


def _json(value: object) -> Json:
    if isinstance(value, Share):
        return value.count if value.count is not None else f"{value.percent:g}%"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    return str(value) if isinstance(value, (Path, Ceiling)) else value


def mask_url(url: str) -> str:
    """The URL without the user and the password it may hold."""
    return _USERINFO.sub("//***@", url)


def variables(text: str) -> tuple[str, ...]:
    """The names of the environment variables that `text` holds as `$NAME` or `${NAME}`."""
    return tuple(braced or bare for braced, bare in _VARIABLE.findall(text))


def resolve_headers(
    settings: Settings, environ: Mapping[str, str]
) -> tuple[tuple[Header, ...], tuple[str, ...]]:
    """The user's headers with their variables filled in, and the secrets among all settings.

    The secrets go to a `Redactor`: values of variables, of sensitive headers, passwords in URLs. Raises
    UsageError for a variable that is not set; with the sandbox, which needs no key, it is not sent.
    """
    headers = list(settings.headers)
    secrets = [part for name, text in headers if name.lower() in SENSITIVE_HEADERS for part in _parts(text)]
    for name, text in settings.headers_env:
        missing = [v for v in variables(text) if not environ.get(v)]
        if missing and not settings.sandbox:
            raise UsageError(f"the header {name!r} needs the variable {missing[0]}, which is not set")
        if not missing:
            filled = _VARIABLE.sub(lambda found: environ[found[1] or found[2]], text)
            headers.append((name, filled))
            secrets += [environ[v] for v in variables(text)]
    for url in (settings.proxy, settings.base_url):
        secrets += _userinfo(url or "")
    return tuple(headers), tuple(dict.fromkeys(secrets))


def _parts(text: str) -> tuple[str, ...]:
    """A header's value and, of `Bearer KEY`, the key alone."""
    scheme, _, rest = text.partition(" ")
    return tuple(part for part in (text, rest if rest else scheme) if part)


def _userinfo(url: str) -> list[str]:
    found = _USERINFO.search(url)
    if not found:
        return []
    user, _, password = found[0][2:-1].partition(":")
    return [password or user]
