"""The inputs that switch a graph between training and inference, and the proof of which value means which."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnfold.errors import InferenceModeError, SignatureError
from bnfold.frontends.loaded import ModeChange
from bnfold.frontends.tensorflow.blends import weights
from bnfold.frontends.tensorflow.dropout import random_nodes
from bnfold.frontends.tensorflow.functions import BRANCHES
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.moments import is_data_input, training_nodes
from bnfold.frontends.tensorflow.net import (
    TEXT,
    Net,
    Ref,
    Value,
    attribute,
    data_inputs,
    dtype_of,
    is_variable,
    node_of,
    ref_of,
    small_value,
)
from bnfold.frontends.tensorflow.prune import SWITCHES, needed, pruned

__all__ = ["Switches", "deciders", "given_values", "pin_switches", "shown"]

_LOGIC = frozenset(
    {
        "Identity",
        "RefIdentity",
        "StopGradient",
        "Snapshot",
        "LogicalNot",
        "LogicalAnd",
        "LogicalOr",
        "Cast",
        "Equal",
        "NotEqual",
        "Greater",
        "GreaterEqual",
        "Less",
        "LessEqual",
        "Squeeze",
        "Reshape",
        "ExpandDims",
        "Pack",
        "Add",
        "AddV2",
        "Sub",
        "Mul",
    }
)
_PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
_TRAINS = re.compile(r"train|learning_phase|phase", re.IGNORECASE)
_INFERS = re.compile(r"test|infer|eval|predict|deploy", re.IGNORECASE)
_MOST_VALUES = 8


@dataclass(frozen=True, slots=True)
class Switches:
    """What was pinned.

    Attributes:
        pinned: Values by tensor.
        changes: One entry for each, with the proof.
    """

    pinned: Mapping[Ref, Value]
    changes: tuple[ModeChange, ...]


@dataclass(frozen=True, slots=True)
class _Trial:
    value: Value
    statistics: tuple[str, ...]
    random: tuple[str, ...]
    possible: bool = True

    @property
    def left(self) -> int:
        return len(self.statistics) + len(self.random)


def given_values(net: Net, set_values: Mapping[str, str]) -> Switches:
    """Return the values that the user gave to mode inputs.

    Raises:
        SignatureError: If there is no such tensor, or the text is no value of its type.
    """
    pinned: dict[Ref, Value] = {}
    changes: list[ModeChange] = []
    for text, value in set_values.items():
        ref = ref_of(text)
        node = net.nodes.get(ref[0])
        if node is None:
            raise SignatureError(
                f"--set names {text}, which is not in the graph; its placeholders are {_placeholders(net)}",
                hint="Name a tensor of the graph, for example: --set is_training=False",
            )
        pinned[ref] = _parsed(text, value, dtype_of(node, ref[1]))
        changes.append(ModeChange("switch", text, _described(node), shown(pinned[ref]), "set by the user"))
    return Switches(pinned, tuple(changes))


def _placeholders(net: Net) -> str:
    names = [node.name for node in net.nodes.values() if node.op in _PLACEHOLDERS]
    return ", ".join(sorted(names)) or "none"


def _parsed(name: str, text: str, dtype: int) -> Value:
    if dtype == TEXT:
        return np.array(text.encode(), object)
    wanted = tensorflow().as_dtype(dtype or 1).as_numpy_dtype
    words = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
    try:
        return np.array(words.get(text.strip().lower()) if text.strip().lower() in words else float(text)).astype(
            wanted
        )
    except ValueError:
        raise SignatureError(
            f"--set gives {name} the value {text!r}, which is neither a number nor True or False",
            hint=f"Give it a value of its type, for example: --set {name}=False",
        ) from None


def pin_switches(net: Net, outputs: Sequence[Ref], given: Switches, values: Mapping[str, Value]) -> Switches:
    """Find the mode inputs that outputs depend on, and the value of each that means inference.

    A mode input is a scalar that, through logic and comparisons, decides a Switch, an If or a Select, or that weighs a
    term of a sum. Every value that can make a difference is tried: the graph is pruned, and batch statistics and random
    numbers that are left are counted. The value that leaves less is inference, whatever the input is called. Where all
    values leave the same, the input is no mode input, unless it decides something and its name says so.

    Args:
        net: The graph, without calls of functions.
        outputs: The tensors to compute.
        given: What the user pinned; it is not tried.
        values: Values of scalar variables by name.

    Raises:
        InferenceModeError: If values leave different things, and none leaves less.
    """
    pinned = dict(given.pinned)
    changes = list(given.changes)
    settled: set[str] = {name for name, _ in pinned}
    # What someone feeds decides first; then what is written in the graph, which may have been written for training.
    for tried in (net, _opened(net, outputs)):
        while (name := _next(pruned(tried, outputs, pinned), settled)) is not None:
            settled.add(name)
            current = pruned(tried, outputs, pinned)
            node = net.nodes.get(name) or current.nodes[name]
            trials = [_try(tried, outputs, pinned, name, value) for value in _values(current, node)]
            default = _default(current, node, values)
            chosen, proof = _chosen(node, [trial for trial in trials if trial.possible], default)
            if chosen is None or (name not in _deciding_leaves(current) and len({trial.left for trial in trials}) == 1):
                continue
            pinned[name, 0] = chosen
            if default is None or node.op == "PlaceholderWithDefault" or default.item() != chosen.item():
                changes.append(ModeChange("switch", name, _described(node, default), shown(chosen), proof))
    return Switches(pinned, tuple(changes))


def _next(net: Net, settled: Collection[str]) -> str | None:
    return next((name for name in _candidates(net) if name not in settled), None)


def _opened(net: Net, outputs: Sequence[Ref]) -> Net:
    """Return the net with placeholders for constants that decide by themselves, so that they can be tried too."""
    result = net.copy()
    for name in _candidates(net.cut(needed(net, outputs))):
        if net.nodes[name].op == "Const":
            result.nodes[name] = node_of("Placeholder", name, [], dtype=_BOOL)
    return result


def deciders(net: Net) -> Iterator[list[str]]:
    """Yield, for every switch, branch and selection that scalars alone decide, the nodes that bring these scalars."""
    for node in net.nodes.values():
        if node.op in SWITCHES:
            predicate = data_inputs(node)[1]
        elif node.op in BRANCHES or node.op in ("Select", "SelectV2"):
            predicate = data_inputs(node)[0]
        else:
            continue
        leaves = _leaves(net, predicate)
        if leaves:
            yield leaves


def _candidates(net: Net) -> list[str]:
    """Return what may be a mode, placeholders first, in the graph's order.

    These are the leaves of all predicates that nothing else decides, and what is fed and weighs a term of a sum: it may
    blend one mode with the other.
    """
    found = _deciding_leaves(net)
    for weight in weights(net):
        leaves = _leaves(net, weight) or []
        if len(leaves) == 1 and _is_single(net.nodes[leaves[0]]):
            found.setdefault(leaves[0])
    order = {"Placeholder": 0, "PlaceholderV2": 0, "PlaceholderWithDefault": 1}
    return sorted(found, key=lambda name: order.get(net.nodes[name].op, 2))


def _deciding_leaves(net: Net) -> dict[str, None]:
    return dict.fromkeys(leaf for leaves in deciders(net) for leaf in leaves)


def _is_single(node: Any) -> bool:
    """Return whether a node is a placeholder for one number or flag, by what it says itself."""
    shape = attribute(node, "shape").shape
    known = "shape" in node.attr and not shape.unknown_rank
    return node.op in _PLACEHOLDERS and (known or dtype_of(node) == _BOOL or bool(_TRAINS.search(node.name)))


def _leaves(net: Net, predicate: Ref) -> list[str] | None:
    """Return what a predicate is computed from; None where more than scalars that someone chooses decides it."""
    found: dict[str, None] = {}
    stack, seen = [predicate[0]], {predicate[0]}
    while stack:
        node = net.nodes[stack.pop()]
        if node.op in _PLACEHOLDERS:
            if attribute(node, "shape").shape.dim or dtype_of(node) not in _SCALAR_TYPES:
                return None
            found[node.name] = None
        elif node.op in _READS or is_variable(node) or node.op == "Const":
            found[node.name] = None
        elif node.op in _LOGIC or node.op in SWITCHES:
            # What passes a Switch is its first input; the predicate of that Switch is looked at in its own turn.
            sources = data_inputs(node)[: 1 if node.op in SWITCHES else None]
            for source, _ in sources:
                if source not in seen:
                    seen.add(source)
                    stack.append(source)
        else:
            return None
    return _deciding(net, list(found))


_READS = frozenset({"ReadVariableOp", "VariableV2", "Variable"})
_SCALAR_TYPES = frozenset({1, 2, 3, 4, 5, 6, TEXT, 9, 10, 14, 19, 22, 23})
"""Floating point numbers, integers, texts, and bool (10), by TensorFlow's numbers."""


