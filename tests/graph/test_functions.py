"""A model's functions are replaced by what they stand for; judged by onnxruntime on the model before and after."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper, parser

from bnfold.errors import CorruptModelError
from bnfold.graph.functions import inline_functions

HEAD = '<ir_version: 8, opset_import: ["" : 17, "my" : 1]>'
FUNCTION = '<domain: "my", opset_import: ["" : 17, "my" : 1]>'


def run(model: ModelProto, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_calls_are_replaced_and_large_weights_come_back() -> None:
    ones = ",".join(["1"] * 64)
    model = parser.parse_model(f"""{HEAD} g (float[N,64] x) => (float[N,64] y) <float[64] b = {{{ones}}}> {{
            h = my.Dense(x, w, b)
            y = my.Dense(h, w, b) }}
        {FUNCTION} Dense (x, w, b) => (y) {{ h = MatMul(x, w)  i = Add(h, b)  y = my.Act(i) }}
        {FUNCTION} Act (x) => (y) {{ y = Relu(x) }}""")
    weight = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    before = model.SerializeToString(deterministic=True)
    result = inline_functions(model)
    onnx.checker.check_model(result, full_check=True)
    assert not result.functions
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Add", "Relu"] * 2
    assert [value.name for value in result.graph.input] == ["x"]
    assert model.SerializeToString(deterministic=True) == before
    x = np.random.default_rng(2).normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_array_equal(run(result, x), run(model, x))


def test_a_model_without_functions_is_the_same_object() -> None:
    model = parser.parse_model(f"{HEAD} g (float[N] x) => (float[N] y) {{ y = Relu(x) }}")
    assert inline_functions(model) is model


def test_functions_that_stand_for_too_many_nodes_are_refused_at_once() -> None:
    levels = "".join(
        f"{FUNCTION} F{level} (x) => (y) {{ a = my.F{level + 1}(x)  b = my.F{level + 1}(a)  y = my.F{level + 1}(b) }}"
        for level in range(30)
    )
    model = parser.parse_model(
        f"{HEAD} g (float[N] x) => (float[N] y) {{ y = my.F0(x) }} {levels} {FUNCTION} F30 (x) => (y) {{ y = Relu(x) }}"
    )
    start = time.process_time()
    with pytest.raises(CorruptModelError) as caught:
        inline_functions(model)
    assert time.process_time() - start < 1
    assert str(caught.value) == f"the model's functions stand for {3**30} nodes; at most 200000 are read"
    assert caught.value.hint == "Export the model without functions of its own."


@pytest.mark.parametrize(
    "functions",
    [
        f"{FUNCTION} F (x) => (y) {{ y = my.F(x) }}",
        f"{FUNCTION} F (x) => (y) {{ y = my.G(x) }} {FUNCTION} G (x) => (y) {{ y = my.F(x) }}",
    ],
)
def test_functions_that_call_themselves_are_refused(functions: str) -> None:
    model = parser.parse_model(f"{HEAD} g (float[N] x) => (float[N] y) {{ y = my.F(x) }} {functions}")
    with pytest.raises(
        CorruptModelError, match=r"^the model's function 'F' calls itself, or is nested deeper than 64$"
    ):
        inline_functions(model)
