"""The command `models`."""

from __future__ import annotations

import json
from typing import Any

import click

from websim_batch.cli.base import Command, said, table_options
from websim_batch.cli.faults import emit, hide_secrets
from websim_batch.job.build import build


@click.command(cls=Command)
@table_options("provider", "base_url", "headers", "headers_env", "proxy", "trust_env")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(as_json: bool, **raw: Any) -> None:
    """List the provider's models, the default first.

    \b
    Example:
        websim-batch models
    """
    settings = build(said(raw))
    hide_secrets(settings)
    from websim_batch.run import models

    names = list(models(settings))
    emit(json.dumps(names) if as_json else "\n".join(names))
