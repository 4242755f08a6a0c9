"""Where a network chooses: operations that make something exact of floats, and what a program has chosen there.

Two programs that are equally right choose differently where two floats are nearly equal, and everything behind such a
choice is another element's from then on: a box, a word, a branch. So what stands behind a choice is compared with what
float64 computes *behind that same choice*, and the floats that it is made from are compared by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from bnfold.parity.kernels import Array, widen
from bnfold.parity.nodes import STANDARD, attributes_of
from bnfold.parity.program import Scope, called, reads_of

if TYPE_CHECKING:
    from onnx import GraphProto

__all__ = ["FLOATS", "Chosen", "Decisions", "decisions_of", "opened", "results_given", "same_choice", "within"]

_EXACT = frozenset(
    {
        *("ArgMax", "ArgMin", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "Less", "LessOrEqual"),
        *("NonMaxSuppression", "NonZero", "Round", "Sign"),
    }
)
"""Operations all of whose outputs jump where a float passes a threshold, or another float."""
_PLACES = {"TopK": 1, "MaxPool": 1}
"""Operations with one output that jumps, by its number."""
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
"""Element types that the reference computes with."""

Chosen = Mapping[str, Array]
"""What was chosen, by the name of the value."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """The choices of a main graph.

    Attributes:
        floats: Names of the floats that something is chosen by, in graph order.
        chosen: Names of what is chosen, in graph order.
        behind: Which of the chosen values a value is computed from, by its name; those with none are left out.
        first: Those of the floats that are not computed from another one of them.
        turns: Of what a loop chooses turn by turn: the loop, and the name of the value in its body.
    """

    floats: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    behind: Mapping[str, frozenset[str]] = field(default_factory=dict)
    first: tuple[str, ...] = ()
    turns: Mapping[str, tuple[Scope, str]] = field(default_factory=dict)

    def leads_to(self, value: str, outputs: Iterable[str]) -> str | None:
        """Return the first output that is computed from a choice by this float; None if there is none."""
        return next((name for name in outputs if f"by {value}" in self.of(name)), None)

    def of(self, value: str) -> frozenset[str]:
        """Return what a value is computed from: names of chosen values, and ``by`` the floats of their choices."""
        return self.behind.get(value, frozenset())

    def forced(self, chosen: Chosen) -> dict[Scope, dict[str, Array]]:
        """Return what a program has chosen as the reference is told it: by the scope of the value."""
        forced: dict[Scope, dict[str, Array]] = {}
        for name in self.chosen:
            if name in chosen:
                scope, inner = self.turns.get(name, ((), name))
                forced.setdefault(scope, {})[inner] = chosen[name]
        return forced

    def differ(self, one: Chosen, other: Chosen) -> bool:
        """Whether two programs have chosen differently anywhere, as far as both tell."""
        return any(not same_choice(one[name], other[name]) for name in self.chosen if name in one and name in other)


def decisions_of(model: ModelProto, floating: Callable[[str], bool]) -> Decisions:
    """Return the choices that a model makes on its way from its inputs.

    Args:
        model: The model; what its loops choose is seen where they have been ``opened``.
        floating: Whether a value is known to be a float, by its name.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    fed = {value.name for value in model.graph.input} - constants
    varying = set(fed)
    floats: dict[str, None] = {}
    chosen: dict[str, None] = {}
    behind: dict[str, frozenset[str]] = {}
    turns: dict[str, tuple[Scope, str]] = {}
    for node in model.graph.node:
        read = list(reads_of(node))
        outputs = [name for name in node.output if name]
        known = frozenset[str]().union(*(behind.get(name, ()) for name in read))
        if not varying.isdisjoint(read):
            varying.update(outputs)
            computed = [name for name in node.input if name in varying and floating(name)]
            names = list(_jumping(node)) if computed else []
            for stacked, inner, is_choice in (item for body in _bodies(node) for item in _inside(node, body)):
                if stacked in outputs:
                    (chosen if is_choice else floats)[stacked] = None
                    known |= {stacked if is_choice else f"by {stacked}"}
                    turns[stacked] = ((called(node),), inner)
            for body in _bodies(node):
                # What a body chooses by a float from around it.
                outer = [name for name in _chosen_by(body) if name in varying and floating(name)]
                floats.update({name: None for name in outer if name not in fed})
                known |= {f"by {name}" for name in outer}
            if names:
                chosen.update(dict.fromkeys(names))
                floats.update({name: None for name in computed if name not in fed})
                known |= {*names, *(f"by {name}" for name in computed)}
        if known:
            behind.update(dict.fromkeys(outputs, known))
    return Decisions(tuple(floats), tuple(chosen), behind, _first(model, tuple(floats)), turns)


def _first(model: ModelProto, floats: tuple[str, ...]) -> tuple[str, ...]:
    """Return the floats that are not computed from another one of them."""
    derived: set[str] = set()
    for node in model.graph.node:
        if any(name in derived or name in floats for name in reads_of(node)):
            derived.update(node.output)
    return tuple(name for name in floats if name not in derived)


