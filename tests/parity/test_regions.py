"""Gate A on regions of every kind, folded by hand: the right fold passes, and each classic mistake is caught."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, numpy_helper, parser

from bnfold.graph.region import Region
from bnfold.parity import RegionCheck, Verdict
from bnfold.parity.local import check_region

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

SCALE = np.array([1.5, 0.25, 2.0, 0.75])
SHIFT = np.array([0.5, -0.75, 0.25, 1.0])
MEAN, VAR = np.array([0.1, -0.2, 0.3, 0.4]), np.array([0.6, 1.1, 0.9, 2.0])
EPSILON = float(np.float32(1e-5))
NORM = "BatchNormalization({}, gamma, beta, mean, var)"
_RNG = np.random.default_rng(5)
W = _RNG.normal(size=(4, 3, 3, 3)) / 5
V = _RNG.normal(size=(4, 4, 3, 3)) / 6
U = _RNG.normal(size=(4, 3, 1, 1)) / 2
B = _RNG.normal(size=4)
TABLE = _RNG.normal(size=(9, 4))
DENSE = _RNG.normal(size=(4, 5))


def _norm() -> dict[str, Array]:
    """Return the batch norm whose map is ``SCALE`` and ``SHIFT``, in float32."""
    gamma = SCALE * np.sqrt(VAR + EPSILON)
    return {"gamma": gamma, "beta": SHIFT + MEAN * SCALE, "mean": MEAN, "var": VAR}


def _map(norm: Arrays) -> tuple[Array, Array]:
    """Return what the stored batch norm does, in float64."""
    gamma, beta, mean, var = (norm[name].astype(np.float32).astype(np.float64) for name in norm)
    scale = gamma / np.sqrt(var + EPSILON)
    return scale, beta - mean * scale


S, O = _map(_norm())  # noqa: E741 - the o of the algebra


def rows(scale: Array, weight: Array) -> Array:
    """Scale a weight's output channels."""
    return scale.reshape(-1, *[1] * (weight.ndim - 1)) * weight


def columns(scale: Array, weight: Array) -> Array:
    """Scale a weight's input channels."""
    return scale.reshape(1, -1, *[1] * (weight.ndim - 2)) * weight


@dataclass(frozen=True)
class Case:
    """A piece before and after folding: what ``y`` is made of, in ONNX text, and the constants of both sides."""

    name: str
    inputs: str
    before: str
    after: str
    constants: Arrays
    folded: Arrays
    shift: str = ""
    """The folded constant that holds the shift, if one does."""
    scaled: str = ""
    """The folded constant that holds the scale, if one does."""
    axis: int = 0
    """The axis of that constant's channels."""
    feeds: Arrays = field(default_factory=dict)
    opset: int = 17
    fan_in: int = 1


IMAGE = "float[N, 3, H, W] x"
FOUR = "float[N, 4, H, W] x"
CONV = "Conv<pads = [1, 1, 1, 1]>"
BACK = {"w": W, "b": B}
FORTH = {"w": rows(S, W), "b": B * S + O}


def back(name: str, behind: str, ahead: str, **folded: Array) -> Case:
    """A padded convolution, something, and a batch norm that is folded back into the convolution."""
    before = f"c = {CONV}(x, w, b)  {behind}  y = {NORM.format('h')}"
    return Case(
        name, IMAGE, before, f"c = {CONV}(x, w, b)  {ahead}", BACK, {**FORTH, **folded},
        shift="b", scaled="w", fan_in=27,
    )  # fmt: skip


def per_channel(array: Array) -> Array:
    return array.reshape(-1, 1, 1)


