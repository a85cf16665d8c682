"""Where a quote went wrong in a CSV file: a slow second look, taken only once the csv module has given up."""

from __future__ import annotations

import re
from collections.abc import Iterator

from websim_batch.tables.base import ProblemList
from websim_batch.tables.texts import TextInput

MOST_CHARACTERS = 1 << 28
"""The longest cell: a quote that is never closed must not swallow a huge file into memory."""


def explain_quote(text: TextInput, delimiter: str, line: int, row: int, problems: ProblemList) -> None:
    """Note what is wrong with the quotes of the row that begins on `line`, where the quote began."""
    opened, closed = _last_quote(_from_line(text, line), line, delimiter)
    place = row if row else None
    if closed is not None:
        message = (
            f"the quoted cell that begins here ends on line {closed}, but text follows its closing quote; "
            "close the quote where the cell ends, and double each quote inside it"
        )
        problems.add("stray_quote", message, opened, place)
    else:
        message = "a quote begins here and is never closed; close it, or double it if it belongs to the text"
        problems.add("unterminated_quote", message, opened, place)


def _from_line(text: TextInput, line: int) -> Iterator[str]:
    with text.open(newline="") as (lines, _):
        # Lone carriage returns do not count as lines here, as nowhere in messages.
        seen = 1
        for piece in lines:
            if seen >= line:
                yield piece
            seen += piece.endswith("\n")


def _last_quote(pieces: Iterator[str], line: int, delimiter: str) -> tuple[int, int | None]:
    """The line on which the faulty quoted cell begins, and the line of its closing quote if it has one.

    One cell after the other: a cell that begins with a quote runs to the next quote that is not doubled;
    then a separator or a line end must follow.
    """
    start = re.compile(
        f'(?:[^{re.escape(delimiter)}"\r\n][^{re.escape(delimiter)}\r\n]*)?{re.escape(delimiter)}'
    )
    opened = line
    in_quotes = False
    budget = MOST_CHARACTERS
    for piece in pieces:
        at = 0
        while at < len(piece):
            if not in_quotes:
                match = start.match(piece, at)
                if match:
                    at = match.end()
                    continue
                if piece[at] != '"':
                    break  # the last cell of the row, unquoted
                in_quotes, opened, at = True, line, at + 1
            end = _closing_quote(piece, at)
            if end < 0:
                break
            in_quotes = False
            if piece[end : end + 1] not in (delimiter, "\r", "\n", ""):
                return opened, line
            at = end + 1
        budget -= len(piece)
        if budget < 0:
            break
        line += piece.endswith("\n")
    return opened, None


def _closing_quote(piece: str, at: int) -> int:
    """The place after the next quote that is not doubled, or -1."""
    while True:
        quote = piece.find('"', at)
        if quote < 0:
            return -1
        if piece[quote + 1 : quote + 2] != '"':
            return quote + 1
        at = quote + 2
