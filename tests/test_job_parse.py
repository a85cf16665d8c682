"""What a user may write for a value, and what is said of what cannot be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from datetime import time as clock_time
from pathlib import Path

import pytest

from websim_batch.job import parse
from websim_batch.records import Ceiling, Share


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time with a change of the hour."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("10/s", (Ceiling(10, 1.0),)),
        (" 60 / min ", (Ceiling(60, 60.0),)),
        (["10/s", "500/h"], (Ceiling(10, 1.0), Ceiling(500, 3600.0))),
        ((Ceiling(3, 1.0),), (Ceiling(3, 1.0),)),
    ],
)
def test_rates(written: object, expected: tuple[Ceiling, ...]) -> None:
    """A rate is a whole number per second, minute or hour; several limit different windows."""
    assert parse.rates(written) == expected


@pytest.mark.parametrize("written", ["10", "0/s", "-1/s", "1.5/s", "10/day", "10/sec", "", 10, None, True])
def test_rates_that_are_none(written: object) -> None:
    """What is no rate is refused with the forms that are."""
    with pytest.raises(ValueError, match="N/s, N/min or N/h"):
        parse.rates(written)


def test_a_bare_number_as_rate_gets_a_proposal() -> None:
    """`--rate 10` is answered with what was probably meant."""
    with pytest.raises(ValueError, match="perhaps 10/s or 10/min"):
        parse.rates("10")


def test_two_rates_of_one_window() -> None:
    """Two ceilings of the same window contradict each other."""
    with pytest.raises(ValueError, match="same window"):
        parse.rates(["10/s", "20/s"])


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("90s", 90), ("1.5", 1.5), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), ("5min", 300),
     (2.5, 2.5), (3, 3), (timedelta(minutes=1), 60)],
)  # fmt: skip
def test_durations(written: object, seconds: float) -> None:
    """A duration is seconds, or hours and minutes as people write them."""
    assert parse.duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "h", "2x", "-5", -1, "0", 0, "1h-5m", float("nan"), float("inf"), True, None]
)
def test_durations_that_are_none(written: object) -> None:
    """No time, a negative one and nonsense are refused."""
    with pytest.raises(ValueError, match=r"duration|no time"):
        parse.duration(written)


def test_no_wait_at_all_is_a_wait() -> None:
    """A grace of 0 seconds is a grace."""
    assert parse.wait("0") == 0


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("now", "written", "expected"),
    [
        ("2025-06-01T05:00", "06:30", "2025-06-01T06:30+02:00"),
        ("2025-06-01T06:30", "06:30", "2025-06-02T06:30+02:00"),
        ("2025-06-01T22:00", "6:30", "2025-06-02T06:30+02:00"),
        ("2025-10-25T22:00", "06:30", "2025-10-26T06:30+01:00"),
        ("2025-06-01T05:00", clock_time(6, 30), "2025-06-01T06:30+02:00"),
        ("2025-06-01T05:00", "2025-06-01T06:30", "2025-06-01T06:30+02:00"),
        ("2025-06-01T05:00", "2025-06-01T06:30Z", "2025-06-01T06:30+00:00"),
    ],
)
def test_deadlines(now: str, written: object, expected: str) -> None:
    """A time of day is its next occurrence in local time, also over a change of the hour; ISO is itself."""
    found = parse.deadline(written, datetime.fromisoformat(now))

    assert found == datetime.fromisoformat(expected)
    assert found.utcoffset() is not None


@pytest.mark.parametrize("written", ["25:00", "soon", "2000-01-01T00:00", "12", 12])
def test_deadlines_that_are_none(written: object) -> None:
    """Nonsense and the past are refused."""
    with pytest.raises(ValueError, match=r"time|past"):
        parse.deadline(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("5", Share(count=5)), ("0", Share(count=0)), (5, Share(count=5)), ("5%", Share(percent=5.0)),
     ("2.5 %", Share(percent=2.5)), (Share(count=1), Share(count=1))],
)  # fmt: skip
def test_shares(written: object, expected: Share) -> None:
    """A share is a number of rows or a percentage."""
    assert parse.share(written) == expected


@pytest.mark.parametrize("written", ["101%", "-1", "1.5", 0.05, "many", "", True])
def test_shares_that_are_none(written: object) -> None:
    """A fraction could mean either, so it is refused like nonsense."""
    with pytest.raises(ValueError, match="share"):
        parse.share(written)


def test_params_keep_json_types() -> None:
    """A parameter is JSON: numbers, texts, lists, also beyond 64 bits."""
    written = ["seed=7", 'style="vivid"', "stop=[1, null]", "big=123456789012345678901"]

    assert parse.params(written) == {
        "seed": 7,
        "style": "vivid",
        "stop": [1, None],
        "big": 123456789012345678901,
    }


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("style=vivid", "style='\"vivid\"'"),
        ("seed", "NAME=JSON"),
        ("=7", "NAME=JSON"),
        ("x=NaN", "not JSON"),
        (["a=1", "a=2"], "twice"),
    ],
)
def test_params_that_are_none(written: object, message: str) -> None:
    """A text without its quotes is refused with the quotes in place."""
    with pytest.raises(ValueError, match=message):
        parse.params(written)


def test_headers() -> None:
    """A header is `Name: value`; an empty value stays, it takes ours away."""
    assert parse.headers(["X-A: b: c", "User-Agent:"]) == (("X-A", "b: c"), ("User-Agent", ""))
    assert parse.headers({"X-A": "b"}) == (("X-A", "b"),)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("no colon", "Name: value"),
        ("websim-flags;: ", "semicolon"),
        ("a b: c", "legal"),
        ("X: a\r\nY: b", "line break"),
        (["X: 1", "x: 2"], "twice"),
    ],
)
def test_headers_that_are_none(written: object, message: str) -> None:
    """Illegal names, smuggled lines and doubles are refused."""
    with pytest.raises(ValueError, match=message):
        parse.headers(written)


@pytest.mark.parametrize(
    "url", ["https://websim.ai", "http://127.0.0.1:80/", "http://[::1]:8000/v1", "http://a:b@c"]
)
def test_urls(url: str) -> None:
    """An http address is taken without the slash at its end."""
    assert parse.http_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["websim.ai", "ftp://x", "socks5://u:secret@p", "http://", "http://x:99999", "http://[", "http://x?q"],
)
def test_urls_that_are_none(url: str) -> None:
    """What is no http address is refused, and no password is told."""
    with pytest.raises(ValueError) as caught:
        parse.http_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (True, ()),
        ("", ()),
        (False, None),
        ("server, timeout", ("server", "timeout")),
        (["quota"], ("quota",)),
    ],
)
def test_error_types(written: object, expected: object) -> None:
    """All error types, none, or those that are named."""
    assert parse.error_types(written) == expected


def test_an_error_type_that_is_none() -> None:
    """An unknown error type is refused with the nearest one."""
    with pytest.raises(ValueError, match="did you mean 'timeout'"):
        parse.error_types("timeot")


def test_a_template_file_is_read(tmp_path: Path) -> None:
    """`@FILE` counts from the folder of who named it; text is itself."""
    (tmp_path / "t.txt").write_text("\ufeffHello {{ name }}\n", encoding="utf-8")

    assert parse.template("@t.txt", tmp_path) == "Hello {{ name }}\n"
    assert parse.template("{{ x }}", tmp_path) == "{{ x }}"
    with pytest.raises(ValueError, match="cannot be read"):
        parse.template("@missing.txt", tmp_path)


@pytest.mark.parametrize(
    ("parser", "good", "bad"),
    [
        (parse.count, "16", ["0", "-1", "x", 1.5, True]),
        (parse.delimiter, ";", ["", ";;", '"', "\n"]),
        (parse.encoding, "cp1251", ["utf-99", "base64", ""]),
        (parse.flag, True, ["yes", 1]),
        (parse.text, "x", ["", 3]),
    ],
)
def test_simple_values(parser: Callable[[object], object], good: object, bad: list[object]) -> None:
    """Each parser takes its kind and refuses the rest, as ValueError alone."""
    parser(good)
    for value in bad:
        with pytest.raises(ValueError):
            parser(value)
