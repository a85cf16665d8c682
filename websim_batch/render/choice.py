"""Which kind of request a row makes and which model it names: by the row, the options, or by default."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from websim_batch.errors import UsageError
from websim_batch.job.parse import nearest
from websim_batch.job.settings import Settings
from websim_batch.jsontext import dumps
from websim_batch.providers import FieldType, ProviderFacts
from websim_batch.records import Json, Kind
from websim_batch.render.cells import BadCellError, field_of, is_empty

KINDS: tuple[Kind, ...] = ("chat", "image")


class Chooser:
    """Decides kind and model of rows; `has_models` says whether a column names them.

    Raises UsageError for settings that do not fit the provider.
    """

    def __init__(self, settings: Settings, facts: ProviderFacts, has_models: bool) -> None:
        self._settings = settings
        self._facts = facts
        self._check_options(has_models)

    def choose(self, kind_cell: Any, model_cell: Any) -> tuple[Kind, str]:
        """Kind and model for the two cells of a row.

        Raises BadCellError: structural for a name that does not exist, else for names that do not agree.
        """
        kind = None if is_empty(kind_cell) else self.known_kind(kind_cell)
        model = None if is_empty(model_cell) else self.known_model(model_cell)
        own = self._kind_of(model)
        if kind and own and kind != own:
            raise BadCellError("bad_kind", f"says {kind}, but the model {model!r} makes {own}s", "kind")
        kind = kind or own or self._usual_kind(model)
        return kind, model or self._usual_model(kind)

    def known_kind(self, cell: Any) -> Kind:
        """The kind that a cell names; raises a structural BadCellError."""
        for kind in KINDS:
            if cell == kind:
                return kind
        raise _unknown("kind", cell, KINDS)

    def known_model(self, cell: Any) -> str:
        """The model that a cell names; raises a structural BadCellError."""
        models = self._facts.models
        if not isinstance(cell, str) or (models is not None and cell not in models):
            raise _unknown("model", cell, models or ())
        return str(cell)

    def _kind_of(self, model: str | None) -> Kind | None:
        """The kind that a model makes, where the provider's lists tell it."""
        if model is None or (self._facts.models is None and model not in self._facts.image_models):
            return None
        return "image" if model in self._facts.image_models else "chat"

    def _usual_kind(self, row_model: str | None) -> Kind:
        """What rows ask for that do not say it: the option's kind, else that of the option's model."""
        if self._settings.kind != "auto":
            return self._settings.kind
        return (self._kind_of(self._settings.model) if row_model is None else None) or "chat"

    def _usual_model(self, kind: Kind) -> str:
        option = self._settings.model
        if option is not None and self._kind_of(option) in (None, kind):
            return option
        facts = self._facts
        model = facts.default_image_model if kind == "image" else facts.default_model
        if not model:
            raise BadCellError(
                "no_model", f"names no model, and {facts.name} has none of its own; give --model", "model"
            )
        return model

    def _check_options(self, has_models: bool) -> None:
        s, facts = self._settings, self._facts
        if s.model is not None and facts.models is not None and s.model not in facts.models:
            raise UsageError(
                f"--model: {facts.name} has no model {s.model!r}{nearest(s.model, facts.models)};"
                f" it has {', '.join(facts.models)}"
            )
        own = self._kind_of(s.model)
        if own and s.kind != "auto" and own != s.kind:
            raise UsageError(
                f"--kind {s.kind} and --model {s.model} contradict each other: the model makes {own}s"
            )
        if facts.requires_model and not s.model and not has_models:
            raise UsageError(f"--model is needed: {facts.name} has none of its own, and no column names one")
        ratios = facts.aspect_ratios
        if s.aspect_ratio is not None and ratios is not None and s.aspect_ratio not in ratios:
            raise UsageError(
                f"--aspect-ratio: {facts.name} has no {s.aspect_ratio!r}; it has {', '.join(ratios)}"
            )


def _unknown(column: str, cell: Any, known: Iterable[str]) -> BadCellError:
    known = tuple(known)
    there_are = f"; there are {', '.join(known)}" if known else ""
    hint = nearest(str(cell), known).rstrip("?") or there_are
    return BadCellError(
        f"unknown_{column}",
        f"{cell!r} is no {column}{hint}; if the column is plain data, add --data-column {column}",
        column,
        is_structural=True,
    )


class FieldTypes:
    """The types of the fields that `--field` and `--param` name; raises UsageError for unknown ones."""

    def __init__(self, settings: Settings, facts: ProviderFacts) -> None:
        self._known = facts.known_fields
        self._fixed = facts.fixed_fields
        self._is_open = facts.takes_other_fields
        every = sorted({name for kind in KINDS for name in self._known.get(kind, {})})
        for flag, names in (("--field", settings.fields), ("--param", tuple(settings.params))):
            for name in names:
                if name not in every and not self._is_open:
                    told = nearest(name, every).rstrip("?") or f"; it has {', '.join(every)}"
                    raise UsageError(f"{flag}: {facts.name} has no request field {name!r}{told}")
        self.params = {kind: self._params(kind, settings) for kind in KINDS}

    def takes(self, kind: Kind, name: str) -> bool:
        """Whether a request of this kind can hold the field; else it is left out."""
        mine = name in self._known.get(kind, {})
        return mine or (self._is_open and not any(name in fields for fields in self._known.values()))

    def read(self, kind: Kind, name: str, cell: Any) -> Json:
        """The field that a cell which is not empty makes; raises BadCellError."""
        return self._allowed(name, field_of(cell, self._type_of(kind, name)))

    def _allowed(self, name: str, value: Json) -> Json:
        only = self._fixed.get(name, value)
        if value != only:
            said, wanted = (dumps(v).decode() for v in (value, only))
            raise BadCellError("bad_field", f"holds {said}, but can only be {wanted}: one row has one answer")
        return value

    def _type_of(self, kind: Kind, name: str) -> FieldType | None:
        """The field's type; None where the provider does not tell it."""
        return self._known.get(kind, {}).get(name)

    def _params(self, kind: Kind, settings: Settings) -> dict[str, Json]:
        """The job's own fields for requests of one kind, checked against their types."""
        found: dict[str, Json] = {}
        for name, value in sorted(settings.params.items()):
            if self.takes(kind, name):
                try:
                    found[name] = None if value is None else self._param(kind, name, value)
                except BadCellError as exc:
                    raise UsageError(f"--param {name}: {exc}") from None
        return found

    def _param(self, kind: Kind, name: str, value: Json) -> Json:
        """A parameter is JSON already, so a text stays one where any JSON may stand."""
        wanted = self._type_of(kind, name)
        is_text = isinstance(value, str) and wanted in ("json", None)
        return self._allowed(name, field_of(value, "text" if is_text else wanted))
