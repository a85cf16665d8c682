"""Plain lines for pipes, files and cron: one event a line, as text or as JSON."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TextIO

from websim_batch.progress.view import Level, ProgressView, sentence
from websim_batch.records import Json

OFTEN_S = 30.0
SELDOM_S = 300.0
"""A line each OFTEN_S for the first SELDOM_S, then one each SELDOM_S."""

MOST_HELD = 200


def format_line(
    log_format: Literal["text", "json"], level: Level, event: str, message: str, **facts: Json
) -> str:
    """One event as one line, with the time now; control characters never get through."""
    now = datetime.now(UTC)
    if log_format == "json":
        moment = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = {"time": moment, "level": level, "event": event, "message": message, **facts}
        return json.dumps(entry, ensure_ascii=False, default=str)
    mark = "" if level in ("info", "debug") else f"{level}: "
    return f"{now.astimezone():%H:%M:%S} {mark}{one_line(message)}"


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class Lines:
    """Writes events as they come, and the state now and then."""

    def __init__(
        self,
        stream: TextIO,
        log_format: Literal["text", "json"] = "text",
        is_verbose: bool = False,
        shows_state: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream: TextIO | None = stream
        self._log_format = log_format
        self._is_verbose = is_verbose
        self._shows_state = shows_state
        self._clock = clock
        self._started_s = clock()
        self._due_s = self._started_s + OFTEN_S

    def start(self, total: int) -> None:
        """The first state is told after OFTEN_S."""
        self._started_s = self._clock()
        self._due_s = self._started_s + OFTEN_S

    def update(self, view: ProgressView) -> None:
        """Tell the state if a line is due."""
        now_s = self._clock()
        if not self._shows_state or now_s < self._due_s:
            return
        self._due_s = now_s + (OFTEN_S if now_s - self._started_s < SELDOM_S else SELDOM_S)
        self.log("info", "progress", sentence(view), **view.facts())

    def log(self, level: Level, event: str, message: str, **facts: Json) -> None:
        """Write one line; details only if they were asked for, or for a program that reads the lines."""
        if level != "debug" or self._is_verbose or self._log_format == "json":
            self._write(format_line(self._log_format, level, event, message, **facts))

    def close(self, exit_code: int = 0) -> None:
        """Nothing is left to show."""

    def _write(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            self._stream = None


class Held(Lines):
    """`-q`: keeps the last lines and writes them only when the run did not end well."""

    def __init__(self, stream: TextIO, log_format: Literal["text", "json"]) -> None:
        super().__init__(stream, log_format, shows_state=False)
        self._held: deque[str] = deque(maxlen=MOST_HELD)

    def log(self, level: Level, event: str, message: str, **facts: Json) -> None:
        """Keep one line."""
        if level != "debug":
            self._held.append(format_line(self._log_format, level, event, message, **facts))

    def close(self, exit_code: int = 0) -> None:
        """Write what was kept unless the exit code is 0."""
        while self._held and exit_code != 0:
            self._write(self._held.popleft())
        self._held.clear()
