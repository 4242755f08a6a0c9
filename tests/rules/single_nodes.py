"""One node by itself, with a map in front of it or behind it, and what a carrier makes of that, against its op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from bnfold.affine import Field
from bnfold.graph.view import NodeView, views
from bnfold.rules import RULES, Carried, Refusal
from tests.fold.small_graphs.judge import Add, AveragePool, GlobalMaxPool, LpPool, MaxPool
from tests.rules.example_models import GlobalLpPool

__all__ = [
    "Single",
    "applied",
    "backward",
    "carried_forward",
    "computed",
    "field_for",
    "forward",
    "model_of",
    "view_of",
]

Array = npt.NDArray[Any]

TOLERANCE = {"Resize": 1e-5}
"""How far results may be apart, where that is more than 1e-10: the evaluator weighs pixels in float32."""


class Mean(OpRun):
    """By its definition: onnx's own evaluator does not broadcast it."""

    def _run(self, *values):  # type: ignore[no-untyped-def] # noqa: ANN002, ANN202
        return (sum(values) / len(values),)


class Pad(OpRun):
    """By its definition: onnx's own evaluator does not know negative pads."""

    def _run(self, x, pads, value=None, axes=None, mode=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        axes = list(range(x.ndim)) if axes is None else [int(axis) % x.ndim for axis in axes]
        widths = [(0, 0)] * x.ndim
        for place, axis in enumerate(axes):
            widths[axis] = (int(pads[place]), int(pads[place + len(axes)]))
        crop = tuple(slice(max(0, -one), size - max(0, -two)) for (one, two), size in zip(widths, x.shape, strict=True))
        more = [(max(0, one), max(0, two)) for one, two in widths]
        if mode in {None, "constant"}:
            return (np.pad(x[crop], more, constant_values=0.0 if value is None else float(np.reshape(value, ()))),)
        return (np.pad(x[crop], more, mode=mode),)


_OPERATIONS: list[type[OpRun]] = [Add, AveragePool, GlobalLpPool, GlobalMaxPool, LpPool, MaxPool, Mean, Pad]


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """A node and its inputs.

    Attributes:
        op_type: The operation.
        inputs: What it reads; None for an optional input that is left out.
        constants: Which of them are constants of the model; the others are its inputs.
        attributes: Of the node.
        outputs: How many outputs it has.
        opset: Version of the standard operators.
        declared: What the model says of an input's shape, by position, where that is less than the truth.
    """

    op_type: str
    inputs: tuple[Array | None, ...]
    constants: frozenset[int] = frozenset()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 20
    declared: Mapping[int, Sequence[int | str | None] | None] = field(default_factory=dict)


def model_of(single: Single) -> onnx.ModelProto:
    """Return a model of nothing but the node."""
    names = [f"x{position}" if array is not None else "" for position, array in enumerate(single.inputs)]
    given, initializers = [], []
    for position, (name, array) in enumerate(zip(names, single.inputs, strict=True)):
        if array is None:
            continue
        if position in single.constants:
            initializers.append(numpy_helper.from_array(array, name))
            continue
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        shape = single.declared.get(position, array.shape)
        given.append(helper.make_tensor_value_info(name, element, shape))
    outputs = [f"y{number}" for number in range(single.outputs)]
    node = helper.make_node(single.op_type, names, outputs, name="node", **single.attributes)
    results = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in outputs]
    graph = helper.make_graph([node], "single", given, results, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", single.opset)], ir_version=9)


def view_of(single: Single) -> NodeView:
    """Return what a rule sees of the node."""
    return next(views(model_of(single))).node(0)


def computed(single: Single) -> list[Array]:
    """Return the node's outputs, by onnx's own evaluator."""
    feeds = {
        f"x{position}": array
        for position, array in enumerate(single.inputs)
        if array is not None and position not in single.constants
    }
    return [np.asarray(y) for y in ReferenceEvaluator(model_of(single), new_ops=_OPERATIONS).run(None, feeds)]


def field_for(rng: np.random.Generator, shape: Sequence[int], kind: str, axes: Sequence[int] | None = None) -> Field:
    """Draw a pure scale or a pure shift over some axes of a value.

    Args:
        rng: Where the numbers come from.
        shape: The value's shape.
        kind: ``scale``, ``positive`` (a scale of positive numbers), ``zero`` (some of them zero) or ``shift``.
        axes: Along which it varies; drawn if None.
    """
    if axes is None:
        axes = [axis for axis in range(len(shape)) if rng.random() < 0.4]
    laid = tuple(size if axis in axes else 1 for axis, size in enumerate(shape))
    numbers = rng.normal(size=laid)
    if kind in {"positive", "zero"}:
        numbers = np.abs(numbers) + 0.1
    if kind == "zero":
        numbers = np.where(rng.random(laid) < 0.3, 0.0, numbers)
    ones, zeros = np.ones(laid), np.zeros(laid)
    return Field(ones, numbers).reduced() if kind == "shift" else Field(numbers, zeros).reduced()


def applied(field: Field, value: Array) -> Array:
    """Return a value with a map applied to it, which must not enlarge it."""
    assert field.rank == value.ndim
    assert all(size in (1, own) for size, own in zip(field.shape, value.shape, strict=True)), "it enlarges the value"
    return np.asarray(field.scale * value + field.shift)


def _changed(single: Single, carried: Carried) -> Single:
    """Return the node with other constants, perhaps of another operation."""
    inputs = list(single.inputs)
    if carried.becomes:
        inputs = [inputs[0]]
        # A Clip whose bounds vary stands for a Max and a Min; numpy computes it as it is.
        opset = 20 if carried.becomes == "Clip" else single.opset
        single = replace(single, op_type=carried.becomes, attributes={}, opset=opset)
    for position, constant in carried.constants.items():
        while len(inputs) <= position:
            inputs.append(None)
        assert inputs[position] is None or position in single.constants, "it rewrites what is computed"
        inputs[position] = np.asarray(constant)
    return replace(single, inputs=tuple(inputs), constants=single.constants | frozenset(carried.constants))


def backward(single: Single, field: Field, position: int = 0) -> list[Carried] | Refusal:
    """Carry a map backward and check every way that is offered: all outputs are what they were, with the map behind."""
    carrier = RULES.carriers[single.op_type]
    found = carrier.backward(view_of(single), position, field)
    if isinstance(found, Refusal):
        assert found.detail
        return found
    wanted = computed(single)
    wanted[position] = applied(field, wanted[position])
    ways = list(found) if isinstance(found, tuple) else [found]
    assert ways
    for way in ways:
        after = _changed(single, way)
        inputs = list(after.inputs)
        for at, taken in way.fields.items():
            assert at not in way.constants
            value = inputs[at]
            assert value is not None
            inputs[at] = applied(taken, value)
        _same(single, computed(replace(after, inputs=tuple(inputs))), wanted)
    return ways


def carried_forward(single: Single, fields: Mapping[int, Field]) -> tuple[Carried, Single] | Refusal:
    """Carry maps forward; return what becomes of them, and of the node."""
    found = RULES.carriers[single.op_type].forward(view_of(single), fields)
    return found if isinstance(found, Refusal) else (found, _changed(single, found))


def forward(single: Single, fields: Mapping[int, Field]) -> Carried | Refusal:
    """Carry maps forward and check: the old outputs are the new ones with the carried maps applied."""
    answer = carried_forward(single, fields)
    if isinstance(answer, Refusal):
        assert answer.detail
        return answer
    found, after = answer
    old = list(single.inputs)
    for at, given in fields.items():
        value = old[at]
        assert value is not None
        old[at] = applied(given, value)
    wanted = computed(replace(single, inputs=tuple(old)))
    new = computed(after)
    for position, carried in found.fields.items():
        new[position] = applied(carried, new[position])
    _same(single, new, wanted)
    return found


def _same(single: Single, actual: Sequence[Array], wanted: Sequence[Array]) -> None:
    for one, other in zip(actual, wanted, strict=True):
        assert one.shape == other.shape
        tolerance = TOLERANCE.get(single.op_type, 1e-10)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
