"""Batch norms that are left in training mode get the moving averages that training kept for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bnfold.errors import InferenceModeError
from bnfold.frontends.loaded import ModeChange
from bnfold.frontends.tensorflow.moments import COPIES, Kind, Reading, read
from bnfold.frontends.tensorflow.moving_variables import Found, Search
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
    shapes = reading.shapes or shapes_of(net)
    missing: list[str] = []
    changes: list[ModeChange] = []
    net = net.copy()
    for name in reading.fused:
        _flip(net, name, search, shapes, changes, missing)
    for root in reading.roots:
        _replace(net, _variance(reading, root), root, search, shapes, changes, missing, variance=True)
    net = net.cut(needed(net, outputs))
    # With the variances constant, what is left of the statistics are the means.
    rest = read(net)
    roots = {root for root in reading.roots if root in net.nodes}
    for name in _means(rest):
        near = _scaled_with(rest.net, name, roots)
        if near is not None:
            _replace(net, (name, 0), near, search, shapes, changes, missing, variance=False)
    if missing:
        raise _no_averages(missing)
    return net.cut(needed(net, outputs)), tuple(changes)


def _no_averages(missing: Sequence[str]) -> InferenceModeError:
    listed = "; ".join(missing[:_LONGEST_LIST])
    more = len(missing) - _LONGEST_LIST
    return InferenceModeError(
        f"{len(missing)} batch statistics have no moving average: {listed}"
        + (f"; and {more} more" if more > 0 else ""),
        hint="Measure the statistics on samples of the training set: bnfold recalibrate, with --samples",
    )


def _flip(
    net: Net, name: str, search: Search, shapes: Mapping[Ref, Shape], changes: list[ModeChange], missing: list[str]
) -> None:
    """Set a fused batch norm to inference, with the averages wired to it, or found by its second and third outputs."""
    node = type(net.nodes[name])()
    node.CopyFrom(net.nodes[name])
    inputs = data_inputs(node)
    channels = _channels(inputs[1], shapes)
    wired = [ref for ref in inputs[3:5] if channels and _channels(ref, shapes) == channels]
    proof = "inputs 3 and 4 are variables of the right size"
    if len(wired) < 2 or not all(_is_stored(net, ref) for ref in wired):
        parts: list[str] = []
        for port, variance in ((1, False), (2, True)):
            scopes = [name, *_variables_near(net, inputs[1:3])]
            found = search.find([(name, port)], scopes, variance=variance, channels=channels or -1)
            if isinstance(found, str):
                missing.append(f"{name}: {found}")
                return
            constant = f"{name}/{'variance' if variance else 'mean'}"
            net.nodes[constant] = const_node(
                constant, np.ravel(found.value), dtype_of(net.nodes[inputs[2][0]], 0) or None
            )
            inputs[3 if not variance else 4] = (constant, 0)
            parts.append(f"{found.name}, {found.how}")
        proof = "; ".join(parts)
        node.input[3:5] = [inputs[3][0], inputs[4][0]]
    node.attr["is_training"].b = False
    net.nodes[name] = node
    changes.append(ModeChange("statistics", name, "statistics of the batch", "moving averages", proof))


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
        if node.op in ("Add", "AddV2", "Maximum", "Relu") and len(statistics) == 1:
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


def _replace(
    net: Net,
    ref: Ref,
    root: str,
    search: Search,
    shapes: Mapping[Ref, Shape],
    changes: list[ModeChange],
    missing: list[str],
    *,
    variance: bool,
) -> None:
    """Put the moving average in the place of a statistic, in the statistic's own shape."""
    name = ref[0]
    shape = shapes.get(ref)
    if name not in net.nodes or net.nodes[name].op == "Const":
        return
    if shape is None or any(size is None for size in shape):
        missing.append(f"{name}: its shape is not known")
        return
    channels = int(np.prod([size or 0 for size in shape]))
    scopes = [name, *_variables_near(net, [(root, 0)])]
    found: Found | str = search.find([ref], scopes, variance=variance, channels=channels)
    if isinstance(found, str):
        missing.append(f"{name}: {found}")
        return
    value: Value = np.reshape(found.value, [size or 0 for size in shape])
    net.nodes[name] = const_node(name, value, dtype_of(net.nodes[name]) or None)
    before = "variance of the batch" if variance else "mean of the batch"
    changes.append(ModeChange("statistics", name, before, found.name, found.how))


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