def _deciding(net: Net, leaves: list[str]) -> list[str]:
    """Return the leaves that may be mode inputs: constants only count where nothing else decides, and only as bools."""
    chosen = [name for name in leaves if net.nodes[name].op != "Const"]
    if chosen:
        return chosen
    return [name for name in leaves if dtype_of(net.nodes[name]) == _BOOL]


_BOOL = 10


def _values(net: Net, node: Any) -> list[Value]:
    """Return the values that can make a difference: both bools, or numbers around those that it is compared with.

    Texts are those that the graph compares texts with, the likely ones first, and the empty one.
    """
    dtype = dtype_of(node)
    if dtype == _BOOL:
        return [np.array(value) for value in (True, False)]
    compared = [
        value
        for other in net.nodes.values()
        if other.op in ("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual")
        for name, _ in data_inputs(other)
        if (value := small_value(net.nodes[name])) is not None and value.size == 1
    ]
    if dtype == TEXT:
        texts = dict.fromkeys(value.item() for value in compared if value.dtype == object)
        return [np.array(text, object) for text in sorted([*texts, b""], key=_likely)[:_MOST_VALUES]]
    numbers = {0.0, 1.0}
    for value in compared:
        if value.dtype.kind in "iuf":
            number = float(value.item())
            numbers |= {number, number - 1, number + 1}
    wanted = tensorflow().as_dtype(dtype).as_numpy_dtype
    ordered = sorted(numbers, key=lambda number: (number not in (0.0, 1.0), abs(number)))[:_MOST_VALUES]
    return [np.array(number).astype(wanted) for number in ordered if number >= 0 or np.dtype(wanted).kind != "u"]


