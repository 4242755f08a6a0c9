"""``bnfold diff``: how two ONNX files differ."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from bnfold.cli.base import Command, State
from bnfold.cli.exits import FAILED, OK
from bnfold.cli.options import path_argument
from bnfold.cli.screen import to_reader
from bnfold.cli.work import print_rendered

__all__ = ["diff"]

_SHARED = ("format", "quiet", "verbose", "no_color", "version")


@click.command(cls=Command, shared=_SHARED, short_help="Say how two ONNX files differ.")
@path_argument("a")
@path_argument("b")
@click.pass_obj
def diff(state: State, /, a: Path, b: Path) -> int:
    """Say how two ONNX files differ.

    Compared are operations, batch norms, nodes by name, weights in units in the last place, inputs, outputs, operator
    sets and metadata; the order of nodes and of weights is not. Nothing is run: bnfold verify says whether two models
    compute the same. The exit code is 0 where nothing differs, or only what says who wrote the file and how, which is
    what bnfold's own entry in the metadata does; 1 where anything else does.
    """
    from bnfold.pipeline import diff as compare

    found = compare(a, b)
    settings = state.settings
    if settings.format == "json":
        from bnfold.report.record import plain

        with to_reader():
            sys.stdout.write(json.dumps(plain(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()
    elif not settings.quiet:
        from bnfold.report.render_difference import render_difference

        print_rendered(render_difference(found, verbose=settings.verbose), settings)
    return OK if found.equal else FAILED
