"""Where the rooms meet: a trained network goes in, a folded and proven ONNX model comes out.

The names are read from their modules when they are first used: looking at a file takes a small part of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.pipeline.comparing import verify
    from bnfold.pipeline.conversion import Conversion, require
    from bnfold.pipeline.difference import diff
    from bnfold.pipeline.looking import glance, has_to_be_converted
    from bnfold.pipeline.options import DEFAULTS, Options, Progress
    from bnfold.pipeline.run import convert, fold_onnx, inspect

__all__ = [
    "DEFAULTS",
    "Conversion",
    "Options",
    "Progress",
    "convert",
    "diff",
    "fold_onnx",
    "glance",
    "has_to_be_converted",
    "inspect",
    "require",
    "verify",
]

_HOME = {
    **dict.fromkeys(("Conversion", "require"), "conversion"),
    **dict.fromkeys(("DEFAULTS", "Options", "Progress"), "options"),
    "diff": "difference",
    **dict.fromkeys(("convert", "fold_onnx", "inspect"), "run"),
    "verify": "comparing",
    **dict.fromkeys(("glance", "has_to_be_converted"), "looking"),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'bnfold.pipeline' has no attribute {name!r}")
    return getattr(import_module(f"bnfold.pipeline.{_HOME[name]}"), name)
