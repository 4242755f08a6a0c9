"""How two ONNX files differ: nodes and constants by name, with no more than two large constants of files beside them.

Everything is looked up by name, so the time grows with the size of the two files and not with their product.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from bnfold.graph.io import load_model
from bnfold.graph.outside import Outside, in_memory
from bnfold.graph.view import STANDARD_DOMAINS
from bnfold.pipeline.surface import element_name, function_name, others_of, says_who_wrote
from bnfold.pipeline.ulps import distance
from bnfold.report.difference import BatchNormChange, Difference, NodeChange, OpCount, WeightChange
from bnfold.rules import BATCH_NORM

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["diff"]


Place = tuple[str, str]
"""A scope, and a name in it."""


def diff(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Difference:
    """Compare two ONNX files: operations, nodes, constants, batch norms, inputs and outputs, metadata.

    Args:
        a: The first file.
        b: The second file.

    Raises:
        SourceError: If one of them cannot be read as ONNX.
        OSError: If one of them exists and cannot be read.
    """
    with Outside(Path(a).parent) as outside:
        return _difference(_Side(a, outside), _Side(b, outside))


def _difference(one: _Side, other: _Side) -> Difference:
    pairs = tuple(_pairs(one, other))
    weights, equal = _weights(one, other, pairs)
    nodes = tuple(_nodes(one, other, pairs))
    batch_norms, kept = _batch_norms(pairs, nodes, weights)
    counts = [Counter(_operation(node) for _scope, node in side.nodes) for side in (one, other)]
    ops = tuple(
        OpCount(op, counts[0][op], counts[1][op])
        for op in sorted({*counts[0], *counts[1]})
        if counts[0][op] != counts[1][op]
    )
    others = tuple(others_of(one.model, other.model))
    return Difference(
        a=os.fspath(one.path),
        b=os.fspath(other.path),
        equal=not (ops or nodes or weights or batch_norms or any(not says_who_wrote(item) for item in others)),
        ops=ops,
        nodes=nodes,
        weights=weights,
        batch_norms=batch_norms,
        batch_norms_kept=kept,
        others=others,
        nodes_a=len(one.nodes),
        nodes_b=len(other.nodes),
        weights_equal=equal,
    )


class _Side:
    """One file, taken apart: its nodes, and its constants, each with the scope that it stands in.

    Attributes:
        path: Where it is.
        model: What it holds; large weights in files beside it stay there.
        nodes: Every node with its scope.
        weights: Every constant by its scope and name.
    """

    def __init__(self, path: str | os.PathLike[str], outside: Outside) -> None:
        self.path = path
        self.model: ModelProto = load_model(path, outside)
        self.nodes: list[tuple[str, NodeProto]] = []
        self.weights: dict[Place, TensorProto] = {}
        self._add("", self.model.graph)
        for function in self.model.functions:
            self._add(function_name(function), function)

    def _add(self, scope: str, graph: GraphProto | FunctionProto) -> None:
        if isinstance(graph, GraphProto):
            for tensor in graph.initializer:
                self.weights[scope, tensor.name] = tensor
            for sparse in graph.sparse_initializer:
                self.weights[scope, sparse.values.name] = sparse.values
                self.weights[scope, f"{sparse.values.name} (indices)"] = sparse.indices
        for node in graph.node:
            self.nodes.append((scope, node))
            held = _constant(node)
            if held is not None and node.output:
                self.weights[scope, node.output[0]] = held
            for attribute in node.attribute:
                bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
                for number, body in enumerate(bodies):
                    place = f"{attribute.name}[{number}]" if number else attribute.name
                    self._add(f"{scope}{scope and ' / '}{_called(node)}.{place}", body)

    def tensor(self, place: Place) -> TensorProto:
        """Return a constant with its bytes, those of another file included."""
        return in_memory(self.weights[place])


@dataclass(frozen=True, slots=True)
class _Pair:
    """A node of A and what it is in B; one of the two may be missing."""

    scope: str
    a: NodeProto | None
    b: NodeProto | None


def _pairs(one: _Side, other: _Side) -> Iterator[_Pair]:
    """Yield every node once: with its namesake, else with the node that computes the same value, else alone."""
    scopes: dict[str, tuple[list[NodeProto], list[NodeProto]]] = {}
    for number, side in enumerate((one, other)):
        for scope, node in side.nodes:
            scopes.setdefault(scope, ([], []))[number].append(node)
    for scope, (ours, theirs) in scopes.items():
        names = [Counter(node.name for node in side if node.name) for side in (ours, theirs)]
        by_name = {node.name: number for number, node in enumerate(theirs) if names[1][node.name] == 1}
        by_output = {name: number for number, node in enumerate(theirs) for name in node.output if name}
        found: dict[int, int] = {}
        taken: set[int] = set()
        for place, node in enumerate(ours):
            namesake = by_name.get(node.name) if names[0][node.name] == 1 else None
            if namesake is not None:
                found[place] = namesake
                taken.add(namesake)
        for place, node in enumerate(ours):
            if place in found:
                continue
            same = next((by_output[name] for name in node.output if name in by_output), None)
            if same is not None and same not in taken:
                found[place] = same
                taken.add(same)
        for place, node in enumerate(ours):
            yield _Pair(scope, node, theirs[found[place]] if place in found else None)
        for place, node in enumerate(theirs):
            if place not in taken:
                yield _Pair(scope, None, node)


def _nodes(one: _Side, other: _Side, pairs: tuple[_Pair, ...]) -> Iterator[NodeChange]:
    for pair in pairs:
        if pair.a is None or pair.b is None:
            node = pair.a or pair.b
            assert node is not None
            # A constant that moved between a node and an initializer is listed with the constants, if at all.
            moved = (
                _constant(node) is not None
                and (pair.scope, node.output[0]) in (one if pair.a is None else other).weights
            )
            if not moved:
                yield NodeChange(_called(node), pair.scope, "removed" if pair.a else "added", _operation(node))
            continue
        what = tuple(_changes(pair.a, pair.b))
        if what:
            yield NodeChange(_called(pair.a), pair.scope, "changed", _operation(pair.a), what)


def _changes(a: NodeProto, b: NodeProto) -> Iterator[str]:
    """Yield what differs between two nodes; their bodies and the constants that they hold are compared elsewhere."""
    if _operation(a) != _operation(b) or a.overload != b.overload:
        yield f"operation {_operation(a)} → {_operation(b)}"
    if list(a.input) != list(b.input):
        yield "inputs"
    if list(a.output) != list(b.output):
        yield "outputs"
    ours, theirs = ({item.name: item for item in node.attribute} for node in (a, b))
    both = _constant(a) is not None and _constant(b) is not None
    for name in sorted({*ours, *theirs}):
        mine, yours = ours.get(name), theirs.get(name)
        if both and name == "value":
            continue
        if mine is None or yours is None or not _same_attribute(mine, yours):
            yield f"attribute {name}"


def _same_attribute(a: AttributeProto, b: AttributeProto) -> bool:
    if a.type != b.type:
        return False
    if a.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS}:
        ours, theirs = ([_frame(body) for body in (item.g, *item.graphs)] for item in (a, b))
        return ours == theirs
    return bool(a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True))


def _frame(body: GraphProto) -> tuple[list[str], list[str]]:
    """Return the names of what enters a body and what leaves it, in order; its nodes are compared one by one."""
    return [value.name for value in body.input], [value.name for value in body.output]


def _weights(one: _Side, other: _Side, pairs: tuple[_Pair, ...]) -> tuple[tuple[WeightChange, ...], int]:
    """Return the constants that differ, and how many do not."""
    partners: dict[Place, Place] = {place: place for place in one.weights if place in other.weights}
    taken = set(partners)
    for pair in pairs:  # what was renamed is read by the same node in the same place
        if pair.a is None or pair.b is None:
            continue
        for name, theirs in zip(pair.a.input, pair.b.input, strict=False):
            place, new = (pair.scope, name), (pair.scope, theirs)
            if place in one.weights and new in other.weights and place not in partners and new not in taken:
                partners[place] = new
                taken.add(new)
    changes, equal = [], 0
    for place, tensor in one.weights.items():
        partner = partners.get(place)
        if partner is None:
            changes.append(_alone(place, tensor, first=True))
            continue
        change = _compared(one, other, place, partner)
        if change is None:
            equal += 1
        else:
            changes.append(change)
    changes += [_alone(place, tensor, first=False) for place, tensor in other.weights.items() if place not in taken]
    return tuple(changes), equal


def _compared(one: _Side, other: _Side, place: Place, partner: Place) -> WeightChange | None:
    """Return how a constant has changed; None where it has not."""
    a, b = one.weights[place], other.weights[partner]
    if place == partner and a == b and a.data_location != TensorProto.EXTERNAL:
        return None
    same_shape, same_type = list(a.dims) == list(b.dims), a.data_type == b.data_type
    apart = distance(one.tensor(place), other.tensor(partner)) if same_shape else None
    renamed = partner[1] if partner[1] != place[1] else ""
    if apart is not None and same_type and not apart.changed and not renamed:
        return None
    return WeightChange(
        name=place[1],
        renamed=renamed,
        scope=place[0],
        change="changed",
        dtype_a=_dtype(a),
        dtype_b=_dtype(b),
        shape_a=tuple(a.dims),
        shape_b=tuple(b.dims),
        elements=0 if apart is None else apart.elements,
        changed=0 if apart is None else apart.changed,
        ulps=np.nan if apart is None else apart.ulps,
        largest=np.nan if apart is None else apart.largest,
    )


def _alone(place: Place, tensor: TensorProto, *, first: bool) -> WeightChange:
    dtype, shape = _dtype(tensor), tuple(tensor.dims)
    return WeightChange(
        name=place[1],
        renamed="",
        scope=place[0],
        change="removed" if first else "added",
        dtype_a=dtype if first else "",
        dtype_b="" if first else dtype,
        shape_a=shape if first else (),
        shape_b=() if first else shape,
        elements=0,
        changed=0,
        ulps=np.nan,
        largest=np.nan,
    )


def _batch_norms(
    pairs: tuple[_Pair, ...],
    nodes: tuple[NodeChange, ...],
    weights: tuple[WeightChange, ...],
) -> tuple[tuple[BatchNormChange, ...], int]:
    changed_nodes = {(change.scope, change.name) for change in nodes}
    changed_weights = {(change.scope, change.name) for change in weights}
    changes, kept = [], 0
    for pair in pairs:
        ours, theirs = (node is not None and _operation(node) == BATCH_NORM for node in (pair.a, pair.b))
        if not ours and not theirs:
            continue
        node = pair.a if ours else pair.b
        assert node is not None
        name = _called(node)
        if not theirs:
            becomes = "" if pair.b is None else _operation(pair.b)
            changes.append(BatchNormChange(name, pair.scope, "removed", becomes))
        elif not ours:
            changes.append(BatchNormChange(name, pair.scope, "added"))
        elif (pair.scope, name) in changed_nodes or any((pair.scope, read) in changed_weights for read in node.input):
            changes.append(BatchNormChange(name, pair.scope, "changed"))
        else:
            kept += 1
    return tuple(changes), kept


def _dtype(tensor: TensorProto) -> str:
    return element_name(tensor.data_type)


def _constant(node: NodeProto) -> TensorProto | None:
    """Return the tensor that a Constant node holds."""
    if node.op_type != "Constant" or node.domain not in STANDARD_DOMAINS or not node.output:
        return None
    return next((item.t for item in node.attribute if item.name == "value" and item.HasField("t")), None)


def _operation(node: NodeProto) -> str:
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"


def _called(node: NodeProto) -> str:
    return node.name or next((name for name in node.output if name), node.op_type)
