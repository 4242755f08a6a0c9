"""Statistics of the batch in a graph: which tensors they are, and where they normalise something.

A batch norm in training mode is not found by its names but by what it computes: something that depends on the network's
input is reduced over axis 0, a root is taken of it, and that scales what still has a batch axis. Reductions over other
axes alone (layer, group and instance norms) are none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bnfold.frontends.tensorflow.constants import values_of
from bnfold.frontends.tensorflow.net import Net, Ref, Value, attribute, data_inputs
from bnfold.frontends.tensorflow.shapes import Shape, shapes_of

__all__ = ["COPIES", "FUSED", "REDUCTIONS", "Kind", "Reading", "is_data_input", "kinds_of", "read", "training_nodes"]

FUSED = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
REDUCTIONS = frozenset({"Mean", "Sum"})
COPIES = frozenset({"Identity", "StopGradient", "Squeeze", "Reshape", "ExpandDims", "PreventGradient", "Snapshot"})
"""Operations that leave the numbers of a statistic as they are."""

_ROOTS = frozenset({"Rsqrt", "Sqrt", "Pow"})
_BOOL = 10
_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank"})
_SOURCES = frozenset(
    {
        "Placeholder",
        "PlaceholderV2",
        "PlaceholderWithDefault",
        "IteratorGetNext",
        "IteratorGetNextSync",
        "OneShotIterator",
        "QueueDequeue",
        "QueueDequeueV2",
        "QueueDequeueMany",
        "QueueDequeueManyV2",
        "QueueDequeueUpTo",
        "QueueDequeueUpToV2",
    }
)


class Kind(Enum):
    """What a tensor depends on."""

    FREE = "constants, variables and shapes only"
    STATISTIC = "the input, without its batch axis"
    ACTIVATION = "the input, with its batch axis"


@dataclass(frozen=True, slots=True)
class Reading:
    """A graph with what its tensors depend on.

    Attributes:
        net: The graph.
        kinds: What each node depends on.
        values: The values of small constant tensors.
        shapes: Static shapes, as far as known.
        reductions: Reductions over axis 0 that leave a statistic.
        roots: Roots of statistics that scale an activation.
        fused: ``FusedBatchNorm`` nodes in training mode.
    """

    net: Net
    kinds: Mapping[str, Kind]
    values: Mapping[Ref, Value]
    shapes: Mapping[Ref, Shape]
    reductions: tuple[str, ...]
    roots: tuple[str, ...]
    fused: tuple[str, ...]


def is_data_input(node: Any) -> bool:
    """Return whether a node brings the network's input: a placeholder or a queue, and not a flag or a single number."""
    if node.op not in _SOURCES or (node.op.startswith("Placeholder") and attribute(node, "dtype").type == _BOOL):
        return False
    shape = attribute(node, "shape").shape
    return shape.unknown_rank or bool(shape.dim) or not node.op.startswith("Placeholder") or "shape" not in node.attr


def read(net: Net) -> Reading:
    """Return what a graph's tensors depend on, and where statistics of the batch normalise them."""
    values = values_of(net, {})
    suspicious = [node for node in net.nodes.values() if node.op in REDUCTIONS and _axes(node, values) is not None]
    shapes = shapes_of(net) if suspicious else {}
    kinds = kinds_of(net, values, shapes)
    reductions = [
        name
        for name, kind in kinds.items()
        if kind is Kind.STATISTIC
        and net.nodes[name].op in REDUCTIONS
        and kinds[data_inputs(net.nodes[name])[0][0]] is Kind.ACTIVATION
    ]
    roots = tuple(name for name in kinds if _is_root(net, name, kinds)) if reductions else ()
    roots = tuple(name for name in roots if _scales_activation(net, name, kinds))
    fused = tuple(name for name, node in net.nodes.items() if _trains(node, net, values))
    return Reading(net, kinds, values, shapes, tuple(reductions), roots, fused)


