"""Whole runs over TLS, as all are outside of tests, with certificates of the tests' own."""

from __future__ import annotations

import signal
import ssl
import time
from pathlib import Path

import pytest
import trustme
from live import Ended, Running, prompts_table, query, read_table, start, statuses, wait_until, write_table
from raw_server import RawServer, answer

WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the certificates."""
    return trustme.CA()


def tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """The side of a server that is known by `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def run_against(folder: Path, server: RawServer, authority: trustme.CA, prelude: str = "") -> Ended:
    """A run of 60 rows by a process that trusts the authority."""
    table = prompts_table(folder / "in.csv", 60)
    options = ("--concurrency", 4, "--give-up-after", 1)
    return run_table(folder, table, server, authority, *options, prelude=prelude)


def run_table(
    folder: Path, table: Path, server: RawServer, authority: trustme.CA, *options: object, prelude: str = ""
) -> Ended:
    """A run of this table by a process that trusts the authority."""
    with start_table(folder, table, server, authority, *options, prelude=prelude) as running:
        ended = running.wait()
    assert "Traceback" not in ended.err, ended.err
    return ended


def start_table(
    folder: Path, table: Path, server: RawServer, authority: trustme.CA, *options: object, prelude: str = ""
) -> Running:
    """The same, going on."""
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    base_url = server.url.removesuffix("/api/run")
    more = ("--base-url", base_url, "--json", *options)
    env = {"SSL_CERT_FILE": str(folder / "ca.pem"), "PYTHONWARNINGS": "default::ResourceWarning"}
    return start(folder, "run", table, "-o", folder / "out.csv", *more, prelude=prelude, env=env)


@pytest.mark.parametrize("length", [10, 70_000], ids=["own lines", "aiohttp's session"])
def test_a_slow_handshake_does_not_squeeze_the_ceiling(
    tmp_path: Path, authority: trustme.CA, length: int
) -> None:
    """5/s and connections that take 0.9 s: never more than 5 requests arrive within a second (judged 20 ms shorter)."""
    table = write_table(tmp_path / "in.csv", ([f"{i}" + "x" * length] for i in range(25)))
    with RawServer(lambda n: answer(), tls(authority, "127.0.0.1"), handshake_s=0.9) as server:
        ended = run_table(tmp_path, table, server, authority, "--rate", "5/s", "--concurrency", 16)

    at = server.arrivals
    assert ended.code == 0, ended.err
    assert len(at) == 25
    assert max(sum(first <= later <= first + 0.98 for later in at) for first in at) <= 5


@pytest.mark.parametrize("length", [10, 70_000], ids=["own lines", "aiohttp's session"])
def test_a_connection_that_stands_too_late_waits_for_the_gate(
    tmp_path: Path, authority: trustme.CA, length: int
) -> None:
    """A 429 comes while others connect: none of them is sent before Retry-After is over, and all are used then."""

    def script(number: int) -> bytes:
        return answer(status="429 Slow", headers="Retry-After: 2\r\n") if number == 1 else answer()

    table = write_table(tmp_path / "in.csv", ([f"{i}" + "x" * length] for i in range(12)))
    with RawServer(script, tls(authority, "127.0.0.1"), handshake_s=0.7) as server:
        ended = run_table(tmp_path, table, server, authority, "--concurrency", 6)

    at = server.arrivals
    assert ended.code == 0, ended.err
    assert ended.summary["sent"] == len(at) == 13
    assert [late for late in at if at[0] + 0.1 < late < at[0] + 2] == []
    assert server.connections <= 6


@pytest.mark.parametrize("length", [10, 70_000], ids=["own lines", "aiohttp's session"])
def test_the_timeout_counts_from_the_leaving(tmp_path: Path, authority: trustme.CA, length: int) -> None:
    """Handshake 1.5 s, answer after 1 s, `--timeout 2`: one request, and its latency leaves the handshake out."""

    def script(number: int) -> bytes:
        time.sleep(1.0)
        return answer()

    table = write_table(tmp_path / "in.csv", [["x" * length]])
    with RawServer(script, tls(authority, "127.0.0.1"), handshake_s=1.5) as server:
        ended = run_table(tmp_path, table, server, authority, "--timeout", 2)

    assert (ended.code, len(server.requests)) == (0, 1), ended.err
    assert 1000 <= int(read_table(tmp_path / "out.csv")[0]["latency_ms"]) < 2000


@pytest.mark.parametrize("length", [10, 70_000], ids=["own lines", "aiohttp's session"])
def test_ctrl_c_while_it_connects_sends_nothing(tmp_path: Path, authority: trustme.CA, length: int) -> None:
    """No request leaves any more, so nothing is waited for; all rows are pending and no intent is left."""
    table = write_table(tmp_path / "in.csv", ([f"{i}" + "x" * length] for i in range(12)))
    with RawServer(lambda n: answer(), tls(authority, "127.0.0.1"), handshake_s=30) as server:
        with start_table(tmp_path, table, server, authority) as running:
            wait_until(lambda: server.connections >= 2)
            running.signal(signal.SIGINT)
            ended = running.wait()
        took_s = ended.summary["elapsed_s"]

    assert (ended.code, ended.summary["sent"], server.requests) == (130, 0, [])
    assert took_s < 9  # a connection is given up after 10 s
    assert statuses(tmp_path / "out.csv") == {"pending": 12}
    assert query(tmp_path / "out.csv.journal", "SELECT count(*) FROM ledger") == [(0,)]


@pytest.mark.parametrize("prelude", ["", WITHOUT_UVLOOP], ids=["uvloop", "asyncio"])
def test_rows_are_answered_over_tls(tmp_path: Path, authority: trustme.CA, prelude: str) -> None:
    """On few connections that are used again and again, and closed at the end."""
    with RawServer(lambda n: answer(), tls(authority, "127.0.0.1")) as server:
        ended = run_against(tmp_path, server, authority, prelude)

    assert ended.code == 0, ended.err
    assert statuses(tmp_path / "out.csv") == {"ok": 60}
    assert len(server.requests) == 60
    assert server.connections <= 4
    assert "ResourceWarning" not in ended.err


def test_a_certificate_of_another_host_sends_nothing(tmp_path: Path, authority: trustme.CA) -> None:
    """The run waits, then stops (4); no row is blamed, and the message says what is wrong."""
    with RawServer(lambda n: answer(), tls(authority, "other.example")) as server:
        ended = run_against(tmp_path, server, authority)

    assert ended.code == 4
    assert "TLS" in ended.err + ended.out
    assert "certificate" in ended.err + ended.out
    assert server.requests == []
    assert statuses(tmp_path / "out.csv") == {"pending": 60}
    journal = tmp_path / "out.csv.journal"
    assert query(journal, "SELECT DISTINCT error_type, delivery FROM ledger") == [("tls", "not_sent")]
