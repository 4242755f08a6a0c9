"""Modes that are numbers: ``mode·batch + (1 − mode)·moving``, and noise that a mode multiplies.

Such a program has no branch to take. What a mode that is 0 multiplies is 0, and what it was added to is what remains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from bnfold.frontends.tensorflow.net import Net, Ref, Value, data_inputs
from bnfold.frontends.tensorflow.shapes import Shape, shapes_of

__all__ = ["weights", "without_zeros"]

_SUMS = frozenset({"Add", "AddV2", "Sub"})
_COPIES = frozenset({"Identity", "StopGradient", "Neg", "Cast"})


def weights(net: Net) -> Iterator[Ref]:
    """Yield what multiplies a term of a sum: each may be a mode, if it turns out to be a single number."""
    readers = net.consumers()
    for node in net.nodes.values():
        if node.op == "Mul" and any(net.nodes[reader].op in _SUMS for reader, _ in readers.get(node.name, ())):
            yield from data_inputs(node)


def without_zeros(net: Net, order: list[str], values: Mapping[Ref, Value]) -> dict[Ref, Ref]:
    """Return, for sums with a term that is 0 throughout, the term that remains.

    A sum stays where its shape is not known to be that of the term: 0 may have more axes than what it is added to.

    Args:
        net: The graph.
        order: Its nodes, each behind those that it reads.
        values: What is known of its small tensors.
    """
    zeros: set[Ref] = set()
    sums: list[str] = []

    def is_zero(ref: Ref) -> bool:
        value = values.get(ref)
        return ref in zeros or (value is not None and value.dtype.kind in "iuf" and not np.any(value))

    for name in order:
        node = net.nodes[name]
        if (name, 0) in values:
            continue
        inputs = data_inputs(node)
        if node.op == "Mul":
            zero = any(map(is_zero, inputs))
        elif node.op in _SUMS:
            known = [is_zero(ref) for ref in inputs]
            zero = all(known)
            if any(known) and not zero and (node.op != "Sub" or known[1]):
                sums.append(name)
        else:
            zero = node.op in _COPIES and is_zero(inputs[0])
        if zero:
            zeros.add((name, 0))
    return _remaining(net, sums, is_zero) if sums else {}


def _remaining(net: Net, sums: list[str], is_zero: Callable[[Ref], bool]) -> dict[Ref, Ref]:
    shapes = shapes_of(net)
    found: dict[Ref, Ref] = {}
    for name in sums:
        inputs = data_inputs(net.nodes[name])
        (zero,) = [ref for ref in inputs if is_zero(ref)]
        (term,) = [ref for ref in inputs if not is_zero(ref)]
        if _fits(shapes.get(zero), shapes.get(term)):
            found[name, 0] = term
    return found


def _fits(small: Shape | None, large: Shape | None) -> bool:
    """Return whether adding 0 of one shape leaves another shape as it is."""
    if small is None or large is None or len(small) > len(large):
        return False
    return all(one in (1, other) for one, other in zip(reversed(small), reversed(large), strict=False))
