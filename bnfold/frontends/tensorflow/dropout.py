"""Dropout in all the ways in which programs spell it, and other noise: found by its random numbers, gone in inference.

A mask is made of uniform random numbers and a probability: ``floor(u + keep)``, ``u >= rate`` or ``u < keep``. The mask
multiplies an activation, or chooses between it and zero, and the activation is divided by the probability to keep it,
before or after. Without the mask and the division the activation is what inference computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnfold.frontends.loaded import ModeChange
from bnfold.frontends.tensorflow.constants import values_of
from bnfold.frontends.tensorflow.net import Net, Ref, Value, data_inputs, dtype_of, node_of

__all__ = ["Dropout", "dropouts", "is_random", "random_nodes", "without_dropout"]

_COPIES = frozenset({"Identity", "StopGradient", "Cast", "Reshape", "Squeeze", "ExpandDims", "PreventGradient"})
_RANDOM = frozenset({"Multinomial", "ParameterizedTruncatedNormal", "TruncatedNormal", "SampleDistortedBoundingBox"})
_UNIFORM = frozenset(
    {"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2", "StatefulUniform", "StatefulRandomUniform"}
)
_NORMAL = frozenset(
    {
        "RandomStandardNormal",
        "TruncatedNormal",
        "StatelessRandomNormal",
        "StatelessRandomNormalV2",
        "StatelessTruncatedNormal",
        "StatelessTruncatedNormalV2",
        "StatefulStandardNormal",
        "StatefulStandardNormalV2",
    }
)


@dataclass(frozen=True, slots=True)
class Dropout:
    """One dropout, or noise, of a graph.

    Attributes:
        random: The node that draws the random numbers.
        result: The tensor that leaves it.
        source: The tensor that enters it: what the result is in inference mode.
        keep: The probability to keep an element; None where it is fed, 1 where nothing is dropped.
        fed: The tensor that the probability is computed from, where it is fed.
    """

    random: str
    result: Ref
    source: Ref
    keep: float | None
    fed: Ref | None = None


def is_random(node: Any) -> bool:
    """Return whether a node draws random numbers."""
    return (
        ("Random" in node.op and node.op not in ("RandomDataset", "RandomDatasetV2"))
        or node.op in _RANDOM
        or node.op in _NORMAL
        or node.op in _UNIFORM
        or node.op.endswith("CandidateSampler")
        or node.op.startswith(("StatelessMultinomial", "StatelessTruncated", "StatelessParameterized"))
    ) and not node.op.startswith(("StatelessRandomGet", "StatelessRandomCounter"))


def random_nodes(net: Net) -> tuple[str, ...]:
    """Return the nodes whose random numbers change what the net computes.

    A dropout that keeps everything is not among them: whatever it draws, its result is what enters it.
    """
    idle = {dropout.random for dropout in dropouts(net) if dropout.keep == 1}
    return tuple(name for name, node in net.nodes.items() if is_random(node) and name not in idle)


def dropouts(net: Net) -> tuple[Dropout, ...]:
    """Return the dropouts of a net, and noise of a constant size that is added or multiplied."""
    values = values_of(net, {})
    readers = net.consumers()
    found: list[Dropout] = []
    for name, node in net.nodes.items():
        if node.op in _UNIFORM:
            found.extend(_masked(net, name, readers, values))
        elif node.op in _NORMAL:
            found.extend(_noisy(net, name, readers, values))
    return tuple(found)


def without_dropout(net: Net) -> tuple[Net, bool, list[ModeChange]]:
    """Return the net with copies in the place of dropouts, and whether none of them would have dropped anything."""
    result = net.copy()
    changes: list[ModeChange] = []
    faithful = True
    for dropout in dropouts(net):
        node = net.nodes[dropout.result[0]]
        result.nodes[node.name] = node_of("Identity", node.name, [dropout.source], T=dtype_of(node))
        if dropout.keep != 1:
            faithful = False
            keeps = "an unknown part" if dropout.keep is None else f"{dropout.keep:.6g} of its elements"
            before = f"dropout that keeps {keeps}" if dropout.keep != 0 else "noise of a constant size"
            changes.append(ModeChange("dropout", node.name, before, "identity", f"{dropout.random} drew its numbers"))
    return result, faithful, changes


def _masked(
    net: Net, random: str, readers: Mapping[str, list[tuple[str, int]]], values: Mapping[Ref, Value]
) -> list[Dropout]:
    """Follow uniform numbers to the mask, and the mask to what it masks."""
    found: list[Dropout] = []
    # (node, what it is, the tensor of the probability, whether that is of keeping)
    stack: list[tuple[str, str, Ref | None, bool]] = [(random, "uniform", None, True)]
    seen: set[str] = set()
    while stack:
        name, state, chance, keeps = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        for reader, position in readers.get(name, ()):
            node = net.nodes[reader]
            inputs = data_inputs(node)
            other = inputs[1 - position] if len(inputs) == 2 else None
            if node.op in _COPIES:
                stack.extend([(reader, state, chance, keeps)] if position == 0 else [])
            elif state == "uniform" and other is not None:
                stack.extend(_mask_step(node, position, other, values))
            elif state == "shifted" and node.op == "Floor":
                stack.append((reader, "mask", chance, True))
            elif state == "mask" and chance is not None:
                result = _result(net, node, position, chance, keeps=keeps, readers=readers, values=values)
                if result is not None:
                    found.append(Dropout(random, *result))
    # A mask whose other readers are unknown must stay: a wrong guess is worse than a refusal.
    return found


def _mask_step(
    node: Any, position: int, other: Ref, values: Mapping[Ref, Value]
) -> list[tuple[str, str, Ref | None, bool]]:
    """Return what uniform numbers become in a node: themselves, numbers shifted by a probability, or a mask."""
    if node.op in ("Add", "AddV2", "Mul", "Sub") and _neutral(node.op, position, values.get(other)):
        return [(node.name, "uniform", None, True)]
    if node.op in ("Add", "AddV2"):
        return [(node.name, "shifted", other, True)]
    if node.op in ("GreaterEqual", "Greater", "Less", "LessEqual"):
        above = node.op.startswith("Greater") == (position == 0)
        return [(node.name, "mask", other, not above)]
    return []


def _neutral(op: str, position: int, value: Value | None) -> bool:
    """Return whether uniform numbers stay what they are: ``u * (1 - 0) + 0``."""
    number = _scalar(value)
    if number is None:
        return False
    return number == 1 if op == "Mul" else number == 0 and (op != "Sub" or position == 0)


def _scalar(value: Value | None) -> float | None:
    return float(value.item()) if value is not None and value.size == 1 and value.dtype.kind in "fiub" else None


def _result(
    net: Net,
    node: Any,
    position: int,
    chance: Ref,
    *,
    keeps: bool,
    readers: Mapping[str, list[tuple[str, int]]],
    values: Mapping[Ref, Value],
) -> tuple[Ref, Ref, float | None, Ref | None] | None:
    inputs = data_inputs(node)
    if node.op == "Mul":
        masked = inputs[1 - position]
    elif node.op in ("Select", "SelectV2") and position == 0:
        zero = values.get(inputs[2])
        if not (zero is not None and not np.any(zero)) and net.nodes[inputs[2][0]].op not in ("ZerosLike", "Fill"):
            return None
        masked = inputs[1]
    else:
        return None
    number = _scalar(values.get(chance))
    keep = None if number is None else number if keeps else 1 - number
    fed = None if keep is not None else chance
    result: Ref = (node.name, 0)
    source = _unscaled(net, masked, chance, keep, keeps=keeps, values=values)
    if source is not None:
        return result, source, keep, fed
    for reader, _ in readers.get(node.name, ()):
        if _unscaled(net, (reader, 0), chance, keep, keeps=keeps, values=values) == result:
            return (reader, 0), masked, keep, fed
    if keep == 1:
        return result, masked, keep, fed
    return None


def _unscaled(
    net: Net, ref: Ref, chance: Ref, keep: float | None, *, keeps: bool, values: Mapping[Ref, Value]
) -> Ref | None:
    """Return what was divided by the probability to keep; None where it was not."""
    node = net.nodes[ref[0]]
    inputs = data_inputs(node)
    if node.op in ("RealDiv", "Div", "Mul") and len(inputs) == 2:
        for position in (0, 1) if node.op == "Mul" else (1,):
            by = inputs[position]
            number = _scalar(values.get(by))
            if number is not None and keep:
                factor = number if node.op == "Mul" else 1 / number if number else np.inf
                if abs(factor * keep - 1) <= 1e-5:
                    return inputs[1 - position]
            elif keep is None and _tells_keep(net, by, chance, keeps=keeps, inverse=node.op == "Mul"):
                return inputs[1 - position]
    return None


def _tells_keep(net: Net, ref: Ref, chance: Ref, *, keeps: bool, inverse: bool) -> bool:
    """Return whether a fed scalar is the probability to keep, or its inverse: by the arithmetic at two points."""
    for number in (0.25, 0.625):
        keep = number if keeps else 1 - number
        values = values_of(net.cut(net.ancestors([ref[0]], stop=[chance[0]])), {chance: np.array(number)})
        got = _scalar(values.get(ref))
        if got is None or abs(got * (keep if inverse else 1 / keep) - 1) > 1e-6:
            return False
    return True


def _noisy(
    net: Net, random: str, readers: Mapping[str, list[tuple[str, int]]], values: Mapping[Ref, Value]
) -> list[Dropout]:
    """Follow normal numbers of a constant size to where they are added to an activation, or multiply it around 1."""
    found: list[Dropout] = []
    stack: list[tuple[str, float]] = [(random, 0.0)]
    while stack:
        name, mean = stack.pop()
        for reader, position in readers.get(name, ()):
            node = net.nodes[reader]
            inputs = data_inputs(node)
            if node.op in _COPIES:
                stack.append((reader, mean))
            elif len(inputs) == 2:
                other = inputs[1 - position]
                number = _scalar(values.get(other))
                if node.op == "Mul" and number is not None:
                    stack.append((reader, mean * number))
                elif node.op in ("Add", "AddV2") and number is not None:
                    stack.append((reader, mean + number))
                elif (node.op == "Mul" and mean == 1) or (node.op in ("Add", "AddV2") and mean == 0):
                    found.append(Dropout(random, (reader, 0), other, 0.0))
    return found
