"""Rows to requests: the one place that knows what the cells of a table mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar

from websim_batch.errors import InputError
from websim_batch.job.parse import nearest
from websim_batch.job.settings import Settings
from websim_batch.providers import ProviderFacts
from websim_batch.records import Json, Kind, Problem, PromptRow, Request
from websim_batch.render.cells import BadCellError, is_empty, text_of
from websim_batch.render.choice import Chooser, FieldTypes
from websim_batch.render.columns import column_problems, roles_of
from websim_batch.render.hashing import (
    CELLS_BYTES,
    HASH_BYTES,
    canonical,
    cells_json,
    request_hash,
    text_json,
)
from websim_batch.render.messages import Message, chat_of, image_text, messages_of

Cells: TypeAlias = Mapping[str, Any]
_T = TypeVar("_T")


class Skip(Enum):
    """What a row with nothing to send renders to."""

    EMPTY = "empty"


SKIP = Skip.EMPTY
"""An empty or null prompt: the row ends `skipped`."""

_MARK = "\x00prompt\x00"


class Renderer:
    """Turns rows of one table into requests under one job's settings.

    `used_columns` are the columns it reads, in the table's order. `checks_rows` says whether
    `structural_problem` can find anything. Raises InputError for columns that do not fit, UsageError for
    options that do not.
    """

    def __init__(self, settings: Settings, columns: Sequence[str], provider: ProviderFacts) -> None:
        problems = column_problems(settings, columns)
        if problems:
            raise InputError(problems)
        self._settings = settings
        self._facts = provider
        self._path = str(settings.input or "")
        self._roles = roles_of(settings, columns)
        self._chooser = Chooser(settings, provider, "model" in self._roles)
        self._types = FieldTypes(settings, provider)
        self._prompt_of = self._prompt_reader(columns)
        self._known_by = self._identity_columns()
        used = {column for _, column in self._known_by} | {settings.id_column}
        self.used_columns = tuple(column for column in columns if column in used)
        self.checks_rows = "kind" in self._roles or "model" in self._roles
        self._make = self._make_plain if self._is_plain() else self._make_any
        if self._make == self._make_plain:
            self._prepare_plain()

    def identity(self, row: PromptRow) -> bytes:
        """What the row is known by, 16 bytes: the cells it uses, or its id; equal rows have equal ones."""
        column = self._settings.id_column
        if column is None:
            return blake2b(self._cells(row.cells), digest_size=HASH_BYTES).digest()
        return blake2b(cells_json(["id", _id_text(row.cells.get(column))]), digest_size=HASH_BYTES).digest()

    def cells_hash(self, row: PromptRow) -> bytes | None:
        """With an id column, 8 bytes of the cells the row uses, which tell an edited row; else None."""
        if self._settings.id_column is None:
            return None
        return blake2b(self._cells(row.cells), digest_size=CELLS_BYTES).digest()

    def render(self, row: PromptRow) -> Request | Skip | Problem:
        """What the row asks for; SKIP for an empty prompt; a Problem for a cell that makes no request."""
        try:
            return self._make(row.cells)
        except BadCellError as exc:
            return self._problem(row, exc)

    def structural_problem(self, row: PromptRow) -> Problem | None:
        """A `kind` or `model` that does not exist and so refuses the file; cheaper than `render`."""
        try:
            for role, known in (("kind", self._chooser.known_kind), ("model", self._chooser.known_model)):
                cell = row.cells.get(self._roles[role]) if role in self._roles else None
                if not is_empty(cell):
                    known(cell)
        except BadCellError as exc:
            return self._problem(row, exc)
        return None

    def _problem(self, row: PromptRow, exc: BadCellError) -> Problem:
        column = self._roles.get(exc.column or "", exc.column)
        place = {"path": self._path, "line": row.line, "row": row.position + 1, "column": column}
        return Problem(exc.kind, str(exc), is_structural=exc.is_structural, **place)  # type: ignore[arg-type]

    def _prompt_reader(self, columns: Sequence[str]) -> Callable[[Cells], str]:
        if self._settings.template is not None:
            from websim_batch.render.template import PromptTemplate

            self._template = PromptTemplate(self._settings.template, columns)
            return self._template.render
        column = self._roles.get("prompt")
        return _nothing if column is None else lambda cells: _in_column(column, text_of, cells.get(column))

    def _identity_columns(self) -> tuple[tuple[str, str], ...]:
        """The names under which cells count for the identity, sorted, and their columns."""
        known = dict(self._roles) | {f"field:{name}": name for name in self._settings.fields}
        if self._settings.template is not None:
            known |= {f"template:{name}": name for name in self._template.columns}
        return tuple(sorted(known.items()))

    def _cells(self, cells: Cells) -> bytes:
        """The cells that say something, by what they mean: a new column of empty cells changes no row."""
        known: list[Any] = []
        for name, column in self._known_by:
            value = cells.get(column)
            if value is not None and value != "":
                known.append(name)
                known.append(value)
        return cells_json(known)

    # A table with a prompt column alone, or a template alone: everything but the prompt is made once.

    def _is_plain(self) -> bool:
        return self._roles.keys() <= {"prompt"} and not self._settings.fields

    def _prepare_plain(self) -> None:
        self._plain = self._request(*self._chooser.choose(None, None), {}, [], _MARK)
        self._system = list(self._plain.messages[:-1])
        head, tail = canonical(self._plain, self._facts.name).split(text_json(_MARK))
        self._head, self._tail = head, tail
        self._prompt_column = None if self._settings.template is not None else self._roles.get("prompt")

    def _make_plain(self, cells: Cells) -> Request | Skip:
        prompt = None if self._prompt_column is None else cells.get(self._prompt_column)
        if type(prompt) is not str:  # a template, a number, nothing
            prompt = self._prompt_of(cells)
        if not prompt:
            return SKIP
        plain = self._plain
        document = self._head + text_json(prompt) + self._tail
        hash_hex = blake2b(document, digest_size=HASH_BYTES).hexdigest()
        if plain.kind == "image":
            return replace(plain, prompt=prompt, hash_hex=hash_hex)
        messages: list[Message] = [*self._system, {"role": "user", "content": prompt}]
        return Request("chat", plain.model, messages, "", None, plain.project_id, plain.fields, hash_hex)

    # Any other table.

    def _make_any(self, cells: Cells) -> Request | Skip:
        prompt = self._prompt_of(cells)
        messages = _in_column("messages", messages_of, self._cell("messages", cells))
        if not prompt and not messages:
            return SKIP
        kind, model = self._chooser.choose(self._cell("kind", cells), self._cell("model", cells))
        request = self._request(kind, model, cells, messages, prompt)
        try:
            request.hash_hex = request_hash(request, self._facts.name)
        except (ValueError, TypeError, RecursionError) as exc:
            raise BadCellError("not_json", f"cannot be said in JSON: {exc}") from None
        return request

    def _request(self, kind: Kind, model: str, cells: Cells, messages: list[Message], prompt: str) -> Request:
        settings = self._settings
        request = Request(kind, model, fields=self._fields(kind, cells))
        request.project_id = self._text("project_id", cells) or settings.project_id
        if kind == "image":
            request.prompt = prompt or image_text(messages)
            request.aspect_ratio = self._aspect_ratio(cells)
            if not request.prompt:
                raise BadCellError("bad_messages", "have no text of a user to make an image of", "messages")
        else:
            request.messages = chat_of(messages, prompt, self._text("system", cells) or settings.system or "")
        return request

    def _cell(self, role: str, cells: Cells) -> Any:
        column = self._roles.get(role)
        return None if column is None else cells.get(column)

    def _text(self, role: str, cells: Cells) -> str:
        return _in_column(role, text_of, self._cell(role, cells))

    def _aspect_ratio(self, cells: Cells) -> str | None:
        ratio, known = self._text("aspect_ratio", cells), self._facts.aspect_ratios
        if ratio and known is not None and ratio not in known:
            hint = nearest(ratio, known).rstrip("?") or f"; there are {', '.join(known)}"
            raise BadCellError("aspect_ratio", f"{ratio!r} is no aspect ratio{hint}", "aspect_ratio")
        return ratio or self._settings.aspect_ratio

    def _fields(self, kind: Kind, cells: Cells) -> Mapping[str, Json]:
        """The request fields: the job's, and over them what the row says."""
        found = self._types.params[kind]
        for name in self._settings.fields:
            value = cells.get(name)
            if not is_empty(value) and self._types.takes(kind, name):
                read = partial(self._types.read, kind, name)
                found = {**found, name: _in_column(name, read, value)}
        return found


def _nothing(cells: Cells) -> str:
    return ""


def _in_column(column: str, read: Callable[[Any], _T], value: Any) -> _T:
    """What `read` makes of a cell; a BadCellError of it tells the column."""
    try:
        return read(value)
    except BadCellError as exc:
        exc.column = exc.column or column
        raise


def _id_text(value: Any) -> str:
    """An id as text, so that 7 and "7" are the same row."""
    try:
        return text_of(value)
    except BadCellError:
        return repr(value)
