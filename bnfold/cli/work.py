"""Doing what a command asks for: the work, the screen, and the files at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnfold.cli.accounts import NONE, Accounts, write_accounts
from bnfold.cli.destination import STDOUT
from bnfold.cli.exits import one_line
from bnfold.cli.screen import Progress, console, framework_output, progress_line, to_reader
from bnfold.cli.signals import raise_if_stopped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from bnfold.cli.base import Settings
    from bnfold.pipeline import Options
    from bnfold.report import Report

__all__ = ["Job", "print_rendered", "run_conversion", "show", "working"]


@dataclass(frozen=True, slots=True)
class Job:
    """One conversion as the command line asks for it.

    Attributes:
        source: What to read.
        output: What to write; ``-`` is stdout.
        options: How to convert.
        command: Which command asked.
        accounts: Where to write the report.
        force: Whether a refuted model is written too.
    """

    source: Path
    output: Path
    options: Options
    command: Literal["convert", "fold"] = "convert"
    accounts: Accounts = NONE
    force: bool = False


@contextmanager
def working(settings: Settings) -> Iterator[Progress | None]:
    """Show the progress line, and keep what frameworks print off the screen; on a failure it is on the error."""
    with progress_line(settings) as progress:
        said = None
        try:
            with framework_output() as said:
                yield progress
            raise_if_stopped()
        except BaseException as error:
            error.framework_output = said() if said else ""  # type: ignore[attr-defined]
            raise


def run_conversion(job: Job, settings: Settings, *, compact: bool = False) -> None:
    """Convert, show what happened, and write the model and the report.

    Args:
        job: What to do.
        settings: What to print.
        compact: Print one line, for one of many files.

    Raises:
        BnfoldError: If the source cannot be converted, or the result is refuted; the report is written all the same.
        OSError: If a file cannot be written.
    """
    from bnfold.graph.outside import Outside

    options = job.options
    with ExitStack() as stack:
        if options.verify == "off" and job.output != STDOUT:
            # Nothing runs the model, so nothing needs all of its weights at once.
            options = replace(options, outside=stack.enter_context(Outside(job.output.parent)))
        _run(job, options, settings, compact=compact)


def _run(job: Job, options: Options, settings: Settings, *, compact: bool) -> None:
    from bnfold.pipeline import convert, fold_onnx

    run = fold_onnx if job.command == "fold" else convert
    with working(settings) as progress:
        conversion = run(job.source, options, progress=progress, unverified=True)
    to_stdout = job.output == STDOUT
    written: Path | None = None
    content = b""
    # The model first: a report of a model that could not be written would be a lie.
    if to_stdout and conversion.report.holds:
        content = conversion.to_bytes()
    elif not to_stdout and (conversion.report.holds or job.force):
        written = conversion.save(job.output, force=job.force)
    write_accounts(conversion.report, job.accounts)
    show(conversion.report, settings, to_stderr=to_stdout, written=written, compact=compact)
    conversion.require()
    if to_stdout:
        with to_reader():
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()


def show(
    report: Report,
    settings: Settings,
    *,
    to_stderr: bool = False,
    written: Path | None = None,
    compact: bool = False,
) -> None:
    """Print a report: as text for people, or as JSON on stdout.

    Args:
        report: What to print.
        settings: How.
        to_stderr: Whether stdout is taken by the model.
        written: The file that was written.
        compact: One line, for one of many files.
    """
    if settings.format == "json":
        with to_reader():
            sys.stdout.write(report.to_json(indent=None if compact else 2) + "\n")
            sys.stdout.flush()
        return
    if settings.quiet:
        return
    from bnfold.report.render_text import render, render_line

    screen = console(sys.stderr if to_stderr else sys.stdout, settings)
    brief = compact and not settings.verbose
    shown = render_line(report) if brief else render(report, width=screen.width, verbose=settings.verbose)
    wrote = "" if written is None or brief else f"  wrote {one_line(written)}"
    _print(screen, shown, wrote)


def print_rendered(shown: RenderableType, settings: Settings) -> None:
    """Print something that was laid out for a terminal on stdout."""
    _print(console(sys.stdout, settings), shown)


def _print(screen: Console, shown: RenderableType, last: str = "") -> None:
    with to_reader():
        with screen.capture() as captured:
            screen.print(shown)
            if last:
                screen.print(last, soft_wrap=True)
        # A table fills its last column with spaces, which are noise in a file.
        screen.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        screen.file.flush()
