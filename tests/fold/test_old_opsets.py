"""The small graphs as older opsets spell them: none is wrong, and what folds completely today does so there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bnfold.fold import apply, plan
from tests.architectures.old_spelling import UnspeakableError, respelt
from tests.fold.small_graphs.judge import TOLERANCE, compute, feeds_of
from tests.fold.small_graphs.notation import Case, built
from tests.fold.test_small_graphs import CASES, COMPLETE, operations

_YOUNG = 14
# There, Max and Min do not broadcast, and an Add of two values says how it lays one on the other.
_BEFORE_8 = {
    "clause of ways: Clip with its bounds mapped: folds",
    "corner of nets: a bound that is also added",
    "corner of nets: one bound for two Clips, both normalised",
    "through functions: Clip with an upper bound only, backward",
    "through functions: Clip, a batch norm, backward",
    "through functions: Clip, one of its bounds reached by a negative lower one",
    "through functions: Clip, some scale zero, backward",
    "through functions: Clip, two batch norms behind it, and a pool between them",
    "through functions: channels last between a Clip and its batch norm",
    "through joins: a sum with a constant map, forward",
    "trap of signs: a Clip whose lower bound is above its upper one",
    "trap of signs: two Clips in a row, one of which becomes a Max",
}
# There, a Pad of float64 has a number in float32, and nothing is known of what a Slice with such axes computes.
_BEFORE_10 = {
    "clause of ways: Pad with a number: only where all channels give the same: folds",
    "corner of nets: a number to pad with that bounds too",
    "corner of ways: Slice, axes out of order",
    "through functions: Pad with a number, one batch norm for all, forward",
}
# There, quantised weights have one scale for all channels.
_BEFORE_13 = {
    "corner: quantised weights for the whole, forward",
    "stored otherwise: ConvTranspose",
    "stored otherwise: MatMul with an Add",
    "stored otherwise: one scale for the tensor",
    "stored otherwise: scales of both signs, with a zero point",
    "trap of signs: weights at the end of their range, and positive scales",
}
STAYS = {6: _BEFORE_8 | _BEFORE_10, 9: _BEFORE_10, 12: _BEFORE_13}


def spelt(case: Case, opset: int) -> onnx.ModelProto | None:
    """Return a case's graph in an older opset; None where that has no words for it."""
    if case.opset < _YOUNG or case.edit is not None or not case.checked:
        return None
    model = built(case)
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return None
    try:
        model = respelt(model, opset)
        onnx.checker.check_model(model, full_check=True)
    except (UnspeakableError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return model


@pytest.mark.parametrize(("opset", "least"), [(6, 560), (9, 640), (12, 720)])
def test_small_graphs_of_older_opsets_are_right_and_as_complete(opset: int, least: int) -> None:
    seen, stays = 0, set()
    for title, case in CASES.items():
        model = spelt(case, opset)
        if model is None:
            continue
        feeds = feeds_of(built(case), seed=1, free=case.free)
        try:
            expected = compute(model, feeds)
        except Exception:
            continue
        seen += 1
        folded = apply(model, plan(model)).model
        onnx.checker.check_model(folded, full_check=True)
        for actual, wanted in zip(compute(folded, feeds), expected, strict=True):
            assert actual.shape == wanted.shape, title
            largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=1.0)) if wanted.dtype.kind == "f" else 1.0
            tolerance = TOLERANCE[case.element] * largest
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance, err_msg=title)
        if title in COMPLETE and "BatchNormalization" in set(operations(folded.graph)):
            stays.add(title)
        assert apply(folded, plan(folded)).model.SerializeToString() == folded.SerializeToString(), title
    assert seen >= least
    assert stays == STAYS[opset]
