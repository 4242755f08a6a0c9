"""The files that tell what happened: the report as JSON, and as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bnfold.cli.destination import STDOUT, check_destination, check_report, usage

if TYPE_CHECKING:
    from bnfold.report import Report

__all__ = ["NONE", "Accounts", "account_options", "check_accounts", "write_accounts"]

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where to write a report.

    Attributes:
        report: As JSON; None writes none.
        html: As a page; None writes none.
    """

    report: Path | None = None
    html: Path | None = None

    @property
    def layerwise(self) -> bool:
        """Whether every layer has to be looked at."""
        return self.html is not None


NONE = Accounts()
"""Nothing is written."""


def account_options(command: Command) -> Command:
    """Take where to write the report."""
    options = (
        click.option("--report", type=_FILE, metavar="R.json", help="Write the full report as JSON."),
        click.option(
            "--html",
            type=_FILE,
            metavar="R.html",
            help="Write the report as one page, with the error of every layer. Takes a little longer.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_accounts(accounts: Accounts, output: Path | None, read: Iterable[Path]) -> None:
    """Refuse files that cannot be written, or that are one of the other files.

    Args:
        accounts: What to check.
        output: The file of the model.
        read: Files and folders that the command reads.

    Raises:
        click.UsageError: If a file has two purposes.
        OSError: If nothing can be written there.
    """
    read = list(read)
    check_report(accounts.report, output, read)
    page = accounts.html
    if page is None:
        return
    if page == STDOUT:
        raise usage("--html: a page goes into a file", "Give it a name, for example: --html report.html")
    check_destination(page, read, option="--html")
    for other, what in ((output, "the model"), (accounts.report, "the JSON report")):
        if other is not None and other.resolve() == page.resolve():
            raise usage(f"--html: {page} is the file of {what}", "Give the page a path of its own.")


def write_accounts(report: Report, accounts: Accounts) -> None:
    """Write the files that were asked for, each whole or not at all.

    Raises:
        OSError: If one cannot be written.
    """
    from bnfold.graph.atomic import write_atomically

    if accounts.report is not None:
        write_atomically(accounts.report, (report.to_json() + "\n").encode("utf-8"))
    if accounts.html is not None:
        write_atomically(accounts.html, report.to_html().encode("utf-8"))
