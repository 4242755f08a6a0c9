"""Whether a graph works row by row: row i of every output depends on row i of the inputs, and on nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["works_by_row"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EACH_ELEMENT = _names(
    "Abs Acos Asin Atan Cast Ceil Celu Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu "
    "Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt "
    "Tan Tanh ThresholdedRelu"
)
_BROADCAST = _names(
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)
_WITH_WEIGHTS = _names("Conv ConvTranspose BatchNormalization InstanceNormalization GroupNormalization")
_EACH_IMAGE = _names(
    "AveragePool DepthToSpace GlobalAveragePool GlobalMaxPool LRN LpPool GlobalLpPool MaxPool SpaceToDepth"
)
_REDUCE = _names(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
_RANDOM = _names("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike")


@dataclass(slots=True)
class _Graph:
    """What is known of the values of a graph.

    Attributes:
        shapes: Of values, None where a size is not known; values of unknown rank are missing.
        constants: Small values that are known.
        rows: Values whose first axis is that of the batch.
        fixed: Values that depend on no input.
    """

    shapes: dict[str, tuple[int | None, ...]]
    constants: dict[str, Any]
    rows: set[str] = field(default_factory=set)
    fixed: set[str] = field(default_factory=set)

    def rank(self, name: str) -> int | None:
        return len(self.shapes[name]) if name in self.shapes else None

    def ints(self, name: str) -> list[int] | None:
        """Return the numbers of a constant."""
        value = self.constants.get(name)
        return None if value is None else [int(number) for number in value.ravel().tolist()]


def works_by_row(path: Path) -> bool:
    """Say whether every row of every output depends on the same row of the inputs and on nothing else.

    Args:
        path: An ONNX model whose inputs and outputs have the batch as their first axis.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < 7 or model.functions or any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
        return False
    shapes: dict[str, tuple[int | None, ...]] = {}
    del model.graph.value_info[:]  # what somebody wrote there need not be so
    inferred = onnx.shape_inference.infer_shapes(model).graph
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            shapes[value.name] = tuple(
                axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim
            )
    known = _Graph(shapes, {})
    for tensor in model.graph.initializer:
        known.fixed.add(tensor.name)
        shapes[tensor.name] = tuple(tensor.dims)
        if math.prod(tensor.dims) <= 64:
            known.constants[tensor.name] = numpy_helper.to_array(tensor)
    known.rows = {value.name for value in model.graph.input} - known.fixed
    for node in model.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Constant":
            tensor = attributes.get("value")
            if tensor is not None:
                known.constants[node.output[0]] = value_of = numpy_helper.to_array(tensor)
                shapes[node.output[0]] = tuple(value_of.shape)
        if not _takes(node, attributes, known, opset):
            return False
    return all(value.name in known.rows for value in model.graph.output)


def _takes(node: Any, attributes: Mapping[str, Any], known: _Graph, opset: int) -> bool:
    """Say whether a node works row by row, and take note of what its outputs are."""
    inputs = [name for name in node.input if name]
    subgraphs = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    if node.domain not in ("", "ai.onnx") or node.op_type in _RANDOM or subgraphs:
        return False
    outputs = [name for name in node.output if name]
    if all(name in known.fixed for name in inputs):
        known.fixed.update(outputs)
        return True
    rule = _rule(node.op_type)
    if rule is None or not rule(list(node.input), attributes, known, opset):
        return False
    if len(outputs) > 1 and node.op_type not in ("Split", "Dropout"):
        return False
    known.rows.update(outputs)
    return True


_Rule = Callable[[list[str], Mapping[str, Any], _Graph, int], bool]


def _rule(op_type: str) -> _Rule | None:
    if op_type in _EACH_ELEMENT:
        return _alone
    if op_type in _BROADCAST:
        return _broadcast
    if op_type in _WITH_WEIGHTS:
        return _weighted
    if op_type in _EACH_IMAGE:
        return _alone
    if op_type in _REDUCE:
        return _reduces
    return _RULES.get(op_type)


