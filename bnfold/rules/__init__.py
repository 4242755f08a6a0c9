"""The three tables: sources make an affine map, carriers let it pass, absorbers take it in.

A rule is added by writing it and naming it here; its examples are its tests and its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bnfold.rules import (
    blocks,
    choices,
    concat,
    conv,
    conv_transpose,
    dequantize,
    einsum,
    gather_table,
    gemm,
    layout,
    matmul,
    norms,
    pointwise,
    pooling,
    products,
    recurrent,
    reductions,
    repeats,
    resampling,
    selections,
    sequences,
    sources,
    sums,
    unchanged,
)
from bnfold.rules.declare import Absorber, Affine, Carried, Carrier, Direction, Example, Form, Side, Source
from bnfold.rules.reasons import Reason, Refusal
from bnfold.rules.sources import BATCH_NORM

__all__ = [
    "BATCH_NORM",
    "RULES",
    "Absorber",
    "Affine",
    "Carried",
    "Carrier",
    "Direction",
    "Example",
    "Form",
    "Reason",
    "Refusal",
    "Rules",
    "Side",
    "Source",
]


@dataclass(frozen=True, slots=True)
class Rules:
    """The tables that a plan is made with.

    Attributes:
        sources: By operation.
        carriers: By operation.
        absorbers: By operation and side.
    """

    sources: Mapping[str, Source]
    carriers: Mapping[str, Carrier]
    absorbers: Mapping[tuple[str, Side], Absorber]


_ABSORBERS = (
    conv.OUTPUT_SIDE,
    conv.INPUT_SIDE,
    conv_transpose.OUTPUT_SIDE,
    conv_transpose.INPUT_SIDE,
    gemm.OUTPUT_SIDE,
    gemm.INPUT_SIDE,
    matmul.OUTPUT_SIDE,
    matmul.INPUT_SIDE,
    einsum.OUTPUT_SIDE,
    einsum.INPUT_SIDE,
    gather_table.GATHER,
    gather_table.GATHER_ND,
    dequantize.OUTPUT_SIDE,
    norms.BATCH_NORM_OUTPUT,
    norms.BATCH_NORM_INPUT,
    norms.INSTANCE_NORM_OUTPUT,
    norms.GROUP_NORM_OUTPUT,
    norms.LAYER_NORM_OUTPUT,
    norms.RMS_NORM_OUTPUT,
    recurrent.LSTM_INPUT,
    recurrent.GRU_INPUT,
    recurrent.RNN_INPUT,
)

_CARRIERS = (
    unchanged.CARRIERS,
    layout.CARRIERS,
    selections.CARRIERS,
    repeats.CARRIERS,
    blocks.CARRIERS,
    concat.CARRIERS,
    sums.CARRIERS,
    products.CARRIERS,
    choices.CARRIERS,
    pointwise.CARRIERS,
    pooling.CARRIERS,
    reductions.CARRIERS,
    resampling.CARRIERS,
    sequences.CARRIERS,
)

RULES = Rules(
    sources=sources.SOURCES,
    carriers={op_type: carrier for table in _CARRIERS for op_type, carrier in table.items()},
    absorbers={(absorber.op_type, absorber.side): absorber for absorber in _ABSORBERS},
)
"""Every rule there is."""
