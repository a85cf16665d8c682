"""The sandbox as a process: its first line, its end, and its end with its parent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from websim_batch.sandbox import SandboxOptions, start_sandbox_process

ROOT = Path(__file__).resolve().parent.parent
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
SERVE = "from websim_batch.sandbox import SandboxOptions, serve; serve(SandboxOptions(port=0))"


def python(code: str) -> subprocess.Popen[str]:
    """A Python process whose output can be read."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRON,
    )


def requests_seen(base_url: str) -> int:
    """What the server counted so far."""
    with urlopen(base_url + "/__stats", timeout=5) as response:
        counted: int = json.load(response)["requests"]
        return counted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_url_first_and_ends_quietly(number: signal.Signals) -> None:
    """One line on stdout as soon as it serves; exit code 0 and not a word on a signal."""
    with python(SERVE) as server:
        assert server.stdout is not None
        base_url = server.stdout.readline().rstrip("\n")

        seen = requests_seen(base_url)
        server.send_signal(number)
        rest, errors = server.communicate(timeout=10)

    assert base_url.startswith("http://127.0.0.1:")
    assert seen == 0
    assert (server.returncode, rest, errors) == (0, "", "")


def test_the_child_of_a_run_serves_and_stops() -> None:
    """On a free port of its own; stopping it twice is no fault."""
    with start_sandbox_process(SandboxOptions(capacity="5/s")) as process:
        assert requests_seen(process.base_url) == 0
        process.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_the_child_of_a_run_survives_the_terminals_interrupt() -> None:
    """Ctrl-C goes to the run's process group; the stand-in is in none of it, so the run can drain."""
    with start_sandbox_process(SandboxOptions()) as process:
        assert os.getpgid(process.pid) != os.getpgid(0)
        assert os.getsid(process.pid) == process.pid


def test_the_child_of_a_run_dies_with_a_killed_parent() -> None:
    """SIGKILL leaves the parent no chance to stop it; the end of its stdin does."""
    code = (
        "import signal; from websim_batch.sandbox import *; "
        "print(start_sandbox_process(SandboxOptions()).base_url, flush=True); signal.pause()"
    )
    with python(code) as parent:
        assert parent.stdout is not None
        base_url = parent.stdout.readline().strip()
        host, port = base_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            parent.kill()

            assert connection.recv(1) == b""


def test_importing_the_package_loads_no_server() -> None:
    """The command line imports it for the options alone."""
    code = "import sys, websim_batch.sandbox; print('aiohttp' in sys.modules or 'asyncio' in sys.modules)"
    with python(code) as process:
        output, _ = process.communicate(timeout=30)

    assert output.strip() == "False"


def test_the_package_has_no_other_names() -> None:
    """A wrong name is an AttributeError, as anywhere."""
    import websim_batch.sandbox

    with pytest.raises(AttributeError, match="Sandpit"):
        _ = websim_batch.sandbox.Sandpit
