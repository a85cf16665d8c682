"""What rows become: requests, skipped rows, and rows with a bad cell."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from websim_batch import jsontext
from websim_batch.errors import InputError, UsageError
from websim_batch.job.build import build
from websim_batch.providers import ProviderFacts
from websim_batch.records import NumberText, Problem, PromptRow, Request
from websim_batch.render import SKIP, Renderer, Skip

CLOSED = ProviderFacts(
    name="closed",
    models=("pro", "mini", "draw"),
    image_models=("draw",),
    default_model="pro",
    default_image_model="draw",
    aspect_ratios=("1:1", "16:9"),
    known_fields={
        "chat": {"json": "bool", "note": "text"},
        "image": {"seed": "int", "strength": "number", "inputs": "json"},
    },
)
OPEN = ProviderFacts(
    name="open", image_models=("draw",), requires_model=True, takes_other_fields=True,
    known_fields={"chat": {"temperature": "number"}},
)  # fmt: skip


def renderer(columns: list[str], facts: ProviderFacts = CLOSED, **raw: object) -> Renderer:
    """A renderer for a table of these columns under options as on the command line."""
    return Renderer(build({"input": "p.csv", **raw}, environ={}), columns, facts)


def render(
    cells: Mapping[str, Any], facts: ProviderFacts = CLOSED, **raw: object
) -> Request | Skip | Problem:
    """What one row becomes, in a table of its columns."""
    return renderer(list(cells), facts, **raw).render(PromptRow(4, 6, cells))


def request(cells: Mapping[str, Any], facts: ProviderFacts = CLOSED, **raw: object) -> Request:
    """The request of a row that makes one."""
    found = render(cells, facts, **raw)
    assert isinstance(found, Request), found
    return found


def problem(cells: Mapping[str, Any], facts: ProviderFacts = CLOSED, **raw: object) -> Problem:
    """The problem of a row that has one; its place is told."""
    found = render(cells, facts, **raw)
    assert isinstance(found, Problem), found
    assert (found.path, found.line, found.row) == ("p.csv", 6, 5)
    return found


USER = {"role": "user", "content": "Hi"}


def test_a_prompt_is_a_user_message() -> None:
    """A prompt becomes one user message to the default model."""
    found = request({"id": "1", "prompt": "Hi"})

    assert (found.kind, found.model, found.messages) == ("chat", "pro", [USER])


@pytest.mark.parametrize(
    "text",
    [
        "007",
        "NA",
        "null",
        " ",
        "\n",
        "a\rb",
        "🦊",
        "{{ x }}",
        "12345678901234567890",
        "a\u2028b",
        "\ud800",
        "x" * 200_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_prompt_is_sent_as_it_stands(text: str) -> None:
    """Whatever a cell holds is sent as it is; a blank is a prompt."""
    assert request({"prompt": text}).messages == [{"role": "user", "content": text}]


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_prompt_is_skipped(value: object) -> None:
    """Only an empty or null prompt is skipped, in every kind of table."""
    assert render({"prompt": value}) is SKIP
    assert render({"prompt": value, "system": "x", "model": "mini"}) is SKIP
    assert render({"prompt": value, "messages": value}) is SKIP


@pytest.mark.parametrize(
    ("value", "text"),
    [(NumberText("1.10"), "1.10"), (NumberText("12345678901234567890"), "12345678901234567890"), (7, "7"),
     (1.5, "1.5"), (True, "true"), (Decimal("1.10"), "1.10"), (2**70, str(2**70))],
)  # fmt: skip
def test_numbers_in_a_prompt_column(value: object, text: str) -> None:
    """Numbers and booleans are sent as the file wrote them, as text."""
    content = request({"prompt": value}).messages[0]["content"]

    assert (content, type(content)) == (text, str)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], {"a": 1}, b"x"])
def test_prompts_that_are_no_text(value: object) -> None:
    """NaN and structures in a prompt column end that row, naming the column."""
    found = problem({"prompt": value})

    assert not found.is_structural
    assert found.column == "prompt"


def test_system() -> None:
    """The row's system message wins over the option, one in `messages` over both; empty says nothing."""
    system = {"role": "system", "content": "row"}

    assert request({"prompt": "Hi", "system": "row"}, system="job").messages == [system, USER]
    assert request({"prompt": "Hi", "system": ""}, system="row").messages == [system, USER]
    assert request({"prompt": "Hi"}, system="row").messages == [system, USER]
    inner = [{"role": "system", "content": "inner"}, USER]
    assert request({"messages": inner, "system": "row"}, system="job").messages == inner


