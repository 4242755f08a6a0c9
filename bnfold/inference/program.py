"""What a model computes under assumptions about its inputs: which values are known, and which nodes still matter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from bnfold.graph.shapes import GraphPath, subgraphs
from bnfold.graph.view import STANDARD_DOMAINS, GraphView, views

__all__ = ["RANDOM", "Place", "Program", "Scalar", "is_random", "standard"]

Scalar = bool | int | float
Place = tuple[GraphPath, int]
"""A node: the graph that it stands in, and its index there."""

_DEEPEST = 64
_SAME = frozenset({"Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten"})


def standard(node: NodeProto) -> str:
    """Return a node's operation if it is one of ONNX's own, else nothing."""
    return node.op_type if node.domain in STANDARD_DOMAINS else ""


RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Operators that give something else in every run."""


def is_random(node: NodeProto) -> bool:
    """Say whether a node draws at random. A normal distribution of width 0 does not."""
    op_type = standard(node)
    if op_type in ("RandomNormal", "RandomNormalLike"):
        return not any(attribute.name == "scale" and attribute.f == 0 for attribute in node.attribute)
    return op_type in RANDOM


def _cast(value: Scalar | None, node: NodeProto) -> Scalar | None:
    (to,) = [attribute.i for attribute in node.attribute if attribute.name == "to"] or [0]
    if value is None:
        return None
    if to == TensorProto.BOOL:
        return bool(value)
    try:
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(to)).kind
    except (KeyError, TypeError):
        return None
    if kind not in "iuf" or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return float(value) if kind == "f" else int(value)


def _pair(op_type: str, left: Scalar | None, right: Scalar | None) -> Scalar | None:
    if op_type == "And" and False in (left, right):
        return False
    if op_type == "Or" and True in (left, right):
        return True
    if left is None or right is None:
        return None
    return _PAIRS[op_type](left, right)


_PAIRS: Mapping[str, Callable[[Scalar, Scalar], Scalar]] = {
    "Add": lambda left, right: left + right,
    "And": lambda left, right: bool(left and right),
    "Equal": lambda left, right: left == right,
    "Greater": lambda left, right: left > right,
    "GreaterOrEqual": lambda left, right: left >= right,
    "Less": lambda left, right: left < right,
    "LessOrEqual": lambda left, right: left <= right,
    "Mul": lambda left, right: left * right,
    "Or": lambda left, right: bool(left or right),
    "Sub": lambda left, right: left - right,
    "Xor": lambda left, right: bool(left) != bool(right),
}