def _jumping(node: NodeProto) -> Iterator[str]:
    """Yield the outputs of a node that jump when its floats move a little."""
    if node.domain not in STANDARD:
        return
    if node.op_type in _EXACT:
        yield from (name for name in node.output if name)
    elif node.op_type in _PLACES:
        yield from (name for name in node.output[_PLACES[node.op_type] :] if name)
    elif node.op_type == "Cast" and attributes_of(node).get("to") not in FLOATS:
        yield node.output[0]


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    if node.domain in STANDARD and node.op_type in {"Loop", "Scan"}:
        yield from (item.g for item in node.attribute if item.type == AttributeProto.GRAPH)


def _inside(loop: NodeProto, body: GraphProto) -> Iterator[tuple[str, str, bool]]:
    """Yield what a body chooses (True), and the values that it chooses by (False), each as the loop returns it."""
    computed = {name for node in body.node for name in node.output if name}
    for node in body.node:
        names = list(_jumping(node))
        read = [name for name in node.input if name in computed]
        if names:
            yield from ((f"{called(loop)}/{name}", name, True) for name in names)
            yield from ((f"{called(loop)}/{name}", name, False) for name in dict.fromkeys(read))


def _chosen_by(body: GraphProto) -> Iterator[str]:
    """Yield the names that a body chooses by and does not compute."""
    computed = {name for node in body.node for name in node.output}
    for node in body.node:
        if any(True for _ in _jumping(node)):
            yield from (name for name in node.input if name and name not in computed)


def opened(model: ModelProto, floating: Callable[[str], bool]) -> ModelProto:
    """Return a model whose loops also return, turn by turn, what they choose and by which floats; itself if none does.

    The new outputs of a loop are called after it and after the value: ``loop/value``.

    Args:
        model: The model.
        floating: Whether a value is known to be a float, by its name.
    """
    if not any(_wanted(body, floating) for node in model.graph.node for body in _bodies(node)):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        for body in _bodies(node):
            wanted = _wanted(body, floating)
            axes = [item for item in node.attribute if item.name in {"scan_output_axes", "scan_output_directions"}]
            for item in axes:
                item.ints.extend([0] * len(wanted))
            inner = {item.name: item for item in body.value_info}
            for name in wanted:
                # A value may be an output already: it leaves the body once more under another name.
                again = f"{called(node)}/{name}"
                body.node.append(NodeProto(op_type="Identity", input=[name], output=[again]))
                value = ValueInfoProto(name=again)
                if name in inner:
                    value.type.CopyFrom(inner[name].type)
                body.output.append(value)
                node.output.append(again)
    return copy


def _wanted(body: GraphProto, floating: Callable[[str], bool]) -> list[str]:
    """Return what a loop has to return besides: choices by floats only, and these floats."""
    wanted: dict[str, None] = {}
    for node in body.node:
        names, read = list(_jumping(node)), [name for name in node.input if name and floating(name)]
        computed = {name for other in body.node for name in other.output}
        if names and read:
            wanted.update(dict.fromkeys(names))
            wanted.update({name: None for name in read if name in computed})
    return list(wanted)


def within(decisions: Decisions, model: ModelProto, other: ModelProto) -> tuple[str, ...]:
    """Return the values of the choices that another model makes by the same operation, of the same values.

    Args:
        decisions: The choices of the first model.
        model: The first model.
        other: The other one.
    """
    known = {*decisions.floats, *decisions.chosen}
    theirs = {name: node for node in other.graph.node for name in node.output if name}
    found: dict[str, None] = {}
    for node in model.graph.node:
        for name in known.intersection(node.output):
            there = theirs.get(name)
            if name in decisions.turns:  # what a loop returns of its turns is called after what it is inside
                outer = [read for body in _bodies(node) for read in _chosen_by(body) if read in decisions.floats]
                reads = [read for read in outer if read in theirs]
                same = there is not None and there.op_type == node.op_type
                found.update(dict.fromkeys([name, *reads] if same else []))
            elif name in decisions.chosen and there is not None and list(there.input) == list(node.input):
                reads = [read for read in node.input if read in decisions.floats and read in theirs]
                found.update(dict.fromkeys([name, *reads] if there.op_type == node.op_type else []))
    return tuple(found)


def results_given(
    node: NodeProto, inputs: Sequence[Any], results: Sequence[Any], forced: Mapping[str, Array]
) -> list[Any]:
    """Return the results of a node with those that are given in their place.

    Args:
        node: The node.
        inputs: What it read.
        results: What it computed.
        forced: What is given, by the name of the value.
    """
    given = [
        widen(np.asarray(forced[name])) if name in forced else value
        for name, value in zip(node.output, results, strict=False)
    ]
    if node.op_type == "TopK":  # the values are those at the places that are given
        axis = int(attributes_of(node).get("axis", -1))
        given[0] = np.take_along_axis(inputs[0], np.asarray(given[1], dtype=np.int64), axis=axis)
    return given


def same_choice(one: object, other: object) -> bool:
    """Whether two programs have chosen the same."""
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return one is other
    if one.dtype.kind not in "fc" or other.dtype.kind not in "fc":
        return np.array_equal(one, other)
    return np.array_equal(one, other, equal_nan=True)
