"""The batch norms of a TensorFlow graph, found by what its nodes compute, and read without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnfold.frontends.glance import SeenBatchNorm, Statistics, Vectors
from bnfold.frontends.tensorflow.constants import values_of
from bnfold.frontends.tensorflow.functions import BRANCHES
from bnfold.frontends.tensorflow.messages import array_of, dtype_name
from bnfold.frontends.tensorflow.moments import FUSED, Kind, kinds_of
from bnfold.frontends.tensorflow.net import Net, Ref, Value, attribute, data_inputs, is_variable

__all__ = ["Reader", "dtype_shown"]

_CALL = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")
_COPIES = frozenset({"Identity", "RefIdentity", "ReadVariableOp", "Switch", "RefSwitch", "Enter", "Squeeze", "Reshape",
    "ExpandDims", "StopGradient", "Cast", "Snapshot", "Merge"})  # fmt: skip
_LAYERS = ("Conv", "MatMul", "Depthwise", "Einsum", "BatchMatMul", "Gather", "Concat", "Mean", "MaxPool", "AvgPool",
    "Relu", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Placeholder")  # fmt: skip
_ON_THE_WAY = frozenset({"Identity", "BiasAdd", "Reshape", "Switch", "Merge", "Squeeze", "ExpandDims", "Transpose"})
_FUSED_EPSILON = float(np.float32(1e-4))


def dtype_shown(node: Any) -> str:
    """Return numpy's name of the type that a node computes in; empty where it does not say."""
    number = next((attribute(node, name).type for name in ("dtype", "T") if attribute(node, name).type), 0)
    return dtype_name(number) if number else ""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a batch norm stands: its nodes, its vectors, what it normalises."""

    node: Any
    kind: str
    statistics: Statistics
    epsilon: float | None
    vectors: Mapping[str, Ref]
    source: Ref | None


class Reader:
    """A graph with all branches side by side, for reading."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._values = values_of(net, {})
        self._kinds = kinds_of(net, self._values, {})
        self._readers = net.consumers()

    def parameters(self, outputs: Iterable[str]) -> int | None:
        """Return how many numbers the variables, or the constants, hold that some outputs depend on."""
        needed = [self._net.nodes[name] for name in self._net.ancestors(outputs)]
        shapes = [attribute(node, "shape").shape for node in needed if is_variable(node)]
        if not shapes:
            constants = (node for node in needed if node.op == "Const" and dtype_shown(node).startswith("float"))
            shapes = [attribute(node, "value").tensor.tensor_shape for node in constants]
        sizes = (np.prod([max(dimension.size, 0) for dimension in shape.dim]) for shape in shapes)
        return sum(map(int, sizes)) if shapes else None

    def batch_norms(self) -> Iterator[tuple[SeenBatchNorm, Vectors]]:
        """Yield the batch norms; two spellings of one, for training and for inference, are one."""
        groups: dict[object, list[_Place]] = {}
        for place in (*self._fused(), *self._spelled_out()):
            root = self._root(place.vectors.get("gamma") or place.vectors.get("beta"))
            groups.setdefault(place.node.name if root is None else root.name, []).append(place)
        for places in groups.values():
            modes = {place.statistics for place in places}
            statistics: Statistics = places[0].statistics if len(modes) == 1 else "switched"
            # What is used in inference is where the moving statistics are.
            place = next((place for place in places if place.statistics == "moving"), places[0])
            name = _scope(places)
            roots = {key: self._root(ref) for key, ref in place.vectors.items()}
            behind = "" if place.source is None else self._behind(place.source)
            shape = next((shape for root in roots.values() if (shape := _vector_shape(root)) is not None), None)
            vectors = {key: _numbers(root) for key, root in roots.items()}
            yield (
                SeenBatchNorm(name, place.kind, shape, place.epsilon, statistics, behind),
                Vectors(name, **vectors),
            )

    def _fused(self) -> Iterator[_Place]:
        for node in self._net.nodes.values():
            inputs = data_inputs(node)
            if node.op not in FUSED or len(inputs) != 5:
                continue
            trains = attribute(node, "is_training").b if "is_training" in node.attr else True
            if trains and self._of_one_sample(inputs[0]):
                continue
            epsilon = _short(np.float32(attribute(node, "epsilon").f if "epsilon" in node.attr else _FUSED_EPSILON))
            vectors = dict(zip(("gamma", "beta", "mean", "variance"), inputs[1:], strict=True))
            if trains:
                vectors = {key: vectors[key] for key in ("gamma", "beta")}
            yield _Place(node, node.op, "batch" if trains else "moving", epsilon, vectors, inputs[0])

    def _of_one_sample(self, source: Ref) -> bool:
        """Tell whether what is normalised was reshaped to a batch of one: so a layer norm is spelled."""
        producer = self._net.nodes[source[0]]
        if producer.op != "Reshape" or len(data_inputs(producer)) != 2:
            return False
        sizes = data_inputs(producer)[1]
        shape = self._values.get(sizes)
        packed = self._net.nodes[sizes[0]]
        if shape is None and packed.op == "Pack" and packed.input:
            shape = self._values.get(data_inputs(packed)[0])
        return shape is not None and shape.size > 0 and int(shape.ravel()[0]) == 1

    def _spelled_out(self) -> Iterator[_Place]:
        """Yield places where something is scaled by ``1 / sqrt(variance + epsilon)`` of no sample of its own."""
        for name, node in self._net.nodes.items():
            if node.op not in ("Rsqrt", "Sqrt") or self._kinds[name] is Kind.ACTIVATION:
                continue
            inside = self._net.nodes[data_inputs(node)[0][0]]
            if inside.op not in ("Add", "AddV2") or len(data_inputs(inside)) != 2:
                continue
            operands = data_inputs(inside)
            added = [self._values.get(ref) for ref in operands]
            at = next((at for at, value in enumerate(added) if value is not None and value.size == 1), None)
            scaled = self._scaled(name)
            if at is None or scaled is None:
                continue
            epsilon, variance = added[at], operands[1 - at]
            assert epsilon is not None
            gamma, source = scaled
            vectors = {"variance": variance, **({} if gamma is None else {"gamma": gamma})}
            yield _Place(node, "spelled out", self._statistics(variance), _short(epsilon.ravel()[0]), vectors, source)

    def _statistics(self, variance: Ref) -> Statistics:
        if self._kinds[variance[0]] is Kind.FREE:
            return "moving"
        behind = self._net.ancestors(
            [variance[0]], stop=[n for n, kind in self._kinds.items() if kind is Kind.ACTIVATION]
        )
        merges = {"Merge", "RefMerge", "Select", "SelectV2", *BRANCHES}
        return "switched" if any(self._net.nodes[name].op in merges for name in behind) else "batch"

    def _scaled(self, root: str) -> tuple[Ref | None, Ref] | None:
        """Return the gamma that a root is multiplied with, and the activation that both scale."""
        gamma: Ref | None = None
        stack, seen = [root], {root}
        while stack:
            name = stack.pop()
            for reader, _ in self._readers.get(name, ()):
                node = self._net.nodes[reader]
                if node.op not in ("Mul", "RealDiv", "Div", *_COPIES) or reader in seen:
                    continue
                seen.add(reader)
                others = [ref for ref in data_inputs(node) if ref[0] not in seen]
                active = [ref for ref in others if self._kinds[ref[0]] is Kind.ACTIVATION]
                if active:
                    return gamma, active[0]
                gamma = others[0] if others and node.op == "Mul" and gamma is None else gamma
                stack.append(reader)
        return None

    def _root(self, ref: Ref | None) -> Any:
        """Return the variable or constant that a vector comes from; None where it is computed, or there are several."""
        for _step in range(64):
            if ref is None:
                return None
            node = self._net.nodes[ref[0]]
            if node.op == "Const" or is_variable(node) or node.op.startswith("Placeholder"):
                return node
            inputs = data_inputs(node)
            if node.op not in _COPIES or not inputs:
                return None
            ref = inputs[0]
        return None

    def _behind(self, ref: Ref) -> str:
        """Return the operation whose result stands at a tensor, as far as nothing but shapes and biases is between."""
        for _step in range(16):
            node = self._net.nodes[ref[0]]
            shown = f"{node.op} {_plain(node.name)}"
            if node.op in ("Add", "AddV2") and len(data_inputs(node)) == 2:
                free = [self._kinds[name] is Kind.FREE for name, _ in data_inputs(node)]
                if free in ([False, True], [True, False]):
                    ref = data_inputs(node)[free.index(False)]
                    continue
            if node.op.startswith(_LAYERS) or node.op not in _ON_THE_WAY or not data_inputs(node):
                return shown
            ref = data_inputs(node)[0]
        return ""


def _short(number: Any) -> float:
    """Return a number as it was written: 0.001 where float32 holds it, and not that number's nearest neighbour."""
    return float(str(number))


def _numbers(root: Any) -> Value | None:
    return array_of(attribute(root, "value").tensor) if root is not None and root.op == "Const" else None


def _vector_shape(root: Any) -> int | None:
    if root is None:
        return None
    shape = attribute(root, "value").tensor.tensor_shape if root.op == "Const" else attribute(root, "shape").shape
    sizes = [int(dimension.size) for dimension in shape.dim if dimension.size != 1]
    return sizes[0] if len(sizes) == 1 and sizes[0] > 0 else 1 if shape.dim and not sizes else None


def _plain(name: str) -> str:
    return _CALL.sub("", name)


def _scope(places: Iterable[_Place]) -> str:
    """Return the name of a batch norm: the scope that all of its nodes are in."""
    paths = [_plain(place.node.name).split("/") for place in places]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    while len(shared) > 1 and re.fullmatch(
        r"(batchnorm|cond|then|else|FusedBatchNorm|Rsqrt|Sqrt)(V\d)?(_\d+)?", shared[-1]
    ):
        shared.pop()
    return "/".join(shared) or "/".join(paths[0])
