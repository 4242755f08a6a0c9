"""What is promised from magnitudes alone must hold for the weights themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bnfold.affine import PerChannelAffine, Unstorable, round_to
from bnfold.fold.linear_nodes import read_linear, stored_dtype
from bnfold.fold.surely import surely_takes
from bnfold.fold.taken import Taken
from bnfold.graph.view import NodeView, views
from bnfold.rules import RULES, Form, Refusal, Side

Array = npt.NDArray[np.float64]
DTYPES: dict[np.dtype[Any], int] = {np.dtype(np.float16): TensorProto.FLOAT16, np.dtype(np.float32): TensorProto.FLOAT}
POWERS = st.integers(-40, 40)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], power: int, *, zeros: bool) -> Array:
    """Return numbers around a power of two, some of them zero."""
    drawn = rng.normal(size=shape) * 2.0**power
    return np.where(rng.random(shape) < 0.3, 0.0, drawn) if zeros else drawn


@st.composite
def layers(draw: st.DrawFn) -> tuple[NodeView, PerChannelAffine, PerChannelAffine | None]:
    """Return a layer, a map behind it, and the map that it has taken in before."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    op_type = draw(st.sampled_from(["Conv", "ConvTranspose", "Gemm"]))
    dtype: np.dtype[Any] = draw(st.sampled_from(list(DTYPES)))
    shape = {"Conv": (4, 3, 2), "ConvTranspose": (3, 4, 2), "Gemm": (3, 4)}[op_type]
    power = draw(st.integers(-24, 14))
    zeros = draw(st.booleans())
    with np.errstate(over="ignore"):
        constants: dict[str, npt.NDArray[Any]] = {"W": numbers(rng, shape, power, zeros=zeros).astype(dtype)}
        if draw(st.booleans()):
            constants["b"] = numbers(rng, (4,), draw(st.integers(-24, 14)), zeros=zeros).astype(dtype)
    if draw(st.integers(0, 9)) == 0:
        constants["W"].flat[1] = np.inf
    attributes: dict[str, Any] = {"beta": 0.5, "alpha": 2.0} if op_type == "Gemm" else {}
    node = helper.make_node(op_type, ["x", *constants], ["y"], name="layer", **attributes)
    element = DTYPES[dtype]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", element, [2, 3, 5][: len(shape)])],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def affine() -> PerChannelAffine:
        scale, shift = (numbers(rng, (4,), draw(POWERS), zeros=zeros) for _part in range(2))
        return PerChannelAffine(scale, shift)

    (view,) = views(model)
    return view.node(0), affine(), affine() if draw(st.booleans()) else None


@given(layers())
def test_what_is_promised_can_be_stored(drawn: tuple[NodeView, PerChannelAffine, PerChannelAffine | None]) -> None:
    node, affine, before = drawn
    absorber = RULES.absorbers[node.op_type, Side.OUTPUT]
    form = absorber.form(node)
    assert isinstance(form, Form)
    earlier = [] if before is None else [Taken(absorber, before)]
    with np.errstate(all="ignore"):
        assume(surely_takes(node, form, Taken(absorber, affine), earlier))
        linear = read_linear(node, form)
        assert not isinstance(linear, Refusal)
        changed = absorber.absorb(linear, affine if before is None else affine.after(before))
    assert not isinstance(changed, Refusal)
    for array, axis in ((changed.weight, form.output_axis), (changed.bias, -1)):
        assert not isinstance(round_to(array, stored_dtype(node, form), axis), Unstorable)


def test_most_layers_need_no_look_at_their_weights() -> None:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(4, 3, 2)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "W"], ["y"], name="layer")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "W")],
    )
    (view,) = views(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    absorber = RULES.absorbers["Conv", Side.OUTPUT]
    form = absorber.form(view.node(0))
    assert isinstance(form, Form)
    plain = Taken(absorber, PerChannelAffine(np.array([0.5, -2.0, 0.0, 3.0]), np.array([1.0, 0.0, -1.0, 2.0])))
    huge = Taken(absorber, PerChannelAffine(np.full(4, 1e39), np.zeros(4)))
    assert surely_takes(view.node(0), form, plain, [])
    assert surely_takes(view.node(0), form, plain, [plain])
    assert not surely_takes(view.node(0), form, huge, [])
    assert not surely_takes(view.node(0), form, plain, [Taken(RULES.absorbers["Conv", Side.INPUT], plain.affine)])
