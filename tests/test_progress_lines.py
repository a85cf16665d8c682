"""What a run shows: lines for pipes, a bar for terminals, nothing under -q unless it fails."""

from __future__ import annotations

import io
import json
import os
import pty
import select

import pytest

from websim_batch.job.settings import Settings
from websim_batch.progress import ProgressView, make_progress
from websim_batch.progress.lines import Lines
from websim_batch.progress.view import duration, percent, sentence

VIEW = ProgressView(
    done=1200, total=20_000, counts={"ok": 1190, "failed": 10, "pending": 18_800}, rows_per_s=49.83,
    eta_s=377.0, limited_by="server limit ≈ 9.8/s", in_flight=16, retries=12, refused_429=3,
)  # fmt: skip
WAITING = ProgressView(done=0, total=10, waiting_s=1.84, wait_reason="Retry-After")


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_state_in_one_line() -> None:
    """Rows, counts by status, pace, time left and what limits it."""
    assert sentence(VIEW) == (
        "1,200 of 20,000 rows (6 %) · ok 1,190 · failed 10 · retries 12 · 429s 3"
        " · 49.8 rows/s · 6 min left · server limit ≈ 9.8/s"
    )
    assert sentence(WAITING) == "0 of 10 rows (0 %) · 0 rows/s · waiting 1.8 s (Retry-After)"


@pytest.mark.parametrize(
    ("done", "total", "expected"), [(0, 0, 100), (999, 1000, 99), (1000, 1000, 100), (0, 9, 0)]
)
def test_only_all_is_a_hundred_percent(done: int, total: int, expected: int) -> None:
    """99.9 % is not told as 100 %."""
    assert percent(ProgressView(done, total)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0.0 s"), (1.84, "1.8 s"), (42, "42 s"), (377, "6 min"), (4800, "1 h 20 min")],
)
def test_durations_for_people(seconds: float, expected: str) -> None:
    """A time is told in the units that people use."""
    assert duration(seconds) == expected


def test_a_line_each_30_s_then_each_5_min() -> None:
    """Plain lines come every 30 s, after five minutes every 5 min."""
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock=clock)
    lines.start(10)
    times = []
    for second in range(1300):
        clock.now = float(second)
        before = stream.tell()
        lines.update(VIEW)
        if stream.tell() > before:
            times.append(second)

    assert times == [*range(30, 301, 30), 600, 900, 1200]


def test_lines_hold_no_control_characters() -> None:
    """Neither an escape nor a carriage return nor a second line gets through, as text or as JSON."""
    for log_format in ("text", "json"):
        stream = io.StringIO()
        make_progress(Settings(log_format=log_format), stream, False).log("error", "x", "a\x1b[31m\r\nb")  # type: ignore[arg-type]

        assert stream.getvalue().count("\n") == 1
        assert not {"\r", "\x1b"} & set(stream.getvalue())


def test_json_lines_have_stable_keys() -> None:
    """One JSON object a line: time in UTC, level, event, message, then the event's facts."""
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, "json", clock=clock)
    clock.now = 31.0
    lines.update(VIEW)
    lines.log("warning", "drift", "careful", column="model")

    progress, warning = (json.loads(line) for line in stream.getvalue().splitlines())
    assert list(progress) == [
        "time", "level", "event", "message", "done", "total", "counts", "rows_per_s", "eta_s", "limited_by",
        "waiting_s", "wait_reason", "in_flight", "retries", "refused_429",
    ]  # fmt: skip
    assert progress["event"] == "progress"
    assert progress["time"].endswith("Z")
    assert (warning["level"], warning["event"], warning["message"], warning["column"]) == (
        "warning", "drift", "careful", "model",
    )  # fmt: skip


@pytest.mark.parametrize(("exit_code", "is_told"), [(0, False), (3, True)])
def test_quiet(exit_code: int, is_told: bool) -> None:
    """-q says nothing if the run ends with 0, and all it held back if not."""
    stream = io.StringIO()
    progress = make_progress(Settings(quiet=True), stream, True)
    progress.start(1)
    progress.log("warning", "x", "careful")
    progress.update(VIEW)
    assert stream.getvalue() == ""

    progress.close(exit_code)

    assert ("careful" in stream.getvalue()) is is_told


def test_no_progress_still_tells_events() -> None:
    """`--progress none` shows no state, but warnings."""
    stream = io.StringIO()
    lines = Lines(stream, shows_state=False, clock=(clock := Clock()))
    clock.now = 1000.0
    lines.update(VIEW)
    lines.log("debug", "x", "detail")
    lines.log("warning", "x", "careful")

    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("progress", ["auto", "bar", "log"])
def test_a_pipe_gets_lines(progress: str) -> None:
    """Whatever was asked for, a stream that is no terminal gets no bar."""
    stream = io.StringIO()
    shown = make_progress(Settings(progress=progress), stream, is_terminal=False)  # type: ignore[arg-type]
    shown.start(10)
    for _ in range(10):
        shown.update(VIEW)
    shown.close()

    assert stream.getvalue() == ""
    assert isinstance(shown, Lines)


def test_a_broken_pipe_ends_no_run() -> None:
    """A reader that has gone away is no reason to stop."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        lines = Lines(stream)
        lines.log("info", "x", "one")
        lines.log("info", "x", "two")
        # What could not be written must not fail once more when the stream is closed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def on_terminal(draw_bar: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a terminal of 80 columns receives of a bar."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    main, side = pty.openpty()
    with os.fdopen(side, "w") as stream:
        bar = make_progress(draw_bar, stream, True)
        bar.start(20_000)
        bar.log("warning", "x", "careful")
        bar.update(VIEW)
        bar.close()
        stream.flush()
        received = b""
        while select.select([main], [], [], 0.2)[0]:
            received += os.read(main, 65536)
    os.close(main)
    return received.decode()


def test_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the counts, the pace, the time left, events above, and its cursor back."""
    text = on_terminal(Settings(), monkeypatch)

    for words in (
        "1,200 of 20,000 rows",
        "49.8 rows/s",
        "ok 1,190",
        "failed 10",
        "6 min left",
        "warning: careful",
    ):
        assert words in text
    assert text.rstrip().endswith("\x1b[?25h")


def test_json_lines_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for JSON lines gets no bar, also on a terminal."""
    text = on_terminal(Settings(log_format="json"), monkeypatch)

    assert "\x1b" not in text
    assert json.loads(text.splitlines()[0])["message"] == "careful"
