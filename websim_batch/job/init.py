"""A commented job file for a table: what is needed is written, all else stands there as a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from websim_batch.job.options import BY_KEY, INPUT_KEY, Option
from websim_batch.job.parse import nearest
from websim_batch.job.paths import default_output

_HEAD = """\
# A job for websim-batch.
#   websim-batch check {name}     reads everything, sends nothing
#   websim-batch run {name}       runs it, or continues it
# A line that begins with '# ' and a key is a setting left at its default; take the '# ' away to change it.
# An option on the command line wins over this file. Relative paths count from this file.
"""

_INPUT_HELP = "# The table of prompts: .csv, .parquet or .jsonl; text also .gz or .zst."

_EXAMPLES: Mapping[str, str] = {
    "input.id_column": '"id"',
    "input.template": '"Summarise in one sentence: {{ text }}"',
    "input.fields": '["seed"]',
    "input.data_columns": '["model"]',
    "input.encoding": '"cp1251"',
    "input.delimiter": '";"',
    "input.limit": "100",
    "provider.base_url": '"https://websim.ai"',
    "provider.model": '"gemini-1.5-flash"',
    "provider.system": '"Answer in one word."',
    "provider.aspect_ratio": '"16:9"',
    "provider.project_id": '"ke3_xh5gai3gjkmruomu"',
    "provider.params": "{ seed = 7 }",
    "provider.headers": '{ X-Purpose = "nightly" }',
    "provider.headers_env": '{ Authorization = "Bearer $TOKEN" }',
    "provider.proxy": '"http://proxy.example:3128"',
    "provider.idempotency_header": '"Idempotency-Key"',
    "limits.rate": '["10/s", "500/min"]',
    "retry.retry_failed": "true",
    "output.journal": '"prompts.journal"',
    "output.prefix": '"websim_"',
    "output.tolerate": '"1%"',
    "stop.max_failures": '"5%"',
    "stop.time_limit": '"2h"',
    "stop.deadline": '"06:30"',
}


def job_file_text(source: Path, columns: Sequence[str], name: str) -> str:
    """The text of a job file called `name` for the table `source` (relative to it) with these columns."""
    output = default_output(Path(source.name), is_sandbox=False)
    written = {INPUT_KEY: _toml(str(source)), "output.path": _toml(str(output)), **_prompt(columns)}
    lines = [_HEAD.format(name=name).rstrip(), f"# The table's columns: {', '.join(columns)}"]
    for table in ("input", "provider", "limits", "retry", "output", "stop"):
        lines += ["", f"[{table}]"]
        if table == "input":
            lines += [_INPUT_HELP, _line(INPUT_KEY, written)]
        lines += _lines([option for key, option in BY_KEY.items() if key.startswith(f"{table}.")], written)
    return "\n".join(lines) + "\n"


def _prompt(columns: Sequence[str]) -> dict[str, str]:
    """The prompt column, written down where it is not called `prompt`."""
    if "prompt" in columns or "messages" in columns or not columns:
        return {}
    likely = [name for name in columns if nearest("prompt", [name])]
    usual = [name for name in columns if name.casefold() in ("question", "text", "query", "input", "message")]
    return {"input.prompt_column": _toml((likely + usual + list(columns))[0])}


def _lines(options: Iterable[Option], written: Mapping[str, str]) -> list[str]:
    lines = []
    for option in options:
        lines += textwrap.wrap(option.help, 100, initial_indent="# ", subsequent_indent="#   ")
        lines.append(_line(option.key, written))
    return lines


def _line(key: str, written: Mapping[str, str]) -> str:
    name = key.partition(".")[2]
    if key in written:
        return f"{name} = {written[key]}"
    return f"# {name} = {_EXAMPLES.get(key) or _toml(BY_KEY[key].default)}"


def _toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:g}"
    escaped = "".join(_escape(letter) for letter in str(value))
    return f'"{escaped}"'


def _escape(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"
