"""How Arrow values stand in CSV and in JSON: the documented rendering of each type.

    null                empty in CSV, null in JSON
    text                as it is
    bool                true, false
    integer, decimal    all digits, decimals with their scale (1.10)
    float               the shortest text that reads back as the same value; NaN, Infinity, -Infinity
    date, time          2024-05-01, 13:30:00 with the digits of their unit
    timestamp           2024-05-01T13:30:00.123, with Z in UTC if the type has a zone
    duration            P1DT2H's seconds: PT93600S, PT0.250S
    interval            P1M2DT3.000000004S
    binary              base64
    list, struct, map   JSON text; a map is a list of [key, value]
    dictionary, UUID    the value itself

In JSON numbers are numbers (NaN and infinities text), all else that is no bool, list or struct is text.
"""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeAlias, cast

import orjson
import pyarrow as pa
from pyarrow import types

from websim_batch import jsontext

Texts: TypeAlias = list[str | None]
Array: TypeAlias = Any  # the stubs know neither the kinds of arrays nor those of types
Kind: TypeAlias = Any

_SECOND_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_DAY_S = 86_400


def csv_texts(values: Array) -> Texts:
    """Every value as CSV has it; None is null."""
    values = plain(values)
    kind = values.type
    if is_nested(kind):
        return [None if text == "null" else text for text in json_texts(values)]
    if is_text(kind):
        return list(values.to_pylist())
    return _mapped(_raw(values), _speller(kind))


def json_texts(values: Array) -> list[str]:
    """Every value as JSON text."""
    values = plain(values)
    kind = values.type
    if types.is_struct(kind):
        return _struct_texts(values)
    if types.is_map(kind):
        return _map_texts(values)
    if is_nested(kind):
        return _list_texts(values)
    texts = csv_texts(values)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_decimal(kind):
        return ["null" if text is None else text for text in texts]
    if types.is_floating(kind):
        return [_float_json(text) for text in texts]
    return [_quoted(text) for text in texts]


def is_text(kind: Kind) -> bool:
    """Whether values of this type are text as they are."""
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_nested(kind: Kind) -> bool:
    """Whether values of this type are lists, structs or maps."""
    return bool(
        types.is_struct(kind)
        or types.is_map(kind)
        or types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def plain(values: Array) -> Array:
    """The values of dictionaries and extension types themselves; a UUID as text."""
    kind = values.type
    if types.is_dictionary(kind):
        return plain(values.dictionary_decode())
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            from websim_batch.tables.arrowbuild import build

            raw = values.storage.to_pylist()
            return build([None if item is None else str(uuid.UUID(bytes=item)) for item in raw], pa.string())
        return plain(values.storage)
    if types.is_run_end_encoded(kind):
        import pyarrow.compute as pc

        return plain(cast(Any, pc).run_end_decode(values))
    return values


def _raw(values: Array) -> list[Any]:
    """Python values without pandas: times and durations as the integers they are stored as."""
    kind = values.type
    if types.is_timestamp(kind) or types.is_duration(kind) or types.is_date64(kind) or types.is_time64(kind):
        values = values.view(pa.int64())
    elif types.is_date32(kind) or types.is_time32(kind):
        values = values.view(pa.int32())
    elif types.is_float16(kind):
        values = values.cast(pa.float32())
    return list(values.to_pylist())


def _speller(kind: Kind) -> Callable[[Any], str]:
    """A function from a raw value that is not null to its text."""
    for matches, spell in _SPELLERS:
        if matches(kind):
            return spell(kind)
    raise TypeError(f"no rendering for {kind}")


def _mapped(values: Iterable[Any], spell: Callable[[Any], str]) -> Texts:
    return [None if value is None else spell(value) for value in values]


def _spell_bool(value: bool) -> str:
    return "true" if value else "false"


def _spell_double(value: float) -> str:
    return _WORDS.get(text := repr(value), text)


_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _spell_narrow(value: float, code: str) -> str:
    """The shortest decimal that reads back as the same value of a narrow float."""
    packed = struct.pack(code, value)
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        try:
            if struct.pack(code, float(text)) == packed:
                return _spell_double(float(text))
        except OverflowError:  # rounded up beyond the largest value
            continue
    return _spell_double(value)


def _decimal_text(value: Any) -> str:
    return format(value, "f")


def _fraction(rest: int, digits: int) -> str:
    return f".{rest:0{digits}d}" if digits else ""


def _time_speller(unit: str) -> Callable[[int], str]:
    digits = _SECOND_DIGITS[unit]

    def spell(value: int) -> str:
        second, rest = divmod(value, 10**digits)
        return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}{_fraction(rest, digits)}"

    return spell


def _timestamp_speller(kind: Kind) -> Callable[[int], str]:
    time_of = _time_speller(kind.unit)
    per_day = _DAY_S * 10 ** _SECOND_DIGITS[kind.unit]
    zone = "Z" if kind.tz is not None else ""

    def spell(value: int) -> str:
        day, rest = divmod(value, per_day)
        return f"{_spell_date(day)}T{time_of(rest)}{zone}"

    return spell


