"""The float64 reference against the ONNX project's own conformance cases: every operation, with what it returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from bnfold.errors import BnfoldError
from bnfold.parity.reference import run_float64

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # the cases divide by zero on purpose
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

# What a reference in float64 cannot, or must not, compute as a runtime does.
RANDOM = {"bernoulli", "training_dropout"}
BITS_OF_A_FLOAT32 = {"bitcast_float32", "bitcast_2d_float32", "bitcast_scalar_float32"}
TIES_BROKEN_BY_FLOAT32 = {"dynamicquantizelinear_expanded"}
ONNXRUNTIME_READS_IT_OTHERWISE = {
    "resize_downsample_scales_linear_align_corners",
    "resize_downsample_scales_cubic_align_corners",
}
ABSENT = {"cast_e8m0", "if_opt", "nesterov_momentum", "adam", "adagrad", "momentum", "scan_sum"}
EXCEPTIONS = RANDOM | BITS_OF_A_FLOAT32 | TIES_BROKEN_BY_FLOAT32 | ONNXRUNTIME_READS_IT_OTHERWISE | ABSENT


def _plain(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _agree(got: Any, expected: Any) -> bool:
    if expected is None:
        return True
    if isinstance(expected, list):
        return len(got) == len(expected) and all(_agree(one, other) for one, other in zip(got, expected, strict=True))
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return False
    if expected.dtype.kind in "OSU":
        return bool((got.astype(str) == expected.astype(str)).all())
    tolerance = 2e-2 if expected.dtype.itemsize < 4 else 1e-3
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    return bool(np.allclose(got.astype(wide), expected.astype(wide), rtol=tolerance, atol=1e-5, equal_nan=True))


def test_every_operation_of_the_standard_computes_what_the_standard_expects() -> None:
    from onnx.backend.test.case.node import collect_testcases

    failures, passed = [], 0
    for case in collect_testcases(None):
        name = case.name.removeprefix("test_")
        if name.startswith(tuple(EXCEPTIONS)):
            continue
        assert case.model is not None
        assert case.data_sets is not None
        inputs, expected = (_plain(values) for values in case.data_sets[0])
        feeds = dict(zip((value.name for value in case.model.graph.input), inputs, strict=False))
        try:
            got = list(run_float64(case.model, feeds).values())
        except BnfoldError as error:
            failures.append(f"{name}: {error}")
            continue
        if _agree(got, list(expected)):
            passed += 1
        else:
            failures.append(name)
    assert failures == []
    assert passed > 1000
