"""A local stand-in for the service, to rehearse jobs and to test against.

What is imported here at once is light: the server itself (aiohttp.web) loads when one is started in this
process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from websim_batch.sandbox.options import POLICIES, RETRY_AFTER_FORMS, SandboxOptions, parse_share
from websim_batch.sandbox.process import SandboxProcess, start_sandbox_process

if TYPE_CHECKING:
    from websim_batch.sandbox.ledger import Arrival
    from websim_batch.sandbox.misbehaviour import Misbehaviour, Outage, Scripted, drift, steps
    from websim_batch.sandbox.testing import Sandbox

__all__ = [
    "POLICIES",
    "RETRY_AFTER_FORMS",
    "Arrival",
    "Misbehaviour",
    "Outage",
    "Sandbox",
    "SandboxOptions",
    "SandboxProcess",
    "Scripted",
    "drift",
    "parse_share",
    "serve",
    "start_sandbox_process",
    "steps",
]

_LATE = {
    "Arrival": "ledger",
    "Misbehaviour": "misbehaviour",
    "Outage": "misbehaviour",
    "Scripted": "misbehaviour",
    "drift": "misbehaviour",
    "steps": "misbehaviour",
    "Sandbox": "testing",
}


def serve(options: SandboxOptions) -> None:
    """Serves until SIGINT or SIGTERM, then returns; first prints the base URL alone on stdout.

    Raises UsageError if the port is taken.
    """
    from websim_batch.sandbox import command

    command.serve(options)


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