@dataclass
class Program:
    """A model to ask questions about. It is out of date as soon as the model changes.

    Attributes:
        model: The model; nodes of every graph in it stand in the order in which they run.
    """

    model: ModelProto

    @cached_property
    def views(self) -> Mapping[GraphPath, GraphView]:
        """The model's graphs, without shapes."""
        found: dict[GraphPath, GraphView] = {}
        pending = [GraphView(self.model, self.model.graph, (), {})]
        while pending:
            view = pending.pop()
            found[view.path] = view
            pending += [
                GraphView(self.model, body, (*view.path, place), {}, view) for place, body in subgraphs(view.graph)
            ]
        return found

    @cached_property
    def typed_views(self) -> Mapping[GraphPath, GraphView]:
        """The model's graphs with shapes, which take time: for questions that need them."""
        return {view.path: view for view in views(self.model)}

    @cached_property
    def _initializers(self) -> Mapping[GraphPath, frozenset[str]]:
        return {
            path: frozenset(tensor.name for tensor in view.graph.initializer)
            | frozenset(tensor.values.name for tensor in view.graph.sparse_initializer)
            for path, view in self.views.items()
        }

    def initialized(self, view: GraphView, name: str) -> bool:
        """Say whether a graph has an initializer of a name."""
        return name in self._initializers[view.path]

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return self.views[()].opset

    def node(self, place: Place) -> NodeProto:
        """Return the node at a place."""
        found: NodeProto = self.views[place[0]].graph.node[place[1]]
        return found

    def name(self, place: Place) -> str:
        """Return a node's name, or that of its first output where it has none."""
        return self.views[place[0]].node(place[1]).name

    def home(self, view: GraphView, name: str) -> GraphView | None:
        """Return the graph that defines a value which a graph reads; None where there is none."""
        around: GraphView | None = view
        while around is not None:
            if name in around.producers or name in around.inputs or self.initialized(around, name):
                return around
            around = around.outer
        return None

    def in_file(self, view: GraphView, name: str) -> bool:
        """Say whether the file holds a value: as a constant, or as the default of an input."""
        home = self.home(view, name)
        return home is not None and (self.initialized(home, name) or home.is_constant(name))

    def scalar(self, view: GraphView, name: str, pins: Mapping[str, Scalar], depth: int = 0) -> Scalar | None:
        """Return the value of a tensor of one element, as far as pinned inputs and constants decide it."""
        home = self.home(view, name)
        if home is None or depth > _DEEPEST:
            return None
        if home.path == () and name in pins and name not in home.producers:
            return pins[name]
        if name in home.producers:
            node = home.graph.node[home.producers[name]]
            if standard(node) and node.op_type != "Constant":
                return self._computed(home, node, pins, depth + 1)
        value = home.constant(name)
        if value is None or value.size != 1 or value.dtype.kind not in "biuf":
            return None
        item: Scalar = value.reshape(-1)[0].item()
        return item

    def _computed(self, view: GraphView, node: NodeProto, pins: Mapping[str, Scalar], depth: int) -> Scalar | None:
        op_type = node.op_type
        if op_type in _SAME:
            return self.scalar(view, node.input[0], pins, depth)
        if op_type == "Cast":
            return _cast(self.scalar(view, node.input[0], pins, depth), node)
        if op_type == "Not":
            value = self.scalar(view, node.input[0], pins, depth)
            return None if value is None else not value
        if op_type in _PAIRS and len(node.input) == 2:
            left, right = (self.scalar(view, name, pins, depth) for name in node.input)
            return _pair(op_type, left, right)
        return None

    def chosen(self, view: GraphView, node: NodeProto, pins: Mapping[str, Scalar]) -> str | None:
        """Return the name of the branch that an If takes; None where that is open."""
        if standard(node) != "If":
            return None
        value = self.scalar(view, node.input[0], pins)
        return None if value is None else ("then_branch" if value else "else_branch")

    def selected(self, view: GraphView, node: NodeProto, pins: Mapping[str, Scalar]) -> str | None:
        """Return the value that a Where passes on as a whole; None where it selects by element, or that is open."""
        if standard(node) != "Where":
            return None
        value = self.scalar(view, node.input[0], pins)
        if value is None:
            return None
        name: str = node.input[1] if value else node.input[2]
        typed = self.typed_views[view.path]
        shape, others = typed.shape(name), [typed.shape(other) for other in node.input]
        # The other operands may enlarge the result; an axis that is not known may be a 1 that another one stretches.
        if shape is None or any(other is None or len(other) > len(shape) for other in others):
            return None
        for other in others:
            assert other is not None
            aligned = shape[len(shape) - len(other) :]
            if any(size != 1 and (size is None or size != own) for size, own in zip(other, aligned, strict=True)):
                return None
        return name

    def trains(self, view: GraphView, node: NodeProto, pins: Mapping[str, Scalar]) -> bool | None:
        """Say whether a Dropout drops anything; None where that is open."""
        if self.opset < 7:
            return not any(attribute.name == "is_test" and attribute.i for attribute in node.attribute)
        if self.opset < 12 or len(node.input) < 3 or not node.input[2]:
            return False
        value = self.scalar(view, node.input[2], pins)
        return None if value is None else bool(value)

    def live(self, pins: Mapping[str, Scalar], *, whole: bool = False) -> set[Place]:
        """Return the nodes that influence an output once the pinned inputs have their values.

        Args:
            pins: Values of inputs.
            whole: Whether every body counts as a whole, taken or not, so that what is not live can be removed.
        """
        found: set[Place] = set()
        self._visit(self.views[()], set(self.views[()].outputs), pins, found, whole=whole)
        return found

    def _visit(
        self, view: GraphView, wanted: Collection[str], pins: Mapping[str, Scalar], found: set[Place], *, whole: bool
    ) -> set[str]:
        """Collect what computes the wanted values of a graph; return the names that this takes from around it."""
        needed = set(wanted)
        bodies: dict[int, list[tuple[str, GraphView]]] = {}
        for (index, attribute), _body in subgraphs(view.graph):
            bodies.setdefault(index, []).append((attribute, self.views[*view.path, (index, attribute)]))
        for index in reversed(range(len(view.graph.node))):
            node = view.graph.node[index]
            if needed.isdisjoint(node.output):
                continue
            found.add((view.path, index))
            chosen = None if whole else self.chosen(view, node, pins)
            selected = None if whole else self.selected(view, node, pins)
            if selected is not None:
                needed.add(selected)
            elif chosen is None:
                needed.update(node.input)
            for attribute, body in bodies.get(index, ()):
                if chosen not in (None, attribute):
                    continue
                outputs = [value.name for value in body.graph.output]
                if standard(node) == "If" and not whole:
                    outputs = [name for name, outer in zip(outputs, node.output, strict=False) if outer in needed]
                needed |= self._visit(body, outputs, pins, found, whole=whole)
        return {
            name
            for name in needed
            if name and name not in view.producers and name not in view.inputs and not self.initialized(view, name)
        }
