"""Our float64 kernels against three outsiders: onnxruntime in float32, onnx's reference in float64, and plain loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from bnfold.parity.kernels.pointwise import erf
from bnfold.parity.reference import run_float64
from bnfold.parity.run import Session

Array = npt.NDArray[Any]
Case = tuple[str, dict[str, Any], list[Any]]

rng = np.random.default_rng(11)


def _normal(*shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def _positive(*shape: int) -> Array:
    return rng.uniform(0.2, 2.0, size=shape).astype(np.float32)


def _ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


X1, X2, X3 = _normal(2, 4, 11), _normal(2, 4, 9, 8), _normal(1, 4, 6, 5, 7)
CASES: list[Case] = [
    ("Conv", {}, [X1, _normal(3, 4, 3)]),
    ("Conv", {"pads": [2, 1], "strides": [2], "dilations": [2]}, [X1, _normal(3, 4, 3), _normal(3)]),
    ("Conv", {"pads": [1, 0, 2, 1]}, [X2, _normal(5, 4, 3, 2), _normal(5)]),
    ("Conv", {"group": 2, "strides": [2, 3]}, [X2, _normal(6, 2, 3, 3), _normal(6)]),
    ("Conv", {"group": 4, "pads": [1, 1, 1, 1]}, [X2, _normal(4, 1, 3, 3), _normal(4)]),
    ("Conv", {"group": 4, "dilations": [2, 1]}, [X2, _normal(8, 1, 3, 3), _normal(8)]),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [X2, _normal(3, 4, 2, 3)]),
    ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, [X2, _normal(3, 4, 2, 3)]),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [3, 1]}, [X2, _normal(3, 4, 4, 5), _normal(3)]),
    ("Conv", {"auto_pad": "VALID"}, [X2, _normal(3, 4, 3, 3)]),
    ("Conv", {}, [X2, _normal(7, 4, 1, 1), _normal(7)]),
    ("Conv", {"strides": [2, 2]}, [X2, _normal(7, 4, 1, 1)]),
    ("Conv", {"pads": [1, 0, 1, 1, 1, 0], "group": 2}, [X3, _normal(4, 2, 3, 2, 3), _normal(4)]),
    ("ConvTranspose", {}, [X1, _normal(4, 3, 3)]),
    ("ConvTranspose", {"strides": [2, 3], "pads": [1, 0, 1, 2]}, [X2, _normal(4, 3, 3, 3), _normal(3)]),
    ("ConvTranspose", {"strides": [2, 2], "output_padding": [1, 1]}, [X2, _normal(4, 2, 3, 3)]),
    ("ConvTranspose", {"group": 2, "strides": [2, 2]}, [X2, _normal(4, 3, 3, 2), _normal(6)]),
    ("ConvTranspose", {"group": 4, "dilations": [2, 2]}, [X2, _normal(4, 1, 3, 3), _normal(4)]),
    ("ConvTranspose", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [X2, _normal(4, 3, 3, 3)]),
    ("ConvTranspose", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, [X2, _normal(4, 3, 3, 3)]),
    ("ConvTranspose", {"output_shape": [18, 17], "strides": [2, 2]}, [X2, _normal(4, 3, 3, 3)]),
    ("ConvTranspose", {"output_shape": [17, 16], "strides": [2, 2]}, [X2, _normal(4, 3, 4, 4)]),
    ("ConvTranspose", {"strides": [2, 1, 2], "group": 2}, [X3, _normal(4, 2, 2, 3, 2), _normal(4)]),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}, [X2]),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [X2]),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]}, [X2]),
    ("MaxPool", {"kernel_shape": [2, 3], "dilations": [2, 2]}, [X2]),
    ("MaxPool", {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]}, [X2]),
    ("MaxPool", {"kernel_shape": [3]}, [X1]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, [X2]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, [X2]),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [X2]),
    ("AveragePool", {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1, "count_include_pad": 1,
                     "pads": [1, 0, 1, 1]}, [X2]),
    ("AveragePool", {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, [X2]),
    ("AveragePool", {"kernel_shape": [2, 2, 3], "strides": [2, 1, 2]}, [X3]),
    ("LpPool", {"kernel_shape": [3, 3], "strides": [2, 2], "p": 3}, [X2]),
    ("GlobalAveragePool", {}, [X2]),
    ("GlobalMaxPool", {}, [X3]),
    ("GlobalLpPool", {"p": 2}, [X2]),
    ("BatchNormalization", {"epsilon": 1e-3}, [X2, _normal(4), _normal(4), _normal(4), _positive(4)]),
    ("BatchNormalization", {}, [_normal(5, 4), _normal(4), _normal(4), _normal(4), _positive(4)]),
    ("InstanceNormalization", {"epsilon": 1e-2}, [X2, _normal(4), _normal(4)]),
    ("LayerNormalization", {"axis": 2}, [X2, _normal(9, 8), _normal(9, 8)]),
    ("LayerNormalization", {}, [X1, _normal(11)]),
    ("Gemm", {"alpha": 0.5, "beta": 2.0}, [_normal(3, 4), _normal(4, 5), _normal(5)]),
    ("Gemm", {"transA": 1, "transB": 1}, [_normal(4, 3), _normal(5, 4), _normal(3, 1)]),
    ("Gemm", {}, [_normal(3, 4), _normal(4, 5)]),
    ("Gemm", {"beta": 0.0}, [_normal(3, 4), _normal(4, 5), _normal(1, 5)]),
    ("MatMul", {}, [_normal(2, 3, 4, 5), _normal(3, 5, 2)]),
    ("MatMul", {}, [_normal(5), _normal(3, 5, 2)]),
    ("Softmax", {"axis": 1}, [X2]),
    ("LogSoftmax", {}, [X2]),
    ("ReduceMean", {"axes": [1, -1], "keepdims": 0}, [X2]),
    ("ReduceSum", {}, [X2, _ints(0, 2)]),
    ("ReduceSum", {"noop_with_empty_axes": 1}, [X2]),
    ("ReduceMax", {"axes": [2]}, [X2]),
    ("ReduceProd", {}, [_normal(2, 3)]),
    ("ReduceL2", {"axes": [1]}, [X2]),
    ("ReduceLogSumExp", {"axes": [3]}, [X2]),
    ("Relu", {}, [X2]),
    ("LeakyRelu", {"alpha": 0.3}, [X2]),
    ("PRelu", {}, [X2, _normal(4, 1, 1)]),
    ("Elu", {"alpha": 1.5}, [X2]),
    ("Selu", {}, [X2]),
    ("Celu", {"alpha": 2.0}, [X2]),
    ("Erf", {}, [X2]),
    ("Sigmoid", {}, [X2 * 40]),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, [X2]),
    ("HardSwish", {}, [X2 * 4]),
    ("Softplus", {}, [X2 * 30]),
    ("Softsign", {}, [X2]),
    ("ThresholdedRelu", {"alpha": 0.4}, [X2]),
    ("Tanh", {}, [X2]),
    ("Clip", {}, [X2, np.float32(-0.5), np.float32(0.75)]),
    ("Clip", {}, [X2, None, np.float32(0.25)]),
    ("Round", {}, [np.array([0.5, 1.5, 2.5, -0.5, -1.5], dtype=np.float32)]),
    ("Pow", {}, [_positive(3, 4), _normal(4)]),
    ("Div", {}, [np.array([-7, 7, -8, 8], dtype=np.int64), np.array([2, -2, 3, -3], dtype=np.int64)]),
    ("Sub", {}, [X2, _normal(8)]),
    ("Max", {}, [X2, _normal(8), _normal(9, 1)]),
    ("Where", {}, [X2 > 0, X2, _normal(1)]),
    ("Concat", {"axis": -3}, [X2, _normal(2, 1, 9, 8)]),
    ("Split", {"axis": 2}, [X2, _ints(4, 5)]),
    ("Slice", {}, [X2, _ints(-1, 1), _ints(-100, -1), _ints(-2, -1), _ints(-2, 3)]),
    ("Slice", {}, [X2, _ints(1), _ints(1 << 40), _ints(1)]),
    ("Pad", {"mode": "reflect"}, [X2, _ints(0, 0, 1, 2, 0, 0, 2, 1)]),
    ("Pad", {}, [X2, _ints(0, 1, -1, 0, 0, 0, 2, -3), np.float32(1.5)]),
    ("Pad", {"mode": "edge"}, [X2, _ints(0, 0, 1, 2, 0, 0, 2, 1)]),
    ("Reshape", {}, [X2, _ints(0, -1, 4)]),
    ("Flatten", {"axis": 2}, [X2]),
    ("Flatten", {"axis": -1}, [X2]),
    ("Transpose", {"perm": [0, 2, 3, 1]}, [X2]),
    ("Squeeze", {}, [_normal(2, 1, 3, 1), _ints(-1)]),
    ("Unsqueeze", {}, [X1, _ints(0, -1)]),
    ("Expand", {}, [_normal(4, 1), _ints(2, 1, 5)]),
    ("Tile", {}, [_normal(2, 3), _ints(2, 2)]),
    ("Gather", {"axis": 1}, [X2, _ints(-1, 0, 2)]),
    ("DequantizeLinear", {"axis": 0}, [
        rng.integers(-128, 128, size=(4, 3)).astype(np.int8), _positive(4), np.zeros(4, dtype=np.int8)]),
    ("QuantizeLinear", {}, [X2, np.float32(0.02), np.uint8(120)]),
    ("Einsum", {"equation": "bchw,dc->bdhw"}, [X2, _normal(3, 4)]),
    ("Resize", {"mode": "linear"}, [X2, None, np.array([1, 1, 2, 2], dtype=np.float32)]),
    ("Resize", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
     [X2, None, np.array([1, 1, 2, 3], dtype=np.float32)]),
    ("DepthToSpace", {"blocksize": 2}, [X2]),
    ("LRN", {"size": 3}, [X2]),
    ("LSTM", {"hidden_size": 3}, [_normal(5, 2, 4), _normal(1, 12, 4), _normal(1, 12, 3), _normal(1, 24)]),
    ("GRU", {"hidden_size": 3, "linear_before_reset": 1},
     [_normal(5, 2, 4), _normal(1, 9, 4), _normal(1, 9, 3), _normal(1, 18)]),
]  # fmt: skip

# Where onnx's reference differs or gives up, onnxruntime and the loops below are the judges.
ONNX_CANNOT: dict[str, Callable[[dict[str, Any]], bool]] = {
    "ConvTranspose": lambda attributes: attributes.get("group", 1) > 1 or "output_shape" in attributes,
    "MaxPool": lambda attributes: attributes.get("auto_pad") == "SAME_LOWER",
    "GlobalMaxPool": lambda _attributes: True,  # one axis too many for rank 5
    "GlobalLpPool": lambda _attributes: True,  # absent
    "Erf": lambda _attributes: True,  # by way of float32
    "HardSwish": lambda _attributes: True,  # its 1/6 is a float32
    "Pad": lambda attributes: not attributes,  # no negative pads
    "DequantizeLinear": lambda _attributes: True,  # by way of float32, and not before opset 19
    "LRN": lambda _attributes: True,  # its window is one channel short
}


def _model(case: Case, floats: type[np.floating[Any]]) -> tuple[ModelProto, dict[str, Array]]:
    op_type, attributes, inputs = case
    feeds: dict[str, Array] = {}
    names = []
    for number, value in enumerate(inputs):
        names.append("" if value is None else f"i{number}")
        if value is not None:
            array = np.asarray(value)
            feeds[f"i{number}"] = array.astype(floats) if array.dtype == np.float32 else array
    if op_type == "Resize":  # its scales are float32 in every model
        feeds["i2"] = feeds["i2"].astype(np.float32)
    outputs = [f"o{number}" for number in range(2 if op_type == "Split" else 1)]
    node = helper.make_node(op_type, names, outputs, **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    graph = helper.make_graph([node], "case", values, [helper.make_empty_tensor_value_info(name) for name in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), feeds


def _name(case: Case) -> str:
    return f"{case[0]} {case[1]}"


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_kernel_agrees_with_onnxruntime_in_float32(case: Case) -> None:
    model, feeds = _model(case, np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    for mine, their in zip(run_float64(model, feeds).values(), theirs, strict=True):
        assert mine.shape == their.shape
        assert mine.dtype == (np.float64 if their.dtype == np.float32 else their.dtype)
        scale = max(1.0, float(np.abs(their).max()))
        np.testing.assert_allclose(mine, their, rtol=2e-5, atol=3e-6 * scale)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case[0] not in ONNX_CANNOT or not ONNX_CANNOT[case[0]](case[1])], ids=_name
)
def test_kernel_agrees_with_onnx_in_float64(case: Case) -> None:
    model, feeds = _model(case, np.float64)
    theirs = ReferenceEvaluator(model).run(None, feeds)
    for mine, their in zip(run_float64(model, feeds).values(), theirs, strict=True):
        np.testing.assert_allclose(mine, their, rtol=1e-11, atol=1e-13)


def test_erf_is_exact_to_a_unit_or_two() -> None:
    x = np.concatenate([np.linspace(-7, 7, 4001), np.logspace(-300, 0, 301), [0.0, -0.0, np.inf, -np.inf]])
    exact = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(erf(x), exact, rtol=3e-16, atol=0)
    assert np.isnan(erf(np.array([np.nan]))).all()


def _taps(kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(size) for size in kernel)))


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 2, 1)])
def test_grouped_transposed_convolution_agrees_with_plain_loops(group: int, pads: tuple[int, int, int, int]) -> None:
    generator = np.random.default_rng(5)
    x, w = generator.normal(size=(2, 4, 5, 4)), generator.normal(size=(4, 3, 3, 2))
    strides, dilations = (2, 3), (1, 2)
    full = [strides[a] * (x.shape[2 + a] - 1) + (w.shape[2 + a] - 1) * dilations[a] + 1 for a in (0, 1)]
    expected = np.zeros((2, 3 * group, *full))
    for n, c, o in itertools.product(range(2), range(4), range(3)):
        for i, j in itertools.product(range(5), range(4)):
            for p, q in _taps((3, 2)):
                at = (i * strides[0] + p * dilations[0], j * strides[1] + q * dilations[1])
                expected[n, c // (4 // group) * 3 + o, at[0], at[1]] += x[n, c, i, j] * w[c, o, p, q]
    expected = expected[:, :, pads[0] : full[0] - pads[2], pads[1] : full[1] - pads[3]]
    attributes = {"group": group, "strides": strides, "dilations": dilations, "pads": pads}
    model, _feeds = _model(("ConvTranspose", attributes, [x, w]), np.float64)
    np.testing.assert_allclose(run_float64(model, {"i0": x, "i1": w})["o0"], expected, rtol=1e-12, atol=1e-13)


def test_max_pool_tells_where_its_maxima_were() -> None:
    x = np.random.default_rng(6).normal(size=(2, 3, 7, 6)).astype(np.float32)
    for order in (0, 1):
        attributes = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "storage_order": order}
        model, feeds = _model(("MaxPool", attributes, [x]), np.float32)
        model.graph.node[0].output.append("where")
        model.graph.output.add(name="where")
        theirs = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
        for mine, their in zip(run_float64(model, feeds).values(), theirs, strict=True):
            np.testing.assert_array_equal(mine, their)


@pytest.mark.parametrize("version", [6, 7, 9, 15])
def test_batch_norm_follows_the_opset_it_is_written_in(version: int) -> None:
    generator = np.random.default_rng(3)
    x = generator.normal(size=(3, 2, 4))
    gamma, beta, mean, var = (generator.uniform(0.5, 2, size=2) for _ in range(4))
    attributes: dict[str, Any] = {"is_test": 1} if version < 7 else {}
    inputs = ["x", "g", "b", "m", "v"]
    node = helper.make_node("BatchNormalization", inputs, ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in inputs]
    graph = helper.make_graph([node], "g", values, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    got = run_float64(model, dict(zip(inputs, [x, gamma, beta, mean, var], strict=True)))["y"]
    epsilon = float(np.float32(1e-5))  # the default is a float32, like everything that the file holds
    rows = [parameter[:, None] for parameter in (gamma, beta, mean, var)]
    np.testing.assert_allclose(got, (x - rows[2]) / np.sqrt(rows[3] + epsilon) * rows[0] + rows[1], rtol=1e-14)


def test_statistics_of_every_element_are_used_where_spatial_is_off() -> None:
    generator = np.random.default_rng(4)
    x = generator.normal(size=(3, 2, 4))
    parameters = [generator.uniform(0.5, 2, size=(2, 4)) for _ in range(4)]
    node = helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"], spatial=0, epsilon=0.0)
    tensors = [numpy_helper.from_array(array, name) for array, name in zip(parameters, "gbmv", strict=True)]
    values = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [3, 2, 4])]
    graph = helper.make_graph([node], "g", values, [helper.make_empty_tensor_value_info("y")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)])
    gamma, beta, mean, var = parameters
    np.testing.assert_allclose(run_float64(model, {"x": x})["y"], (x - mean) / np.sqrt(var) * gamma + beta, rtol=1e-14)


@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize("least", [None, 0.4])
@pytest.mark.parametrize("most", [0, 3, 50])
def test_boxes_are_left_as_onnxruntime_leaves_them(centred: int, least: float | None, most: int) -> None:
    """Corners in any order, boxes without area, equal scores; the numbers are exact in float32."""
    last = "" if least is None else ", t"
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[2,60,4] b, float[2,3,60] s) => (int64[K,3] y) <int64[1] m = {{{most}}}, float[1] o = {{0.4}},
            float[1] t = {{{least or 0.0}}}> {{
            y = NonMaxSuppression<center_point_box = {centred}>(b, s, m, o{last}) }}"""
    )
    generator = np.random.default_rng(most)
    boxes = generator.integers(0, 12, size=(2, 60, 4)).astype(np.float32)
    scores = (generator.integers(0, 20, size=(2, 3, 60)) / 32).astype(np.float32)
    feeds = {"b": boxes, "s": scores}
    assert np.array_equal(run_float64(model, feeds)["y"], Session(model).run(feeds)["y"])
