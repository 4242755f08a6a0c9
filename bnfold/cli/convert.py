"""``bnfold convert``: a trained network in, a folded and proven ONNX model out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnfold.cli.accounts import Accounts, account_options, check_accounts
from bnfold.cli.base import Command, State
from bnfold.cli.destination import STDOUT, check_destination, check_stdout
from bnfold.cli.options import chosen, folding_options, framework_options, naming_options, path_argument, proof_options
from bnfold.cli.work import Job, run_conversion

__all__ = ["convert"]


@click.command(cls=Command, short_help="Turn a trained network into a folded, proven ONNX model.")
@path_argument("src")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT",
    help="The ONNX file to write; - is stdout.",
)
@naming_options
@framework_options
@folding_options
@proof_options(["full", "fast", "off"])
@account_options
@click.option("--force", is_flag=True, help="Write a refuted model too, as *.unverified.onnx.")
@click.pass_obj
def convert(
    state: State, /, src: Path, output: Path, report: Path | None, html: Path | None, force: bool, **told: Any
) -> None:
    """Put a trained network in inference mode, turn it into ONNX, fold its batch norms, and prove the result.

    SRC is a Keras file (.keras, .h5), a SavedModel, a TF1 frozen graph (.pb) or checkpoint, or an ONNX file.
    """
    read = [path for path in (src, told["data"], told["architecture"]) if path is not None]
    if output == STDOUT:
        check_stdout(state.settings.format)
    else:
        check_destination(output, read)
    accounts = Accounts(report, html)
    check_accounts(accounts, output, read)
    options = chosen(state.settings, layerwise=accounts.layerwise, **told)
    job = Job(src, output, options, accounts=accounts, force=force)
    run_conversion(job, state.settings)
