"""The magnitude ``S = |W|⊛|x| + |b|`` that a piece sums up: what its rounding errors are measured against.

A piece becomes the piece that computes its own magnitude: constants by their absolute values, differences as sums,
and what is not linear by its rule in ``parity/bounds``. Where a rule reads the values themselves, they stand beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.graph.shapes import infer
from bnfold.parity.bounds import RULES
from bnfold.parity.kernels import Array, computes_with, widen
from bnfold.parity.nodes import STANDARD, attributes_of
from bnfold.parity.program import reads_of
from bnfold.parity.reference import run_float64

__all__ = ["Magnitude", "Unbounded", "longest_sum", "magnitudes"]

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_LARGE = 1 << 14
_MOVES = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operations whose output is exact if their inputs are."""


@dataclass(frozen=True, slots=True)
class Unbounded:
    """An operation for which there is no error bound."""

    op_type: str


@dataclass(frozen=True, slots=True)
class Magnitude:
    """A model of magnitudes, for ``Reference(model, foreign=bounded)``; its types are not declared.

    Attributes:
        model: It reads what the piece reads, as it is.
        outputs: The name of each output's magnitude, by the output's own name; exact outputs have none.
        weights: Its large constants, which it lists as inputs; with float32 ones all others are float32 as well.
    """

    model: ModelProto
    outputs: Mapping[str, str]
    weights: Mapping[str, Array]


def magnitudes(piece: ModelProto) -> Magnitude | Unbounded:
    """Return a model that computes the magnitudes of a piece's outputs from its inputs."""
    return _Draft(piece).written()


