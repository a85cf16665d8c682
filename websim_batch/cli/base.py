"""Click's classes as we use them: commands loaded on demand, options from the table, help in groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

import click

from websim_batch import __version__

HELP_WIDTH = 100
HELP_NAMES = ["-h", "--help"]
SETTINGS: dict[str, Any] = {"help_option_names": HELP_NAMES, "max_content_width": HELP_WIDTH}
_F = TypeVar("_F", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that help and errors come at once."""

    def __init__(self, package: str, summaries: Mapping[str, str], **attrs: Any) -> None:
        super().__init__(context_settings=SETTINGS, no_args_is_help=False, **attrs)
        self._package = package
        self._summaries = summaries
        click.version_option(__version__, prog_name="websim-batch")(self)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without any word the help is shown."""
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the help."""
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, from the module of that name."""
        if cmd_name not in self._summaries:
            return None
        command: click.Command = import_module(f"{self._package}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but a word that is no command is told with the nearest one."""
        name = args[0] if args else ""
        if args and name not in self._summaries and not name.startswith("-"):
            from websim_batch.job.parse import nearest

            hint = nearest(name, self._summaries) or f"; there are {', '.join(self._summaries)}"
            ctx.fail(f"{name!r} is no command{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with their summaries; none of them is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))


class GroupedOption(click.Option):
    """An option that stands under a heading of its command's help."""

    heading = "Options"


class Command(click.Command):
    """A command with its options under headings; each takes -v for the traceback of a fault of ours."""

    def __init__(self, name: str | None, **attrs: Any) -> None:
        super().__init__(name, context_settings=SETTINGS, **attrs)
        if not any("-v" in param.opts for param in self.params):
            help_text = "A fault of ours shows its traceback."
            self.params.append(
                click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, help=help_text)
            )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A bare option whose value may be left out takes none, whatever follows it."""
        bare = {flag for param in self.params if getattr(param, "is_optional", False) for flag in param.opts}
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [f"{a}=" if a in bare else a for a in args[:end]] + args[end:])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under their headings, in the order of the table."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "heading", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class TableOption(GroupedOption):
    """A click option made of a line of the table of options."""

    is_optional = False

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As click's; a value that may be left out stands in brackets."""
        if self.is_optional:
            return f"{self.opts[-1]}[={self.metavar}]", self.help or ""
        return super().get_help_record(ctx)


def table_options(*names: str) -> Callable[[_F], _F]:
    """A decorator that gives a command options of the table, all of them if none is named."""
    from websim_batch.job.options import OPTIONS

    def decorate(function: _F) -> _F:
        for name in reversed(names or tuple(OPTIONS)):
            option = OPTIONS[name]
            attrs: dict[str, Any] = {"metavar": option.metavar} if option.metavar else {"is_flag": True}
            made = click.option(
                *option.flags,
                name,
                cls=TableOption,
                multiple=option.multiple,
                help=option.help + _default(option.default),
                **attrs,
            )
            function = made(function)
            param: TableOption = function.__click_params__[-1]  # type: ignore[attr-defined]  # click keeps them so
            param.heading, param.is_optional = option.group, option.optional
        return function

    return decorate


def _default(value: object) -> str:
    """The default as the help shows it; nothing for options that say nothing when they are left out."""
    if value is None or value is False or value in ((), "", {}):
        return ""
    return f"  [default: {value:g}]" if isinstance(value, (int, float)) else f"  [default: {value}]"


def said(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the user really gave: options that were left out say nothing, also not against a job file."""
    return {
        name: list(v) if isinstance(v, tuple) else v for name, v in raw.items() if v not in (None, False, ())
    }
