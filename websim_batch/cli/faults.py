"""How the command line ends: one sentence on stderr and an exit code for everything that can go wrong."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import click

from websim_batch.errors import InternalError, WebsimBatchError
from websim_batch.job.settings import Settings, resolve_headers
from websim_batch.records import Redactor

INTERRUPTED = 130
USAGE = 2
FAULT = 1

_redact = Redactor()


def hide_secrets(settings: Settings) -> None:
    """From now on no message shows a secret of these settings; raises UsageError for a missing variable."""
    from websim_batch.providers import own_secrets

    global _redact
    _redact = Redactor([*resolve_headers(settings, os.environ)[1], *own_secrets(os.environ)])


def run_guarded(command: click.Command, args: Sequence[str] | None) -> int:
    """Run a click command and give its exit code; what goes wrong is told on stderr.

    A fault of ours reaches `sys.excepthook` and so ends the process with 1; -v alone shows its traceback.
    """
    sys.excepthook = _tell_fault
    try:
        code = command.main(
            args=None if args is None else list(args), prog_name="websim-batch", standalone_mode=False
        )
    except click.UsageError as exc:
        _tell_usage(exc)
        return USAGE
    except click.ClickException as exc:
        tell(exc.format_message())
        return USAGE
    except click.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        _mute_stdout()
        return 0
    except InternalError:
        raise
    except WebsimBatchError as exc:
        tell(str(exc))
        return exc.exit_code
    return code if isinstance(code, int) else 0


def tell(message: str) -> None:
    """A message to the user on stderr, each line with our name before it."""
    try:
        for line in _redact(message).splitlines() or [""]:
            click.echo(f"websim-batch: {line}", err=True)
    except OSError:
        return  # nobody listens


def emit(text: str) -> None:
    """A result to stdout; a reader that has gone away changes no exit code."""
    try:
        click.echo(text)
    except BrokenPipeError:
        _mute_stdout()


def _tell_usage(exc: click.UsageError) -> None:
    path = exc.ctx.command_path if exc.ctx else "websim-batch"
    message = exc.format_message().rstrip(".")
    tell(f"{message[:1].lower()}{message[1:]} (see {path} --help)")


def _mute_stdout() -> None:
    # Python flushes stdout once more at its end; there it must not meet the broken pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_fault(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours in one sentence: what and where; no values, which could hold secrets or prompts."""
    if {"-v", "--verbose"} & set(sys.argv[1:]):
        tell("".join(traceback.format_exception(kind, exc, trace)))
        return
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    what = str(exc) if isinstance(exc, WebsimBatchError) else type(exc).__name__
    tell(
        f"a fault of websim-batch itself: {what}{where}; what finished is kept, the same command"
        " continues it; -v shows the traceback"
    )
