"""Send a table of prompts to a chat or image endpoint; lose nothing, pay nothing twice.

    import websim_batch as wb

    result = wb.run("prompts.csv", output="answers.parquet", rate="60/min")
    result = await wb.arun(frame, system="Answer in one word.")
    frame = wb.load("out/*.parquet", status="ok")

Importing this is cheap: HTTP, Arrow and pandas load with the first call that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Not on demand like the rest: `api` loads the subpackage `run`, which takes that name here; the function then takes it
# back, for good, since a module is bound to its package only when it is first loaded.
from websim_batch.api import arun, load, run

if TYPE_CHECKING:
    from websim_batch.client import ImageResponse, Websim
    from websim_batch.errors import (
        DiskFullError,
        DriftError,
        EndpointRefusesError,
        ForeignFileError,
        InputChangedError,
        InputError,
        InternalError,
        JournalError,
        LockedError,
        UsageError,
        WebsimBatchError,
    )
    from websim_batch.frames import RunResult

__all__ = [
    "DiskFullError",
    "DriftError",
    "EndpointRefusesError",
    "ForeignFileError",
    "ImageResponse",
    "InputChangedError",
    "InputError",
    "InternalError",
    "JournalError",
    "LockedError",
    "RunResult",
    "UsageError",
    "Websim",
    "WebsimBatchError",
    "arun",
    "load",
    "run",
]

_HOMES = {"ImageResponse": "client", "Websim": "client", "RunResult": "frames"}
"""Where a public name comes from that is loaded when it is first asked for; all others are `errors`."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
