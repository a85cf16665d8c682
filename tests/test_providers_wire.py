"""What a user may set on the wire: headers, base URL, proxy."""

from __future__ import annotations

import pytest

from websim_batch.errors import UsageError
from websim_batch.providers import get_provider
from websim_batch.providers.wire import (
    check_base_url,
    check_proxy,
    mask_url,
    mend_headers,
    merge_headers,
    proxy_from_environment,
)

OURS = {"accept": "*/*", "websim-flags": "", "user-agent": "ours"}


def test_a_users_header_replaces_ours_whatever_its_case() -> None:
    """The last word on a name wins; the others stay."""
    merged = merge_headers(OURS, [("User-Agent", "one"), ("USER-AGENT", " two "), ("X-Key", "k")])

    assert merged == {"accept": "*/*", "websim-flags": "", "USER-AGENT": "two", "X-Key": "k"}


def test_an_empty_value_removes_ours() -> None:
    """Ours is not sent; a name that is not ours is not sent empty either."""
    assert merge_headers(OURS, [("Accept", ""), ("websim-flags", ""), ("x-new", "")]) == {
        "user-agent": "ours"
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("websim-flags;", "x"),
        ("", "x"),
        ("a b", "x"),
        ("a:b", "x"),
        ("naïve", "x"),
        ("x-key", "one\r\nhost: evil"),
        ("x-key", "nul\x00"),
        ("x-key", "\ud800"),
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
    ],
)
def test_an_illegal_header_is_refused_without_showing_its_value(name: str, value: str) -> None:
    """The message names the header; a value may be a secret."""
    with pytest.raises(UsageError) as caught:
        merge_headers({}, [(name, value)])

    assert "--header" in str(caught.value)
    assert value == "x" or value not in str(caught.value)


def test_curls_notation_for_an_empty_header_is_mended() -> None:
    """`websim-flags;` is `websim-flags` with an empty value."""
    assert mend_headers({"websim-flags;": "", "accept": "*/*"}) == {"websim-flags": "", "accept": "*/*"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.websim.com/", "https://api.websim.com"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("https://gate.example/llm/v1", "https://gate.example/llm/v1"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_a_base_url_is_taken_without_its_last_slash(url: str, expected: str) -> None:
    """Host, port and path stay."""
    assert check_base_url(url) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("api.websim.com", "https://api.websim.com is perhaps meant"),
        ("localhost:8000", "must begin with https://"),
        ("ftp://x", "must begin with https://"),
        ("https://", "names no host"),
        ("https://x:99999", "Port out of range"),
        ("https://u:secret@x", "u:***@x"),
        ("https://x/?key=1", "without ?"),
        ("https://x y", "blank"),
        ("http://[::1", "Invalid IPv6"),
    ],
)
def test_a_base_url_that_cannot_be_meant_is_refused(url: str, words: str) -> None:
    """The message says what is wrong, and hides passwords."""
    with pytest.raises(UsageError, match="--base-url") as caught:
        check_base_url(url)

    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_socks_is_refused_with_a_remedy(scheme: str) -> None:
    """A SOCKS proxy must not be spoken to as plain HTTP."""
    with pytest.raises(UsageError, match="SOCKS is not supported; name an HTTP proxy") as caught:
        check_proxy(f"{scheme}://user:secret@host:1080")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["host:3128", "ftp://host", "http://", "http://host:port"])
def test_a_proxy_that_cannot_be_meant_is_refused(url: str) -> None:
    """No scheme, a foreign one, no host, no number for a port."""
    with pytest.raises(UsageError, match="--proxy"):
        check_proxy(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@host:3128/", "http://user:***@host:3128/"),
        ("http://token@host", "http://***@host"),
        ("http://user:se@cret@host", "http://user:***@host"),
        ("user:secret@host", "user:***@host"),
        ("http://host:3128", "http://host:3128"),
    ],
)
def test_a_password_in_a_url_is_masked(url: str, shown: str) -> None:
    """Messages name the host, never the password."""
    assert mask_url(url) == shown


def test_the_environments_proxy_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY for https, NO_PROXY excepted, SOCKS refused."""
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")

    assert proxy_from_environment("https://api.example/v1") == "http://proxy:3128"
    assert proxy_from_environment("http://api.example/v1") is None
    assert proxy_from_environment("https://inside.example") is None
    monkeypatch.setenv("https_proxy", "socks5://proxy:1080")
    with pytest.raises(UsageError, match="SOCKS"):
        proxy_from_environment("https://api.example")


def test_the_base_url_comes_from_the_option_then_the_environment_then_the_provider() -> None:
    """In that order."""
    environ = {"WEBSIM_BATCH_BASE_URL": "http://b/"}

    assert get_provider("websim", "http://a", environ).base_url == "http://a"
    assert get_provider("websim", None, environ).base_url == "http://b"
    assert get_provider("websim", None, {}).base_url == "https://websim.ai"
    assert get_provider("openai", None, {}).base_url == "https://api.openai.com/v1"


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    """The message lists them."""
    with pytest.raises(UsageError, match="use one of websim, openai"):
        get_provider("webism", None, {})
