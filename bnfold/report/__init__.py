"""The account of a run: plain data, and its renderings."""

from bnfold.report.record import (
    SCHEMA,
    Absorbed,
    Affine,
    BatchNorm,
    Command,
    Inlined,
    Kept,
    Measure,
    Report,
    RolledBack,
    Signature,
    Source,
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
    "Report",
    "RolledBack",
    "Signature",
    "Source",
    "Timing",
    "Verdict",
]
