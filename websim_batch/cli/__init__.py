"""The command line: `main` for the entry point; each command is a module, loaded when it is called."""

from __future__ import annotations

from collections.abc import Sequence

from websim_batch.cli.base import LazyGroup
from websim_batch.cli.faults import run_guarded

COMMANDS = {
    "run": "Run a job, or continue it.",
    "check": "Read and check everything; send nothing.",
    "status": "Say how far a job is.",
    "export": "Write the table as it stands now, in another format.",
    "verify": "Prove that an output holds its input whole.",
    "init": "Write a commented job file for a table.",
    "models": "List the provider's models, default first.",
    "sandbox": "Serve a local stand-in for the service.",
}
"""The commands in the order of the help; each stands in the module of its name."""

EXAMPLE = """\
Send a table of prompts to a chat or image endpoint; lose nothing, pay nothing twice.

\b
Example:
    mkdir -p out
    websim-batch run sample_inputs/chat.csv --sandbox -o out/chat.csv
"""

cli = LazyGroup("websim_batch.cli", COMMANDS, name="websim-batch", help=EXAMPLE)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line with `args` (the process's own if None) and give its exit code."""
    return run_guarded(cli, args)
