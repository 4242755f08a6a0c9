"""The terminal: what is printed where, the progress line, and what frameworks print behind our back."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

from bnfold.cli.exits import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from bnfold.cli.base import Settings

__all__ = ["Progress", "console", "framework_output", "progress_line", "shown_error", "to_reader"]

Progress = Callable[[str, float | None], None]
"""Told the step that runs, and how much of it is done (0 to 1) where that is known."""

_WIDTH = 100
"""Columns where nobody looks at a terminal: files and pipes are not narrowed to 80."""

_LONGEST_OUTPUT = 1 << 16


def console(stream: IO[str], settings: Settings) -> Console:
    """Return where text is printed: as wide as the terminal, without colour where none is wanted or possible."""
    from rich.console import Console

    width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else _WIDTH
    plain = not settings.color or bool(os.environ.get("NO_COLOR"))
    return Console(file=stream, width=width, no_color=plain or None, highlight=False, emoji=False, markup=False)


@contextlib.contextmanager
def framework_output() -> Iterator[Callable[[], str]]:
    """Keep what libraries print on either stream, from C++ too, off the screen and out of a model on stdout.

    Yields:
        A function that returns, after the block, the end of what was printed.
    """
    said = b""
    with contextlib.ExitStack() as stack:
        try:
            kept = _nameless_file(stack)
            saved = {number: os.dup(number) for number in (1, 2)}
        except OSError:  # one of the streams is closed, or there is no room for a file: then nothing is caught
            yield lambda: ""
            return
        _flush()
        try:
            for number in saved:
                os.dup2(kept, number)
            yield lambda: said.decode("utf-8", "replace")
        finally:
            _flush()
            for number, original in saved.items():
                os.dup2(original, number)
                os.close(original)
            size = os.lseek(kept, 0, os.SEEK_END)
            os.lseek(kept, max(0, size - _LONGEST_OUTPUT), os.SEEK_SET)
            said = os.read(kept, _LONGEST_OUTPUT)


def _nameless_file(stack: contextlib.ExitStack) -> int:
    """Open a file that no folder lists: in memory where the system can, so that a full disk does not matter."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("bnfold-output")
        stack.callback(os.close, number)
        return number
    return stack.enter_context(tempfile.TemporaryFile()).fileno()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


@contextlib.contextmanager
def progress_line(settings: Settings) -> Iterator[Progress | None]:
    """Show on stderr what runs and for how long; nothing where stderr is no terminal or nobody wants it.

    The line is drawn on a copy of the stream, so that it is seen while ``framework_output`` holds the stream itself.
    """
    wanted = settings.progress and not settings.quiet
    if not wanted or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace") as stream:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        line = Progress(
            *columns,
            console=console(stream, settings),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with line:
            task = line.add_task("", total=None)

            def tell(step: str, done: float | None) -> None:
                line.update(
                    task, description=one_line(step), total=None if done is None else 1.0, completed=done or 0.0
                )

            yield tell


@contextlib.contextmanager
def to_reader() -> Iterator[None]:
    """Name the stream in an error that is about it; that nobody listens any more is no error.

    Raises:
        OSError: If what is printed cannot be written, for example because it goes to a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), "standard output") from error


def shown_error(text: str, settings: Settings | None = None) -> None:
    """Print an error on stderr, in red where there is colour."""
    import click

    colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and (settings is None or settings.color)
    if colored:
        head, colon, rest = text.partition(": ")
        text = click.style(head, fg="red", bold=True) + colon + rest
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more
        click.echo(text, err=True, color=colored)