HALF = {"w": rows(S, W), "b": B * S}
SCALED = {**HALF, "o": per_channel(O)}
CASES = [
    back("Relu becomes Max", "h = Relu(c)", "y = Max(c, o)", o=per_channel(O)),
    back(
        "Clip becomes Min and Max",
        "low = Constant<value = float {0.0}>()  high = Constant<value = float {6.0}>()  h = Clip(c, low, high)",
        "m = Max(c, o)  y = Min(m, p)",
        o=per_channel(O),
        p=per_channel(6 * S + O),
    ),
    Case(
        "Relu takes the scale",
        IMAGE,
        f"c = {CONV}(x, w, b)  h = Relu(c)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  h = Relu(c)  y = Add(h, o)",
        BACK,
        SCALED,
        shift="o",
        scaled="w",
        fan_in=27,
    ),
    Case(
        "LeakyRelu takes the scale",
        IMAGE,
        f"c = {CONV}(x, w, b)  h = LeakyRelu<alpha = 0.2>(c)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  h = LeakyRelu<alpha = 0.2>(c)  y = Add(h, o)",
        BACK,
        SCALED,
        shift="o",
        scaled="w",
        fan_in=27,
    ),
    Case(
        "PRelu takes the scale",
        IMAGE,
        f"c = {CONV}(x, w, b)  h = PRelu(c, q)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  h = PRelu(c, q)  y = Add(h, o)",
        {**BACK, "q": per_channel(B)},
        {**SCALED, "q": per_channel(B)},
        shift="o",
        scaled="w",
        fan_in=27,
    ),
    Case(
        "Concat gives each its slice",
        "float[N, 3, H, W] x, float[N, 3, H, W] z",
        f"c = {CONV}(x, w, b)  d = {CONV}(z, v, a)  h = Concat<axis = 1>(c, d)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  d = {CONV}(z, v, a)  y = Concat<axis = 1>(c, d)",
        {"w": W[:2], "b": B[:2], "v": W[2:], "a": B[2:]},
        {"w": rows(S[:2], W[:2]), "b": (B * S + O)[:2], "v": rows(S[2:], W[2:]), "a": (B * S + O)[2:]},
        shift="a",
        scaled="v",
        fan_in=27,
    ),
    back(
        "MaxPool",
        "h = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(c)",
        "y = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(c)",
    ),
    back(
        "AveragePool",
        "h = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(c)",
        "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(c)",
    ),
    Case(
        "LpPool takes the scale",
        IMAGE,
        f"c = {CONV}(x, w, b)  h = LpPool<kernel_shape = [2, 2], p = 2>(c)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  h = LpPool<kernel_shape = [2, 2], p = 2>(c)  y = Add(h, o)",
        BACK,
        SCALED,
        shift="o",
        scaled="w",
        fan_in=27,
    ),
    back("GlobalAveragePool", "h = GlobalAveragePool(c)", "y = GlobalAveragePool(c)"),
    back("ReduceMean", "h = ReduceMean<axes = [2], keepdims = 1>(c)", "y = ReduceMean<axes = [2], keepdims = 1>(c)"),
    back("ReduceMax", "h = ReduceMax<axes = [3], keepdims = 1>(c)", "y = ReduceMax<axes = [3], keepdims = 1>(c)"),
    Case(
        "ReduceSum counts the shift",
        IMAGE,
        f"c = {CONV}(x, w, b)  h = ReduceSum<keepdims = 1>(c, axes)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  r = ReduceSum<keepdims = 1>(c, axes)  y = Add(r, o)",
        {**BACK, "axes": np.array([2, 3])},
        {**SCALED, "axes": np.array([2, 3])},
        shift="o",
        scaled="w",
        fan_in=27,
    ),
    *(
        back(f"Resize, {mode}", f'h = Resize<mode = "{mode}">(c, , sizes)', f'y = Resize<mode = "{mode}">(c, , sizes)')
        for mode in ("nearest", "linear", "cubic")
    ),
    back("Pad, reflected", 'h = Pad<mode = "reflect">(c, pads)', 'y = Pad<mode = "reflect">(c, pads)'),
    Case(
        "a Pad whose number is rewritten",
        IMAGE,
        "c = Conv(x, w, b)  h = Pad(c, pads, v)  t = Mul(h, s)  y = Add(t, q)",
        "c = Conv(x, w, b)  y = Pad(c, pads, v)",
        {**BACK, "v": np.array(0.7), "s": np.array(1.25), "q": np.array(-0.3)},
        {"w": 1.25 * W, "b": 1.25 * B - 0.3, "v": np.array(0.7 * 1.25 - 0.3)},
        shift="v",
        scaled="w",
        fan_in=27,
    ),
    Case(
        "Where on a mask",
        f"{IMAGE}, bool[N, 1, H, W] m",
        f"c = {CONV}(x, w, b)  d = {CONV}(x, v, b)  h = Where(m, c, d)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  d = {CONV}(x, v, b)  y = Where(m, c, d)",
        {**BACK, "v": 0.5 * W},
        {**FORTH, "v": rows(S, 0.5 * W)},
        shift="b",
        scaled="v",
        feeds={"m": _RNG.random((2, 1, 7, 6)) < 0.5},
        fan_in=27,
    ),
    Case(
        "a gate that is computed inside",
        IMAGE,
        f"c = {CONV}(x, w, b)  g = GlobalAveragePool(x)  k = Conv(g, u)  e = Sigmoid(k)  h = Mul(c, e)  "
        f"y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  g = GlobalAveragePool(x)  k = Conv(g, u)  e = Sigmoid(k)  h = Mul(c, e)  y = Add(h, o)",
        {**BACK, "u": U},
        {**SCALED, "u": U},
        shift="o",
        scaled="w",
        fan_in=27,
    ),
    Case(
        "the linear part of a Swish",
        IMAGE,
        f"c = {CONV}(x, w, b)  k = Conv(x, u)  e = HardSigmoid(k)  h = Mul(c, e)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  k = Conv(x, u)  e = HardSigmoid(k)  h = Mul(c, e)  y = Add(h, o)",
        {**BACK, "u": U},
        {**SCALED, "u": U},
        shift="o",
        scaled="w",
        fan_in=27,
    ),
    Case(
        "Sub turns the sign",
        f"{IMAGE}, float[N, 3, H, W] z",
        f"c = {CONV}(x, w, b)  d = {CONV}(z, v)  h = Sub(c, d)  y = {NORM.format('h')}",
        f"c = {CONV}(x, w, b)  d = {CONV}(z, v)  y = Sub(c, d)",
        {**BACK, "v": W[::-1]},
        {**FORTH, "v": rows(S, W[::-1])},
        shift="b",
        scaled="v",
        fan_in=27,
    ),
    Case(
        "DepthToSpace",
        "float[N, 3, H, W] x",
        f'c = {CONV}(x, w, b)  h = DepthToSpace<blocksize = 2, mode = "CRD">(c)  t = Mul(h, s)  y = Add(t, q)',
        f'c = {CONV}(x, w, b)  y = DepthToSpace<blocksize = 2, mode = "CRD">(c)',
        {**BACK, "s": np.array([1.25]), "q": np.array([-0.3])},
        {"w": 1.25 * W, "b": 1.25 * B - 0.3},
        shift="b",
        scaled="w",
        fan_in=27,
    ),
    Case(
        "SpaceToDepth in front of a batch norm",
        "float[N, 1, 6, 4] x",
        "c = Conv(x, w, b)  h = SpaceToDepth<blocksize = 2>(c)  y = BatchNormalization(h, gamma, beta, mean, var)",
        "c = Conv(x, w)  h = SpaceToDepth<blocksize = 2>(c)  t = Mul(h, s)  y = Add(t, o)",
        {"w": W[:1, :1, :1, :1], "b": B[:1]},
        {"w": W[:1, :1, :1, :1], "s": per_channel(S), "o": per_channel(O + B[0] * S)},
        shift="o",
        scaled="s",
    ),
    Case(
        "Split, and a slice of it",
        IMAGE,
        f"c = {CONV}(x, w, b)  h, r = Split<axis = 2>(c, parts)  i = Slice(h, one, two, axis)  y = {NORM.format('i')}",
        f"c = {CONV}(x, w, b)  h, r = Split<axis = 2>(c, parts)  y = Slice(h, one, two, axis)",
        {**BACK, "parts": np.array([4, 3]), "one": np.array([1]), "two": np.array([3]), "axis": np.array([3])},
        {**FORTH, "parts": np.array([4, 3]), "one": np.array([1]), "two": np.array([3]), "axis": np.array([3])},
        shift="b",
        scaled="w",
        fan_in=27,
    ),
    Case(
        "Einsum",
        "float[N, T, 5] x",
        'h = Einsum<equation = "nti,oi->not">(x, w)  y = ' + NORM.format("h"),
        'h = Einsum<equation = "nti,oi->not">(x, w)  y = Add(h, o)',
        {"w": DENSE},
        {"w": rows(S, DENSE), "o": O.reshape(-1, 1)},
        shift="o",
        scaled="w",
        fan_in=5,
    ),
    Case(
        "a table that is looked up",
        "int64[N] x",
        f"h = Gather(t, x)  y = {NORM.format('h')}",
        "y = Gather(t, x)",
        {"t": TABLE},
        {"t": TABLE * S + O},
        scaled="t",
        axis=1,
        feeds={"x": np.array([0, 8, -3, 4])},
    ),
    *(
        Case(
            f"{name} takes the map",
            FOUR,
            f"h = {name}{extra}(x, g, a)  y = {NORM.format('h')}",
            f"y = {name}{extra}(x, g, a)",
            {"g": SHIFT, "a": B},
            {"g": SHIFT * S, "a": B * S + O},
            shift="a",
            scaled="g",
            opset=opset,
        )
        for name, extra, opset in (("InstanceNormalization", "", 17), ("GroupNormalization", "<num_groups = 2>", 21))
    ),
    Case(
        "LayerNormalization takes the map",
        "float[T, 4] x",
        f"h = LayerNormalization(x, g, a)  y = {NORM.format('h')}",
        "y = LayerNormalization(x, g, a)",
        {"g": SHIFT, "a": B},
        {"g": SHIFT * S, "a": B * S + O},
        shift="a",
        scaled="g",
    ),
    Case(
        "RMSNormalization takes the scale",
        "float[T, 4] x",
        f"h = RMSNormalization(x, g)  y = {NORM.format('h')}",
        "h = RMSNormalization(x, g)  y = Add(h, o)",
        {"g": SHIFT},
        {"g": SHIFT * S, "o": O},
        shift="o",
        scaled="g",
        opset=23,
    ),
    *(
        Case(
            f"{name} takes it from its input",
            "float[T, N, 4] x",
            f"p = Transpose<perm = [0, 2, 1]>(x)  h = {NORM.format('p')}  q = Transpose<perm = [0, 2, 1]>(h)  "
            f"y = {name}<hidden_size = 3>(q, w, r, a)",
            f"y = {name}<hidden_size = 3>(x, w, r, a)",
            {"w": weight, "r": inner, "a": bias},
            {"w": weight * S, "r": inner, "a": bias + np.concatenate([weight @ O, np.zeros((1, 3 * gates))], axis=1)},
            shift="a",
            scaled="w",
            axis=2,
            fan_in=4,
        )
        for name, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
        for weight, inner, bias in [
            (
                _RNG.normal(size=(1, 3 * gates, 4)),
                _RNG.normal(size=(1, 3 * gates, 3)) / 2,
                _RNG.normal(size=(1, 6 * gates)),
            )
        ]
    ),
    Case(
        "weights behind a DequantizeLinear",
        IMAGE,
        f"w = DequantizeLinear<axis = 0>(q, d)  c = {CONV}(x, w, b)  y = {NORM.format('c')}",
        f"w = DequantizeLinear<axis = 0>(q, d)  y = {CONV}(x, w, b)",
        {"q": _RNG.integers(-127, 128, size=(4, 3, 3, 3)).astype(np.int8), "d": np.full(4, 0.01), "b": B},
        {"d": 0.01 * S, "b": B * S + O},
        shift="b",
        scaled="d",
        fan_in=27,
    ),
    Case(
        "parallel branches become one",
        FOUR,
        f"c = {CONV}(x, w, b)  d = Conv(x, u)  e = Mul(x, s)  f = Add(c, d)  h = Add(f, e)  y = {NORM.format('h')}",
        f"y = {CONV}(x, w, b)",
        {"w": V, "b": B, "u": V[:, :, :1, :1], "s": per_channel(B)},
        {
            "w": rows(S, V + np.pad(V[:, :, :1, :1] + np.diag(B)[:, :, None, None], [(0, 0), (0, 0), (1, 1), (1, 1)])),
            "b": B * S + O,
        },
        shift="b",
        scaled="w",
        fan_in=36,
    ),
    Case(
        "a forward map as a bias and a map of the border",
        FOUR,
        f"h = {NORM.format('x')}  y = {CONV}(h, w, b)",
        f"c = {CONV}(x, w)  y = Add(c, o)",
        {"w": V, "b": B},
        {"w": columns(S, V)},
        shift="o",
        scaled="w",
        axis=1,
        fan_in=36,
    ),
    Case(
        "a forward map over a chain",
        FOUR,
        f"h = {NORM.format('x')}  p = Relu(h)  g = Conv(p, w, b)  z = Relu(g)  y = {CONV}(z, v)",
        f"a = Mul(x, s)  h = Add(a, o)  p = Relu(h)  g = Conv(p, w, b)  z = Relu(g)  y = {CONV}(z, v)",
        {"w": V, "b": B, "v": V},
        {"w": V, "b": B, "v": V, "s": per_channel(S), "o": per_channel(O)},
        shift="o",
        scaled="s",
        fan_in=36,
    ),
    Case(
        "a cast to the narrow type",
        "float[N, 4, H, W] x",
        f"h = {NORM.format('x')}  y = Cast<to = 10>(h)",
        "a = Mul(x, s)  h = Add(a, o)  y = Cast<to = 10>(h)",
        {},
        {"s": per_channel(S), "o": per_channel(O)},
        shift="o",
        scaled="s",
    ),
]
SIZES = {"sizes": np.array([1.0, 1.0, 2.0, 1.5]), "pads": np.array([0, 0, 1, 1, 0, 0, 2, 0])}


