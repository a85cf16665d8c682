"""Templates: strict names, cells as data, bounded output, a sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from websim_batch.errors import UsageError
from websim_batch.records import NumberText
from websim_batch.render.cells import BadCellError
from websim_batch.render.template import MAX_CHARS, PromptTemplate

DOUBLING = "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ? ns.x %}{% endfor %}"


def made(text: str, **cells: Any) -> str:
    """What a template makes of one row."""
    return PromptTemplate(text, list(cells)).render(cells)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Summarise: {{ t }}", "Summarise: {{ x }} {% y %} {z}"),
        ("{{ row['two words'] }}{{ row.t[:2] }}", "2w{{"),
        ("{{ n }} {{ n|int + 1 }}", "1.10 2"),
        ("[{{ none }}]", "[]"),
        ("{{ yes }}", "true"),
        ("{{ yes ~ none ~ ' ' ~ n }}", "true 1.10"),
        ("{{ parts }}", '[1,"a"]'),
        ("{% for p in parts %}{{ p }};{% endfor %}", "1;a;"),
        ("{{ '%.2f'|format(n|float) }} {{ '%03d' % 7 }}", "1.10 007"),
        ("{{ t|replace('x', 'y') }}", "{{ y }} {% y %} {z}"),
        ("{{ 'a' if yes else 'b' }}\n", "a"),
    ],
)
def test_templates(text: str, expected: str) -> None:
    """A template sees cells as values; what they hold is never read as a template."""
    cells = {
        "t": "{{ x }} {% y %} {z}",
        "two words": "2w",
        "n": NumberText("1.10"),
        "none": None,
        "yes": True,
        "parts": [1, "a"],
    }

    assert made(text, **cells) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ titel }}", "did you mean 'title'"),
        ("{{ row['titel'] }}", "did you mean 'title'"),
        ("{% if x %}{{ title }}{% endif %}", "'x'"),
        ("{{ lipsum() }}", "'lipsum'"),
        ("{{ title", "line 1"),
        ("a\n{% for %}", "line 2"),
        ("{{ title|random }}", "random"),
        ("{% include 'x' %}", "one file"),
        ("{% extends title %}", "one file"),
    ],
)
def test_templates_that_are_refused(text: str, words: str) -> None:
    """A name that is no column, or a broken template, is refused before any row is read."""
    with pytest.raises(UsageError, match=words) as caught:
        PromptTemplate(text, ["title"]).render({"title": "x"})
    assert "--template" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 10**9 }}",
        "{{ 10**9 * 'x' }}",
        "{{ 'x'.ljust(10**9) }}",
        "{{ 'x'|center(10**9) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d'|format(10**9, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 9**9999 ** 9 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
        "{% for i in range(10**9) %}{% endfor %}",
        DOUBLING.replace("?", "+"),
        DOUBLING.replace("?", "~"),
    ],
)
def test_output_is_bounded(text: str) -> None:
    """A template that would fill the memory ends its row instead."""
    with pytest.raises(BadCellError):
        made(text, t="x")


def test_the_bound() -> None:
    """The longest output that is allowed is allowed."""
    assert len(made("{{ t }}", t="x" * MAX_CHARS)) == MAX_CHARS
    with pytest.raises(BadCellError, match="more than"):
        made("{{ t }}!", t="x" * MAX_CHARS)


@pytest.mark.parametrize(
    "text",
    [
        "{{ t.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ parts.append(1) }}",
        "{{ '{0.__class__}'.format(t) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ t.nothing }}",
        "{{ t + 1 }}",
        "{{ 1 / 0 }}",
        "{{ parts[9] }}",
    ],
)
def test_rows_a_template_fails_on(text: str) -> None:
    """What the sandbox forbids, and what does not work on a row, ends that row."""
    with pytest.raises(BadCellError, match="template"):
        made(text, t="x", parts=[1])
