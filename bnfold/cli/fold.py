"""``bnfold fold``: the same for ONNX files, one or many."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli.accounts import Accounts, account_options, check_accounts
from bnfold.cli.base import Command, Settings, State
from bnfold.cli.destination import STDOUT, check_destination, check_stdout, usage
from bnfold.cli.exits import DEFECT, failure
from bnfold.cli.options import chosen, folding_options, naming_options, proof_options
from bnfold.cli.screen import shown_error
from bnfold.cli.work import Job, run_conversion

if TYPE_CHECKING:
    from bnfold.pipeline import Options

__all__ = ["fold"]

_PATH = click.Path(path_type=Path)


@click.command(cls=Command, short_help="Fold the batch norms of ONNX files.")
@click.argument("sources", type=_PATH, nargs=-1, required=True, metavar="IN.onnx …")
@click.option("-o", "--output", type=_PATH, metavar="OUT.onnx", help="The ONNX file to write; - is stdout.")
@click.option("--out-dir", type=_PATH, metavar="DIR", help="The folder for several results; each keeps its name.")
@naming_options
@folding_options
@proof_options(["full", "fast", "off"])
@account_options
@click.option("--force", is_flag=True, help="Write a refuted model too, as *.unverified.onnx.")
@click.pass_obj
def fold(
    state: State,
    /,
    sources: tuple[Path, ...],
    output: Path | None,
    out_dir: Path | None,
    report: Path | None,
    html: Path | None,
    force: bool,
    **told: Any,
) -> int | None:
    """Fold the batch norms of an ONNX model into the weights around them, and prove the result.

    Several inputs go to --out-dir. One that fails does not stop the others; the exit code is that of the worst.
    """
    outputs = _outputs(sources, output, out_dir)
    read = [*sources, *([told["data"]] if told["data"] is not None else [])]
    if report is not None and len(sources) > 1:
        raise usage(
            f"--report is for one input, and there are {len(sources)}",
            "Use: --format json, which prints one report a line.",
        )
    if html is not None and len(sources) > 1:
        raise usage(f"--html is for one input, and there are {len(sources)}", "Fold them one by one.")
    if output == STDOUT:
        check_stdout(state.settings.format)
    accounts = Accounts(report, html)
    options = chosen(state.settings, layerwise=accounts.layerwise, **told)
    with _folder(out_dir):
        for path in outputs:
            if path != STDOUT:
                check_destination(path, read, option="--out-dir" if out_dir else "--output")
        check_accounts(accounts, output, read)
        jobs = [
            Job(source, path, _own(options, source, len(sources)), "fold", accounts=accounts, force=force)
            for source, path in zip(sources, outputs, strict=True)
        ]
        if len(jobs) == 1:
            run_conversion(jobs[0], state.settings)
            return None
        return max(_attempt(job, state.settings) for job in jobs)


def _own(options: Options, source: Path, count: int) -> Options:
    """Give each of several inputs a folder of its own for what shows a fault."""
    if options.repro is None or count == 1:
        return options
    return replace(options, repro=options.repro / source.name)


def _outputs(sources: tuple[Path, ...], output: Path | None, out_dir: Path | None) -> tuple[Path, ...]:
    if (output is None) == (out_dir is None):
        raise usage(
            "give either --output or --out-dir",
            "Say where to write: -o OUT.onnx for one input, --out-dir DIR for several.",
        )
    if output is not None:
        if len(sources) > 1:
            raise usage(f"--output is for one input, and there are {len(sources)}", "Use: --out-dir DIR")
        return (output,)
    assert out_dir is not None
    twice = [name for name, count in Counter(source.name for source in sources).items() if count > 1]
    if twice:
        raise usage(
            f"two inputs have the name {twice[0]}, and would be written to the same file", "Fold them one by one."
        )
    return tuple(out_dir / source.name for source in sources)


@contextlib.contextmanager
def _folder(path: Path | None) -> Any:
    """Create the folder for the results; it goes again if nothing was written there."""
    if path is None or path.is_dir():
        yield
        return
    path.mkdir()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()


def _attempt(job: Job, settings: Settings) -> int:
    """Fold one of several; an error is told with its file, and the others go on."""
    try:
        run_conversion(job, settings, compact=True)
    except click.UsageError:
        raise
    except Exception as error:
        told = failure(error)
        if told.exit_code == DEFECT:
            raise
        shown_error(str(told), settings)
        return told.exit_code
    return 0
