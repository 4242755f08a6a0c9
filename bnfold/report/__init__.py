"""The account of a run: plain data, and its renderings.

The names are read from their module when they are first used: what shows a file that was only looked at needs no proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.report.record import (
        SCHEMA,
        Absorbed,
        Affine,
        BatchNorm,
        Command,
        Inlined,
        Kept,
        Measure,
        Neighbour,
        OwnAnswer,
        Paired,
        Report,
        RolledBack,
        Signature,
        Source,
        Surroundings,
        Timing,
        Verdict,
    )

__all__ = [
    "SCHEMA",
    "Absorbed",
    "Affine",
    "BatchNorm",
    "Command",
    "Inlined",
    "Kept",
    "Measure",
    "Neighbour",
    "OwnAnswer",
    "Paired",
    "Report",
    "RolledBack",
    "Signature",
    "Source",
    "Surroundings",
    "Timing",
    "Verdict",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'bnfold.report' has no attribute {name!r}")
    from bnfold.report import record

    return getattr(record, name)
