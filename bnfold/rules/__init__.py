"""The three tables: sources make an affine map, carriers let it pass, absorbers take it in.

A rule is added by writing it and naming it here; its examples are its tests and its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bnfold.rules import conv, conv_transpose, gemm, layout, matmul, norms, sources
from bnfold.rules.declare import Absorber, Affine, Carrier, Direction, Example, Form, Side, Source
from bnfold.rules.reasons import Reason, Refusal
from bnfold.rules.sources import BATCH_NORM

__all__ = [
    "BATCH_NORM",
    "RULES",
    "Absorber",
    "Affine",
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
    norms.BATCH_NORM_OUTPUT,
)

RULES = Rules(
    sources=sources.SOURCES,
    carriers=layout.CARRIERS,
    absorbers={(absorber.op_type, absorber.side): absorber for absorber in _ABSORBERS},
)
"""Every rule there is."""
