"""``bnfold verify``: whether two models compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnfold.cli.accounts import Accounts, account_options, check_accounts, write_accounts
from bnfold.cli.base import Command, State
from bnfold.cli.options import (
    chosen,
    comparing_options,
    framework_options,
    naming_options,
    path_argument,
    proof_options,
)
from bnfold.cli.work import show, working

__all__ = ["verify"]


@click.command(cls=Command, short_help="Prove, or refute, that two models compute the same.")
@path_argument("a")
@path_argument("b")
@naming_options
@framework_options
@proof_options(["full", "fast"])
@comparing_options
@account_options
@click.pass_obj
def verify(state: State, /, a: Path, b: Path, report: Path | None, html: Path | None, **told: Any) -> None:
    """Compare what B computes with what A computes, on the same inputs, both in inference mode.

    Both may be of any format. Inputs and outputs belong together by their names; where these differ, by what only one
    of them can be.

    A is right by definition, and B is judged by the same rule as a folded model: its error against a float64 reference
    of A. The exit code is 0 where B passes, 1 where it fails, 4 where it cannot be told.
    """
    accounts = Accounts(report, html)
    told["layerwise"] = told["layerwise"] or accounts.layerwise
    options = chosen(state.settings, **told)
    check_accounts(accounts, None, [path for path in (a, b, told["data"], told["architecture"]) if path is not None])
    from bnfold.pipeline import require
    from bnfold.pipeline import verify as run

    with working(state.settings) as progress:
        result = run(a, b, options, progress=progress)
    write_accounts(result, accounts)
    show(result, state.settings)
    require(result)