def _shape(declared: str) -> dict[str, tuple[int, ...]]:
    sizes = {"N": 2, "H": 7, "W": 6, "T": 5}
    shapes = {}
    for part in declared.replace("], ", "]|").replace("x, ", "x|").replace("z, ", "z|").split("|"):
        kind, _, name = part.rpartition(" ")
        if kind.startswith("float"):
            items = kind[kind.index("[") + 1 : -1].split(", ")
            shapes[name] = tuple(sizes[item] if item in sizes else int(item) for item in items)
    return shapes


def _model(case: Case, body: str, constants: Arrays) -> ModelProto:
    result = "float16[A, B, C, D] y" if "Cast" in body else "float y"
    text = f'<ir_version: 8, opset_import: ["": {case.opset}]> g ({case.inputs}) => ({result}) {{ {body} }}'
    model = parser.parse_model(text)
    del model.graph.value_info[:]
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, array in constants.items():
        stored = array if array.dtype.kind in "ib" else array.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(stored), name))
    return model


def _feeds(case: Case) -> list[dict[str, Array]]:
    shapes, generator = _shape(case.inputs), np.random.default_rng(11)
    drawn = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return [{**drawn, **case.feeds}]


def _pair(case: Case, change: Callable[[dict[str, Array]], None] | None = None) -> tuple[ModelProto, ModelProto]:
    before = {**_norm(), **SIZES, **case.constants}
    after = {
        **SIZES,
        **{name: value for name, value in case.constants.items() if value.dtype.kind == "i"},
        **case.folded,
    }
    if case.name.startswith("a forward map as"):
        # What the constant shift becomes behind the padded convolution: another number along the border.
        from bnfold.parity import run_float64

        plain = _model(case, f"y = {CONV}(x, w, b)", {"w": V.astype(np.float32), "b": B})
        after["o"] = run_float64(plain, {"x": np.broadcast_to(per_channel(O), (1, 4, 7, 6))})["y"]
    if change is not None:
        change(after)
    return _model(case, case.before, before), _model(case, case.after, after)


