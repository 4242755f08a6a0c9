"""One layer alone, with an affine map spelled out beside it or taken in, for onnx's evaluator to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold.affine import Field, Linear
from bnfold.fold.linear_nodes import changed_attributes, changed_constants, read_linear
from bnfold.graph.view import views
from bnfold.rules import RULES, Form, Refusal, Side

Value = tuple[str, Sequence[int | None], int]


def layer(
    op_type: str,
    inputs: Sequence[str],
    given: Sequence[Value],
    constants: dict[str, np.ndarray],
    *,
    opset: int = 20,
    **attributes: Any,
) -> onnx.ModelProto:
    """Return a model of one node; its first output is ``y``, of any shape, its data input ``x``."""
    node = helper.make_node(op_type, list(inputs), ["y"], name="layer", **attributes)
    graph = helper.make_graph(
        [node],
        "one_layer",
        [helper.make_tensor_value_info(name, dtype, list(shape)) for name, shape, dtype in given],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def spelled_out(model: onnx.ModelProto, side: Side, field: Field) -> onnx.ModelProto:
    """Return the model with the map in front of its input x, or behind its output y, as a Mul and an Add."""
    beside = onnx.ModelProto()
    beside.CopyFrom(model)
    (node,) = beside.graph.node
    start, end = ("x", "x_mapped") if side is Side.INPUT else ("y_bare", "y")
    pair = [
        helper.make_node("Mul", [start, "map_scale"], ["map_scaled"]),
        helper.make_node("Add", ["map_scaled", "map_shift"], [end]),
    ]
    if side is Side.INPUT:
        (position,) = [number for number, name in enumerate(node.input) if name == "x"]
        node.input[position] = "x_mapped"
        nodes = [*pair, node]
    else:
        node.output[0] = "y_bare"
        nodes = [node, *pair]
    kept = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    del beside.graph.node[:]
    beside.graph.node.extend(kept)
    beside.graph.initializer.append(numpy_helper.from_array(np.array(field.scale), "map_scale"))
    beside.graph.initializer.append(numpy_helper.from_array(np.array(field.shift), "map_shift"))
    return beside


def taken_in(model: onnx.ModelProto, side: Side, *fields: Field) -> onnx.ModelProto | Refusal:
    """Return the model whose layer has taken in the maps, one after the other; an Add behind it has what is over."""
    (view,) = views(model)
    node = view.node(0)
    absorber = RULES.absorbers[node.op_type, side]
    form = absorber.form(node)
    if isinstance(form, Refusal):
        return form
    linear = read_linear(node, form)
    over = np.zeros(1)
    for field in fields:
        affine = form.affine(field, node.name)
        if isinstance(affine, Refusal) or isinstance(linear, Refusal):
            return affine if isinstance(affine, Refusal) else linear  # type: ignore[return-value]
        before = linear
        linear = absorber.absorb(linear, affine)
        if isinstance(linear, Refusal):
            return linear
        if form.bias is None:
            behind = field.scale if side is Side.OUTPUT else np.ones(1)
            over = over * behind + linear.bias
            linear = Linear(
                linear.weight,
                before.bias,
                linear.attributes,
                linear.weight_input,
                linear.data_shape,
                linear.constants,
            )
    assert isinstance(linear, Linear)
    return _written(model, form, linear, over)


def _written(model: onnx.ModelProto, form: Form, linear: Linear, over: np.ndarray) -> onnx.ModelProto:
    (view,) = views(model)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (node,) = changed.graph.node
    arrays = {form.weight: linear.weight, **changed_constants(view.node(0), linear)}
    if form.bias is not None:
        arrays[form.bias] = linear.bias
    for position, array in sorted(arrays.items()):
        while len(node.input) <= position:
            node.input.append("")
        stored = array
        if position in (form.weight, form.bias):
            stored = array.astype(_stored(model, model.graph.node[0].input[form.weight]).dtype)
        node.input[position] = f"new_{position}"
        changed.graph.initializer.append(numpy_helper.from_array(np.asarray(stored), f"new_{position}"))
    for name, value in changed_attributes(view.node(0), linear).items():
        for number in reversed(range(len(node.attribute))):
            if node.attribute[number].name == name:
                del node.attribute[number]
        if value is not None:
            node.attribute.append(helper.make_attribute(name, value))
    if np.any(over):
        node.output[0] = "y_bare"
        changed.graph.node.append(helper.make_node("Add", ["y_bare", "over"], ["y"]))
        changed.graph.initializer.append(numpy_helper.from_array(np.asarray(over), "over"))
    return changed


def _stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(each for each in model.graph.initializer if each.name == name))
