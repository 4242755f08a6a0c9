"""What a conversion hands back, and how it is written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import InconclusiveError, ParityError
from bnfold.graph.io import save_model, serialize
from bnfold.report import Report

if TYPE_CHECKING:
    import onnx

__all__ = ["STAMP", "Conversion", "require", "stamp", "unverified_path"]

STAMP = "bnfold"
"""Key of the short form of the report in a model's ``metadata_props``."""

# What to do next after a conversion, and after a comparison of two files.
_FAILED = (
    "Report the model, with what the same command prints with -v; --force writes it as *.unverified.onnx.",
    "Look with -v at which outputs differ, and on which inputs.",
)
_UNCLEAR = (
    "Give it real inputs with --data; --force writes the model as *.unverified.onnx.",
    "Give it real inputs with --data.",
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A folded model, and the account of how it came about.

    Attributes:
        model: The folded model in inference mode, with a short form of the report in its metadata.
        report: What was done, and how well it is proven.
    """

    model: onnx.ModelProto
    report: Report

    def require(self) -> Conversion:
        """Return itself if nothing speaks against the result.

        Raises:
            ParityError: If the model does not compute what the original computes.
            InconclusiveError: If the comparison cannot tell.
        """
        require(self.report)
        return self

    def to_bytes(self) -> bytes:
        """Return the content of the ONNX file, the same for the same source, options and versions.

        Raises:
            BnfoldError: If it takes more than 2 GiB; ``save`` can write it.
        """
        return serialize(self.model)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the model: whole, or not at all.

        Args:
            path: Where to; its folder must exist. A file that is there is replaced.
            force: Write a model whose verification failed too, under a name that ends in ``.unverified.onnx``.

        Returns:
            The file that was written.

        Raises:
            ParityError: If the model does not compute what the original computes.
            InconclusiveError: If the comparison cannot tell.
            OSError: If the file cannot be written.
        """
        path = Path(path)
        if not force:
            self.require()
        elif not self.report.holds:
            path = unverified_path(path)
        save_model(self.model, path)
        return path


def require(report: Report) -> None:
    """Raise what speaks against a result, if anything does.

    Raises:
        ParityError: If it does not compute what the original computes.
        InconclusiveError: If the comparison cannot tell.
    """
    if report.verdict == "fail":
        raise ParityError(report.reason, hint=_FAILED[report.command == "verify"])
    if report.verdict == "inconclusive":
        raise InconclusiveError(report.reason, hint=_UNCLEAR[report.command == "verify"])


def unverified_path(path: Path) -> Path:
    """Return the name under which a model is written that was not proven."""
    return path.with_name(f"{path.name.removesuffix('.onnx')}.unverified.onnx")


def stamp(model: onnx.ModelProto, report: Report) -> None:
    """Write the short form of a model's report into its metadata: verdict, hash of the source, versions.

    A model that already has one, and in which nothing was changed, keeps it: folding twice is folding once.
    """
    earlier = {entry.key: entry.value for entry in model.metadata_props}.get(STAMP)
    changed = report.folded or report.affines or report.mode or report.inlined
    if earlier is not None and not changed and _says_as_much(earlier, report.verdict):
        return
    short = {
        "schema": report.schema,
        "verdict": report.verdict,
        "source_sha256": report.source.sha256,
        "folded": len(report.folded),
        "kept": len(report.batch_norms) - len(report.folded),
        "seed": report.seed,
        "versions": dict(report.versions),
    }
    others = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != STAMP]
    del model.metadata_props[:]
    for key, value in [*others, (STAMP, json.dumps(short, sort_keys=True))]:
        model.metadata_props.add(key=key, value=value)


def _says_as_much(stamp: str, verdict: str) -> bool:
    try:
        earlier = json.loads(stamp)["verdict"]
    except (ValueError, TypeError, KeyError):
        return False
    return earlier == verdict or (isinstance(earlier, str) and earlier.startswith(("pass", "rolled-back")))
