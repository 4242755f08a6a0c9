"""Batch norms that are left in training mode get the moving averages that training kept for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnfold.errors import InferenceModeError
from bnfold.frontends.loaded import ModeChange
from bnfold.frontends.tensorflow.moments import COPIES, Kind, Reading, read
from bnfold.frontends.tensorflow.moving_variables import Search
from bnfold.frontends.tensorflow.net import (
    Net,
    Ref,
    Value,
    const_node,
    data_inputs,
    dtype_of,
    is_variable,
)
from bnfold.frontends.tensorflow.prune import needed
from bnfold.frontends.tensorflow.shapes import Shape, shapes_of

__all__ = ["with_moving_averages"]

_LONGEST_LIST = 6


def with_moving_averages(net: Net, outputs: Sequence[Ref], search: Search) -> tuple[Net, tuple[ModeChange, ...]]:
    """Return the net with moving averages where it computes statistics of the batch, and what was done.

    Raises:
        InferenceModeError: If a batch norm has no moving averages in the file.
    """
    reading = read(net)
    if not reading.fused and not reading.roots:
        return net, ()
    _refuse_corrected(reading, outputs)
    work = _Rewiring(net.copy(), search, reading.shapes or shapes_of(net))
    for name in reading.fused:
        work.flip(name)
    for root in reading.roots:
        work.replace(_variance(reading, root), root, variance=True)
    net = work.net = work.net.cut(needed(work.net, outputs))
    # With the variances constant, what is left of the statistics are the means.
    rest = read(net)
    roots = {root for root in reading.roots if root in net.nodes}
    for name in _means(rest):
        near = _scaled_with(rest.net, name, roots)
        if near is not None:
            work.replace((name, 0), near, variance=False)
    if work.missing:
        raise _no_averages(work.missing)
    return net.cut(needed(net, outputs)), tuple(work.changes)


def _refuse_corrected(reading: Reading, outputs: Sequence[Ref]) -> None:
    """Refuse batch renormalisation: it divides statistics of the batch by other ones, and moving ones fit neither.

    Raises:
        InferenceModeError: Naming the nodes that divide.
    """
    found = [
        name
        for name in needed(reading.net, outputs)
        if (node := reading.net.nodes[name]).op in ("RealDiv", "Div")
        and [reading.kinds.get(source) for source, _ in data_inputs(node)] == [Kind.STATISTIC, Kind.FREE]
        and _channels(data_inputs(node)[1], reading.shapes) != 1
        and any(reading.net.nodes[source].op in ("Sqrt", "Sub") for source, _ in data_inputs(node)[:1])
    ]
    if found:
        raise InferenceModeError(
            f"{len(found)} operations correct statistics of the batch with others, as batch renormalisation does while "
            f"it trains: {', '.join(sorted(found)[:_LONGEST_LIST])}",
            hint="Pin the input that switches training off, or give the graph that evaluates.",
        )


def _no_averages(missing: Sequence[str]) -> InferenceModeError:
    listed = "; ".join(missing[:_LONGEST_LIST])
    more = len(missing) - _LONGEST_LIST
    return InferenceModeError(
        f"{len(missing)} batch statistics have no moving average: {listed}"
        + (f"; and {more} more" if more > 0 else ""),
        hint="Take the checkpoint, which holds the moving averages, or train with batch norms that keep them.",
    )


@dataclass(slots=True)
class _Rewiring:
    """A net whose batch norms are being given their averages.

    Attributes:
        net: The net; it is edited.
        search: Where the averages are.
        shapes: Static shapes of the net's tensors.
        changes: What was done.
        missing: What has no average, and why.
    """

    net: Net
    search: Search
    shapes: Mapping[Ref, Shape]
    changes: list[ModeChange] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def flip(self, name: str) -> None:
        """Set a fused batch norm to inference, with the averages wired to it, or found by its statistics."""
        node = type(self.net.nodes[name])()
        node.CopyFrom(self.net.nodes[name])
        inputs = data_inputs(node)
        channels = _channels(inputs[1], self.shapes)
        wired = [ref for ref in inputs[3:5] if channels and _channels(ref, self.shapes) == channels]
        proof = "inputs 3 and 4 are variables of the right size"
        if len(wired) < 2 or not all(_is_stored(self.net, ref) for ref in wired):
            parts: list[str] = []
            for port, what in ((1, "mean"), (2, "variance")):
                scopes = [name, *_variables_near(self.net, inputs[1:3])]
                found = self.search.find([(name, port)], scopes, variance=what == "variance", channels=channels or -1)
                if isinstance(found, str):
                    self.missing.append(f"{name}: {found}")
                    return
                constant = f"{name}/{what}"
                dtype = dtype_of(self.net.nodes[inputs[2][0]]) or None
                self.net.nodes[constant] = const_node(constant, np.ravel(found.value), dtype)
                node.input[port + 2] = constant
                parts.append(f"{found.name}, {found.how}")
            proof = "; ".join(parts)
        node.attr["is_training"].b = False
        self.net.nodes[name] = node
        self.changes.append(ModeChange("statistics", name, "statistics of the batch", "moving averages", proof))

    def replace(self, ref: Ref, root: str, *, variance: bool) -> None:
        """Put the moving average in the place of a statistic, in the statistic's own shape."""
        name = ref[0]
        shape = self.shapes.get(ref)
        if name not in self.net.nodes or self.net.nodes[name].op == "Const":
            return
        if shape is None or any(size is None for size in shape):
            self.missing.append(f"{name}: its shape is not known")
            return
        sizes = [size or 0 for size in shape]
        scopes = [name, *_variables_near(self.net, [(root, 0)])]
        found = self.search.find([ref], scopes, variance=variance, channels=int(np.prod(sizes)))
        if isinstance(found, str):
            self.missing.append(f"{name}: {found}")
            return
        value: Value = np.reshape(found.value, sizes)
        self.net.nodes[name] = const_node(name, value, dtype_of(self.net.nodes[name]) or None)
        before = "variance of the batch" if variance else "mean of the batch"
        self.changes.append(ModeChange("statistics", name, before, found.name, found.how))


