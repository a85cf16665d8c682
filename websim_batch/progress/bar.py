"""The live bar on a terminal: counts by status, pace, time left, what limits it."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from websim_batch.progress.lines import one_line
from websim_batch.progress.view import Level, ProgressView, percent, told_counts, told_pace
from websim_batch.records import Json

_STYLES = {"ok": "green", "failed": "red", "invalid": "red", "refused": "yellow", "deferred": "yellow"}
_LEVELS: dict[Level, str] = {"debug": "dim", "info": "", "warning": "yellow", "error": "red"}


class Bar:
    """Draws two lines and redraws them in place; events scroll by above them."""

    def __init__(self, stream: TextIO, is_verbose: bool = False) -> None:
        self._console = Console(file=stream, highlight=False)
        self._is_verbose = is_verbose
        # Redrawn only when the state comes, so that no thread of its own competes with the run.
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._is_broken = False

    def start(self, total: int) -> None:
        """Draw the empty bar."""
        self._draw(ProgressView(0, total))

    def update(self, view: ProgressView) -> None:
        """Redraw with the state now."""
        self._draw(view)

    def log(self, level: Level, event: str, message: str, **facts: Json) -> None:
        """One line above the bar."""
        if self._is_broken or (level == "debug" and not self._is_verbose):
            return
        mark = f"{level}: " if level in ("warning", "error") else ""
        try:
            self._console.print(Text(mark + one_line(message), style=_LEVELS[level]))
        except OSError:
            self._is_broken = True

    def close(self, exit_code: int = 0) -> None:
        """Leave the last state standing and give the cursor back."""
        try:
            self._live.stop()
        except OSError:
            self._is_broken = True

    def _draw(self, view: ProgressView) -> None:
        if self._is_broken:
            return
        try:
            if not self._live.is_started:
                self._live.start()
            self._live.update(picture(view), refresh=True)
        except OSError:  # the terminal is gone
            self._is_broken = True


def picture(view: ProgressView) -> Group:
    """The two lines: the bar with pace and time left, and the counts with what happens; neither wraps."""
    line = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(view.total, 1), completed=view.done if view.total else 1, width=24)
    line.add_row(
        bar, _unwrapped(f"{percent(view)} %  {view.done:,} of {view.total:,} rows  {told_pace(view)[0]}")
    )
    told = [Text(part, style=_STYLES.get(part.partition(" ")[0], "dim")) for part in told_counts(view)]
    told += [Text(part) for part in told_pace(view)[1:]]
    if view.in_flight:
        told.append(Text(f"in flight {view.in_flight:,}", style="dim"))
    return Group(line, _unwrapped("  ").join(told))


def _unwrapped(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
