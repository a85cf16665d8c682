"""Our columns as text and JSON have them, and the pairing of input rows with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from websim_batch.errors import InternalError
from websim_batch.records import OUTPUT_COLUMNS, OutputCells

TEXT_PLACES = tuple(i for i, (_, kind) in enumerate(OUTPUT_COLUMNS) if kind in ("string", "large_string"))
TIME_PLACES = tuple(i for i, (_, kind) in enumerate(OUTPUT_COLUMNS) if kind == "timestamp")
_FIRST_TIME, _LAST_TIME = TIME_PLACES
_FORMULA = ("=", "+", "-", "@")


def iso_times() -> Callable[[int | None], str | None]:
    """A function from microseconds since the epoch to ISO 8601 with `Z`; it remembers the second it last spelled."""
    known = -1
    spelled = ""

    def iso(us: int | None) -> str | None:
        nonlocal known, spelled
        if us is None:
            return None
        second, rest = divmod(us, 1_000_000)
        if second != known:
            known, spelled = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{spelled}.{rest:06d}Z"

    return iso


def text_cells(csv_safe: bool) -> Callable[[OutputCells], list[Any]]:
    """A function from our cells to what the CSV writer takes: None is empty, numbers stay numbers."""
    iso = iso_times()

    def plain(cells: OutputCells) -> list[Any]:
        row: list[Any] = list(cells)
        row[_FIRST_TIME] = iso(row[_FIRST_TIME])
        row[_LAST_TIME] = iso(row[_LAST_TIME])
        return row

    def safe(cells: OutputCells) -> list[Any]:
        row = plain(cells)
        for place in TEXT_PLACES:
            text = row[place]
            if text and text[0] in _FORMULA:
                row[place] = "'" + text
        return row

    return safe if csv_safe else plain


class CellStream:
    """Hands out our cells for the input's rows, in order, and holds that both end together."""

    def __init__(self, cells: Iterator[OutputCells]) -> None:
        self._cells = iter(cells)

    def take(self, count: int) -> Iterator[OutputCells]:
        """The cells of the next `count` rows, one by one; InternalError if there are fewer."""
        taken = 0
        for cells in islice(self._cells, count):
            taken += 1
            yield cells
        if taken < count:
            raise InternalError("fewer results than input rows; please report this")

    def require_end(self) -> None:
        """InternalError if cells are left that no row asked for."""
        if next(self._cells, None) is not None:
            raise InternalError("more results than input rows; please report this")
