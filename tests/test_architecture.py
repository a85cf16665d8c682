"""The import graph of the design, held."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "websim_batch"

# Who may import whom, from the top down; everybody may import `records` and `errors`.
ALLOWED: dict[str, set[str]] = {
    "__main__": {"cli"},
    "__init__": {"api", "client", "frames"},
    "cli": {"run", "job", "progress", "providers", "sandbox", "__init__"},
    "api": {"run", "job", "tables", "frames"},
    "frames": {"run", "job", "tables", "progress"},
    "run": {
        "engine", "job", "render", "providers", "transport", "tables", "progress",
        "journal", "throttle", "retry", "sandbox", "jsontext", "__init__",
    },
    "engine": {"retry", "throttle", "journal"},
    "client": {"providers", "transport", "retry", "jsontext"},
    "render": {"job", "providers", "jsontext"},
    "progress": {"job"},
    "transport": set(),
    "providers": {"jsontext"},
    "tables": {"jsontext"},
    "journal": set(),
    "throttle": set(),
    "retry": set(),
    "job": set(),
    "sandbox": {"jsontext"},
    "jsontext": set(),
    "records": set(),
    "errors": set(),
}  # fmt: skip

# Each library is met in these places alone.
ONLY_IN: dict[str, set[str]] = {
    "aiohttp": {"transport", "sandbox"},
    "httptools": {"transport"},
    "aiolimiter": {"throttle"},
    "sqlite3": {"journal"},
    "pyarrow": {"tables", "frames", "api"},
    "pandas": {"tables", "frames", "api"},
    "click": {"cli"},
    "rich": {"progress"},
    "jinja2": {"render"},
    "pydantic": {"job"},
}


def module_of(path: Path) -> str:
    """The module or package of the graph that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions and for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "websim_batch":
                found |= {f"websim_batch.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_go_down_only(path: Path) -> None:
    """A module imports only what the drawn graph lets it import."""
    me = module_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "websim_batch" and len(parts) > 1 and parts[1] != me:
            target = "__init__" if parts[1] == "__version__" else parts[1]
            assert target in ALLOWED[me] | {"records", "errors"}, f"{me} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_library_is_met_in_one_place(path: Path) -> None:
    """Third-party I/O stands behind one door each."""
    me = module_of(path)
    for name in imports(path):
        library = name.split(".")[0]
        assert me in ONLY_IN.get(library, {me}), f"{me} must not import {library}"


@pytest.mark.parametrize("name", ["errors.py", "records.py"])
def test_the_ground_floor_needs_only_the_standard_library(name: str) -> None:
    """`errors` and `records` stand on nothing but the standard library and each other."""
    for imported in imports(PACKAGE / name):
        top = imported.split(".")[0]
        assert top in sys.stdlib_module_names or imported in ("websim_batch.records", "websim_batch.errors")


def test_the_graph_has_no_circle() -> None:
    """What may be imported lies strictly below."""
    done: set[str] = set()
    rest = {name: below - {"__init__"} for name, below in ALLOWED.items() if name not in ("__init__",)}
    while rest:
        floor = {name for name, below in rest.items() if below <= done}
        assert floor, f"a circle among {sorted(rest)}"
        done |= floor
        rest = {name: below for name, below in rest.items() if name not in floor}
