"""Whole runs over TLS, as all are outside of tests, with certificates of the tests' own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from live import Ended, prompts_table, query, run, statuses
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
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    base_url = server.url.removesuffix("/api/run")
    options = ("--base-url", base_url, "--concurrency", 4, "--give-up-after", 1)
    env = {"SSL_CERT_FILE": str(folder / "ca.pem"), "PYTHONWARNINGS": "default::ResourceWarning"}
    return run(folder, "run", table, "-o", folder / "out.csv", *options, prelude=prelude, env=env)


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
