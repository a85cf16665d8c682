"""Our columns as text and JSON have them, and the pairing of input rows with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice

from websim_batch.errors import InternalError
from websim_batch.records import OutputCells


def iso_times() -> Callable[[int | None], str | None]:
    """A function from microseconds since the epoch to ISO 8601; it remembers the last second it spelled."""
    base = 1 << 63  # no time is in that second
    spelled = ""

    def iso(us: int | None) -> str | None:
        nonlocal base, spelled
        if us is None:
            return None
        rest = us - base
        if not 0 <= rest < 1_000_000:
            second, rest = divmod(us, 1_000_000)
            base = us - rest
            spelled = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{spelled}.{rest:06d}Z"

    return iso


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
