"""Cells that this tool keeps and others would change: told by `check`, so that nobody is surprised later."""

from __future__ import annotations

import re
from dataclasses import dataclass

from websim_batch.tables.base import Source, TableInfo

MISSING_WORDS = frozenset(
    {
        "NA",
        "N/A",
        "n/a",
        "NaN",
        "nan",
        "-nan",
        "NULL",
        "null",
        "None",
        "<NA>",
        "#N/A",
        "#NA",
        "#N/A N/A",
        "1.#IND",
    }
)
SPREADSHEET_CELL = 32_767

_MESSAGES = {
    "leading_zeros": "numbers with leading zeros: pandas and spreadsheets drop the zeros",
    "missing_words": "words like NA or null: pandas reads them as missing values",
    "long_integers": "integers of more than 15 digits: spreadsheets, and columns of floats, round them",
    "trailing_zeros": "decimals that end in zero: read as numbers they lose it",
    "lone_carriage_returns": "carriage returns without a line feed: some readers end the row there",
    "long_cells": "cells of more than 32,767 characters: spreadsheets cut them",
    "formulas": "cells that begin like a formula: spreadsheets run them",
}
_LEADING_ZERO = re.compile(r"[+-]?0\d+(\.\d+)?")
_LONG_INTEGER = re.compile(r"[+-]?[1-9]\d{15,}")
_TRAILING_ZERO = re.compile(r"[+-]?\d+\.\d*0")
_LONE_RETURN = re.compile(r"\r(?!\n)")


@dataclass(slots=True)
class Hazard:
    """One kind of such cells in one column: how many, and the first data row (from 1)."""

    kind: str
    column: str
    count: int
    row: int

    def __str__(self) -> str:
        return f"column {self.column!r}: {self.count} x {_MESSAGES[self.kind]} (first in row {self.row})"


def hazards(source: Source, info: TableInfo) -> list[Hazard]:
    """What other tools would change in the cells of a table; one pass over all rows."""
    found: dict[tuple[str, str], Hazard] = {}
    number = 0
    for batch in source.text_rows():
        for row in batch:
            number += 1
            for name, text in zip(info.columns, row, strict=True):
                for kind in hazards_of(text) if text else ():
                    hazard = found.setdefault((name, kind), Hazard(kind, name, 0, number))
                    hazard.count += 1
    return list(found.values())


def hazards_of(text: str) -> list[str]:
    """The kinds of hazard in one cell."""
    kinds = []
    if len(text) > SPREADSHEET_CELL:
        kinds.append("long_cells")
    if "\r" in text and _LONE_RETURN.search(text):
        kinds.append("lone_carriage_returns")
    if text[0] in "0123456789+-=@.":
        kinds += _number_hazards(text)
    elif text in MISSING_WORDS:
        kinds.append("missing_words")
    return kinds


def _number_hazards(text: str) -> list[str]:
    if text == "-nan":
        return ["missing_words"]
    if _LEADING_ZERO.fullmatch(text):
        return ["leading_zeros"]
    if _LONG_INTEGER.fullmatch(text):
        return ["long_integers"]
    if _TRAILING_ZERO.fullmatch(text):
        return ["trailing_zeros"]
    is_number = re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", text) is not None
    return ["formulas"] if text[0] in "=+-@" and len(text) > 1 and not is_number else []