def _duration_speller(kind: Kind) -> Callable[[int], str]:
    digits = _SECOND_DIGITS[kind.unit]

    def spell(value: int) -> str:
        second, rest = divmod(abs(value), 10**digits)
        return f"{'-' * (value < 0)}PT{second}{_fraction(rest, digits)}S"

    return spell


def _spell_date(day: int) -> str:
    """A day number since 1970 as an ISO date, for any year (Hinnant's algorithm for civil dates)."""
    shifted = day + 719_468
    era, of_era = divmod(shifted, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    index = (5 * of_year + 2) // 153
    month = index + 3 if index < 10 else index - 9
    year = year_of_era + era * 400 + (month <= 2)
    return f"{_year(year)}-{month:02d}-{of_year - (153 * index + 2) // 5 + 1:02d}"


def _year(year: int) -> str:
    if 0 <= year <= 9999:
        return f"{year:04d}"
    return f"{'-' if year < 0 else '+'}{abs(year):06d}"


def _spell_interval(value: Any) -> str:
    second, rest = divmod(abs(value.nanoseconds), 10**9)
    return f"P{value.months}M{value.days}DT{'-' * (value.nanoseconds < 0)}{second}.{rest:09d}S"


_SPELLERS: Sequence[tuple[Callable[[Kind], bool], Callable[[Kind], Callable[[Any], str]]]] = (
    (types.is_boolean, lambda _: _spell_bool),
    (types.is_integer, lambda _: str),
    (types.is_float64, lambda _: _spell_double),
    (types.is_float32, lambda _: lambda value: _spell_narrow(value, "f")),
    (types.is_float16, lambda _: lambda value: _spell_narrow(value, "e")),
    (types.is_decimal, lambda _: _decimal_text),
    (types.is_date32, lambda _: _spell_date),
    (types.is_date64, lambda _: lambda value: _spell_date(value // (_DAY_S * 1000))),
    (types.is_time, lambda kind: _time_speller(kind.unit)),
    (types.is_timestamp, _timestamp_speller),
    (types.is_duration, _duration_speller),
    (types.is_interval, lambda _: _spell_interval),
    (types.is_null, lambda _: str),
    (lambda _: True, lambda _: lambda value: base64.b64encode(value).decode()),
)


def _float_json(text: str | None) -> str:
    if text is None:
        return "null"
    return f'"{text}"' if text in _WORDS.values() else text


def _quoted(text: str | None) -> str:
    return "null" if text is None else orjson.dumps(text).decode()


def _struct_texts(values: Array) -> list[str]:
    names = [jsontext.dumps(field.name).decode() for field in values.type]
    columns = [json_texts(values.field(index)) for index in range(len(names))]
    rows = zip(*columns, strict=True) if columns else iter([()] * len(values))
    return [
        "{" + ",".join(f"{name}:{text}" for name, text in zip(names, row, strict=True)) + "}"
        if valid
        else "null"
        for row, valid in zip(rows, values.is_valid().to_pylist(), strict=True)
    ]


def _map_texts(values: Array) -> list[str]:
    entries = _flat_entries(values)
    keys = json_texts(entries.field(0))
    items = json_texts(entries.field(1))
    pairs = [f"[{key},{item}]" for key, item in zip(keys, items, strict=True)]
    return _joined(pairs, _lengths(values))


def _flat_entries(values: Array) -> Array:
    """The entries of a map array's own slots; null slots hold none (MapArray has no flatten)."""
    kind = values.type
    as_list = pa.list_(pa.struct([pa.field("k", kind.key_type, False), pa.field("v", kind.item_type)]))
    entries = pa.StructArray.from_arrays([values.keys, values.items], fields=list(as_list.value_type))
    offsets = values.offsets.to_pylist()
    return entries.slice(offsets[0], offsets[-1] - offsets[0]) if offsets else entries.slice(0, 0)


def _list_texts(values: Array) -> list[str]:
    return _joined(json_texts(values.flatten()), _lengths(values))


def _lengths(values: Array) -> list[int | None]:
    """How many items each slot has; None is null."""
    kind = values.type
    valid = values.is_valid().to_pylist()
    sizes: Iterable[int]
    if types.is_fixed_size_list(kind):
        sizes = [kind.list_size] * len(values)
    elif types.is_list_view(kind) or types.is_large_list_view(kind):
        sizes = values.sizes.to_pylist()
    else:
        sizes = [end - begin for begin, end in pairwise(values.offsets.to_pylist())]
    return [size if ok else None for size, ok in zip(sizes, valid, strict=True)]


def _joined(items: Sequence[str], lengths: Sequence[int | None]) -> list[str]:
    """The items of each slot as one JSON list."""
    ends = list(accumulate((length or 0 for length in lengths), initial=0))
    return [
        "null" if length is None else "[" + ",".join(items[begin:end]) + "]"
        for length, (begin, end) in zip(lengths, pairwise(ends), strict=True)
    ]
