"""Windows, pixels and borders in onnxruntime, which reads their specification in its own way: maps pass there too."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import TensorProto

from bnfold.rules import Refusal
from tests.rules.single_nodes import Single, applied, carried_forward, field_for, model_of
from tests.rules.test_carriers_at_random import DRAWS, KINDS

Array = npt.NDArray[Any]

ROUNDS = 150


def _in_float32(single: Single) -> Single:
    """Return the node in the type for which every kernel is there."""
    inputs = tuple(
        array.astype(np.float32) if array is not None and array.dtype == np.float64 else array
        for array in single.inputs
    )
    return replace(single, inputs=inputs, declared={})


def _run(single: Single) -> Array:
    single = _in_float32(single)
    model = model_of(single)
    for output in model.graph.output:
        output.type.tensor_type.elem_type = TensorProto.FLOAT
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {given.name: single.inputs[int(given.name[1:])] for given in session.get_inputs()})
    return np.asarray(y)


@pytest.mark.parametrize("op_type", ["AveragePool", "MaxPool", "LpPool", "Resize", "Upsample", "Pad"])
def test_forward_the_output_takes_what_was_taken_from_the_input(op_type: str) -> None:
    rng = np.random.default_rng(sum(map(ord, op_type)))
    said: Counter[str] = Counter()
    for _round in range(ROUNDS):
        single = DRAWS[op_type][int(rng.integers(len(DRAWS[op_type])))](rng)
        x = np.asarray(single.inputs[0])
        field = field_for(rng, x.shape, str(rng.choice(KINDS)), [1] if rng.random() < 0.7 else None)
        found = carried_forward(single, {0: field})
        if isinstance(found, Refusal):
            continue
        carried, after = found
        try:
            old, new = _run(replace(single, inputs=(applied(field, x), *single.inputs[1:]))), _run(after)
        except onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException:
            said["refused by the runtime"] += 1  # pads beside dilations that it does not take
            continue
        wanted = applied(carried.fields[0], new.astype(np.float64)) if 0 in carried.fields else new
        np.testing.assert_allclose(old, wanted, rtol=1e-3, atol=1e-4)
        said["passed"] += 1
    assert said["passed"] > ROUNDS // 4
