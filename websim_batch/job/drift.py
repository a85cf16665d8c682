"""Drift: the settings that change answers, and how they differ from those a job began with."""

from __future__ import annotations

from collections.abc import Mapping

from websim_batch.job.settings import Settings
from websim_batch.records import Json

MEANINGFUL_COLUMNS = frozenset({"messages", "system", "kind", "model", "aspect_ratio", "project_id"})
"""Columns that are read by their name; `--data-column` takes the meaning from them."""

_LONGEST = 60


def answer_settings(settings: Settings) -> dict[str, Json]:
    """The settings that change answers, as JSON values; a journal keeps those its job began with."""
    template = settings.template
    return {
        "provider": settings.provider,
        "kind": settings.kind,
        "model": settings.model,
        "template": template,
        "system": settings.system,
        "params": dict(sorted(settings.params.items())),
        "aspect_ratio": settings.aspect_ratio,
        "project_id": settings.project_id,
        "prompt_column": settings.prompt_column if template is None else None,
        "fields": sorted(settings.fields),
        "id_column": settings.id_column,
        # Only those that would mean something: to call plain data plain data changes no answer.
        "data_columns": sorted({*settings.data_columns} & {*MEANINGFUL_COLUMNS, "prompt"}),
    }


def differences(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    """One sentence for each setting that differs; a setting that `old` does not know had its default."""
    known = answer_settings(Settings())
    return [
        f"{name} was {_told(old.get(name, known.get(name)))}, now it is {_told(value)}"
        for name, value in new.items()
        if old.get(name, known.get(name)) != value
    ]


def _told(value: Json) -> str:
    if value is None or value in ([], {}):
        return "not given"
    written = repr(value)
    return written if len(written) <= _LONGEST else f"{written[: _LONGEST - 1]}…"
