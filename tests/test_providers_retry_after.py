"""Retry-After and the rate headers, as tables."""

from __future__ import annotations

import pytest

from websim_batch.providers.retry_after import rate_hint, retry_after_s
from websim_batch.records import RateHint

NOW_S = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT
IN_5_S = "Sun, 09 Sep 2001 01:46:45 GMT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("0.5", 0.5),
        ("2", 2.0),
        (" 61 ", 61.0),
        ("3600", 3600.0),
        ("864000", 864_000.0),
        (IN_5_S, 6.0),  # cut to the second, so one second is added
        ("Sunday, 09-Sep-01 01:46:45 GMT", 6.0),
        ("Sun Sep  9 01:46:45 2001", 6.0),
        ("Sun, 09 Sep 2001 01:46:30 GMT", 0.0),  # past
        ("Wed, 21 Oct 1931 07:28:00 GMT", 0.0),
    ],
)
def test_every_form_of_retry_after_is_understood(text: str, expected: float) -> None:
    """Seconds, fractions, HTTP dates in their three forms, past dates and days give a wait in seconds."""
    assert retry_after_s({"retry-after": text}, NOW_S) == expected


@pytest.mark.parametrize(
    "text",
    ["", "-1", "abc", "nan", "inf", "1e3", "5, 5", "2s", "0x10", "\uff19", "9" * 400, "Sun, 99 Foo 2001 01:46:45 GMT",
     "Wed, 21 Oct 9999999 07:28:00 GMT", "\x00", "1_000", "+5"],
)  # fmt: skip
def test_malformed_retry_after_is_no_retry_after(text: str) -> None:
    """What is neither a number of seconds nor a date says nothing, and raises nothing."""
    assert retry_after_s({"retry-after": text}, NOW_S) is None


def test_a_date_is_measured_by_the_servers_own_clock() -> None:
    """A server whose clock is years off still gets the wait that it means."""
    headers = {"retry-after": IN_5_S, "date": "Sun, 09 Sep 2001 01:46:43 GMT"}

    assert retry_after_s(headers, wall_clock_s=1.7e9) == 3.0


def test_milliseconds_win_over_seconds_unless_malformed() -> None:
    """`retry-after-ms` is the finer word."""
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "1"}, NOW_S) == 0.25
    assert retry_after_s({"retry-after-ms": "soon", "retry-after": "1"}, NOW_S) == 1.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'},
            RateHint(100, 60.0, 50, 30.0),
        ),
        (
            {"ratelimit": "limit=100, remaining=50, reset=30", "ratelimit-policy": "100;w=60"},
            RateHint(100, 60.0, 50, 30.0),
        ),
        (
            {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "5", "ratelimit-reset": "7"},
            RateHint(100, 60.0, 5, 7.0),
        ),
        ({"ratelimit-policy": "10;w=1"}, RateHint(10, 1.0, None, None)),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
            },
            RateHint(60, 60.0, 59, 1.0),
        ),
        (
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
            },
            RateHint(14400, 86400.0, 14370, 179.56),
        ),
        (
            {
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-remaining-requests": "499",
                "x-ratelimit-reset-requests": "120ms",
            },
            RateHint(500, 60.0, 499, 0.12),
        ),
        (
            {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"},
            RateHint(60, None, 59, None),
        ),
        (
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1000000005"},
            RateHint(60, None, 0, 5.0),
        ),
        (
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1000000005000"},
            RateHint(60, None, 0, 5.0),
        ),
        (
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "12"},
            RateHint(60, None, 3, 12.0),
        ),
        ({"x-rate-limit-limit": "600"}, RateHint(600, None, None, None)),
    ],
)
def test_each_family_of_rate_headers_is_read(headers: dict[str, str], expected: RateHint) -> None:
    """The IETF's drafts, OpenAI's and the plain x-ratelimit fields give limit, window, rest and reset."""
    assert rate_hint(headers, NOW_S) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-limit": "abc", "x-ratelimit-remaining": "-3", "x-ratelimit-reset": "zz"},
        {"ratelimit": "\x00;;;==,,"},
        {"ratelimit-policy": "w=60"},
        {"ratelimit-limit": "0"},
        {"x-ratelimit-limit-requests": ""},
        {"ratelimit": "9" * 5000},
    ],
)
def test_malformed_rate_headers_are_ignored(headers: dict[str, str]) -> None:
    """Nonsense gives no hint, and raises nothing."""
    assert rate_hint(headers, NOW_S) is None


def test_no_window_is_made_of_a_rounded_reset() -> None:
    """A reset that fits no usual window says nothing about the window."""
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "30",
        "x-ratelimit-reset-requests": "1s",
    }

    assert rate_hint(headers, NOW_S) == RateHint(60, None, 30, 1.0)
