"""A stand-in server in a process of its own, as `run --sandbox` starts it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from websim_batch.errors import InternalError
from websim_batch.sandbox.options import SandboxOptions

_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class SandboxProcess:
    """A running stand-in; `stop` ends it, and so does the end of this process, whatever its cause."""

    base_url: str
    pid: int
    _child: subprocess.Popen[str]

    def stop(self) -> None:
        """Ends the server and waits for it; a second call does nothing."""
        if self._child.stdin is not None:
            # It may be gone already; then nobody reads the pipe.
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()

    def __enter__(self) -> SandboxProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_sandbox_process(options: SandboxOptions) -> SandboxProcess:
    """Starts a stand-in on a free port and waits until it takes connections.

    It is in a session of its own, so that Ctrl-C reaches the run alone and the run can drain against it.
    Raises InternalError if it does not start.
    """
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "websim_batch.sandbox", replace(options, port=0).to_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
    assert child.stdout is not None
    base_url = child.stdout.readline().strip()
    process = SandboxProcess(base_url, child.pid, child)
    if not base_url.startswith("http://"):
        process.stop()
        raise InternalError("The sandbox did not start; its own message stands above")
    return process
