"""The bound of every operation: onnxruntime's own rounding stays below it, and nothing that is linear is over it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, numpy_helper, parser

from bnfold.graph.region import Region
from bnfold.parity import Verdict, run_float64
from bnfold.parity.bounded import DOMAIN, bounded
from bnfold.parity.bounds import RULES
from bnfold.parity.local import check_region
from bnfold.parity.magnitude import Magnitude, magnitudes
from bnfold.parity.reference import Reference

Array = npt.NDArray[Any]
_RNG = np.random.default_rng(1)
CONSTANTS: dict[str, Array] = {
    "w": _RNG.normal(size=(6, 3, 3, 3)),
    "v": _RNG.normal(size=(6, 4, 3, 3)),
    "b": _RNG.normal(size=6),
    "d": _RNG.normal(size=(40, 6)),
    "c3": _RNG.normal(size=3),
    "p3": _RNG.normal(size=(3, 1, 1)),
    "c6": _RNG.normal(size=6),
    "positive": np.array([0.5, 1.0, 2.0]),
    "two": np.array(2.0),
    "low": np.array(0.2),
    "high": np.array(0.9),
    "half": np.array([0.5]),
    "axes": np.array([2, 3]),
    "axis": np.array(1),
    "shape": np.array([0, 0, -1]),
    "pads": np.array([0, 0, 1, 2, 0, 0, 2, 0]),
    "starts": np.array([1, 2]),
    "ends": np.array([5, 6]),
    "steps": np.array([1, 2]),
    "indices": np.array([2, 0]),
    "points": np.broadcast_to(np.array([2, 0, 1]).reshape(1, 3, 1, 1), (2, 3, 9, 8)),
    "point": np.array([[0, 1]]),
    "repeats": np.array([1, 1, 2, 1]),
    "tall": np.array([1, 1, 9, 1]),
    "lengths": np.array([3, 2]),
    "chosen": np.array([True, False, True]),
    "parts": np.array([4, 5]),
    "odd": np.array([1.0, 1.0, 1.37, 0.61]),
    "even": np.array([1.0, 1.0, 2.0, 0.5]),
    "mask": np.array([True, False, True]).reshape(3, 1, 1),
    "patch": _RNG.normal(size=(1, 9, 8)),
    "wide": np.array([5, 20, 20]),
    "square": _RNG.normal(size=(9, 9)),
}
BODIES = [
    "y = Abs(x)",
    "y = Neg(x)",
    "y = Relu(x)",
    "y = Identity(x)",
    "y = Dropout(x)",
    "y = Add(x, p3)",
    "y = Sub(p3, x)",
    "y = Mul(x, p3)",
    "h = Mul(x, p3)  y = Mul(h, x)",
    "h = Sub(x, p3)  y = Mul(h, h)",
    "y = Div(x, p3)",
    "h = Add(x, p3)  a = Abs(h)  k = Add(a, half)  y = Div(x, k)",
    "a = Abs(x)  k = Add(a, half)  y = Div(p3, k)",
    "h = Mul(x, p3)  a = Abs(h)  k = Add(a, half)  y = Log(k)",
    "h = Mul(x, p3)  a = Abs(h)  k = Add(a, half)  y = Sqrt(k)",
    "h = Mul(x, p3)  a = Abs(h)  k = Add(a, half)  y = Reciprocal(k)",
    "h = Mul(x, half)  y = Exp(h)",
    "h = Mul(x, p3)  a = Abs(h)  k = Add(a, half)  y = Pow(k, two)",
    "h = Mul(x, p3)  y = Sum(h, x, p3)",
    "h = Mul(x, p3)  y = Mean(h, x)",
    "h = Mul(x, p3)  y = Max(h, x, p3)",
    "h = Mul(x, p3)  y = Min(h, p3)",
    "h = Mul(x, p3)  y = Clip(h, low, high)",
    "h = Mul(x, p3)  y = Clip(h, , low)",
    "y = LeakyRelu<alpha = -1.5>(x)",
    "h = Mul(x, p3)  y = PRelu(h, p3)",
    "h = Mul(x, p3)  y = Elu<alpha = 1.5>(h)",
    "h = Mul(x, p3)  y = Selu(h)",
    "h = Mul(x, p3)  y = Celu<alpha = 0.5>(h)",
    "h = Mul(x, p3)  y = Softplus(h)",
    "h = Mul(x, p3)  y = Softsign(h)",
    "h = Mul(x, p3)  y = Sigmoid(h)",
    "h = Mul(x, p3)  y = HardSigmoid(h)",
    "h = Mul(x, p3)  y = HardSwish(h)",
    "h = Mul(x, p3)  y = Tanh(h)",
    "h = Mul(x, p3)  y = Erf(h)",
    "h = Mul(x, p3)  y = Gelu(h)",
    'h = Mul(x, p3)  y = Gelu<approximate = "tanh">(h)',
    "h = Mul(x, p3)  y = Mish(h)",
    "h = Mul(x, p3)  y = Sin(h)",
    "h = Mul(x, p3)  y = Cos(h)",
    "h = Mul(x, p3)  y = Swish<alpha = 1.7>(h)",
    "y = Conv<pads = [1, 1, 1, 1], strides = [2, 1]>(x, w, b)",
    "y = ConvTranspose<strides = [2, 2]>(x, v2, c6)",
    "h = Conv(x, w, b)  y = MatMul(h, g)",
    "y = MatMul(l, x)",
    "t = Transpose<perm = [0, 1, 3, 2]>(x)  y = MatMul(x, t)",
    "h = Mul(x, p3)  t = Transpose<perm = [0, 1, 3, 2]>(h)  y = MatMul(x, t)",
    'y = Einsum<equation = "nchw,hk->nckw">(x, square)',
    'h = Mul(x, p3)  y = Einsum<equation = "nchw,nchv->nwv">(h, x)',
    "f = GlobalAveragePool(x)  q = Flatten(f)  y = Gemm<alpha = -2.0, beta = 0.5, transB = 1>(q, m, c6)",
    "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(x)",
    "y = MaxPool<kernel_shape = [3, 2], ceil_mode = 1, strides = [2, 2]>(x)",
    "y = LpPool<kernel_shape = [2, 3], p = 3>(x)",
    "y = GlobalAveragePool(x)",
    "y = GlobalMaxPool(x)",
    "y = GlobalLpPool(x)",
    "y = ReduceMean(x, axes)",
    "y = ReduceSum(x, axes)",
    "y = ReduceMax(x, axes)",
    "y = ReduceMin(x, axes)",
    "y = ReduceL1(x, axes)",
    "h = Mul(x, p3)  y = ReduceL2(h, axes)",
    "y = CumSum(x, axis)",
    "y = InstanceNormalization(x, c3, c3)",
    "h = Mul(x, p3)  y = InstanceNormalization(h, c3, c3)",
    "y = LayerNormalization<axis = 1>(x, patch)",
    "h = Mul(x, p3)  y = LayerNormalization(h, e, e)",
    "y = GroupNormalization<num_groups = 3>(x, c3, c3)",
    "h = Mul(x, p3)  y = RMSNormalization(h, e)",
    "h = Mul(x, p3)  y = Softmax<axis = 1>(h)",
    "h = Mul(x, p3)  y = LogSoftmax<axis = 3>(h)",
    "y = BatchNormalization(x, c3, c3, c3, positive)",
    "y = Reshape(x, shape)",
    "y = Flatten(x)",
    "y = Transpose(x)",
    "k = Unsqueeze(x, zero)  y = Squeeze(k, zero)",
    "y = Concat<axis = 1>(x, x)",
    "a, y = Split<axis = 2>(x, parts)",
    "y = Slice(x, starts, ends, axes, steps)",
    "y = Gather<axis = 1>(x, indices)",
    "y = GatherElements<axis = 1>(x, points)",
    "y = GatherND(x, point)",
    "y = Tile(x, repeats)",
    "h = ReduceMax(x, axes)  y = Expand(h, tall)",
    "y = Pad(x, pads, low)",
    'y = Pad<mode = "edge">(x, pads)',
    "k = Slice(x, starts, ends, axes)  y = DepthToSpace<blocksize = 1>(k)",
    "k = Slice(x, starts, ends, axes)  y = SpaceToDepth<blocksize = 2>(k)",
    "y = Trilu(x)",
    "y = Compress<axis = 1>(x, chosen)",
    "k = Mul(x, p3)  y = Where(mask, x, k)",
    "y = CenterCropPad<axes = [2, 3]>(x, crop)",
    "y = CastLike(x, half)",
    "h = Cast<to = 10>(x)  k = Relu(h)  y = Cast<to = 1>(k)",
    "y = ReverseSequence<batch_axis = 0, time_axis = 1>(x, lengths)",
    "h = Mul(x, p3)  y = ScatterND(h, zero2, flat)",
    "h = Mul(x, p3)  y = ScatterElements<axis = 1>(h, points, x)",
    *(
        f'h = Mul(x, p3)  y = Resize<mode = "{mode}", coordinate_transformation_mode = "{where}">(h, , {scales})'
        for mode in ("nearest", "linear", "cubic")
        for where in ("half_pixel", "align_corners", "asymmetric")
        for scales in ("odd", "even")
    ),
]
MORE: dict[str, Array] = {
    "v2": _RNG.normal(size=(3, 6, 2, 2)),
    "g": _RNG.normal(size=(6, 5)),
    "l": _RNG.normal(size=(5, 9)),
    "m": _RNG.normal(size=(6, 3)),
    "e": _RNG.normal(size=8),
    "zero": np.array([0]),
    "zero2": np.array([[1]]),
    "flat": _RNG.normal(size=(1, 3, 9, 8)),
    "crop": np.array([7, 11]),
}


def _model(body: str, opset: int = 23, arrays: dict[str, Array] | None = None, kind: str = "float") -> ModelProto:
    text = f'<ir_version: 10, opset_import: ["": {opset}]> g ({kind}[N, C, H, W] x) => (float y) {{ {body} }}'
    model = parser.parse_model(text)
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    read = {name for node in model.graph.node for name in node.input}
    for name, array in {**CONSTANTS, **MORE, **(arrays or {})}.items():
        if name in read:
            stored = array.astype(np.float32) if array.dtype.kind == "f" else array
            model.graph.initializer.append(numpy_helper.from_array(stored, name))
    return model


REGION = Region(("bn",), ("x",), ("y",), 1)


@pytest.mark.parametrize("shift", [0.0, 100.0], ids=["around zero", "far from zero"])
@pytest.mark.parametrize("body", BODIES)
def test_what_was_not_changed_passes(body: str, shift: float) -> None:
    generator = np.random.default_rng(len(body))
    model = _model(body, 24 if "Swish" in body and "Hard" not in body else 23)
    assert isinstance(magnitudes(model), Magnitude)
    x = (shift + generator.normal(size=(2, 3, 9, 8))).astype(np.float32)
    check = check_region(REGION, model, model, [{"x": x}], seed=3)
    assert check.verdict is Verdict.PASS, check.detail
    assert check.compared > 0


def test_every_rule_has_an_example() -> None:
    shown = {word.partition("(")[0].partition("<")[0] for body in BODIES for word in body.split()}
    assert set(RULES) - shown == {"Upsample"}


@pytest.mark.parametrize(
    "body",
    [
        "y = GlobalAveragePool(x)", "y = ReduceSum(x, axes)", "y = InstanceNormalization(x, c3, c3)",
        "y = GroupNormalization<num_groups = 3>(x, c3, c3)", "y = GlobalLpPool(x)", "y = CumSum(x, deep)",
        "h = Flatten(x)  y = LayerNormalization(h, large)", "h = Flatten(x)  y = Softmax(h)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_long_sums_pass(body: str, shift: float) -> None:
    generator = np.random.default_rng(4)
    side = 112
    arrays = {"large": generator.normal(size=3 * side * side), "deep": np.array(2)}
    model = _model(body, arrays=arrays)
    x = (shift + generator.normal(size=(1, 3, side, side))).astype(np.float32)
    check = check_region(REGION, model, model, [{"x": x}], seed=3)
    assert check.verdict is Verdict.PASS, check.detail


@pytest.mark.parametrize("body", [body for body in BODIES if "Cast<" not in body])
def test_a_bound_covers_what_a_small_change_of_the_input_does(body: str) -> None:
    """``|f(x + δ) − f(x)| ≤ S`` times the size of the change, relative to x: found by trying, in float64.

    A factor that is what was fed is taken as exact, and here it moves too: hence the 2.
    """
    generator = np.random.default_rng(len(body))
    model = _model(body, 24 if "Swish" in body and "Hard" not in body else 23)
    found = magnitudes(model)
    assert isinstance(found, Magnitude)
    x = generator.normal(size=(2, 3, 9, 8))
    foreign = Reference(
        found.model, foreign=lambda node, inputs: bounded(node, inputs) if node.domain == DOMAIN else ()
    )
    scale = foreign.run({"x": x})[found.outputs["y"]]
    before = run_float64(model, {"x": x})["y"]
    size = 1e-7
    for _ in range(20):
        moved = x * (1 + size * generator.choice([-1.0, 1.0], size=x.shape))
        change = np.abs(run_float64(model, {"x": moved})["y"] - before)
        assert (change <= 2.01 * size * scale + 1e-14).all()


def test_a_bound_of_old_operations_aligns_as_they_do() -> None:
    body = "h = Mul<broadcast = 1, axis = 1>(x, c3)  k = Add<broadcast = 1, axis = 1>(h, c3)  y = PRelu(k, c3)"
    model = _model(body, 6)
    found = magnitudes(model)
    assert isinstance(found, Magnitude)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    c = np.abs(CONSTANTS["c3"].astype(np.float32)).astype(np.float64).reshape(3, 1, 1)
    expected = (np.abs(x.astype(np.float64)) * c + c) * np.maximum(1, c)
    np.testing.assert_allclose(Reference(found.model).run({"x": x})[found.outputs["y"]], expected, rtol=1e-14)
    assert check_region(REGION, model, model, [{"x": x}], seed=3).verdict is Verdict.PASS


def test_indices_keep_their_sign() -> None:
    model = _model("y = Gather(table, x)", arrays={"table": np.array([1.0, -2.0, 3.0, -4.0])}, kind="int64")
    found = magnitudes(model)
    assert isinstance(found, Magnitude)
    got = run_float64(found.model, {"x": np.array([[[[-1, 0]]]])})
    np.testing.assert_array_equal(got[found.outputs["y"]], [[[[4, 1]]]])


@pytest.mark.parametrize("jump", ["Round(x)", "Sign(x)", "ThresholdedRelu<alpha = 0.1>(x)", "Floor(x)"])
def test_what_jumps_has_no_bound(jump: str) -> None:
    assert not isinstance(magnitudes(_model(f"y = {jump}")), Magnitude)


def test_what_floats_decide_has_no_bound() -> None:
    places = "h, i = MaxPool<kernel_shape = [2, 2]>(x)  j = Add(i, i)  y = Cast<to = 1>(j)"
    for body in ("m = Greater(x, half)  y = Where(m, x, half)", places):
        assert not isinstance(magnitudes(_model(body)), Magnitude)
    unread = _model("y, i = MaxPool<kernel_shape = [2, 2]>(x)")
    assert isinstance(magnitudes(unread), Magnitude)