class _Draft:
    """The model of magnitudes while it grows: the ``Writer`` that the rules write with."""

    def __init__(self, piece: ModelProto) -> None:
        self._piece = piece
        self.opset = next((entry.version for entry in piece.opset_import if entry.domain in STANDARD), 1)
        self._elements = {name: known.element for name, known in infer(piece).get((), {}).items()}
        self._producers = {name: node for node in piece.graph.node for name in node.output if name}
        self._fed = {value.name for value in piece.graph.input}
        self._read = {name for node in piece.graph.node for name in reads_of(node)}
        self._read |= {value.name for value in piece.graph.output}
        self._taken = {*self._producers, *self._fed, *(tensor.name for tensor in piece.graph.initializer)}
        self._nodes: list[NodeProto] = []
        self._computed: set[int] = set()
        self._constants: dict[str, Array] = {}
        self._bounds: dict[str, str] = {}
        self._exact: set[str] = set()
        self._fixed: set[str] = set()
        """What is no float and depends on nothing that is rounded: sizes, indices, masks."""
        self._width: type[np.floating[Any]] = np.float64 if _is_wide(piece) else np.float32
        computing, constant, moving = [], [], set(self._fed)
        for node in piece.graph.node:
            if moving.isdisjoint(reads_of(node)):
                constant.append(node)
            else:
                computing.append(node)
                moving.update(node.output)
        self._computing = computing
        read = {name for node in computing for name in reads_of(node)}
        self._known = {
            name: array.astype(self._width, copy=False) if computes_with(array) else array
            for name, array in _constants(piece, constant, read | {value.name for value in piece.graph.output}).items()
        }

    def written(self) -> Magnitude | Unbounded:
        """Follow every node that depends on what is fed."""
        for value in self._piece.graph.input:
            if self._is_float(value.name):
                self._exact.add(value.name)
                self._bounds[value.name] = self.emit("Abs", value.name)
            else:
                self._fixed.add(value.name)
        for node in self._computing:
            if not self._follow(node):
                return Unbounded(node.op_type)
        outputs = {}
        for value in self._piece.graph.output:
            name = value.name
            if name in self._bounds:
                outputs[name] = self._bounds[name]
            elif name in self._known and computes_with(self._known[name]):
                outputs[name] = self.emit("Identity", self.bound(name))
        graph = GraphProto(name="magnitudes")
        graph.node.extend(self._nodes)
        weights = {name: array for name, array in self._constants.items() if array.size > _LARGE}
        graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in self._constants.items() if name not in weights
        )
        graph.input.extend(self._piece.graph.input)
        graph.input.extend(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in weights.items()
        )
        graph.output.extend(ValueInfoProto(name=name) for name in dict.fromkeys(outputs.values()))
        model = ModelProto(ir_version=self._piece.ir_version, graph=graph)
        model.opset_import.extend(self._piece.opset_import)
        model.functions.extend(self._piece.functions)
        return Magnitude(model, outputs, weights)

    def _follow(self, node: NodeProto) -> bool:
        """Find the bounds of a node's outputs; say whether there are any."""
        standard = node.domain in STANDARD
        reads = set(reads_of(node))
        if standard and node.op_type in {"Shape", "Size"}:
            self._fixed.update(node.output)
            return True
        if reads.isdisjoint(self._bounds):
            # From sizes, indices and masks alone: floats that come out of them are rounded once, as constants are.
            for name in node.output:
                if name and self._is_float(name):
                    self._bounds[name] = self.emit("Abs", self.value(name))
                elif name:
                    self._fixed.add(name)
            return True
        rule = RULES.get(node.op_type) if standard else None
        bounds = None if rule is None else rule(self, node)
        if bounds is None:
            return False
        for name, bound in zip(node.output, bounds, strict=False):
            if name and self._is_float(name):
                self._bounds[name] = bound
        if standard and node.op_type in _MOVES and all(self._is_plain(name) for name in reads):
            self._exact.update(name for name in node.output if name)
        # What is left is decided by floats (the places of maxima, a mask): nothing may depend on it.
        return not any(name in self._read and name not in self._bounds for name in node.output if name)

    def _is_plain(self, name: str) -> bool:
        return name in self._exact or name in self._fixed or not computes_with(self._known.get(name, np.zeros(())))

    def _is_float(self, name: str) -> bool:
        return self._elements.get(name, TensorProto.FLOAT) in _FLOATS

    def moves(self, name: str) -> bool:
        """Whether a value is a float that depends on what is fed."""
        return name in self._bounds

    def exact(self, name: str) -> bool:
        """Whether a value is what was fed, without any rounding."""
        return name in self._exact

    def known(self, name: str) -> Array | None:
        """Return a constant."""
        return self._known.get(name)

    def bound(self, name: str) -> str:
        """Return the name of a value's bound, or that of a constant's absolute value."""
        if name in self._bounds:
            return self._bounds[name]
        array = self._known.get(name)
        if array is None or not computes_with(array):
            return self.value(name)
        key = f"|{name}|"
        if key not in self._constants:
            self._constants[key] = np.abs(array)
        return key

    def value(self, name: str) -> str:
        """Return the name of a value, and see to it that it is computed."""
        pending = [name]
        while pending:
            current = pending[-1]
            if current in self._known:
                self._constants[current] = self._known[current]
            node = self._producers.get(current)
            if current in self._known or node is None or id(node) in self._computed:
                pending.pop()
                continue
            wanted = [other for other in reads_of(node) if not self._is_there(other)]
            if wanted:
                pending.extend(wanted)
                continue
            self._computed.add(id(node))
            self._nodes.append(node)
        return name

    def _is_there(self, name: str) -> bool:
        node = self._producers.get(name)
        return name in self._constants or (name not in self._known and (node is None or id(node) in self._computed))

    def emit(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = self._new(op_type)
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], domain=domain, **attributes))
        return name

    def constant(self, array: Array | float) -> str:
        """Add a constant; return its name."""
        name = self._new("constant")
        with np.errstate(over="ignore", under="ignore"):
            self._constants[name] = np.asarray(array, dtype=self._width)
        return name

    def like(self, node: NodeProto, bounds: Mapping[int, str], *, op_type: str = "") -> tuple[str, ...]:
        """Add a copy of a node that reads bounds: these, by position, and those of its inputs elsewhere."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.op_type = op_type or node.op_type
        copy.input[:] = [
            bounds.get(place, self.bound(name) if name and place not in bounds else "")
            for place, name in enumerate(node.input)
        ]
        copy.output[:] = [name and self._new(name) for name in node.output]
        self._nodes.append(copy)
        return tuple(copy.output)

    def _new(self, base: str) -> str:
        name, number = f"S({base})", 0
        while name in self._taken:
            number += 1
            name = f"S{number}({base})"
        self._taken.add(name)
        return name


def _is_wide(piece: ModelProto) -> bool:
    """Whether a piece holds other floats than float32: then the bounds are computed in float64."""
    stored = {tensor.data_type for tensor in piece.graph.initializer}
    stored |= {value.type.tensor_type.elem_type for value in piece.graph.input}
    cast = {
        item.i for node in piece.graph.node if node.op_type == "Cast" for item in node.attribute if item.name == "to"
    }
    return bool((stored | cast) & (_FLOATS - {TensorProto.FLOAT}))


def _constants(piece: ModelProto, nodes: list[NodeProto], read: set[str]) -> dict[str, Array]:
    """Return every constant that the rest of the piece reads, as it is stored or in float64."""
    known = {
        tensor.name: np.asarray(numpy_helper.to_array(tensor))
        for tensor in piece.graph.initializer
        if tensor.name in read
    }
    known = {name: array if array.dtype == np.float32 else widen(array) for name, array in known.items()}
    wanted = sorted(read & {name for node in nodes for name in node.output})
    if wanted:
        graph = GraphProto(name="constants")
        graph.node.extend(nodes)
        graph.initializer.extend(piece.graph.initializer)
        model = ModelProto(ir_version=piece.ir_version, graph=graph)
        model.opset_import.extend(piece.opset_import)
        model.functions.extend(piece.functions)
        known.update((name, np.asarray(value)) for name, value in run_float64(model, {}, wanted).items())
    return known


_REDUCING = frozenset(
    {
        *("GlobalAveragePool", "GlobalLpPool", "GroupNormalization", "InstanceNormalization", "LayerNormalization"),
        *("LogSoftmax", "RMSNormalization", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "Softmax", "CumSum"),
    }
)
_ROUNDING = frozenset({"Add", "BatchNormalization", "Div", "Mean", "Mul", "Sub", "Sum"})


def longest_sum(piece: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many roundings one after the other an output of a piece may gather: sums in sums included.

    Args:
        piece: The piece; the shapes of its inputs are declared for a moment.
        shapes: The shapes of what enters it.
    """
    constants = {tensor.name: tuple(tensor.dims) for tensor in piece.graph.initializer}
    reducing = any(node.op_type in _REDUCING for node in piece.graph.node)
    sizes = _sizes(piece, shapes) if reducing else {}
    length: dict[str, int] = {}
    for node in piece.graph.node:
        own = _reduced(node, sizes) if node.op_type in _REDUCING else _terms(node, constants)
        total = own + max((length.get(name, 0) for name in reads_of(node)), default=0)
        length.update((name, total) for name in node.output)
    return max((length.get(value.name, 0) for value in piece.graph.output), default=0)


