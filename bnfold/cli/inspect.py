"""``bnfold inspect``: what a file is, and what would become of its batch norms."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli.base import Command, Settings, State
from bnfold.cli.destination import usage
from bnfold.cli.options import chosen, folding_options, framework_options, naming_options, path_argument
from bnfold.cli.screen import to_reader
from bnfold.cli.work import print_rendered, show, working

if TYPE_CHECKING:
    from bnfold.frontends.glance import Glance

__all__ = ["inspect"]

_ALWAYS = frozenset({"src", "convert"})


@click.command(cls=Command, short_help="Say what a file is, and what would become of its batch norms.")
@path_argument("src")
@click.option(
    "--convert", is_flag=True, help="Convert it first, to see what would fold. Takes TensorFlow unless it is ONNX."
)
@naming_options
@framework_options
@folding_options
@click.pass_context
def inspect(ctx: click.Context, /, src: Path, convert: bool, **told: Any) -> None:
    """Say what a file is, what it takes and gives, and what would become of every batch norm. Nothing is written.

    An ONNX file is planned for. A file of a framework is looked at, in less than a second and without the framework;
    with --convert it is converted, and planned for like an ONNX file.
    """
    state: State = ctx.obj
    options = chosen(state.settings, **told)
    from bnfold.pipeline import has_to_be_converted

    if not convert and has_to_be_converted(src):
        _demand_no_options(ctx, src)
        from bnfold.pipeline import glance

        _show(glance(src), state.settings)
        return
    from bnfold.pipeline import inspect as run

    with working(state.settings) as progress:
        report = run(src, options, progress=progress)
    show(report, state.settings)


def _demand_no_options(ctx: click.Context, src: Path) -> None:
    """Refuse options that looking at a file cannot follow: an option that is ignored is a promise that is broken."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given and parameter.expose_value and name not in _ALWAYS:
            raise usage(
                f"{max(parameter.opts, key=len)} has no effect where {src} is only looked at",
                "Leave it out, or convert the file first with --convert.",
            )


def _show(glance: Glance, settings: Settings) -> None:
    if settings.format == "json":
        from bnfold.report.record import plain

        with to_reader():
            sys.stdout.write(json.dumps(plain(glance), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()
        return
    if settings.quiet:
        return
    from bnfold.report.render_glance import render_glance

    print_rendered(render_glance(glance, verbose=settings.verbose), settings)
