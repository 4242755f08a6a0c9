"""The way of a frozen graph to ONNX: batch norms stay what they are, and so do names, weights and bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from bnfold.errors import UnsupportedOpError
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.to_onnx import DEFAULT_OPSET, to_onnx

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(8)
X = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)


def constant(*shape: int) -> Any:
    return tensorflow().constant(RNG.normal(size=shape).astype(np.float32))


@pytest.fixture(scope="module")
def graph_def() -> Any:
    tf = tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        h = v1.placeholder("float32", [None, 8, 8, 3], name="x")
        h = v1.nn.conv2d(h, constant(3, 3, 3, 5), 1, "SAME", name="conv1")
        h, _, _ = v1.nn.fused_batch_norm(
            h, constant(5), constant(5), constant(5), tf.abs(constant(5)), is_training=False, name="bn1"
        )
        h = v1.nn.conv2d(tf.nn.relu(h), constant(3, 3, 5, 5), 1, "VALID", name="conv2")
        h = h * constant(5) + constant(5)
        h = tf.nn.bias_add(h, constant(5))
        h, _, _ = v1.nn.fused_batch_norm(
            h, constant(5), constant(5), constant(5), tf.abs(constant(5)), is_training=False, name="bn2"
        )
        tf.identity(tf.reduce_mean(h, [1, 2]), name="y")
    return graph.as_graph_def()


def test_batch_norms_stay_in_place_and_no_weight_is_touched(graph_def: Any) -> None:
    model = to_onnx(graph_def, inputs=["x:0"], outputs=["y:0"])
    norms = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert norms == ["bn1", "bn2"]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    given = [
        tensorflow().make_ndarray(node.attr["value"].tensor)
        for node in graph_def.node
        if node.op == "Const" and len(node.attr["value"].tensor.tensor_shape.dim) == 4
    ]
    kernels = [stored[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    for kernel, expected in zip(kernels, given, strict=True):
        np.testing.assert_array_equal(kernel, expected.transpose(3, 2, 0, 1))


def test_transposes_around_convolutions_cancel(graph_def: Any) -> None:
    model = to_onnx(graph_def, inputs=["x:0"], outputs=["y:0"])
    assert [node.op_type for node in model.graph.node].count("Transpose") == 1


def test_it_computes_what_tensorflow_computes(graph_def: Any) -> None:
    tf = tensorflow()
    model = to_onnx(graph_def, inputs=["x:0"], outputs=["y:0"])
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        expected = session.run("y:0", {"x:0": X})
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (got,) = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x:0": X})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert graph is not None


def test_ends_keep_their_names_and_the_first_axis_is_the_batch(graph_def: Any) -> None:
    model = to_onnx(graph_def, inputs=["x:0"], outputs=["y:0"])
    (x,), (y,) = model.graph.input, model.graph.output
    assert (x.name, y.name) == ("x:0", "y:0")
    assert [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] == ["batch", 8, 8, 3]
    assert [d.dim_param or d.dim_value for d in y.type.tensor_type.shape.dim] == ["batch", 5]


def test_the_same_graph_gives_the_same_bytes_again(graph_def: Any) -> None:
    first, second = (to_onnx(graph_def, inputs=["x:0"], outputs=["y:0"]).SerializeToString() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("opset", [13, 15, 18])
def test_another_opset_can_be_asked_for(graph_def: Any, opset: int) -> None:
    model = to_onnx(graph_def, inputs=["x:0"], outputs=["y:0"], opset=opset)
    assert model.opset_import[0].version == opset
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("opset", [1, 12, 19, 99])
def test_an_opset_that_cannot_be_written_is_refused(graph_def: Any, opset: int) -> None:
    with pytest.raises(UnsupportedOpError) as caught:
        to_onnx(graph_def, inputs=["x:0"], outputs=["y:0"], opset=opset)
    assert str(caught.value) == f"TensorFlow graphs are converted to the ONNX opsets 13 to 18, not to {opset}"
    assert caught.value.hint == f"Leave the opset out: the default is {DEFAULT_OPSET}."


def test_an_operation_without_onnx_form_is_named() -> None:
    tf = tensorflow()
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder("float32", [4], name="x")
        tf.identity(tf.math.igamma(x, x, name="unusual"), name="y")
    with pytest.raises(UnsupportedOpError) as caught:
        to_onnx(graph.as_graph_def(), inputs=["x:0"], outputs=["y:0"])
    assert str(caught.value) == "1 operation has no ONNX form: Igamma at unusual"
    assert caught.value.hint == "Name outputs that do not need them, for example: --outputs logits:0"
