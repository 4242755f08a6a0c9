"""The error of every value, where somebody asked to see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from bnfold.fold import Folded
from bnfold.frontends.loaded import Array, LayerReader
from bnfold.parity.layerwise import Layerwise
from bnfold.parity.verdict import Parity
from bnfold.pipeline.options import Options

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["layers_of"]

Step = Callable[[str], AbstractContextManager[Callable[[str, int, int], None]]]


def layers_of(
    unfolded: ModelProto,
    folded: Folded,
    *,
    proof: Parity | None,
    options: Options,
    feeds: Sequence[Mapping[str, Array]] | None,
    step: Step,
    original: LayerReader | None = None,
) -> Layerwise | None:
    """Measure how far every value is from float64 in both models; None where nobody asked, or nothing was verified.

    Args:
        unfolded: The model before folding, in inference mode.
        folded: The model after it, and what folding changed.
        proof: What verifying the two has found.
        options: What was asked for.
        feeds: The user's own inputs.
        step: Times a block and tells whoever waits.
        original: Returns what the original program's layers compute; None where that is an ONNX file.
    """
    if proof is None or not options.layerwise:
        return None
    from bnfold.parity.layers import measure_layers

    with step("layers") as done:
        return measure_layers(
            unfolded=unfolded,
            folded=folded.model,
            parity=proof,
            regions=folded.regions,
            seed=options.seed,
            feeds=feeds or (),
            original=original,
            progress=done,
        )
