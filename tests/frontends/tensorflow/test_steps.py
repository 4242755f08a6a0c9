"""What a loop multiplies step by step is multiplied at once, where a batch norm stands in front, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bnfold.frontends import load
from bnfold.frontends.keras.guests import keras_of, quiet
from bnfold.frontends.loaded import Request
from bnfold.frontends.tensorflow.steps import multiply_steps_at_once
from tests.frontends.keras.networks import randomise, save
from tests.frontends.keras.test_batch_norms import run_unoptimised

LOOP = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,4] x) => (float[N,2] y, float[K,N,2] all)
    <float[4] gamma = {1, 1, 1, 1}, float[4] beta = {1, 1, 1, 1}, float[4] mean = {1, 1, 1, 1},
     float[4] var = {1, 1, 1, 1}, float[4,2] w = {1, 1, 1, 1, 1, 1, 1, 1}, float[2,2] u = {1, 1, 1, 1},
     float[2] b = {1, 1}, int64 three = {3}, bool yes = {1}, int64 zero = {0}> {
        t = Transpose<perm=[0, 2, 1]>(x)
        n = BatchNormalization(t, gamma, beta, mean, var)
        time = Transpose<perm=[2, 0, 1]>(n)
        plain = Transpose<perm=[1, 0, 2]>(x)
        ones = Gather<axis=0>(time, zero)
        none = MatMul(ones, w)
        empty = Sub(none, none)
        w_end, y, all = Loop(three, yes, w, empty) <body = one (int64 i, bool c, float[4,2] inner, float[N,2] state)
            => (bool more, float[4,2] inner, float[N,2] next, float[N,2] out) {
                more = Identity(c)
                part = Gather<axis=0>(time, i)
                product = MatMul(part, inner)
                kept = MatMul(state, u)
                added = Add(product, kept)
                biased = Add(added, b)
                next = Tanh(biased)
                out = Identity(next) }> }"""


def _model(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(4)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = rng.uniform(0.5, 1.5, tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model


def _body(model: onnx.ModelProto) -> onnx.GraphProto:
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    body: onnx.GraphProto = loop.attribute[0].g
    return body


def _same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    x = np.random.default_rng(5).normal(size=(2, 3, 4)).astype(np.float32)
    for one, other in zip(run_unoptimised(before, {"x": x}), run_unoptimised(after, {"x": x}), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


def _converted(text: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    before, after = _model(text), _model(text)
    multiply_steps_at_once(after)
    onnx.checker.check_model(after)
    return before, after


def test_a_weight_that_every_turn_multiplies_by_stands_in_front_of_the_loop() -> None:
    before, after = _converted(LOOP)
    _same(before, after)
    (moved,) = [node for node in after.graph.node if node.op_type == "MatMul" and node.input[0] == "time"]
    assert list(moved.input) == ["time", "w"]
    assert [node.op_type for node in _body(after).node if "product" in node.output] == ["Gather"]
    assert [node.op_type for node in _body(after).node].count("MatMul") == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("Gather<axis=0>(time, i)", "Gather<axis=0>(plain, i)", id="no batch norm in front"),
        pytest.param("biased = Add(added, b)", "s = ReduceSum(part)  o = Add(added, s)  biased = Add(o, b)", id="read"),
        pytest.param("MatMul(part, inner)", "MatMul(part, v)  v = Neg(inner)", id="another weight in the body"),
        pytest.param("(bool more, float[4,2] inner,", "(bool more, float[4,2] less,", id="a weight that changes"),
    ],
)
def test_what_is_not_only_multiplied_by_a_weight_stays_in_the_loop(old: str, new: str) -> None:
    text = LOOP.replace(old, new)
    assert text != LOOP
    if "v = Neg" in new:
        text = text.replace("product = MatMul(part, v)  v = Neg(inner)", "v = Neg(inner)  product = MatMul(part, v)")
    if "less" in new:
        text = text.replace("more = Identity(c)", "more = Identity(c)  half = Constant<value_float=0.5>()\n"
                            "less = Mul(inner, half)")  # fmt: skip
    before, after = _converted(text)
    assert after == before
    _same(before, after)


@pytest.mark.tensorflow
@pytest.mark.parametrize("generation", [2, 3])
def test_a_batch_norm_between_recurrent_layers_sees_the_weight_behind_it(generation: int, tmp_path: Path) -> None:
    def network(keras: Any) -> Any:
        i = keras.layers.Input((6, 4), name="x")
        h = keras.layers.GRU(5, return_sequences=True, reset_after=False, name="first")(i)
        h = keras.layers.BatchNormalization(name="bn")(h)
        return keras.Model(i, keras.layers.SimpleRNN(3, name="second")(h))

    with quiet():
        model = randomise(network(keras_of(generation)))
    saved = save(model, tmp_path / "m.h5")
    loaded = load(saved.path, Request())
    (found,) = run_unoptimised(loaded.model, saved.feeds)
    np.testing.assert_allclose(found, saved.expected[0], rtol=2e-5, atol=2e-5)
    read = {name for node in loaded.model.graph.node if node.op_type == "MatMul" for name in node.input}
    (norm,) = [node for node in loaded.model.graph.node if node.op_type == "BatchNormalization"]
    value = norm.output[0]
    while value not in read:
        (value,) = [
            node.output[0] for node in loaded.model.graph.node if node.op_type == "Transpose" and node.input[0] == value
        ]
