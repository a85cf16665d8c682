"""What a run shows while it goes on: a live bar on a terminal, a line of its own in a notebook, plain lines elsewhere,
nothing under `-q`.

Never a carriage return or an escape into a pipe. A stream that breaks is left alone: no run ends for it.
"""

from __future__ import annotations

import os
from typing import TextIO

from websim_batch.job.settings import Settings
from websim_batch.progress.lines import Held, Lines
from websim_batch.progress.notebook import NotebookLine, in_kernel
from websim_batch.progress.view import Progress, ProgressView

__all__ = ["Progress", "ProgressView", "make_progress"]


def make_progress(settings: Settings, stream: TextIO, is_terminal: bool) -> Progress:
    """What the settings ask for on `stream` (stderr); a bar needs a terminal or a notebook, else it becomes lines."""
    if settings.quiet:
        return Held(stream, settings.log_format)
    wants_bar = settings.log_format == "text" and settings.progress in ("auto", "bar")
    if wants_bar and in_kernel():
        return NotebookLine(settings.verbose)
    if wants_bar and is_terminal and os.environ.get("TERM") != "dumb":
        from websim_batch.progress.bar import Bar

        return Bar(stream, settings.verbose)
    return Lines(stream, settings.log_format, settings.verbose, settings.progress != "none")