def _is_stored(net: Net, ref: Ref) -> bool:
    node = net.nodes[ref[0]]
    while node.op in ("Identity", "ReadVariableOp", "Cast", "Enter") and data_inputs(node):
        node = net.nodes[data_inputs(node)[0][0]]
    return is_variable(node) or node.op == "Const"


def _channels(ref: Ref, shapes: Mapping[Ref, Shape]) -> int | None:
    shape = shapes.get(ref)
    if shape is None or any(size is None for size in shape):
        return None
    return int(np.prod([size or 0 for size in shape]))


def _variance(reading: Reading, root: str) -> Ref:
    """Return the tensor that a root takes for the variance: what epsilon is added to, behind its copies."""
    net = reading.net
    ref = data_inputs(net.nodes[root])[0]
    while True:
        node = net.nodes[ref[0]]
        inputs = data_inputs(node)
        statistics = [other for other in inputs if reading.kinds[other[0]] is Kind.STATISTIC]
        others = [reading.values.get(other) for other in inputs if other not in statistics]
        epsilon = all(value is not None and value.size == 1 for value in others)
        if node.op in ("Add", "AddV2", "Maximum", "Relu") and len(statistics) == 1 and epsilon:
            ref = statistics[0]
        elif (node.op in COPIES or node.op == "Cast") and reading.kinds[inputs[0][0]] is Kind.STATISTIC:
            ref = inputs[0]
        else:
            return ref


def _means(reading: Reading) -> list[str]:
    """Return what is left of reductions over the batch, each with the division or the shift that completes it."""
    readers = reading.net.consumers()
    found: dict[str, None] = {}
    for name in reading.reductions:
        last = name
        if reading.net.nodes[name].op == "Sum":
            last = _completed(reading, readers, name)
        found[last] = None
    return list(found)


def _completed(reading: Reading, readers: Mapping[str, list[tuple[str, int]]], name: str) -> str:
    """Follow a sum to the mean that is made of it: times 1/n, and plus the shift that was subtracted before."""
    last = name
    for ops in (("Mul", "RealDiv", "Div"), ("Add", "AddV2")):
        for reader, _ in readers.get(last, ()):
            node = reading.net.nodes[reader]
            others = [source for source, _ in data_inputs(node) if source != last]
            if node.op in ops and all(reading.kinds[other] is Kind.FREE for other in others):
                last = reader
                break
    return last


def _scaled_with(net: Net, name: str, roots: Iterable[str]) -> str | None:
    """Return the root with which a mean meets: both reach one multiplication or division, a few steps on."""
    readers = net.consumers()
    behind = {root: _few_steps(readers, root, net) for root in roots}
    own = _few_steps(readers, name, net)
    for root, reached in behind.items():
        if own & reached:
            return root
    return None


def _few_steps(readers: Mapping[str, list[tuple[str, int]]], start: str, net: Net) -> set[str]:
    found, edge = {start}, {start}
    for _ in range(6):
        edge = {
            reader
            for name in edge
            for reader, _ in readers.get(name, ())
            if net.nodes[reader].op in ("Mul", "RealDiv", "Div", "Sub", "Add", "AddV2", "Neg", *COPIES)
        } - found
        found |= edge
    return found


def _variables_near(net: Net, refs: Iterable[Ref]) -> list[str]:
    """Return the variables that belong to a batch norm: those that are read right there, as gamma and beta are."""
    found: dict[str, None] = {}
    readers = net.consumers()
    stack: list[tuple[str, int]] = [(name, 0) for name, _ in refs]
    while stack:
        name, depth = stack.pop(0)
        node: Any = net.nodes[name]
        if is_variable(node) or (node.op == "Const" and depth):
            found[name] = None
        elif node.op in ("Identity", "ReadVariableOp", "Cast"):
            stack.extend((source, depth + 1) for source, _ in data_inputs(node))
        if node.op in ("Rsqrt", "Sqrt", "Mul", "Sub") and depth < 3:
            for reader, _ in readers.get(name, ()):
                if net.nodes[reader].op in ("Mul", "RealDiv", "Sub", "Add", "AddV2"):
                    stack.append((reader, depth + 1))
                    stack.extend(
                        (source, depth + 1)
                        for source, _ in data_inputs(net.nodes[reader])
                        if net.nodes[source].op in ("Identity", "ReadVariableOp", "Const")
                    )
    return list(found)