@pytest.mark.parametrize("is_text", [True, False])
def test_messages(is_text: bool) -> None:
    """Messages are JSON text or native; a prompt beside them becomes the last user message."""
    parts = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "Yes?"},
    ]
    cell = jsontext.dumps(messages).decode() if is_text else messages

    assert request({"messages": cell}).messages == messages
    assert request({"messages": cell, "prompt": "Hi"}).messages == [*messages, USER]
    assert request({"messages": "", "prompt": "Hi"}).messages == [USER]


def test_the_cells_own_messages_are_not_changed() -> None:
    """A native list is not touched when a prompt or a system message joins it."""
    cell = [dict(USER)]
    request({"messages": cell, "prompt": "x", "system": "y"})

    assert cell == [USER]


def test_numbers_in_messages_keep_their_digits() -> None:
    """What messages hold is passed through, digit by digit."""
    cell = '[{"role":"user","content":[{"type":"x","n":1.10,"m":12345678901234567890123}]}]'

    assert jsontext.dumps(request({"messages": cell}).messages) == cell.encode()


@pytest.mark.parametrize(
    "cell",
    ["[", "{}", "7", '"x"', "[1]", '[{"role": "user"}]',
     '[{"content": "x"}]',
     '[{"role": "user", "content": 7}]', '[{"role": "user", "content": []}]',
     '[{"role":"user","content":["x"]}]',
     '[{"role": "user", "content": NaN}]', "[" * 100_000, NumberText("7"), 7, [{"role": "", "content": "x"}]],
    ids=lambda cell: repr(cell)[:20],
)  # fmt: skip
def test_broken_messages(cell: object) -> None:
    """Broken messages end that row, with the column."""
    found = problem({"messages": cell, "prompt": "x"})

    assert not found.is_structural
    assert found.column == "messages"


def test_nan_inside_native_messages() -> None:
    """NaN deep inside ends the row instead of becoming null."""
    messages = [{"role": "user", "content": [{"type": "x", "n": float("nan")}]}]

    assert "JSON" in problem({"messages": messages}).message


@pytest.mark.parametrize(
    ("cells", "raw", "expected"),
    [
        ({}, {}, ("chat", "pro")),
        ({"model": "draw"}, {}, ("image", "draw")),
        ({"model": "mini"}, {"model": "draw"}, ("chat", "mini")),
        ({"model": ""}, {"model": "draw"}, ("image", "draw")),
        ({"model": "mini"}, {"kind": "image"}, ("chat", "mini")),
        ({"kind": "image"}, {}, ("image", "draw")),
        ({"kind": "image"}, {"model": "mini"}, ("image", "draw")),
        ({"kind": "chat"}, {"kind": "image"}, ("chat", "pro")),
        ({"kind": None}, {"kind": "image"}, ("image", "draw")),
    ],
)
def test_kind_and_model(cells: dict[str, Any], raw: dict[str, Any], expected: tuple[str, str]) -> None:
    """The row decides first, by its kind, then by its model; then the options, then the provider."""
    found = request({"prompt": "x", **cells}, **raw)

    assert (found.kind, found.model) == expected


def test_kind_and_model_with_any_names() -> None:
    """Where any model name may be right, the option says what an unknown one makes."""
    assert request({"prompt": "x", "model": "new"}, OPEN, kind="image").kind == "image"
    assert request({"prompt": "x", "model": "draw"}, OPEN).kind == "image"
    assert request({"prompt": "x", "kind": "image"}, OPEN, model="new").model == "new"
    assert problem({"prompt": "x", "model": ""}, OPEN).column == "model"


