"""A network of opset 14 as files of older opsets spell it: attributes for inputs, broadcasting that is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

__all__ = ["UnspeakableError", "respelt"]

Array = npt.NDArray[Any]
_BINARY = frozenset({"Add", "Sub", "Mul", "Div"})
_REDUCTIONS = frozenset({"ReduceSum", "Squeeze", "Unsqueeze"})
_SINCE = {"HardSwish": 14, "Erf": 9, "LayerNormalization": 17, "Where": 9}


class UnspeakableError(Exception):
    """An older opset has no words for it."""


class _Speller:
    """Rewrites the nodes of one graph."""

    def __init__(self, model: ModelProto, opset: int) -> None:
        self.opset = opset
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.constants: dict[str, Array] = {
            name: np.asarray(numpy_helper.to_array(tensor)) for name, tensor in self.tensors.items()
        }
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = np.asarray(numpy_helper.to_array(node.attribute[0].t))
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.shapes: dict[str, tuple[int | str, ...]] = {name: array.shape for name, array in self.constants.items()}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            sizes = value.type.tensor_type.shape.dim
            self.shapes[value.name] = tuple(size.dim_value or size.dim_param for size in sizes)

    def numbers(self, node: NodeProto, position: int) -> list[int] | None:
        """Return whole numbers that an input holds; None where it is left out."""
        if len(node.input) <= position or not node.input[position]:
            return None
        if node.input[position] not in self.constants:
            raise UnspeakableError(f"{node.op_type} with numbers that are computed")
        return [int(item) for item in self.constants[node.input[position]].reshape(-1)]

    def spell(self, node: NodeProto) -> list[NodeProto]:
        """Return what an older opset has in the place of a node."""
        copy = NodeProto()
        copy.CopyFrom(node)
        if node.op_type == "HardSwish" and self.opset < 14:
            inner = f"{node.output[0]}_gate"
            self.shapes[inner] = self.shapes[node.input[0]]
            gate = helper.make_node("HardSigmoid", list(node.input), [inner], alpha=1 / 6, beta=0.5)
            return [gate, *self.spell(helper.make_node("Mul", [node.input[0], inner], list(node.output), node.name))]
        if self.opset < _SINCE.get(node.op_type, 0):
            raise UnspeakableError(node.op_type)
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is not None:
            rewrite(self, copy)
        return [copy]

    def as_attributes(self, node: NodeProto, before: int, names: Mapping[int, str]) -> None:
        """Make attributes of inputs, below an opset."""
        if self.opset >= before:
            return
        for position, name in names.items():
            given = self.numbers(node, position)
            if given is not None and not given:
                raise UnspeakableError(f"{node.op_type} with an empty list")
            if given is not None:
                node.attribute.append(helper.make_attribute(name, given))
        del node.input[min(names) :]


def _axes(speller: _Speller, node: NodeProto) -> None:
    speller.as_attributes(node, 13, {1: "axes"})


def _reduced(speller: _Speller, node: NodeProto) -> None:
    speller.as_attributes(node, 18, {1: "axes"})


def _split(speller: _Speller, node: NodeProto) -> None:
    for attribute in [attribute for attribute in node.attribute if attribute.name == "num_outputs"]:
        node.attribute.remove(attribute)
    speller.as_attributes(node, 13, {1: "split"})


def _slice(speller: _Speller, node: NodeProto) -> None:
    if speller.opset < 10 and any(step != 1 for step in speller.numbers(node, 4) or ()):
        raise UnspeakableError("Slice with steps")
    if speller.opset < 10:
        del node.input[4:]
    speller.as_attributes(node, 10, {1: "starts", 2: "ends", 3: "axes"})


def _floats(speller: _Speller, node: NodeProto, before: int, names: Mapping[int, str]) -> None:
    if speller.opset >= before:
        return
    for position, name in names.items():
        if len(node.input) > position and node.input[position]:
            if node.input[position] not in speller.constants:
                raise UnspeakableError(f"{node.op_type} with a number that is computed")
            number = float(speller.constants[node.input[position]].reshape(()))
            node.attribute.append(helper.make_attribute(name, number))
    del node.input[min(names) :]


def _clip(speller: _Speller, node: NodeProto) -> None:
    _floats(speller, node, 11, {1: "min", 2: "max"})


def _pad(speller: _Speller, node: NodeProto) -> None:
    if speller.opset < 11:
        _floats(speller, node, 11, {2: "value"})
        speller.as_attributes(node, 11, {1: "pads"})


def _dropout(speller: _Speller, node: NodeProto) -> None:
    if speller.opset < 12:
        del node.input[1:]
    if speller.opset < 7:
        node.attribute.append(helper.make_attribute("is_test", 1))


def _resize(speller: _Speller, node: NodeProto) -> None:
    if speller.opset >= 13:
        return
    if speller.opset >= 11:  # where the box must be there, although nothing reads it
        speller.tensors.setdefault("no_box", numpy_helper.from_array(np.zeros(0, np.float32), "no_box"))
        node.input[1] = "no_box"
        if len(node.input) > 3:
            speller.tensors.setdefault("no_scales", numpy_helper.from_array(np.zeros(0, np.float32), "no_scales"))
            node.input[2] = "no_scales"
        return
    if speller.opset < 7:
        raise UnspeakableError("Upsample by a list of factors")
    scales = speller.constants.get(node.input[2]) if len(node.input) > 2 else None
    if scales is None or not scales.size:
        raise UnspeakableError("Resize to sizes")
    mode = next(attribute.s.decode() for attribute in node.attribute if attribute.name == "mode")
    names = [node.input[0], node.input[2]]
    del node.input[:], node.attribute[:]
    node.attribute.append(helper.make_attribute("mode", mode))
    node.input.extend(names)
    if speller.opset < 10:
        node.op_type = "Upsample"
    if speller.opset < 9:
        del node.input[1:]
        node.attribute.append(helper.make_attribute("scales", [float(factor) for factor in scales]))


def _batch_norm(speller: _Speller, node: NodeProto) -> None:
    if speller.opset < 7:
        node.attribute.append(helper.make_attribute("is_test", 1))


def _gemm(speller: _Speller, node: NodeProto) -> None:
    if speller.opset < 11 and len(node.input) < 3:
        raise UnspeakableError("Gemm without C")
    if speller.opset < 7:
        node.attribute.append(helper.make_attribute("broadcast", 1))


def _depth_to_space(speller: _Speller, node: NodeProto) -> None:
    for attribute in [attribute for attribute in node.attribute if attribute.name == "mode" and speller.opset < 11]:
        if attribute.s != b"DCR":
            raise UnspeakableError("DepthToSpace of columns first")
        node.attribute.remove(attribute)


def _pool(speller: _Speller, node: NodeProto) -> None:
    since = {"ceil_mode": 10, "storage_order": 8, "dilations": 10, "count_include_pad": 7}
    for attribute in list(node.attribute):
        if speller.opset < since.get(attribute.name, 0):
            if attribute.i or any(item != 1 for item in attribute.ints):
                raise UnspeakableError(f"{node.op_type} with {attribute.name}")
            node.attribute.remove(attribute)


def _binary(speller: _Speller, node: NodeProto) -> None:
    """Say along which axis the second operand lies; one that has ones between its sizes cannot be said."""
    left, right = node.input
    if speller.opset < 7 and not {left, right} <= speller.shapes.keys():
        raise UnspeakableError(f"{node.op_type} of values whose shapes nobody knows")
    if speller.opset >= 7 or speller.shapes[left] == speller.shapes[right]:
        return
    if len(speller.shapes[left]) < len(speller.shapes[right]) or left in speller.constants:
        if node.op_type not in {"Add", "Mul"}:
            raise UnspeakableError(f"{node.op_type} with the larger operand behind")
        left, right = right, left
    whole, part = speller.shapes[left], speller.shapes[right]
    if left not in speller.constants and right not in speller.constants and len(whole) == len(part):
        if any(1 in sizes and sizes[0] != sizes[1] for sizes in zip(whole, part, strict=True)):
            raise UnspeakableError("broadcasting of a computed value")
        return  # of one shape, as far as anybody knows
    if right not in speller.tensors and 1 in part:
        raise UnspeakableError("broadcasting of a computed value")
    axis = len(whole) - len(part)
    while part and part[0] == 1:
        part, axis = part[1:], axis + 1
    while part and part[-1] == 1:
        part = part[:-1]
    if part != whole[axis : axis + len(part)]:
        raise UnspeakableError(f"{part} in {whole}")
    if right in speller.tensors:
        del speller.tensors[right].dims[:]
        speller.tensors[right].dims.extend(int(size) for size in part)
    del node.input[:]
    node.input.extend([left, right])
    node.attribute.append(helper.make_attribute("broadcast", 1))
    if part:
        node.attribute.append(helper.make_attribute("axis", axis))


def _prelu(speller: _Speller, node: NodeProto) -> None:
    if speller.opset < 7:
        if node.input[1] not in speller.tensors:
            raise UnspeakableError("PRelu with slopes that are computed")
        tensor = speller.tensors[node.input[1]]
        sizes = [size for size in tensor.dims if size != 1] or [1]
        del tensor.dims[:]
        tensor.dims.extend(sizes)


_REWRITES: dict[str, Callable[[_Speller, NodeProto], None]] = {
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_REDUCTIONS, _axes),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"), _reduced),
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Gemm": _gemm,
    "MaxPool": _pool,
    "PRelu": _prelu,
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
}


def respelt(model: ModelProto, opset: int) -> ModelProto:
    """Return a network of opset 14 in an older one; below opset 9 in the file format of its time.

    Raises:
        UnspeakableError: If the opset has no words for some node of it.
    """
    older = ModelProto()
    older.CopyFrom(model)
    if opset < 9:  # where a Constant holds floats alone
        for node in [node for node in older.graph.node if node.op_type == "Constant"]:
            older.graph.initializer.append(node.attribute[0].t)
            older.graph.initializer[-1].name = node.output[0]
            older.graph.node.remove(node)
    speller = _Speller(older, opset)
    nodes = [each for node in older.graph.node for each in speller.spell(node)]
    del older.graph.node[:]
    older.graph.node.extend(nodes)
    known = {tensor.name for tensor in older.graph.initializer}
    older.graph.initializer.extend(tensor for name, tensor in speller.tensors.items() if name not in known)
    read = {name for node in nodes for name in node.input} | {value.name for value in older.graph.output}
    unread = [tensor for tensor in older.graph.initializer if tensor.name not in read]
    for tensor in unread:
        older.graph.initializer.remove(tensor)
    idle = [node for node in nodes if node.op_type == "Constant" and node.output[0] not in read]
    for node in idle:
        older.graph.node.remove(node)
    older.opset_import[0].version = opset
    if opset < 9:
        older.ir_version = 3
        older.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            for tensor in older.graph.initializer
        )
    return older
