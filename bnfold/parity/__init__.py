"""Proof that what bnfold writes computes what the original computed.

The names are read from their modules when they are first used: who only counts, or folds without proof, waits for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.parity.gates import Progress, verify
    from bnfold.parity.reference import run_float64
    from bnfold.parity.verdict import (
        Agreement,
        Comparison,
        Finding,
        Law,
        Measured,
        Parity,
        ProbeRecord,
        RegionCheck,
        Suspect,
        Verdict,
    )

__all__ = [
    "Agreement",
    "Comparison",
    "Finding",
    "Law",
    "Measured",
    "Parity",
    "ProbeRecord",
    "Progress",
    "RegionCheck",
    "Suspect",
    "Verdict",
    "run_float64",
    "verify",
]

_MODULES = {"Progress": "gates", "verify": "gates", "run_float64": "reference"}


def __getattr__(name: str) -> object:
    """Return one of the names above."""
    if name not in __all__:
        raise AttributeError(f"module 'bnfold.parity' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"bnfold.parity.{_MODULES.get(name, 'verdict')}"), name)
    globals()[name] = value
    return value
