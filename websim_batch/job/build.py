"""Make Settings of what the command line, Python and a job file say; refuse what contradicts itself.

Every mistake is told, not only the first. What the command line (or a keyword) says wins over the job file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from websim_batch.errors import UsageError
from websim_batch.job.conflicts import conflicts, exclusive, losers
from websim_batch.job.options import BY_KEYWORD, OPTIONS, Option
from websim_batch.job.parse import nearest, path
from websim_batch.job.paths import default_output, is_job_file, with_infix
from websim_batch.job.settings import Settings

Values: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says: parsed values by the names of `Settings`, and how that place calls an option."""

    values: Values
    call: Callable[[str], str]


def call_flag(name: str) -> str:
    """What the command line calls the option `name`."""
    return OPTIONS[name].flags[-1] if name in OPTIONS else "INPUT"


def call_keyword(name: str) -> str:
    """What Python calls the option `name`."""
    return OPTIONS[name].keywords[0] if name in OPTIONS else "input"


def call_key(name: str) -> str:
    """What a job file calls the option `name`."""
    table, _, key = (OPTIONS[name].key if name in OPTIONS else "input.path").partition(".")
    return f"[{table}] {key}"


def settings_from_kwargs(**kwargs: object) -> Settings:
    """The settings that keyword arguments ask for; `input` may be a table's path, '-' or a job file.

    None and an absent argument say nothing. Raises UsageError that tells every mistake.
    """
    return build(kwargs, call_keyword)


def settings_from_jobfile(file: Path | str, overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings of a job file, with `overrides` (keyword arguments) on top; raises UsageError as above."""
    return build({**(overrides or {}), "input": file}, call_keyword)


def build(
    raw: Mapping[str, object],
    call: Callable[[str], str] = call_flag,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings for raw values by keyword; `call` names an option in messages as its place calls it."""
    mistakes: list[str] = []
    top = Layer(parse_values(raw, call, mistakes), call)
    below = Layer({}, call_key)
    source = top.values.get("input")
    job_file = source if isinstance(source, Path) and is_job_file(source) else None
    if job_file is not None:
        from websim_batch.job.jobfile import read_job_file

        below = Layer(read_job_file(job_file, mistakes), call_key)
        del top.values["input"]
    settings = _settle(top, below, job_file, environ if environ is not None else os.environ, mistakes)
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return settings


def parse_values(raw: Mapping[str, object], call: Callable[[str], str], mistakes: list[str]) -> Values:
    """The parsed values by the names of `Settings`; what cannot be parsed is told in `mistakes`."""
    values: Values = {}
    for keyword, value in raw.items():
        option = BY_KEYWORD.get(keyword)
        if option is None and keyword != "input":
            mistakes.append(f"unknown option {keyword!r}{nearest(keyword, BY_KEYWORD)}")
            continue
        name = option.name if option else "input"
        if option and not is_said(option, value):
            continue
        if name in values:
            mistakes.append(f"{call(name)}: is given twice, under two names")
            continue
        try:
            values[name] = option.parse(value, Path()) if option else _input(value)
        except ValueError as exc:
            mistakes.append(f"{call(name)}: {exc}")
    return values


def is_said(option: Option, value: object) -> bool:
    """Whether a value says anything: None, an empty list of several and a flag that is off do not."""
    return not (
        value is None or (option.multiple and value in ((), [])) or (value is False and not option.key)
    )


def _input(value: object) -> Path | str | None:
    return "-" if value == "-" else None if value is None else path(value, Path())


def _settle(
    top: Layer, below: Layer, job_file: Path | None, environ: Mapping[str, str], mistakes: list[str]
) -> Settings:
    """Both layers as one, with what follows from them: the endpoint of the environment, the output's path."""
    for layer in (top, below):
        mistakes += exclusive(layer.values, layer.call)
    values = _merge(top, below)
    if values.get("input") == "-":
        values |= {"input": None, "stdin": True}
    settings = replace(Settings(), **values, job_file=job_file)  # type: ignore[arg-type]  # parsed by the table
    if settings.base_url is None and not settings.sandbox and environ.get("WEBSIM_BATCH_BASE_URL"):
        settings = _with_base_url(settings, environ["WEBSIM_BATCH_BASE_URL"], mistakes)
    settings = replace(settings, output=_output(settings, "output" in top.values, top.call, mistakes))
    if settings.sandbox and settings.journal and "journal" not in top.values:
        settings = replace(settings, journal=with_infix(settings.journal, "sandbox"))
    mistakes += conflicts(
        settings, lambda name: (below if name in below.values and name not in top.values else top).call(name)
    )
    return settings


def _merge(top: Layer, below: Layer) -> Values:
    """What both say; of a pair that excludes itself across the layers the upper one holds."""
    kept = dict(below.values)
    for name in losers(top.values):
        kept.pop(name, None)
    return {**kept, **top.values}


def _with_base_url(settings: Settings, url: str, mistakes: list[str]) -> Settings:
    try:
        return replace(settings, base_url=str(OPTIONS["base_url"].parse(url, Path())))
    except ValueError as exc:
        mistakes.append(f"the environment variable WEBSIM_BATCH_BASE_URL: {exc}")
        return settings


def _output(
    settings: Settings, is_upper: bool, call: Callable[[str], str], mistakes: list[str]
) -> Path | None:
    """Where the table goes: as told, a rehearsal of a job file beside it, else beside the input."""
    if settings.output is not None:
        own = is_upper or not settings.sandbox
        return settings.output if own else with_infix(settings.output, "sandbox")
    if settings.input is not None:
        return default_output(settings.input, settings.sandbox)
    if settings.stdin:
        mistakes.append(f"{call('output')} is needed with '-': give the table to write, as out.csv")
    return None
