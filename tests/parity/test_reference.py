"""The reference as a whole: what it widens and what it leaves alone, control flow, functions, inner values."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from bnfold.errors import SignatureError, UnsupportedOpError
from bnfold.parity.reference import Reference, run_float64


def _model(text: str, opset: int = 17, header: str = "") -> ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{header}]> {text}')


def test_weights_are_widened_and_epsilon_keeps_its_float32_value() -> None:
    model = _model("""g (float[1,1] x) => (float[1,1] y)
        <float[1] s = {1}, float[1] b = {0}, float[1] m = {0}, float[1] v = {0}>
        { y = BatchNormalization<epsilon=0.001>(x, s, b, m, v) }""")
    got = run_float64(model, {"x": np.ones((1, 1))})["y"]
    assert got.dtype == np.float64
    assert got[0, 0] == 1 / np.sqrt(float(np.float32(0.001)))
    assert got[0, 0] != 1 / np.sqrt(0.001)


def test_a_cast_to_a_narrower_float_rounds_nothing() -> None:
    model = _model("""g (double[2] x) => (double[2] y) { h = Cast<to=10>(x)
        f = Cast<to=1>(h)
        y = Cast<to=11>(f) }""")
    x = np.array([1 / 3, 1e30])
    np.testing.assert_array_equal(run_float64(model, {"x": x})["y"], x)


def test_a_cast_to_an_integer_cuts_the_fraction_off() -> None:
    model = _model("g (float[4] x) => (int64[4] y) { y = Cast<to=7>(x) }")
    x = np.array([-1.9, -0.5, 0.5, 2.9], dtype=np.float32)
    np.testing.assert_array_equal(run_float64(model, {"x": x})["y"], [-1, 0, 0, 2])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_initializers_of_every_width_are_widened_exactly(dtype: Any) -> None:
    weight = np.array([1 / 3, 1e-3, 7.7]).astype(dtype)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", element, [3])],
        [helper.make_tensor_value_info("y", element, [3])],
        [numpy_helper.from_array(weight, "w")],
    )
    got = run_float64(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), {"x": np.ones(3)})["y"]
    np.testing.assert_array_equal(got, weight.astype(np.float64))


def test_inner_values_and_constants_can_be_asked_for_and_the_rest_is_not_computed() -> None:
    model = _model("""g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}>
        { h = Mul(x, w)
          r = RandomNormalLike(h)
          y = Add(h, r) }""")
    # Preparing refuses what has no reference at all.
    with pytest.raises(UnsupportedOpError, match="RandomNormalLike '' draws random numbers, so the model has no"):
        run_float64(model, {"x": np.ones(3)}, ["h"])
    del model.graph.node[1:]
    got = run_float64(model, {"x": np.full(3, 2.0)}, ["h", "w"])
    np.testing.assert_array_equal(got["h"], [2, 4, 6])
    np.testing.assert_array_equal(got["w"], [1, 2, 3])


def test_missing_feeds_and_unknown_values_are_named() -> None:
    model = _model("g (float[3] x, float[3] z) => (float[3] y) { y = Add(x, z) }")
    with pytest.raises(SignatureError, match="no values for z") as caught:
        run_float64(model, {"x": np.ones(3)})
    assert caught.value.hint == "Feed every input: x, z."
    with pytest.raises(SignatureError, match="the model has no value 'q'"):
        run_float64(model, {"x": np.ones(3), "z": np.ones(3)}, ["q"])


def test_an_initializer_that_is_an_input_is_a_default() -> None:
    model = _model("g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }")
    x = np.ones(2)
    np.testing.assert_array_equal(run_float64(model, {"x": x})["y"], [1, 2])
    np.testing.assert_array_equal(run_float64(model, {"x": x, "w": np.array([5.0, 6.0])})["y"], [5, 6])


CONTROL_FLOW = {
    "if": """g (bool c, float[2] x) => (float[2] y) <float[2] w = {3, 4}>
        { y = If (c) <then_branch = t () => (float[2] a) { a = Mul(x, w) },
                      else_branch = e () => (float[2] a) <float[2] v = {1, 1}> { a = Sub(x, v) }> }""",
    "loop": """g (int64 n, float[2] x) => (float[2] y, float[K, 2] all) <float[2] w = {0.5, 2}>
        { t = Constant<value = bool {1}>()
          y, all = Loop (n, t, x) <body = b (int64 i, bool g, float[2] s) => (bool g2, float[2] s2, float[2] row)
            { g2 = Identity(g)
              s2 = Mul(s, w)
              row = Add(s, w) }> }""",
    "scan": """g (float[2] s, float[5, 2] x) => (float[2] y, float[5, 2] all)
        { y, all = Scan <num_scan_inputs = 1, scan_input_directions = [1],
                         body = b (float[2] a, float[2] e) => (float[2] a2, float[2] row)
            { a2 = Add(a, e)
              row = Mul(a, e) }> (s, x) }""",
}


@pytest.mark.parametrize("name", CONTROL_FLOW)
@pytest.mark.parametrize("switch", [True, False])
def test_control_flow_agrees_with_onnxruntime(name: str, switch: bool) -> None:  # noqa: FBT001
    model = _model(CONTROL_FLOW[name])
    generator = np.random.default_rng(2)
    feeds: dict[str, Any] = {
        "if": {"c": np.array(switch)},
        "loop": {"n": np.array(4 if switch else 1)},
        "scan": {"s": generator.normal(size=2).astype(np.float32)},
    }[name]
    feeds["x"] = generator.normal(size=(5, 2) if name == "scan" else 2).astype(np.float32)
    theirs = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    for mine, their in zip(run_float64(model, feeds).values(), theirs, strict=True):
        np.testing.assert_allclose(mine, their, rtol=1e-6)


def test_a_loop_without_a_turn_stacks_no_rows() -> None:
    feeds = {"n": np.array(0), "x": np.ones(2, dtype=np.float32)}
    got = run_float64(_model(CONTROL_FLOW["loop"]), feeds)
    np.testing.assert_array_equal(got["y"], [1, 1])
    assert got["all"].shape == (0, 2)


def test_values_inside_of_bodies_are_captured_by_scope() -> None:
    model = _model(CONTROL_FLOW["loop"])
    model.graph.node[1].name = "again"
    feeds = {"n": np.array(3), "x": np.ones(2, dtype=np.float32)}
    outputs, captured = Reference(model).capture(feeds, {("again",): {"s", "s2"}, (): {"x"}})
    np.testing.assert_array_equal(outputs["y"], [0.125, 8])
    np.testing.assert_array_equal([visit["s"][1] for visit in captured["again",]], [1, 2, 4])
    np.testing.assert_array_equal(captured[()][0]["x"], [1, 1])


def test_functions_of_the_model_take_attributes_and_defaults() -> None:
    model = parser.parse_model("""<ir_version: 9, opset_import: ["": 17, "ours": 1]>
        g (float[3] x) => (float[3] y) { h = ours.scaled<by = 3.0>(x)
            y = ours.twice(h) }
        <domain: "ours", opset_import: ["": 17]> scaled <by> (a) => (b) {
            k = Constant<value_float: float = @by>()
            b = Mul(a, k) }
        <domain: "ours", opset_import: ["": 17, "ours": 1]> twice (a) => (b) { c = ours.scaled<by = 2.0>(a)
            b = Identity(c) }""")
    np.testing.assert_array_equal(run_float64(model, {"x": np.array([1.0, 2, 3])})["y"], [6, 12, 18])


def test_a_function_of_the_standard_is_computed_by_its_body_in_float64() -> None:
    model = _model("g (double[2, 4] x) => (double[2, 4] y) { y = MeanVarianceNormalization<axes = [1]>(x) }")
    x = np.random.default_rng(0).normal(size=(2, 4))
    centred = x - x.mean(axis=1, keepdims=True)
    expected = centred / (np.sqrt((centred**2).mean(axis=1, keepdims=True)) + 1e-9)
    np.testing.assert_allclose(run_float64(model, {"x": x})["y"], expected, rtol=1e-8)


def test_an_unknown_operation_is_named() -> None:
    model = _model("g (float[2] x) => (float[2] y) { y = strange.Thing(x) }", header=', "strange": 3')
    with pytest.raises(UnsupportedOpError) as caught:
        run_float64(model, {"x": np.ones(2)})
    assert str(caught.value) == "the float64 reference does not know strange::Thing (version 3)"


def test_dropout_that_trains_has_no_reference() -> None:
    model = _model("""g (float[2] x) => (float[2] y) <float r = {0.5}, bool t = {1}> { y = Dropout(x, r, t) }""")
    with pytest.raises(UnsupportedOpError, match="a dropout in training mode has no reference: its output is random"):
        run_float64(model, {"x": np.ones(2)})


def test_stored_rounds_every_node_to_the_type_that_it_declares() -> None:
    model = _model("""g (float16[3] x) => (float16[3] y) <float16[3] w>
        { h = Mul(x, x)
          y = Add(h, w) }""")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, dtype=np.float16), "w"))
    x = np.array([0.1, 1.7, 30.3], dtype=np.float16)
    got = Reference(model, stored=True).run({"x": x}, ["h", "y"])
    assert got["h"].dtype == got["y"].dtype == np.float16
    np.testing.assert_array_equal(got["h"], x * x)
    np.testing.assert_array_equal(got["y"], x * x + np.float16(1))


def test_a_disturbed_reference_moves_weights_by_their_roundoff_and_sizes_not_at_all() -> None:
    model = _model("""g (float[1, 1, 4, 4] x) => (float[1, 1, 8, 8] y)
        <float[1, 1, 1, 1] w = {3}, float[4] scales = {1, 1, 2, 2}>
        { h = Conv(x, w)
          y = Resize<mode = "nearest">(h, , scales) }""")
    x = np.random.default_rng(1).normal(size=(1, 1, 4, 4))
    plain, moved = run_float64(model, {"x": x})["y"], Reference(model, disturbance=5).run({"x": x})["y"]
    np.testing.assert_allclose(np.abs(moved / plain - 1), 2.0**-24, rtol=1e-6)


def test_a_custom_operation_is_given_to_whoever_knows_it() -> None:
    model = _model("g (float[2] x) => (float[2] y) { y = strange.Thing(x) }", header=', "strange": 3')
    got = Reference(model, foreign=lambda node, inputs: [inputs[0] * len(node.op_type)]).run({"x": np.ones(2)})
    np.testing.assert_array_equal(got["y"], [5, 5])


def test_sparse_initializers_are_dense() -> None:
    values = numpy_helper.from_array(np.array([2.0, 3.0], dtype=np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 3])), [2, 2])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        sparse_initializer=[sparse],
    )
    got = run_float64(helper.make_model(graph), {"x": np.array([[1.0, 10.0]])})["y"]
    np.testing.assert_array_equal(got, [[0, 32]])


REUSED = """<ir_version: 8, opset_import: ["" : 17]>
    g (double[2, 3] x, double[2, 3] z) => (double[2, 3] y, double[3, 2] r) {
    a = Add(x, z)  b = Relu(a)  c = Sub(a, b)  d = Identity(a)  e = Mul(d, c)  r = Transpose(e)
    f = Relu(e)  g = Clip(f, low, high)  h = Add(one, g)  y = Add(h, h) }"""


def test_no_value_is_written_over_that_somebody_still_reads() -> None:
    model = parser.parse_model(REUSED)
    arrays = {"low": np.float64(0.1), "high": np.float64(0.9), "one": np.ones(3)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items())
    generator = np.random.default_rng(4)
    feeds = {name: generator.normal(size=(2, 3)) for name in ("x", "z")}
    before = {name: value.copy() for name, value in feeds.items()}
    names = ["y", "r", "a", "b", "e", "h"]
    expected = ReferenceEvaluator(model).run(["y", "r"], feeds)
    reference = Reference(model)
    for asked in (names, ["y", "r"], ["r"], names):
        found = reference.run(feeds, asked)
        for name, value in zip(("y", "r"), expected, strict=True):
            if name in found:
                np.testing.assert_array_equal(found[name], value)
    a = before["x"] + before["z"]
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], np.maximum(a, 0))
    assert all(np.array_equal(feeds[name], before[name]) for name in feeds)
