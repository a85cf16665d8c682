"""`python -m websim_batch.sandbox OPTIONS`: the child of `start_sandbox_process`; it ends with its stdin."""

from __future__ import annotations

import sys

from websim_batch.sandbox.command import serve
from websim_batch.sandbox.options import SandboxOptions

if __name__ == "__main__":
    serve(SandboxOptions.from_json(sys.argv[1]), ends_with_stdin=True)
