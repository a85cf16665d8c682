"""What requests and rows are known by: equal everywhere, different where the answer may be."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from websim_batch.job.build import build
from websim_batch.providers.websim import FACTS
from websim_batch.records import NumberText, PromptRow, Request
from websim_batch.render import Renderer
from websim_batch.render.hashing import request_hash


def renderer(columns: list[str], **raw: object) -> Renderer:
    """A renderer for websim."""
    return Renderer(build({"input": "p.csv", **raw}, environ={}), columns, FACTS)


def row(cells: dict[str, Any], position: int = 0) -> PromptRow:
    """A row of these cells."""
    return PromptRow(position, None, cells)


def hash_of(cells: dict[str, Any], **raw: object) -> str:
    """The request hash of a row in a table of its own columns."""
    found = renderer(list(cells), **raw).render(row(cells))
    assert isinstance(found, Request)
    return found.hash_hex


def identity(cells: dict[str, Any], **raw: object) -> bytes:
    """The identity of a row in a table of its own columns."""
    return renderer(list(cells), **raw).identity(row(cells))


def test_hashes_are_those_of_earlier_versions() -> None:
    """A journal written by an earlier version is understood: these values never change."""
    assert hash_of({"prompt": "Hi 🦊"}, system="x") == "1c8259bca97e67615d53044afe22b3fb"
    assert (
        hash_of({"prompt": "Hi", "seed": "7"}, kind="image", fields=["seed"])
        == "712ad44c1364324b51233bffaced32bb"
    )
    assert identity({"prompt": "Hi 🦊", "system": "x"}).hex() == "ccd3855c20491ebf86c5bffac13bc25d"


def test_hashes_are_equal_in_another_process() -> None:
    """Neither hash depends on the process (no seed, no addresses)."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from test_render_hashes import hash_of, identity;"
        "print(hash_of({'prompt': 'a'}), identity({'prompt': 'a'}).hex())"
    )
    folder = __file__.rpartition("/")[0]
    told = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    ).stdout

    assert told.split() == [hash_of({"prompt": "a"}), identity({"prompt": "a"}).hex()]


@pytest.mark.parametrize("kind", ["chat", "image"])
@pytest.mark.parametrize("prompt", ["Hi", 'a"b\\c\n', "null", "\ud800", "🦊" * 1000], ids=repr)
def test_the_short_way_is_the_long_way(kind: str, prompt: str) -> None:
    """A table with a prompt column alone gets the hash that the whole request has."""
    found = renderer(["prompt"], kind=kind, project_id="p").render(row({"prompt": prompt}))

    assert isinstance(found, Request)
    assert found.hash_hex == request_hash(found, "websim")
    assert found.hash_hex == hash_of({"prompt": prompt, "system": ""}, kind=kind, project_id="p")


def test_what_changes_an_answer_changes_the_hash() -> None:
    """Prompt, system, model, kind, shape, project, fields: each makes another request."""
    cells: dict[str, Any] = {"prompt": "x"}
    hashes = [
        hash_of(cells),
        hash_of({"prompt": "y"}),
        hash_of(cells, system="s"),
        hash_of(cells, model="gemini-1.5-flash"),
        hash_of(cells, project_id="p"),
        hash_of(cells, params={"json": True}),
        hash_of(cells, kind="image"),
        hash_of(cells, kind="image", aspect_ratio="1:1"),
        hash_of(cells, kind="image", params={"seed": 1}),
        hash_of({"prompt": "x", "messages": '[{"role": "user", "content": "y"}]'}),
    ]

    assert len(set(hashes)) == len(hashes)


def test_what_changes_no_answer_changes_no_hash() -> None:
    """Endpoint, pace, other columns and the order of keys make no other request."""
    assert hash_of({"prompt": "x"}) == hash_of({"id": "1", "prompt": "x"}, base_url="http://x", rate="1/s")
    one = '[{"role": "user", "content": "y"}]'
    other = '[{"content": "y", "role": "user"}]'
    assert hash_of({"messages": one}) == hash_of({"messages": other}) == hash_of({"prompt": "y"})


def test_identity_is_of_the_cells_a_row_uses() -> None:
    """Other columns do not count, nor do positions; a used cell does."""
    assert identity({"prompt": "x", "topic": "a"}) == identity({"topic": "b", "prompt": "x"})
    assert identity({"prompt": "x", "system": "a"}) != identity({"prompt": "x", "system": "b"})
    assert identity({"prompt": "x", "model": ""}) == identity({"prompt": "x"})
    assert identity({"prompt": "ab", "system": "c"}) != identity({"prompt": "a", "system": "bc"})
    assert identity({"prompt": "7"}) == identity({"prompt": NumberText("7")})
    assert len(identity({"prompt": "x"})) == 16


def test_every_value_has_an_identity() -> None:
    """Values that JSON does not know do not stop the first pass."""
    values: list[Any] = ["\ud800", 2**70, float("nan"), b"x", [1, {"a": 2}], {"a": 1}, True, None, ""]

    assert len({identity({"prompt": value}) for value in values}) == len(values) - 1


def test_identity_by_id() -> None:
    """With --id-column a row is its id, however it was written; what it asks tells an edited row."""
    found = renderer(["id", "prompt"], id_column="id")
    one, other = row({"id": "7", "prompt": "x"}), row({"id": 7, "prompt": "y"}, 1)

    assert found.identity(one) == found.identity(other) != found.identity(row({"id": "8", "prompt": "x"}))
    assert found.cells_hash(one) != found.cells_hash(other)
    assert len(found.cells_hash(one) or b"") == 8
    assert renderer(["id", "prompt"]).cells_hash(one) is None
