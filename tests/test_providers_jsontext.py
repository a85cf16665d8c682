"""JSON without silent losses."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websim_batch.jsontext import clean_text, dumps, loads
from websim_batch.records import NumberText

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_every_json_value_is_written_as_it_is(value: Any) -> None:
    """Integers of any size, any text, nulls: what is written reads back the same."""
    assert json.loads(dumps(value)) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"n": NumberText("1.10")}, b'{"n":1.10}'),
        ({"n": NumberText("12345678901234567890"), "m": None}, b'{"n":12345678901234567890,"m":null}'),
        ({"n": 10**30}, b'{"n":1000000000000000000000000000000}'),
        ({"t": "\ud800x"}, b'{"t":"\\ud800x"}'),
        ({"t": "null"}, b'{"t":"null"}'),
        (OrderedDict(a=1, b=[True, None]), b'{"a":1,"b":[true,null]}'),
        ({"t": "naïve \U0001f600"}, '{"t":"naïve \U0001f600"}'.encode()),
    ],
)
def test_unusual_values_are_exact(value: Any, expected: bytes) -> None:
    """Numbers as their file wrote them, big integers, lone surrogates, subclasses."""
    assert dumps(value) == expected


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), [1, float("-inf")], {"a": {"b": float("nan")}}]
)
def test_nan_is_an_error_and_never_null(value: Any) -> None:
    """JSON has no such number."""
    with pytest.raises(ValueError, match="no JSON number"):
        dumps(value)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": b"x"}, {"a": {1, 2}}])
def test_what_is_no_json_value_is_an_error(value: Any) -> None:
    """Foreign types are not guessed at."""
    with pytest.raises(TypeError):
        dumps(value)


def test_an_answers_lone_surrogate_is_replaced() -> None:
    """The answer stays, and can be written as UTF-8."""
    assert loads(b'{"a\\udfff":["x\\ud800y"]}') == {"a\ufffd": ["x\ufffdy"]}
    assert clean_text("\ud83d\ude00 \ud83d") == "\U0001f600 \ufffd"


def test_broken_utf8_and_a_byte_order_mark_are_read() -> None:
    """Broken bytes become U+FFFD."""
    assert loads(b'\xef\xbb\xbf{"a":"x\xff"}') == {"a": "x\ufffd"}


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"a":}', b"9" * 5000])
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    """Cut, nested without end, or absurd: one kind of error."""
    with pytest.raises(ValueError, match=r"."):
        loads(body)
