"""PyTorch and its ONNX exporter's library, imported late, and kept quiet."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from bnfold.errors import MissingExtraError
from bnfold.frontends.tensorflow.guests import quiet

__all__ = ["onnxscript", "quiet", "torch"]


def torch(name: str = "torch") -> Any:  # a guest has no types of its own
    """Return the module ``torch``, or one inside it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return _guest(name)


def onnxscript(name: str = "onnxscript") -> Any:
    """Return the module ``onnxscript``, or one inside it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return _guest(name)


@cache
def _guest(name: str) -> Any:
    try:
        with quiet():
            return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"reading PyTorch files takes the package {name.partition('.')[0]}, which cannot be imported: {error}",
            hint="Install it: pip install 'bnfold[torch]'",
        ) from error
