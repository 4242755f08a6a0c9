"""``bnfold inspect``: what a file is, and what would become of its batch norms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnfold.cli.base import Command, State
from bnfold.cli.options import chosen, folding_options, framework_options, naming_options, path_argument
from bnfold.cli.work import show, working

__all__ = ["inspect"]


@click.command(cls=Command, short_help="Say what a file is, and what would become of its batch norms.")
@path_argument("src")
@naming_options
@framework_options
@folding_options
@click.pass_obj
def inspect(state: State, /, src: Path, **told: Any) -> None:
    """Say what a file is, what it takes and gives, and what would become of every batch norm. Nothing is written."""
    options = chosen(state.settings, **told)
    from bnfold.pipeline import inspect as run

    with working(state.settings) as progress:
        report = run(src, options, progress=progress)
    show(report, state.settings)
