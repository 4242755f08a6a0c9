"""``bnfold convert``: a trained network in, a folded and proven ONNX model out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnfold.cli.accounts import Accounts, account_options, check_accounts
from bnfold.cli.base import Command, State
from bnfold.cli.destination import STDOUT, check_destination, check_stdout, usage
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
@click.option("--server", metavar="URL", help="Let a service do it (python -m service), and write what comes back.")
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    metavar="F",
    help="The file with the key of the service.  [default: the environment variable BNFOLD_API_KEY]",
)
@click.option("--job", metavar="ID", help="Wait for a job that the service has already; SRC is not sent again.")
@click.pass_obj
def convert(
    state: State,
    /,
    src: Path,
    output: Path,
    report: Path | None,
    html: Path | None,
    force: bool,
    server: str | None,
    api_key_file: Path | None,
    job: str | None,
    **told: Any,
) -> None:
    """Put a trained network in inference mode, turn it into ONNX, fold its batch norms, and prove the result.

    SRC is a Keras file (.keras, .h5), a SavedModel, a TF1 frozen graph (.pb) or checkpoint, a PyTorch exported
    program (.pt2), or an ONNX file.
    """
    read = [path for path in (src, told["data"], told["architecture"]) if path is not None]
    if output == STDOUT:
        check_stdout(state.settings.format)
    else:
        check_destination(output, read)
    accounts = Accounts(report, html)
    check_accounts(accounts, output, read)
    if server is not None:
        from bnfold.cli.remote import Errand, check_job, check_local_only, fields_of, key_of, run_errand

        check_local_only({**told, "force": force})
        fields = fields_of(state.settings, accounts, told)
        key, job = key_of(api_key_file), check_job(job)
        errand = Errand(server, key, job, src, output, told["architecture"], fields, accounts)
        run_errand(errand, state.settings)
        return
    for name, value in (("--api-key-file", api_key_file), ("--job", job)):
        if value is not None:
            raise usage(f"{name} is for a service, and none is named", "Name it: --server URL")
    options = chosen(state.settings, layerwise=accounts.layerwise, **told)
    run_conversion(Job(src, output, options, accounts=accounts, force=force), state.settings)