def _sizes(piece: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a piece's values, as far as they follow from those of its inputs."""
    declared = {value.name: value.type.SerializeToString() for value in piece.graph.input}
    for value in piece.graph.input:
        if value.name in shapes:
            value.CopyFrom(
                helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shapes[value.name])
            )
    found = infer(piece).get((), {})
    for value in piece.graph.input:
        value.type.ParseFromString(declared[value.name])
    known = {name: item.shape for name, item in found.items() if item.shape is not None}
    return {
        name: tuple(size for size in shape if isinstance(size, int))
        for name, shape in known.items()
        if all(isinstance(size, int) for size in shape)
    } | {name: tuple(shape) for name, shape in shapes.items()}


def _reduced(node: NodeProto, sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many elements one output of a reduction sums up: all of a sample, where nothing is known."""
    before = sizes.get(node.input[0])
    if before is None:
        return max((math.prod(shape[1:]) for shape in sizes.values()), default=1)
    if node.op_type.startswith(("Global", "Instance")):
        return math.prod(before[2:])
    if node.op_type == "GroupNormalization":
        return math.prod(before[1:]) // max(int(attributes_of(node).get("num_groups", 1)), 1)
    if node.op_type.startswith("Reduce"):
        after = sizes.get(node.output[0])
        return math.prod(before) // max(math.prod(after), 1) if after is not None else math.prod(before[1:])
    return math.prod(before[1:]) if node.op_type == "LayerNormalization" else max(before, default=1)


def _terms(node: NodeProto, constants: Mapping[str, tuple[int, ...]]) -> int:
    weight = next((constants[name] for name in list(node.input[1:2]) + list(node.input[:1]) if name in constants), ())
    if node.op_type in _ROUNDING:
        return len(node.input) - 1 if node.op_type == "Sum" else 1
    if node.op_type in {"AveragePool", "LpPool"}:
        return math.prod(int(size) for size in attributes_of(node).get("kernel_shape", ()))
    if not weight:
        return 0
    if node.op_type == "Conv":
        return math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return weight[0] // max(int(attributes_of(node).get("group", 1)), 1) * math.prod(weight[2:])
    if node.op_type == "Gemm":
        return weight[1 if attributes_of(node).get("transB") else 0] if node.input[1] in constants else weight[0]
    if node.op_type == "MatMul":
        left = node.input[0] in constants
        return weight[-1] if left or len(weight) == 1 else weight[-2]
    return 0