def _check(case: Case, change: Callable[[dict[str, Array]], None] | None = None, level: str = "full") -> RegionCheck:
    feeds = _feeds(case)
    region = Region(("bn",), tuple(feeds[0]), ("y",), case.fan_in)
    return check_region(region, *_pair(case, change), feeds, seed=7, level=level)


@pytest.mark.parametrize("level", ["full", "fast"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_right_fold_passes(case: Case, level: str) -> None:
    check = _check(case, level=level)
    assert check.verdict is Verdict.PASS, check.detail
    assert check.eta <= check.limit
    assert check.compared > 0


def _without_shift(case: Case) -> Callable[[dict[str, Array]], None]:
    def change(after: dict[str, Array]) -> None:
        after[case.shift] = after[case.shift] * 0

    return change


def _one_channel(case: Case, factor: float) -> Callable[[dict[str, Array]], None]:
    def change(after: dict[str, Array]) -> None:
        array = np.array(after[case.scaled])
        where = (slice(None),) * (case.axis if array.ndim else 0)
        if array.ndim:
            array[(*where, array.shape[case.axis] // 2)] *= factor
        after[case.scaled] = array if array.ndim else array * factor

    return change


def _next_channel(case: Case) -> Callable[[dict[str, Array]], None]:
    def change(after: dict[str, Array]) -> None:
        after[case.scaled] = np.roll(after[case.scaled], 1, axis=case.axis)

    return change


@pytest.mark.parametrize("level", ["full", "fast"])
@pytest.mark.parametrize("case", [case for case in CASES if case.shift], ids=lambda case: case.name)
def test_a_missing_shift_is_caught(case: Case, level: str) -> None:
    check = _check(case, _without_shift(case), level)
    assert check.verdict is Verdict.FAIL
    assert check.eta > 10 * check.limit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_sign_on_one_channel_is_caught(case: Case) -> None:
    check = _check(case, _one_channel(case, -1.0))
    assert check.verdict is Verdict.FAIL
    assert check.eta > 10 * check.limit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_small_error_of_one_channel_is_caught(case: Case) -> None:
    """What a wrong epsilon does, or a Bessel slip: a relative error of one in two thousand."""
    check = _check(case, _one_channel(case, 1.02 if "narrow type" in case.name else 1.0005))
    assert check.verdict is Verdict.FAIL
    assert check.eta > check.limit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_next_channels_scale_is_caught(case: Case) -> None:
    array = case.folded[case.scaled]
    if array.ndim == 0 or array.shape[case.axis] == 1:
        return
    assert _check(case, _next_channel(case)).verdict is Verdict.FAIL


def test_a_map_of_the_border_that_is_flat_is_caught() -> None:
    case = next(case for case in CASES if case.name.startswith("a forward map as"))

    def flat(after: dict[str, Array]) -> None:
        after["o"] = np.broadcast_to(after["o"][:, :, 3:4, 3:4], after["o"].shape)

    check = _check(case, flat)
    assert check.verdict is Verdict.FAIL
    assert check.eta > 100 * check.limit


def test_a_branch_that_was_centred_one_pixel_off_is_caught() -> None:
    case = next(case for case in CASES if case.name.startswith("parallel"))

    def off(after: dict[str, Array]) -> None:
        point = rows(S, np.pad(V[:, :, :1, :1], [(0, 0), (0, 0), (1, 1), (1, 1)]))
        after["w"] = after["w"] - point + np.roll(point, 1, axis=2)

    assert _check(case, off).verdict is Verdict.FAIL
