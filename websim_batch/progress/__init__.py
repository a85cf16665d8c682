"""What a run shows while it goes on: a live bar on a terminal, plain lines elsewhere, nothing under `-q`.

Never a carriage return or an escape into a pipe. A stream that breaks is left alone: no run ends for it.
"""

from __future__ import annotations

import os
from typing import TextIO

from websim_batch.job.settings import Settings
from websim_batch.progress.lines import Held, Lines
from websim_batch.progress.view import Progress, ProgressView

__all__ = ["Progress", "ProgressView", "make_progress"]


def make_progress(settings: Settings, stream: TextIO, is_terminal: bool) -> Progress:
    """What the settings ask for on `stream` (stderr); a bar needs a terminal, else it becomes lines."""
    if settings.quiet:
        return Held(stream, settings.log_format)
    can_bar = is_terminal and settings.log_format == "text" and os.environ.get("TERM") != "dumb"
    if can_bar and settings.progress in ("auto", "bar"):
        from websim_batch.progress.bar import Bar

        return Bar(stream, settings.verbose)
    return Lines(stream, settings.log_format, settings.verbose, settings.progress != "none")
