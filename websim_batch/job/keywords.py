"""The keyword arguments of `run()` with their types; what they do is told in the table of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict

from websim_batch.records import Ceiling, Json, Share

Names: TypeAlias = str | Sequence[str]
Seconds: TypeAlias = float | str | timedelta
Rows: TypeAlias = int | str | Share
Headers: TypeAlias = Mapping[str, str] | Names
Params: TypeAlias = Mapping[str, Json] | Names


class RunOptions(TypedDict, total=False):
    """Every option of `run` under its flag's name and, where that is another, its field's in Settings.

    None says nothing; both names of one option at once are refused.
    """

    output: str | Path | None
    prompt_column: str | None
    template: str | None
    model: str | None
    system: str | None
    rate: str | Ceiling | Sequence[str | Ceiling] | None
    concurrency: int | None
    limit: int | None
    retry_failed: bool | Names | None
    sandbox: bool
    json: bool
    id_column: str | None
    field: Names | None
    fields: Names | None
    data_column: Names | None
    data_columns: Names | None
    encoding: str | None
    delimiter: str | None
    provider: Literal["websim", "openai"] | None
    base_url: str | None
    header: Headers | None
    headers: Headers | None
    header_env: Headers | None
    headers_env: Headers | None
    proxy: str | None
    trust_env: bool | None
    idempotency_header: str | None
    kind: Literal["auto", "chat", "image"] | None
    aspect_ratio: str | None
    project_id: str | None
    param: Params | None
    params: Params | None
    timeout: Seconds | None
    timeout_s: Seconds | None
    max_attempts: int | None
    give_up_after: Seconds | None
    give_up_after_s: Seconds | None
    on_drift: Literal["refuse", "keep", "resend"] | None
    overwrite: bool
    max_failures: Rows | None
    time_limit: Seconds | None
    time_limit_s: Seconds | None
    deadline: str | datetime | None
    grace: Seconds | None
    grace_s: Seconds | None
    journal: str | Path | None
    prefix: str | None
    bom: bool | None
    csv_safe: bool | None
    tolerate: Rows | None
    progress: Literal["auto", "bar", "log", "none"] | None
    log_format: Literal["text", "json"] | None
    quiet: bool
    verbose: bool