def test_a_kind_against_its_model_ends_the_row() -> None:
    """A chat with an image model is a bad cell, not a bad file."""
    assert not problem({"prompt": "x", "kind": "chat", "model": "draw"}).is_structural


@pytest.mark.parametrize(
    ("column", "value"), [("kind", "Image"), ("kind", "video"), ("model", "prp"), ("model", 7)]
)
def test_a_kind_or_model_that_does_not_exist(column: str, value: object) -> None:
    """It refuses the file, and proposes --data-column."""
    found = problem({"prompt": "x", column: value})

    assert found.is_structural
    assert f"--data-column {column}" in found.message
    checker = renderer(["prompt", column])
    assert checker.checks_rows
    assert checker.structural_problem(PromptRow(4, 6, {"prompt": "", column: value})) == found
    assert checker.structural_problem(PromptRow(4, 6, {"prompt": "x", column: ""})) is None


def test_data_columns_mean_nothing() -> None:
    """`--data-column` takes the meaning from a column."""
    found = renderer(["prompt", "model", "system"], data_columns=["model", "system"])

    assert found.used_columns == ("prompt",)
    assert not found.checks_rows


def test_images() -> None:
    """An image has a prompt and a shape, no system message; without a prompt the user messages say it."""
    found = request({"prompt": "A cat", "system": "x", "aspect_ratio": "16:9", "model": "draw"})
    assert (found.prompt, found.aspect_ratio, list(found.messages)) == ("A cat", "16:9", [])

    parts = [{"type": "text", "text": "sat "}, {"type": "image_url", "image_url": {}}]
    messages = [
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": " A cat "},
        {"role": "user", "content": parts},
    ]
    assert request({"messages": messages, "kind": "image"}).prompt == "A cat\nsat"
    assert request({"prompt": "x"}, kind="image", aspect_ratio="1:1").aspect_ratio == "1:1"


def test_bad_shapes() -> None:
    """An unknown aspect ratio in a cell ends that row if it is an image; as an option it is refused."""
    assert problem({"prompt": "x", "aspect_ratio": "16:10", "model": "draw"}).column == "aspect_ratio"
    assert request({"prompt": "x", "aspect_ratio": "16:10"}).aspect_ratio is None
    with pytest.raises(UsageError, match="16:9"):
        renderer(["prompt"], aspect_ratio="16:10")


def test_project_ids() -> None:
    """The row's project id wins; without any the request has none, and the provider makes one up."""
    assert request({"prompt": "x", "project_id": "row"}, project_id="job").project_id == "row"
    assert request({"prompt": "x", "project_id": ""}, project_id="job").project_id == "job"
    assert request({"prompt": "x"}).project_id is None


@pytest.mark.parametrize(
    ("name", "cell", "expected"),
    [
        ("seed", "007", 7), ("seed", NumberText("7"), 7), ("seed", 7.0, 7), ("seed", 2**70, 2**70),
        ("strength", "0.5", 0.5), ("strength", "1", 1),
        ("inputs", '[{"url": 1.10}]', [{"url": NumberText("1.10")}]), ("inputs", [1], [1]),
    ],
)  # fmt: skip
def test_fields_have_their_types(name: str, cell: object, expected: object) -> None:
    """A field's cell is read by the type that the provider knows."""
    found = request({"prompt": "x", name: cell}, kind="image", fields=[name]).fields[name]

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("cell", "expected"), [("true", True), ("FALSE", False), ("1", True), (False, False)]
)
def test_boolean_fields(cell: object, expected: bool) -> None:
    """A boolean is true, false, 1 or 0."""
    assert request({"prompt": "x", "json": cell}, fields=["json"]).fields == {"json": expected}


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("seed", "7.5"),
        ("seed", "x"),
        ("seed", True),
        ("strength", "nan"),
        ("strength", float("nan")),
        ("inputs", "["),
    ],
)
def test_fields_of_a_wrong_type(name: str, cell: object) -> None:
    """A cell that is not of its field's type ends that row, naming the column."""
    assert problem({"prompt": "x", name: cell}, kind="image", fields=[name]).column == name