def _alone(inputs: list[str], _a: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    return len(inputs) == 1 and inputs[0] in known.rows


def _weighted(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    if attributes.get("training_mode", 0):
        return False
    return inputs[0] in known.rows and all(name in known.fixed for name in inputs[1:] if name)


def _broadcast(inputs: list[str], _a: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    """Every operand has a row for each row, or one for all."""
    ranks = {known.rank(name) for name in inputs if name in known.rows}
    if len(ranks) != 1 or None in ranks:
        return False
    (rank,) = ranks
    return all(name in known.rows or _is_for_all(name, rank, known) for name in inputs)


def _is_for_all(name: str, rank: int | None, known: _Graph) -> bool:
    """Say whether a constant has nothing along the first axis of values of a rank."""
    own = known.shapes.get(name)
    if name not in known.fixed or own is None or rank is None:
        return False
    return len(own) < rank or (len(own) == rank and own[0] == 1)


def _axis_is_inner(attributes: Mapping[str, Any], rank: int | None, default: int) -> bool:
    return rank is not None and rank > 1 and attributes.get("axis", default) % rank != 0


def _softmax(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, opset: int) -> bool:
    return inputs[0] in known.rows and _axis_is_inner(attributes, known.rank(inputs[0]), -1 if opset >= 13 else 1)


def _arg(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    return inputs[0] in known.rows and _axis_is_inner(attributes, known.rank(inputs[0]), 0)


def _layer_norm(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, opset: int) -> bool:
    return _weighted(inputs, {}, known, opset) and _axis_is_inner(attributes, known.rank(inputs[0]), -1)


def _matmul(inputs: list[str], _a: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    left, right = inputs
    rank = known.rank(left)
    if left not in known.rows or rank is None or rank < 2:
        return False
    if right in known.fixed:
        return known.rank(right) == 2
    return right in known.rows and rank > 2 and known.rank(right) == rank


def _gemm(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    if inputs[0] not in known.rows or attributes.get("transA", 0) or inputs[1] not in known.fixed:
        return False
    return len(inputs) < 3 or not inputs[2] or _is_for_all(inputs[2], 2, known)


def _flatten(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    return inputs[0] in known.rows and attributes.get("axis", 1) == 1


def _reshape(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    wanted = known.ints(inputs[1]) if len(inputs) == 2 else None
    if inputs[0] not in known.rows or not wanted or attributes.get("allowzero", 0):
        return False
    if wanted[0] == 0:
        return True  # as many rows as before, and elements stay in order
    own = known.shapes.get(inputs[0])
    if wanted[0] != -1 or own is None or None in own[1:]:
        return False
    if any(size == 0 and axis >= len(own) for axis, size in enumerate(wanted)):
        return False
    row = [own[axis] if size == 0 else size for axis, size in enumerate(wanted)][1:]
    return math.prod(size or 0 for size in row) == math.prod(size or 0 for size in own[1:]) != 0


def _transpose(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    return inputs[0] in known.rows and list(attributes.get("perm", ()))[:1] == [0]


def _concat(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    return all(name in known.rows for name in inputs) and _axis_is_inner(attributes, known.rank(inputs[0]), 0)


def _axes(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, at: int = 1) -> list[int] | None:
    """Return the axes that a node names, as an attribute or as a constant input."""
    if "axes" in attributes:
        return list(attributes["axes"])
    return known.ints(inputs[at]) if len(inputs) > at and inputs[at] else None


def _inner_axes(inputs: list[str], axes: list[int] | None, rank: int | None, known: _Graph) -> bool:
    if inputs[0] not in known.rows or not axes or not rank:
        return False
    return all(axis % rank != 0 for axis in axes)


def _reduces(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    return _inner_axes(inputs, _axes(inputs, attributes, known), known.rank(inputs[0]), known)


def _unsqueeze(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    axes, rank = _axes(inputs, attributes, known), known.rank(inputs[0])
    return rank is not None and axes is not None and _inner_axes(inputs, axes, rank + len(axes), known)


def _pad(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    rank = known.rank(inputs[0])
    pads = list(attributes["pads"]) if "pads" in attributes else (known.ints(inputs[1]) if len(inputs) > 1 else None)
    if inputs[0] not in known.rows or rank is None or pads is None or any(inputs[3:]) or len(pads) != 2 * rank:
        return False
    return pads[0] == pads[rank] == 0 and all(name in known.fixed for name in inputs[1:] if name)


def _slice(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    fixed = all(name in known.fixed for name in inputs[1:] if name)
    return fixed and _inner_axes(inputs, _axes(inputs, attributes, known, 3), known.rank(inputs[0]), known)


def _gather(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    table, positions = inputs
    if table in known.fixed:  # an embedding
        return positions in known.rows and attributes.get("axis", 0) == 0
    inner = _axis_is_inner(attributes, known.rank(table), 0)
    return table in known.rows and positions in known.fixed and inner


def _split(inputs: list[str], attributes: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    fixed = all(name in known.fixed for name in inputs[1:] if name)
    return inputs[0] in known.rows and fixed and _axis_is_inner(attributes, known.rank(inputs[0]), 0)


def _clip(inputs: list[str], _a: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    return inputs[0] in known.rows and all(known.rank(name) == 0 for name in inputs[1:] if name)


def _dropout(inputs: list[str], _a: Mapping[str, Any], known: _Graph, _o: int) -> bool:
    training = known.ints(inputs[2]) if len(inputs) > 2 and inputs[2] else [0]
    return inputs[0] in known.rows and training == [0]


_RULES: Mapping[str, _Rule] = {
    "ArgMax": _arg,
    "ArgMin": _arg,
    "Clip": _clip,
    "Concat": _concat,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _reduces,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
