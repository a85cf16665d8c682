"""The command `sandbox`."""

from __future__ import annotations

from typing import Any

import click

from websim_batch.cli.base import Command
from websim_batch.sandbox.options import POLICIES, RETRY_AFTER_FORMS, SandboxOptions, parse_share

_DEFAULT = SandboxOptions()


def _share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    return parse_share(value)


@click.command(cls=Command)
@click.option("--port", type=int, default=_DEFAULT.port, show_default=True, help="0 picks a free one.")
@click.option("--capacity", metavar="N/s|N/min|N/h", help="What it takes; without it everything.")
@click.option(
    "--policy", type=click.Choice(POLICIES), default=_DEFAULT.policy, show_default=True, help="How it limits."
)
@click.option("--burst", type=int, metavar="N", help="What a token bucket or GCRA takes at once.")
@click.option("--window", "window_s", type=float, metavar="SECONDS", help="The length of a window.")
@click.option(
    "--retry-after",
    type=click.Choice(RETRY_AFTER_FORMS),
    default=_DEFAULT.retry_after,
    show_default=True,
    help="What a 429 says about when to come back.",
)
@click.option(
    "--latency-ms", type=float, default=_DEFAULT.latency_ms, metavar="MS", help="The median latency."
)
@click.option("--latency-p99-ms", type=float, metavar="MS", help="The latency of one in a hundred.")
@click.option(
    "--fail", "fail_share", default="0", metavar="SHARE", callback=_share, help="So many answer 500."
)
@click.option(
    "--drop", "drop_share", default="0", metavar="SHARE", callback=_share, help="So many break off."
)
@click.option(
    "--garbage",
    "garbage_share",
    default="0",
    metavar="SHARE",
    callback=_share,
    help="So many answer 200 with nonsense.",
)
@click.option("--seed", type=int, default=_DEFAULT.seed, help="Other faults for the same requests.")
def command(**values: Any) -> None:
    """Serve a local stand-in for the service, with a limit and faults, to rehearse a job.

    The first line of stdout is the base URL. GET /__stats there tells what arrived. Ends with Ctrl-C.

    \b
    Example:
        websim-batch sandbox --port 8765 --capacity 50/s --retry-after seconds --latency-ms 50 --fail 0.05
    """
    from websim_batch.sandbox.command import serve

    serve(SandboxOptions(**values))
