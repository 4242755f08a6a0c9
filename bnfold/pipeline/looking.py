"""Looking at an artifact of a framework without converting it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold import frontends
from bnfold.frontends import sniff

if TYPE_CHECKING:
    from bnfold.frontends.glance import Glance

__all__ = ["glance", "has_to_be_converted"]


def has_to_be_converted(path: str | os.PathLike[str]) -> bool:
    """Return whether an artifact becomes an ONNX file by a framework only, and so is looked at first.

    Raises:
        UnknownFormatError: If there is no such path, or its content is in no known format.
        CorruptModelError: If its format is known, and it breaks off.
        OSError: If it exists and cannot be read.
    """
    return sniff.sniff(Path(path)) not in (sniff.Format.ONNX, sniff.Format.ONNX_ARCHIVE)


def glance(path: str | os.PathLike[str]) -> Glance:
    """Say what an artifact of a framework is, from its file alone: nothing is imported that could run it.

    Args:
        path: A Keras file, a SavedModel, a TF1 frozen graph, a meta graph, or a TF1 checkpoint.

    Raises:
        SourceError: If it is damaged, or nothing that is read.
        OSError: If it exists and cannot be read.
    """
    return frontends.look(Path(path))
