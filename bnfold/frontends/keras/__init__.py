"""Keras files of both generations: looked at as files, and turned into ONNX by their own Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.frontends.keras.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> object:
    """Import what builds a model only when it is asked for: looking at a file takes none of it."""
    if name == "load":
        from bnfold.frontends.keras.loading import load

        return load
    raise AttributeError(f"module 'bnfold.frontends.keras' has no attribute {name!r}")