def kinds_of(net: Net, values: Mapping[Ref, Value], shapes: Mapping[Ref, Shape]) -> dict[str, Kind]:
    """Return what each node depends on, in the order in which they can be computed."""
    kinds: dict[str, Kind] = {}
    order = net.sorted(control=False)
    looped = any(node.op in ("NextIteration", "RefNextIteration") for node in net.nodes.values())
    again = True
    while again:  # a loop reads in its next turn what it computes later
        before = dict(kinds)
        for name in order:
            kinds[name] = _kind(net.nodes[name], kinds, values, shapes)
        again = looped and kinds != before
    return kinds


def training_nodes(net: Net) -> tuple[str, ...]:
    """Return the nodes that compute a batch norm's statistics from the batch: what inference mode must not have."""
    reading = read(net)
    behind: set[str] = set()
    for root in reading.roots:
        behind |= net.ancestors([root])
    return (*reading.fused, *(name for name in reading.reductions if name in behind))


def _kind(node: Any, kinds: Mapping[str, Kind], values: Mapping[Ref, Value], shapes: Mapping[Ref, Shape]) -> Kind:
    if node.op in _SOURCES:
        return Kind.ACTIVATION if is_data_input(node) else Kind.FREE
    if node.op in _SHAPES:
        return Kind.FREE
    inputs = data_inputs(node)
    if node.op in ("Switch", "RefSwitch"):
        inputs = inputs[:1]  # what switches it is no number in it
    met = {kinds.get(name, Kind.FREE) for name, _ in inputs}
    if Kind.ACTIVATION in met:
        if node.op in REDUCTIONS and _drops_batch(node, values, shapes):
            return Kind.STATISTIC
        return Kind.ACTIVATION
    return Kind.STATISTIC if Kind.STATISTIC in met else Kind.FREE


def _axes(node: Any, values: Mapping[Ref, Value]) -> list[int] | None:
    """Return a reduction's axes; None where they are not known, or certainly without the first one."""
    inputs = data_inputs(node)
    axes = values.get(inputs[1]) if len(inputs) == 2 else None
    if axes is None:
        return None
    found = [int(axis) for axis in axes.ravel()]
    return found if any(axis == 0 for axis in found) or any(axis < -1 for axis in found) else None


def _drops_batch(node: Any, values: Mapping[Ref, Value], shapes: Mapping[Ref, Shape]) -> bool:
    axes = _axes(node, values)
    if axes is None:
        return False
    shape = shapes.get(data_inputs(node)[0])
    if shape is None:
        return 0 in axes
    over = {axis % len(shape) for axis in axes} if shape else set()
    # One number for everything is a loss or a standardised image, not a statistic per channel.
    return 0 in over and len(over) < len(shape)


def _is_root(net: Net, name: str, kinds: Mapping[str, Kind]) -> bool:
    return net.nodes[name].op in _ROOTS and kinds[name] is Kind.STATISTIC


def _scales_activation(net: Net, root: str, kinds: Mapping[str, Kind]) -> bool:
    readers = net.consumers()
    stack, seen = [root], {root}
    while stack:
        for reader, _ in readers.get(stack.pop(), ()):
            if kinds[reader] is Kind.ACTIVATION and net.nodes[reader].op in ("Mul", "RealDiv", "Div"):
                return True
            if kinds[reader] is Kind.STATISTIC and reader not in seen:
                seen.add(reader)
                stack.append(reader)
    return False


def _trains(node: Any, net: Net, values: Mapping[Ref, Value]) -> bool:
    if node.op not in FUSED or ("is_training" in node.attr and not node.attr["is_training"].b):
        return False
    # Keras spells a layer norm as a fused batch norm of one sample, made by a Reshape to 1 x ...
    source, _ = data_inputs(node)[0]
    producer = net.nodes.get(source)
    if producer is None or producer.op != "Reshape":
        return True
    sizes, _ = data_inputs(producer)[1]
    shape = values.get((sizes, 0))
    if shape is not None:
        return not (shape.size and int(shape.ravel()[0]) == 1)
    packed = net.nodes[sizes]
    first = values.get(data_inputs(packed)[0]) if packed.op == "Pack" and packed.input else None
    return first is None or first.size != 1 or int(first.item()) != 1
