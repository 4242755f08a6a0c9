"""The program: its commands, its signals, and the one place where errors become exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from bnfold.cli.base import Group, Settings, State
from bnfold.cli.convert import convert
from bnfold.cli.diff import diff
from bnfold.cli.exits import DEFECT, FAILED, OK, USAGE, failure
from bnfold.cli.explain import explain
from bnfold.cli.fold import fold
from bnfold.cli.inspect import inspect
from bnfold.cli.rules import rules
from bnfold.cli.screen import shown_error
from bnfold.cli.signals import came, stopping
from bnfold.cli.verify import verify

__all__ = ["HELP", "root", "run"]

HELP = ["-h", "--help"]
"""How help is asked for."""

_EPILOG = "Every command has its own help: bnfold convert --help"


@click.group(cls=Group, context_settings={"help_option_names": HELP, "max_content_width": 100}, epilog=_EPILOG)
def root() -> None:
    """Fold batch normalization into the weights around it, and prove that the model still computes the same."""


for _command in (convert, fold, inspect, verify, diff, rules, explain):
    root.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run the program and return its exit code; every error is told on stderr.

    Args:
        arguments: The command line, without the program's name.
    """
    _tell_anything()
    state = State()
    with stopping():
        try:
            try:
                code = root.main(list(arguments), prog_name="bnfold", standalone_mode=False, obj=state)
                _flush()
            except BrokenPipeError:
                _forget_stdout()
                return FAILED
            return code if isinstance(code, int) else OK
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help(), err=True)
            return USAGE
        except (Exception, KeyboardInterrupt) as error:
            return _told(error, state.settings)


def _told(error: BaseException, settings: Settings) -> int:
    told = failure(error, stopped=came())
    if settings.verbose and told.exit_code == DEFECT:
        import traceback

        for line in traceback.format_exception(error):
            shown_error(line.rstrip("\n"), Settings(color=False))
    printed = getattr(error, "framework_output", "")
    if settings.verbose and printed:
        shown_error(f"what the framework printed: {printed}", Settings(color=False))
    try:
        _flush()
    except OSError:
        _forget_stdout()
    shown_error(str(told), settings)
    return told.exit_code


def _tell_anything() -> None:
    """Print what the encoding lacks as escapes instead of failing on it, and into the void where a stream is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # open until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    sys.stdout.flush()


def _forget_stdout() -> None:
    """Nobody reads our output any more: keep the interpreter from failing on the same pipe when it ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
