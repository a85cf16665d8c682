"""A notebook's display: one line below the cell, written anew in place, and the last messages above it."""

from __future__ import annotations

import sys
from collections import deque
from importlib import import_module
from typing import Any

from websim_batch.progress.lines import one_line
from websim_batch.progress.view import Level, ProgressView, sentence
from websim_batch.records import Json

MOST_MESSAGES = 5


def in_kernel() -> bool:
    """Whether this process is the kernel of a notebook; loads nothing to find out."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


class NotebookLine:
    """Shows the state by IPython's display, under one id, from whichever thread the run is on."""

    def __init__(self, is_verbose: bool = False) -> None:
        self._display: Any = import_module("IPython.display").display
        self._handle: Any = None
        self._is_verbose = is_verbose
        self._messages: deque[str] = deque(maxlen=MOST_MESSAGES)
        self._state = ""
        self._shown = ""

    def start(self, total: int) -> None:
        """Show that nothing is done yet."""
        self.update(ProgressView(0, total))

    def update(self, view: ProgressView) -> None:
        """Show the state now."""
        self._state = sentence(view)
        self._show()

    def log(self, level: Level, event: str, message: str, **facts: Json) -> None:
        """One message above the state; the oldest ones go."""
        if level != "debug" or self._is_verbose:
            mark = f"{level}: " if level in ("warning", "error") else ""
            self._messages.append(mark + one_line(message))
            self._show()

    def close(self, exit_code: int = 0) -> None:
        """The last state stands."""

    def _show(self) -> None:
        text = "\n".join(filter(None, [*self._messages, self._state]))
        if text == self._shown:
            return
        self._shown = text
        if self._handle is None:
            self._handle = self._display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)