def test_fields_and_params() -> None:
    """The row's field wins over the parameter, empty says nothing, fields of the other kind stay out."""
    options: dict[str, Any] = {"kind": "image", "params": {"seed": 1, "json": True}, "fields": ["seed"]}

    assert request({"prompt": "x", "seed": "2"}, **options).fields == {"seed": 2}
    assert request({"prompt": "x", "seed": ""}, **options).fields == {"seed": 1}


def test_other_fields() -> None:
    """An unknown field is refused with the nearest, unless the provider takes others: JSON, else text."""
    with pytest.raises(UsageError, match="did you mean 'seed'"):
        renderer(["prompt", "sead"], fields=["sead"])
    with pytest.raises(UsageError, match="--param"):
        renderer(["prompt"], params={"width": 3})
    with pytest.raises(UsageError, match="--param seed"):
        renderer(["prompt"], kind="image", params={"seed": "x"})
    cells = {"prompt": "x", "top_k": "3", "stop": "a,b", "user": "007"}
    fields = request(cells, OPEN, model="m", fields=["top_k", "stop", "user"], params={"n": "1"}).fields
    assert fields == {"top_k": 3, "stop": "a,b", "user": "007", "n": "1"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [({"model": "prp"}, "did you mean 'pro'"), ({"kind": "chat", "model": "draw"}, "contradict")],
)
def test_options_that_the_provider_does_not_have(raw: dict[str, Any], words: str) -> None:
    """A model that does not exist, or makes another kind, is refused before any row is read."""
    with pytest.raises(UsageError, match=words):
        renderer(["prompt"], **raw)


def test_a_model_that_is_needed() -> None:
    """A provider without a model of its own wants one, from the option or a column."""
    with pytest.raises(UsageError, match="--model is needed"):
        renderer(["prompt"], OPEN)
    renderer(["prompt", "model"], OPEN)


# Columns


def column_problem(columns: list[str], **raw: object) -> Problem:
    """What is wrong with a table of these columns."""
    with pytest.raises(InputError) as caught:
        renderer(columns, **raw)
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("columns", "raw", "words"),
    [
        (["id", "Promt"], {}, "perhaps --prompt-column 'Promt'"),
        (["id", "text"], {}, "its columns are id, text"),
        (["id;prompt"], {}, "--delimiter ';'"),
        (["id\tprompt"], {}, "--delimiter '\\t'"),
        (["messages"], {"prompt_column": "x"}, "no column 'x'"),
        (["prompt", "status"], {}, "--prefix"),
        (["prompt", "x_status"], {"prefix": "x_"}, "--prefix"),
        (["prompt", "status", "request_hash", "run_id"], {}, "output of websim-batch itself"),
        (["prompt", "idd"], {"id_column": "id"}, "did you mean 'idd'"),
        (["prompt"], {"fields": ["seed"]}, "--field"),
        (["prompt"], {"data_columns": ["kind"]}, "--data-column"),
    ],
)
def test_columns_that_do_not_fit(columns: list[str], raw: dict[str, Any], words: str) -> None:
    """Columns that do not fit refuse the file, with the remedy."""
    found = column_problem(columns, **raw)

    assert words in found.message
    assert found.is_structural


def test_a_prefix_ends_a_clash() -> None:
    """With --prefix a column called `status` is data as any other."""
    renderer(["prompt", "status"], prefix="x_")


def test_the_used_columns() -> None:
    """Only what a request is made of is used, in the table's order, and the id."""
    columns = ["topic", "seed", "system", "prompt", "id", "note"]

    assert renderer(columns, fields=["seed"], kind="image").used_columns == ("seed", "system", "prompt")
    assert renderer(columns, id_column="id").used_columns == ("system", "prompt", "id")
    assert renderer(columns, template="{{ note }}{{ row['topic'] }}").used_columns == (
        "topic",
        "system",
        "note",
    )
    assert renderer(columns, template="{{ row }}").used_columns == tuple(columns)
