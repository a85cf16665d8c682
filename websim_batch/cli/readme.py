"""The generated parts of the README: the help of every command, the keys of job files.

    python -m websim_batch.cli.readme [--check] README.md

A part stands between two comments, `<!-- help: run -->` or `<!-- job keys -->` and `<!-- end -->`. Writes it
anew; with `--check` it only says whether the file is as it would be written, and ends with 1 if it is not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from websim_batch.cli import COMMANDS, cli
from websim_batch.cli.base import HELP_NAMES, HELP_WIDTH
from websim_batch.job.options import BY_KEY, Option

_PART = re.compile(r"(<!-- (help: ([\w-]+)|job keys) -->\n).*?(<!-- end -->)", re.DOTALL)


def help_text(name: str) -> str:
    """What `websim-batch NAME --help` prints at a fixed width; the group's own under `websim-batch`."""
    with click.Context(
        cli, info_name="websim-batch", terminal_width=HELP_WIDTH, help_option_names=HELP_NAMES
    ) as top:
        if name == cli.name:
            return cli.get_help(top)
        command = cli.get_command(top, name)
        if command is None:
            raise KeyError(name)
        with click.Context(command, parent=top, info_name=name, terminal_width=HELP_WIDTH) as inner:
            return command.get_help(inner)


def job_keys() -> str:
    """A table of all keys of job files: key, the option that means the same, default."""
    lines = ["| table | key | option of `run` | default |", "|---|---|---|---|"]
    lines.append("| `[input]` | `path` | `INPUT` | |")
    for key, option in BY_KEY.items():
        table, _, name = key.partition(".")
        lines.append(f"| `[{table}]` | `{name}` | `{option.flags[-1]}` | {_default(option)} |")
    return "\n".join(lines)


def _default(option: Option) -> str:
    value = option.default
    if value is None or value in ((), "", {}) or value is False:
        return ""
    return f"`{value:g}`" if isinstance(value, (int, float)) else f"`{value}`"


def filled(text: str) -> str:
    """The README's text with every generated part written anew; raises KeyError for an unknown command."""
    return _PART.sub(_part, text)


def _part(found: re.Match[str]) -> str:
    if found[3] is None:
        return f"{found[1]}\n{job_keys()}\n\n{found[4]}"
    return f"{found[1]}\n```text\n{help_text(found[3]).rstrip()}\n```\n\n{found[4]}"


def missing(text: str) -> list[str]:
    """The commands whose help the text has no place for."""
    return [name for name in COMMANDS if f"<!-- help: {name} -->" not in text]


def main(args: Sequence[str]) -> int:
    """Write the parts, or check them; gives the exit code."""
    only_check = "--check" in args
    stale = []
    for file in (Path(arg) for arg in args if arg != "--check"):
        text = file.read_text(encoding="utf-8")
        told = [f"no place for the help of {name}" for name in missing(text)]
        if filled(text) != text and only_check:
            told.append(f"stale; write it anew with: python -m websim_batch.cli.readme {file}")
        elif filled(text) != text:
            file.write_text(filled(text), encoding="utf-8")
        stale += [f"{file}: {what}" for what in told]
    for line in stale:
        click.echo(line, err=True)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
