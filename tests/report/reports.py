"""Reports made by hand, for tests of how they are shown and written."""

from __future__ import annotations

import math

from bnfold.frontends.loaded import ModeChange, TensorSpec
from bnfold.parity.verdict import Comparison, Law, Parity, ProbeRecord, RegionCheck, Verdict
from bnfold.report import Absorbed, Affine, BatchNorm, Kept, Measure, Report, RolledBack, Signature, Source, Timing

SOURCE = Source("nets/face.pb", "frozen-graph", "TensorFlow 1.15", "TF1 frozen graph", "ab" * 32, 93_800_000)
BEFORE = Measure(17, 93_800_000, 23_451_234, 2312, 1, {"BatchNormalization": 3, "Conv": 2, "If": 449, "Relu": 2})
AFTER = Measure(17, 93_312_000, 23_450_000, 431, 1, {"BatchNormalization": 1, "Conv": 2, "Relu": 2})

FOLDED = BatchNorm("bn1", "bn1:0", 32, "folded", into=(Absorbed("conv1", "Conv", "conv-output", "output"),))
FORWARD = BatchNorm("bn2", "bn2:0", 64, "folded", into=(Absorbed("fc", "Gemm", "gemm-input", "input"),))
STAYS = BatchNorm(
    "bn3",
    "bn3:0",
    64,
    "kept",
    kept=Kept("padded-shift", "The border never sees the shift.", "conv3 pads 1", "Pad before it."),
    also=(Kept("edge-of-graph", "Nothing there.", "no layer before bn3", "Move it."),),
)
WANTING = RolledBack(("bn4",), 1050.0, 61.0, "backward error 1050 u, 61 u allowed")
PUT_BACK = BatchNorm("bn4", "bn4:0", None, "rolled-back", kept=Kept("unverified", "It failed.", "", "Report it."))


def region(eta: float = 5.24, verdict: Verdict = Verdict.PASS, source: str = "bn1") -> RegionCheck:
    """Return gate A of one fold."""
    return RegionCheck((source,), (f"{source}:0",), eta, 61.0, "ones", 6, 1000, verdict)


def comparison(
    verdict: Verdict = Verdict.PASS_MORE_ACCURATE,
    *,
    output: str = "logits",
    candidate: float = 1.2e-6,
    detail: str = "",
) -> Comparison:
    """Return gate B of one output."""
    return Comparison(
        output=output,
        kind="float",
        candidate=candidate,
        unfolded=3.1e-6,
        baseline=3.1e-6,
        limit=9.8e-6,
        closest=candidate / 9.8e-6,
        probe="real",
        rho=candidate / 3.1e-6,
        probes=12,
        set_aside=0,
        compared=120,
        differing=0,
        verdict=verdict,
        detail=detail,
    )


PARITY = Parity(
    Verdict.PASS_MORE_ACCURATE,
    "full",
    regions=(region(), region(2.0, source="bn2")),
    folding=(comparison(),),
    translation=(comparison(Verdict.PASS),),
    laws=(
        Law("batch independence", 1e-7, 1e-4, Verdict.PASS),
        Law("determinism", 0.0, 0.0, Verdict.PASS, "two runs are equal"),
    ),
    amplification=math.nan,
    probes=(ProbeRecord("real", "N(0,1)", (("x", (2, 3)),)),),
    engines=("onnxruntime 1.31.1",),
    seconds=2.0,
)


def report(**changes: object) -> Report:
    """Return the report of a conversion, with changes."""
    values: dict[str, object] = {
        "command": "convert",
        "source": SOURCE,
        "signature": Signature(
            (TensorSpec("x", "float32", ("batch", 3, None)),), (TensorSpec("logits", "float32", ("batch", 10)),)
        ),
        "mode": (
            ModeChange("switch", "phase_train:0", "bool placeholder", "False", "True leaves 3 nodes, False none"),
        ),
        "batch_norms": (FOLDED, FORWARD, STAYS),
        "affines": (Affine("mul", "Mul", "mul:0", FOLDED.into),),
        "inlined": (),
        "before": BEFORE,
        "after": AFTER,
        "verdict": "pass-more-accurate",
        "reason": "",
        "rolled_back": (),
        "parity": PARITY,
        "other": None,
        "timings": (Timing("read", 4.12), Timing("inference mode", 0.01), Timing("fold", 0.62), Timing("verify", 2.0)),
        "versions": {"bnfold": "0.1.0", "python": "3.11"},
        "seed": 7,
    }
    return Report(**{**values, **changes})  # type: ignore[arg-type]  # the tests change what they know
