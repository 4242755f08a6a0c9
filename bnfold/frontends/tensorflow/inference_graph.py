"""A training program as a frozen graph in inference mode: mode inputs pinned, statistics moving, nothing random.

Everything happens on the graph's messages, in the order of this module's one public function. What is found is found by
what the graph computes, and each step says why it did what it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bnfold.errors import CorruptModelError, InferenceModeError
from bnfold.frontends.loaded import Array, ModeChange, Request, Runner
from bnfold.frontends.tensorflow.averaged_weights import account, averages, chosen
from bnfold.frontends.tensorflow.batch_statistics import with_moving_averages
from bnfold.frontends.tensorflow.bodies import LOOPS, with_plain_bodies
from bnfold.frontends.tensorflow.dropout import dropouts, is_random, random_nodes, without_dropout
from bnfold.frontends.tensorflow.functions import both_branches, without_calls
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.inputs import left_to_feed, with_inputs
from bnfold.frontends.tensorflow.mode_inputs import given_values, pin_switches
from bnfold.frontends.tensorflow.moments import FUSED, is_data_input
from bnfold.frontends.tensorflow.moving_variables import Search
from bnfold.frontends.tensorflow.net import (
    Net,
    Ref,
    Value,
    attribute,
    const_node,
    data_inputs,
    dtype_of,
    is_variable,
    node_of,
    value_of,
)
from bnfold.frontends.tensorflow.original import runner
from bnfold.frontends.tensorflow.outputs import named_tensors, predicted
from bnfold.frontends.tensorflow.prune import needed, pruned
from bnfold.frontends.tensorflow.reading import demand_harmless
from bnfold.frontends.tensorflow.stored import Stored
from bnfold.frontends.tensorflow.variables import frozen, stored_values

__all__ = ["Inference", "in_inference_mode"]

_THROUGH = frozenset({"Print", "CheckNumerics", "CheckNumericsV2", "PreventGradient", "EnsureShape"})
_LONGEST_LIST = 8


@dataclass(frozen=True, slots=True)
class Inference:
    """A graph in inference mode.

    Attributes:
        graph_def: The graph: frozen, cut to what the outputs need.
        inputs: The tensors to feed.
        outputs: The tensors to compute.
        changes: What was done, with the proofs.
        run: Runs the original program by tensor names.
        fed: The values of the mode inputs.
        faithful: Whether the program itself computes this, once its mode inputs are fed.
        own: Runs the program with nothing but its inputs fed; None where it is what ``run`` does, or cannot be run so.
        own_says: Why it cannot be run so; empty where it can.
    """

    graph_def: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    changes: tuple[ModeChange, ...]
    run: Runner
    fed: Mapping[Ref, Value]
    faithful: bool
    own: Runner | None = None
    own_says: str = ""


def in_inference_mode(net: Net, stored: Stored, request: Request, what: str) -> Inference:
    """Put a program in inference mode and freeze it.

    Args:
        net: The whole program, as it was read.
        stored: The values of its variables, and whatever else is stored with it.
        request: What the user named: inputs, outputs, values of mode inputs.
        what: What the program came in, for messages: ``"a frozen graph"``.

    Raises:
        SignatureError: If outputs or inputs are ambiguous or do not exist.
        InferenceModeError: If no value of a mode input means inference, moving statistics are missing, or random
            numbers are left.
        UnsupportedOpError: If an operation may do harm.
        CorruptModelError: If values or nodes are missing.
    """
    whole = without_calls(net)
    outputs = named_tensors(whole, request.outputs, "--outputs") if request.outputs else predicted(whole, what)
    whole = with_inputs(whole, outputs, request)
    updates = both_branches(whole)
    found = averages(updates, stored)
    stored = chosen(stored, found, request.ema)
    program = whole.cut(needed(whole, outputs))
    demand_harmless(program.graph_def())
    given = given_values(whole, request.set_values)
    scalars = _scalars(program, stored)
    switches = pin_switches(program, outputs, given, scalars)
    keeping, dropped = _pin_dropout(pruned(program, outputs, switches.pinned), switches.pinned)
    fed = {**switches.pinned, **keeping}
    looped, kept = _pin_in_bodies(pruned(program, outputs, fed), outputs)
    fed |= looped
    changes = [*switches.changes, *dropped, *kept]

    live = pruned(program, outputs, fed)
    live, faithful, removed = without_dropout(live)
    plain = with_plain_bodies(live.cut(needed(live, outputs)), outputs)
    live, faithful = plain.net, faithful and plain.faithful
    changes += [*removed, *plain.changes]
    live, averaged = with_moving_averages(live, outputs, Search(updates, stored))
    faithful = faithful and not averaged
    changes += averaged
    live = live.cut(needed(live, outputs))
    _demand_determined(live)
    variables = stored_values(live, stored)
    changes += account(variables, stored, found, request.ema)

    final = _settled(pruned(frozen(live, outputs, variables), outputs, {}))
    inputs = left_to_feed(final, request)
    graph_def = final.graph_def()
    demand_harmless(graph_def)
    names = tuple(f"{name}:{port}" for name, port in outputs)
    ends = _Ends(
        inputs={f"{name}:0": (name, 0) for name in inputs},
        outputs=dict(zip(names, outputs, strict=True)),
        fed=fed,
    )
    original = net.cut(needed(net, outputs)) if faithful and ends.are_in(net) else None
    run, changes = _run(original, live, stored, ends, changes)
    own, own_says = _as_it_is(net, stored, ends, faithful=faithful)
    fed_names = tuple(f"{name}:0" for name in inputs)
    return Inference(graph_def, fed_names, names, tuple(changes), run, fed, faithful, own, own_says)


def _scalars(net: Net, stored: Stored) -> dict[str, Value]:
    """Return the values of variables that hold a single number: some programs keep their mode in one."""
    found: dict[str, Value] = {}
    for node in net.nodes.values():
        if is_variable(node) and (name := stored.name_of(node.name)) is not None and not stored.shapes[name]:
            found[node.name] = np.asarray(stored.read(name))
    return found


def _pin_dropout(net: Net, pinned: Mapping[Ref, Value]) -> tuple[dict[Ref, Value], list[ModeChange]]:
    """Find the inputs that probabilities of dropout are computed from, and the values that keep everything."""
    found: dict[Ref, Value] = {}
    counts: dict[Ref, int] = {}
    for dropout in dropouts(net):
        if dropout.fed is None:
            continue
        leaf = _only_leaf(net, dropout.fed)
        if leaf is None or leaf in pinned:
            continue
        counts[leaf] = counts.get(leaf, 0) + 1
        node = net.nodes[leaf[0]]
        dtype = tensorflow().as_dtype(dtype_of(node)).as_numpy_dtype
        for number in (1.0, 0.0):
            trial = pruned(net, [dropout.result], {leaf: np.array(number, dtype)})
            if any(other.result == dropout.result and other.keep == 1 for other in dropouts(trial)):
                found.setdefault(leaf, np.array(number, dtype))
                break
    changes = [
        ModeChange(
            "dropout",
            leaf[0],
            f"{tensorflow().as_dtype(dtype_of(net.nodes[leaf[0]])).name} placeholder",
            str(value.item()),
            f"with this value {counts[leaf]} dropout{'s keep' if counts[leaf] != 1 else ' keeps'} every element",
        )
        for leaf, value in found.items()
    ]
    return found, changes


def _pin_in_bodies(net: Net, outputs: Sequence[Ref]) -> tuple[dict[Ref, Value], list[ModeChange]]:
    """Find the single numbers that loops carry to probabilities of dropout, and the values that keep everything."""
    found: dict[Ref, Value] = {}
    changes: list[ModeChange] = []
    before = len(with_plain_bodies(net, outputs).changes)
    loops = [node for node in net.nodes.values() if node.op in LOOPS] if before else []
    leaves = {leaf for node in loops for ref in data_inputs(node) if (leaf := _only_leaf(net, ref)) is not None}
    for leaf in sorted(leaves):
        node = net.nodes[leaf[0]]
        if is_data_input(node) or dtype_of(node) not in _FLOATS:
            continue
        dtype = tensorflow().as_dtype(dtype_of(node))
        for number in (1.0, 0.0):
            value = np.array(number, dtype.as_numpy_dtype)
            left = len(with_plain_bodies(pruned(net, outputs, {**found, leaf: value}), outputs).changes)
            if left < before:
                proof = f"with this value {before - left} of {before} dropouts in loops keep every element"
                changes.append(ModeChange("dropout", leaf[0], f"{dtype.name} placeholder", str(value.item()), proof))
                found[leaf], before = value, left
                break
    return found, changes


_FLOATS = frozenset({1, 2, 14, 19})


def _only_leaf(net: Net, ref: Ref) -> Ref | None:
    """Return the one placeholder that a tensor is computed from; None where there are several, or none."""
    leaves = [
        name
        for name in net.ancestors([ref[0]])
        if net.nodes[name].op in ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
    ]
    return (leaves[0], 0) if len(leaves) == 1 else None


def _demand_determined(net: Net) -> None:
    """Refuse what is left of training: random numbers anywhere, and batch statistics inside loops and branches."""
    left = list(random_nodes(net))
    training: list[str] = []
    for name in net.called():
        for node in net.library[name].node_def:
            left.extend([f"{name}/{node.name}"] if is_random(node) else [])
            training.extend([f"{name}/{node.name}"] if node.op in FUSED and attribute(node, "is_training").b else [])
    if training:
        raise InferenceModeError(
            f"{len(training)} batch norms in training mode are inside a loop or a branch: "
            f"{', '.join(training[:_LONGEST_LIST])}",
            hint="Pin the input that switches training off, for example: --set is_training=False",
        )
    if left:
        listed = ", ".join(left[:_LONGEST_LIST])
        raise InferenceModeError(
            f"{len(left)} random operation{'s are' if len(left) > 1 else ' is'} left "
            f"that no dropout explains: {listed}",
            hint="Name outputs in front of them, or pin the input that switches them off with --set name=value.",
        )


def _settled(net: Net) -> Net:
    """Return the net without what is there for training only.

    A placeholder with a default becomes a plain one, what only checks or prints a copy, and a statistic that lost its
    axes of size 1 a constant like any other.
    """
    result = net.copy()
    for name, node in net.nodes.items():
        if node.op == "PlaceholderWithDefault":
            placeholder = node_of("Placeholder", name, [], dtype=dtype_of(node))
            placeholder.attr["shape"].CopyFrom(attribute(node, "shape"))
            result.nodes[name] = placeholder
        elif node.op == "Squeeze" and (source := net.nodes[data_inputs(node)[0][0]]).op == "Const":
            axes = tuple(attribute(node, "squeeze_dims").list.i)
            value = value_of(source)
            result.nodes[name] = const_node(name, np.squeeze(value, axis=axes or None))
        elif node.op in _THROUGH:
            result.nodes[name] = node_of("Identity", name, data_inputs(node)[:1], T=dtype_of(node))
    return result


@dataclass(frozen=True, slots=True)
class _Ends:
    """What a runner feeds and computes: tensors by ONNX name, and mode inputs with their values."""

    inputs: Mapping[str, Ref]
    outputs: Mapping[str, Ref]
    fed: Mapping[Ref, Value]

    def are_in(self, net: Net) -> bool:
        return all(name in net.nodes for name, _ in (*self.inputs.values(), *self.outputs.values(), *self.fed))


def _run(
    original: Net | None, live: Net, stored: Stored, ends: _Ends, changes: list[ModeChange]
) -> tuple[Runner, list[ModeChange]]:
    """Return what runs the original program, and the changes, saying so where only the rewritten graph can be run."""
    reason = "the original has no inference path of its own"
    if original is not None:
        try:
            return _runner(original, stored, ends), changes
        except CorruptModelError as error:
            if not changes:
                raise
            reason = f"the original graph does not run any more ({str(error)[:120]})"
    note = f"{reason}: compared with this rewritten TensorFlow graph"
    said = [replace(change, proof=f"{change.proof}; {note}" if change.proof else note) for change in changes[-1:]]
    return _runner(live, stored, replace(ends, fed={})), [*changes[:-1], *said]


def _as_it_is(net: Net, stored: Stored, ends: _Ends, *, faithful: bool) -> tuple[Runner | None, str]:
    """Return what runs a program as it is, its mode inputs at their defaults; or why there is no such thing."""
    told = [
        f"{name}={value.item()}"
        for (name, _), value in ends.fed.items()
        if name in net.nodes and net.nodes[name].op in ("Placeholder", "PlaceholderV2")
    ]
    if told:
        then = "it is what was compared" if faithful else "it still trains"
        return None, f"its mode has to be fed; with {', '.join(told)} {then}"
    if faithful and not ends.fed:
        return None, ""
    if not ends.are_in(net):
        return None, "its graph was spelled out anew, and cannot be fed in the same places"

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = list(ends.outputs.values())
        return _runner(net.cut(needed(net, outputs)), stored, replace(ends, fed={}))(feeds)

    return run, ""


def _runner(net: Net, stored: Stored, ends: _Ends) -> Runner:
    values = stored_values(net, stored)
    return runner(net, inputs=ends.inputs, outputs=ends.outputs, fed=ends.fed, variables=values)