def _likely(text: bytes) -> int:
    """Return how little a text looks like the name of what is not training."""
    plain = text.decode(errors="replace")
    return 0 if _INFERS.search(plain) else 3 if _TRAINS.search(plain) else 2 if not text else 1


def shown(value: Value) -> str:
    """Return a single value as people read it."""
    single = value.item()
    return single.decode(errors="replace") if isinstance(single, bytes) else str(single)


def _try(net: Net, outputs: Sequence[Ref], pinned: Mapping[Ref, Value], name: str, value: Value) -> _Trial:
    before = any(is_data_input(node) for node in pruned(net, outputs, pinned).nodes.values())
    try:
        left = pruned(net, outputs, {**pinned, (name, 0): value})
    except InferenceModeError:
        return _Trial(value, (), (), possible=False)
    if before and not any(is_data_input(node) for node in left.nodes.values()):
        # What remains computes nothing from any input: this was the input, not a mode.
        return _Trial(value, (), (), possible=False)
    return _Trial(value, training_nodes(left), random_nodes(left))


def _default(net: Net, node: Any, values: Mapping[str, Value]) -> Value | None:
    """Return the value that a leaf has by itself; None for a placeholder."""
    if node.op == "Const":
        return small_value(node)
    if node.op == "ReadVariableOp":
        return values.get(data_inputs(node)[0][0])
    if is_variable(node):
        return values.get(node.name)
    if node.op == "PlaceholderWithDefault":
        source = net.nodes[data_inputs(node)[0][0]]
        while source.op == "Identity":
            source = net.nodes[data_inputs(source)[0][0]]
        return small_value(source)
    return None


def _chosen(node: Any, trials: Sequence[_Trial], default: Value | None) -> tuple[Value | None, str]:
    if not trials:
        return None, ""
    fewest = min(trial.left for trial in trials)
    best = [trial for trial in trials if trial.left == fewest]
    if any(trial.left > fewest for trial in trials):
        usual = [trial for trial in best if default is not None and trial.value.item() == default.item()]
        return (usual or best)[0].value, _proof(trials)
    by_default = default is not None
    kind = dtype_of(node) == _BOOL
    named = _by_name(node.name, trials) if kind or _TRAINS.search(node.name) else None
    if named is not None and not (by_default and node.op == "Const"):
        return named, f"{_proof(trials)}; its name decides"
    if fewest and len({(trial.statistics, trial.random) for trial in trials}) > 1 and not by_default:
        raise InferenceModeError(
            f"no value of {node.name} puts the network in inference mode: {_proof(trials)}",
            hint=f"Say which value means inference, for example: --set {node.name}=False",
        )
    return default, f"{_proof(trials)}; its default stays" if by_default else ""


def _by_name(name: str, trials: Iterable[_Trial]) -> Value | None:
    last = name.rpartition("/")[2]
    wanted = 0 if _TRAINS.search(last) and not _INFERS.search(last) else 1 if _INFERS.search(last) else None
    for trial in trials:
        if wanted is not None and trial.value.dtype != object and float(trial.value.item()) == wanted:
            return trial.value
    return None


def _proof(trials: Iterable[_Trial]) -> str:
    """Say what each value leaves: ``True leaves 12 batch-statistics nodes, False leaves 0``."""
    said: list[str] = []
    for trial in trials:
        parts = [f"{len(trial.statistics)} batch-statistics node{'s' if len(trial.statistics) != 1 else ''}"]
        if trial.random:
            parts.append(f"{len(trial.random)} random one{'s' if len(trial.random) != 1 else ''}")
        if not trial.statistics and trial.random:
            parts = [f"{len(trial.random)} random node{'s' if len(trial.random) != 1 else ''}"]
        said.append(f"{shown(trial.value) or 'no text'} leaves {' and '.join(parts) if trial.left else '0'}")
    return ", ".join(said)


def _described(node: Any, default: Value | None = None) -> str:
    kind = tensorflow().as_dtype(dtype_of(node) or 1).name
    if node.op in ("Placeholder", "PlaceholderV2"):
        return f"{kind} placeholder"
    if default is not None:
        where = "placeholder, by default" if node.op == "PlaceholderWithDefault" else "constant"
        if node.op in _READS:
            where = "variable with the value"
        return f"{kind} {where} {shown(default)}"
    return f"{kind} {node.op}"
