"""Proof that what bnfold writes computes what the original computed."""

from bnfold.parity.gates import Progress, verify
from bnfold.parity.reference import run_float64
from bnfold.parity.verdict import Comparison, Finding, Law, Parity, ProbeRecord, RegionCheck, Verdict

__all__ = [
    "Comparison",
    "Finding",
    "Law",
    "Parity",
    "ProbeRecord",
    "Progress",
    "RegionCheck",
    "Verdict",
    "run_float64",
    "verify",
]
