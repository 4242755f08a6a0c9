"""Fold batch normalization into the weights around it, and prove that the model still computes the same thing.

The names below are the whole public interface. They are read from their modules when they are first used, so that
``import bnfold`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.errors import (
        BnfoldError,
        CorruptModelError,
        InconclusiveError,
        InferenceModeError,
        MissingExtraError,
        ParityError,
        RemoteError,
        SignatureError,
        SourceError,
        UnknownFormatError,
        UnsupportedOpError,
    )
    from bnfold.pipeline import DEFAULTS, Conversion, Options, convert, fold_onnx, glance, inspect, verify
    from bnfold.report import Report

    __version__: str

__all__ = [
    "DEFAULTS",
    "BnfoldError",
    "Conversion",
    "CorruptModelError",
    "InconclusiveError",
    "InferenceModeError",
    "MissingExtraError",
    "Options",
    "ParityError",
    "RemoteError",
    "Report",
    "SignatureError",
    "SourceError",
    "UnknownFormatError",
    "UnsupportedOpError",
    "__version__",
    "convert",
    "fold_onnx",
    "glance",
    "inspect",
    "verify",
]

_HOME = {
    **dict.fromkeys(
        ("DEFAULTS", "Conversion", "Options", "convert", "fold_onnx", "glance", "inspect", "verify"), "bnfold.pipeline"
    ),
    "Report": "bnfold.report",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("bnfold")
    if name not in __all__:
        raise AttributeError(f"module 'bnfold' has no attribute {name!r}")
    thing = getattr(import_module(_HOME.get(name, "bnfold.errors")), name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return sorted(__all__)
