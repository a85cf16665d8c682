"""Which columns mean what, and what is wrong with a table's columns before any row is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from websim_batch.job.drift import MEANINGFUL_COLUMNS
from websim_batch.job.parse import nearest
from websim_batch.job.settings import Settings
from websim_batch.records import OUTPUT_COLUMNS, Problem

_OURS = tuple(name for name, _ in OUTPUT_COLUMNS)
_SIGNATURE = frozenset({"status", "request_hash", "run_id"})


def roles_of(settings: Settings, columns: Sequence[str]) -> dict[str, str]:
    """The columns that a request is made of, by what they mean: `prompt`, `system`, `model`, …"""
    data = set(settings.data_columns)
    roles = {name: name for name in sorted(MEANINGFUL_COLUMNS) if name in columns and name not in data}
    if settings.template is None and settings.prompt_column in set(columns) - data:
        roles["prompt"] = settings.prompt_column
    # A column with a meaning of its own that also serves as prompt column is the prompt.
    return {
        role: column for role, column in roles.items() if role == "prompt" or column != roles.get("prompt")
    }


def column_problems(settings: Settings, columns: Sequence[str]) -> list[Problem]:
    """What is wrong with the columns: each structural, with its remedy."""
    path = str(settings.input or "")
    found = [*_clashes(settings, columns), *_no_prompt(settings, columns), *_missing(settings, columns)]
    return [Problem(kind, message, path) for kind, message in found]


def _clashes(settings: Settings, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    ours = {settings.prefix + name for name in _OURS}
    clashing = [name for name in columns if name in ours]
    if not clashing:
        return
    if {settings.prefix + name for name in _SIGNATURE} <= set(clashing):
        yield (
            "own_output",
            "is an output of websim-batch itself; to continue that job give its input again,"
            " to use this table as input of a new one add --prefix new_",
        )
        return
    told = ", ".join(repr(name) for name in clashing)
    yield "name_clash", f"the output has columns called {told} of its own; add --prefix websim_"


def _no_prompt(settings: Settings, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    wanted = settings.prompt_column
    has_messages = "messages" in columns and "messages" not in settings.data_columns
    has_prompt = wanted in columns and wanted not in settings.data_columns
    if settings.template is not None or has_prompt or (has_messages and wanted == "prompt"):
        return
    delimiter = _delimiter(columns, settings)
    if delimiter:
        yield "delimiter", f"has one column, {columns[0]!r}; read it with --delimiter {delimiter}"
        return
    hint = nearest(wanted, columns).replace("; did you mean", "; perhaps --prompt-column").rstrip("?")
    told = ", ".join(columns) or "none"
    yield (
        "no_prompt",
        f"has no column {wanted!r}; its columns are {told}{hint or '; name one by --prompt-column'}",
    )


def _delimiter(columns: Sequence[str], settings: Settings) -> str | None:
    """How to write the delimiter that a lone column's name seems to hold."""
    if len(columns) != 1 or settings.delimiter is not None:
        return None
    return next(
        (told for sign, told in ((";", "';'"), ("\t", "'\\t'"), ("|", "'|'")) if sign in columns[0]), None
    )


def _missing(settings: Settings, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    named = [("--id-column", settings.id_column)]
    named += [("--field", name) for name in settings.fields]
    named += [("--data-column", name) for name in settings.data_columns]
    for flag, name in named:
        if name is not None and name not in columns:
            hint = nearest(name, columns) or f"; its columns are {', '.join(columns)}"
            yield "no_column", f"has no column {name!r} for {flag}{hint}"
