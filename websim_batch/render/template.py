"""Prompts from a Jinja2 template: immutable sandbox, strict names, bounded output.

A cell is data: what it holds is never read as a template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from websim_batch import jsontext
from websim_batch.errors import UsageError
from websim_batch.job.parse import nearest
from websim_batch.render.cells import BadCellError, text_of

MAX_CHARS = 16 * 2**20
"""The longest prompt that a template may make."""

ROW = "row"
"""The name under which a template reaches columns whose names are no identifiers: `{{ row["my text"] }}`."""

MAX_WIDTH = 10_000
"""The widest that padding, indenting and formatting may go."""

_WIDE = re.compile(r"[0-9]{5,}|\*")


class _Environment(ImmutableSandboxedEnvironment):
    """Also refuses what makes a huge text of a small one, before it is made."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(right, int) and abs(right) > 1000:
            raise SecurityError("a power beyond 1000")
        if operator == "%" and isinstance(left, str):
            _check_widths(left, ())
        if operator in "*+" and _size(left, operator, right) > MAX_CHARS:
            raise SecurityError(f"more than {MAX_CHARS:,} characters")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        # Jinja wraps `str.format`; the text it belongs to stands behind the wrapper.
        text = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if isinstance(text, str):
            _check_widths(text if function.__name__.startswith("format") else "", args)
        return super().call(context, function, *args, **kwargs)


def _check_widths(format_text: str, args: Sequence[Any]) -> None:
    """Refuse a width beyond MAX_WIDTH, in a format or as an argument."""
    if _WIDE.search(format_text) or any(isinstance(arg, int) and arg > MAX_WIDTH for arg in args):
        raise SecurityError(f"a width beyond {MAX_WIDTH:,}")


def _narrow(make: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's that takes a width or a format, with the width checked."""

    @wraps(make)
    def checked(text: Any, *args: Any, **kwargs: Any) -> Any:
        _check_widths(str(text) if make.__name__ == "do_format" else "", (*args, *kwargs.values()))
        return make(text, *args, **kwargs)

    return checked


def _size(left: Any, operator: str, right: Any) -> int:
    """How long the result of `+` or `*` will be, where it has a length at all."""
    if operator == "+":
        return len(left) + len(right) if hasattr(left, "__len__") and hasattr(right, "__len__") else 0
    sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
    return len(sized) * times if hasattr(sized, "__len__") and isinstance(times, int) else 0


class PromptTemplate:
    """A template over the columns of one table; `columns` are those it reads, in the table's order.

    Raises UsageError for a template that is broken or names what is no column.
    """

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        environment = _environment()
        try:
            tree = _Joins().visit(environment.parse(text))
            self._template: Template = environment.from_string(tree)
        except TemplateSyntaxError as exc:
            raise UsageError(f"--template, line {exc.lineno}: {exc.message}") from None
        except TemplateError as exc:
            raise UsageError(f"--template: {exc}") from None
        if next(meta.find_referenced_templates(tree), ...) is not ...:
            raise UsageError(
                "--template: include, import and extends are not available; write it in one file"
            )
        names = meta.find_undeclared_variables(tree) - set(environment.globals)
        self._gives_row = ROW in names and ROW not in columns
        used = names - {ROW} | _subscripts(tree, columns) if self._gives_row else names
        _refuse_unknown(used, columns)
        self.columns = tuple(column for column in columns if column in used)

    def render(self, cells: Mapping[str, Any]) -> str:
        """The prompt of a row; raises BadCellError where the template fails on it."""
        values = {name: cells.get(name) for name in self.columns}
        if self._gives_row:
            values[ROW] = dict(values)
        try:
            return _bounded(self._template.generate(values))
        except BadCellError:
            raise
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as exc:
            raise BadCellError("template", f"the template fails on this row: {_one_line(exc)}") from None
        except (RecursionError, MemoryError) as exc:
            raise BadCellError("template", f"the template takes too much: {type(exc).__name__}") from None


class _Joins(NodeTransformer):
    """Makes `a ~ b` a filter of ours, so that it is bounded and prints values as `{{ }}` does."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802  # Jinja's name
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "_joined", [], [], None, None, lineno=node.lineno)


def _joined(values: Sequence[Any]) -> str:
    return _bounded(str(_said(value)) for value in values)


def _environment() -> _Environment:
    environment = _Environment(undefined=StrictUndefined, finalize=_said, autoescape=False)
    # These make random text, so that no two runs would send the same request.
    del environment.globals["lipsum"]
    del environment.filters["random"]
    environment.filters["_joined"] = _joined
    for name in ("format", "center", "indent"):
        environment.filters[name] = _narrow(environment.filters[name])
    return environment


def _said(value: Any) -> Any:
    """What `{{ value }}` prints: cells as their file wrote them, nothing for null."""
    if isinstance(value, (str, StrictUndefined)):
        return value
    if isinstance(value, (list, tuple, Mapping)):
        return jsontext.dumps(value).decode()
    return text_of(value)


def _subscripts(tree: nodes.Template, columns: Sequence[str]) -> set[str]:
    """The columns reached through `row`; all of them where a name is only known when it runs."""
    known: set[str] = set()
    reached: set[int] = set()
    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        assert isinstance(node, (nodes.Getitem, nodes.Getattr))
        key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        if isinstance(node.node, nodes.Name) and node.node.name == ROW and isinstance(key, str):
            known.add(key)
            reached.add(id(node.node))
    is_open = any(name.name == ROW and id(name) not in reached for name in tree.find_all(nodes.Name))
    return known | set(columns) if is_open else known


def _refuse_unknown(names: Iterable[str], columns: Sequence[str]) -> None:
    unknown = [
        f"{name!r}{nearest(name, columns).removesuffix('?')}" for name in sorted(set(names) - set(columns))
    ]
    if unknown:
        raise UsageError(
            f"--template: no column is called {', '.join(unknown)}; the columns are {', '.join(columns)}"
        )


def _bounded(pieces: Iterable[str]) -> str:
    found: list[str] = []
    chars = 0
    for piece in pieces:
        chars += len(piece)
        if chars > MAX_CHARS:
            raise BadCellError(
                "template", f"the template makes more than {MAX_CHARS:,} characters of this row"
            )
        found.append(piece)
    return "".join(found)


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__
