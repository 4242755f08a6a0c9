"""What is left of a graph once some of its tensors are known: dead branches go, the living ones are spelled out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bnfold.errors import InferenceModeError
from bnfold.frontends.tensorflow.blends import without_zeros
from bnfold.frontends.tensorflow.constants import values_of
from bnfold.frontends.tensorflow.functions import BRANCHES, branch_of, spell_out
from bnfold.frontends.tensorflow.net import (
    Net,
    Ref,
    Value,
    const_node,
    control_inputs,
    data_inputs,
    dtype_of,
    node_of,
)

__all__ = ["MERGES", "SWITCHES", "needed", "pruned"]

SWITCHES = frozenset({"Switch", "RefSwitch"})
MERGES = frozenset({"Merge", "RefMerge"})
_ROUNDS = 64
_ENTERS = frozenset({"Enter", "RefEnter"})
_ITERATIONS = frozenset({"NextIteration", "RefNextIteration"})
_PIVOTS = frozenset({"Identity", "RefIdentity", "LoopCond", *_ITERATIONS})


def pruned(net: Net, outputs: Iterable[Ref], pinned: Mapping[Ref, Value]) -> Net:
    """Return what some outputs need when some tensors have known values.

    Pinned tensors become constants. A Switch whose predicate is known lets one side live; a Merge with one living input
    is that input; an If is the branch that runs; what is multiplied by 0 goes where it is added. Updates of variables
    that the outputs only wait for are left out: a network in inference mode updates nothing. All nodes that stay keep
    their names, and so do the outputs.

    Raises:
        InferenceModeError: If an output lies in a branch that never runs.
    """
    outputs = list(outputs)
    net = _with_constants(net, pinned)
    for _ in range(_ROUNDS):
        net, again = _one_round(net, outputs)
        if not again:
            break
    return net.cut(needed(net, outputs))


def needed(net: Net, outputs: Iterable[Ref]) -> set[str]:
    """Return the names of the nodes that outputs need.

    Of the control edges only those count that tell when a node is alive: behind a Switch or in a loop.
    """
    pivots = _pivots(net)
    found: set[str] = set()
    stack = [name for name, _ in outputs]
    while stack:
        name = stack.pop()
        if name in found or name not in net.nodes:
            continue
        found.add(name)
        node = net.nodes[name]
        stack.extend(source for source, _ in data_inputs(node))
        stack.extend(source for source in control_inputs(node) if source in pivots)
    return found


def _pivots(net: Net) -> set[str]:
    """Return the nodes that constants of a branch or a loop wait for, to live only when that does."""
    found = {name for name, node in net.nodes.items() if node.op in SWITCHES or node.op in _ENTERS}
    if not found:
        return found
    for name, node in net.nodes.items():
        sources = [source for source, _ in data_inputs(node)]
        if (node.op in _PIVOTS and any(net.nodes[source].op in SWITCHES | _ENTERS | MERGES for source in sources)) or (
            node.op in MERGES and any(net.nodes[source].op in _ITERATIONS for source in sources)
        ):
            found.add(name)
    return found


def _with_constants(net: Net, pinned: Mapping[Ref, Value]) -> Net:
    result = net.copy()
    aliases: dict[Ref, Ref] = {}
    for (name, port), value in pinned.items():
        node = result.nodes[name]
        if port == 0:
            result.nodes[name] = const_node(name, value, dtype_of(node) or None)
        else:
            new = f"{name}/pinned_{port}"
            result.nodes[new] = const_node(new, value)
            aliases[name, port] = (new, 0)
    return result.rewired(aliases)


def _one_round(net: Net, outputs: list[Ref]) -> tuple[Net, bool]:
    net = net.cut(needed(net, outputs))
    values = values_of(net, {})
    again = False
    dead: set[Ref] = set()
    dead_nodes: set[str] = set()
    aliases: dict[Ref, Ref] = {}
    added = net.copy()
    order = net.sorted()
    for name in order:
        node = net.nodes[name]
        inputs = data_inputs(node)
        if node.op in MERGES:
            living = [ref for ref in inputs if ref not in dead and ref[0] not in dead_nodes]
            if not living:
                dead_nodes.add(name)
            elif len(living) < len(inputs):
                _join(added, node, living, aliases)
                again = True
            continue
        if any(ref in dead or ref[0] in dead_nodes for ref in inputs) or any(
            source in dead_nodes for source in control_inputs(node)
        ):
            dead_nodes.add(name)
            continue
        if node.op in SWITCHES and (predicate := values.get(inputs[1])) is not None and predicate.size == 1:
            chosen = int(bool(predicate.item()))
            dead.add((name, 1 - chosen))
            aliases[name, chosen] = inputs[0]
            again = True
        elif node.op in BRANCHES and (predicate := values.get(inputs[0])) is not None and predicate.size == 1:
            chosen = int(bool(predicate.item())) if node.op.endswith("If") else int(predicate.item())
            called, prefix = branch_of(node, chosen)
            aliases.update(spell_out(added, node, called, prefix, skip=1))
            again = True
        elif node.op in ("Select", "SelectV2") and (predicate := values.get(inputs[0])) is not None:
            alias = _selected(node, predicate, values)
            if alias is not None:
                aliases[name, 0] = alias
                again = True
    _demand_living(outputs, dead, dead_nodes)
    if not again:
        aliases = without_zeros(net, order, values)
    if not aliases and not again:
        return net, False
    return _applied(added, outputs, aliases, dead_nodes), True


def _demand_living(outputs: list[Ref], dead: set[Ref], dead_nodes: set[str]) -> None:
    for name, port in outputs:
        if name in dead_nodes or (name, port) in dead:
            raise InferenceModeError(
                f"the output {name}:{port} is only computed in training mode",
                hint="Name an output that the network computes in inference mode, for example: --outputs logits:0",
            )


def _join(net: Net, node: Any, living: list[Ref], aliases: dict[Ref, Ref]) -> None:
    """Make a Merge one of its living inputs alone; with a single one, its readers read that."""
    if len(living) > 1:
        merge = node_of(node.op, node.name, living, T=dtype_of(node))
        merge.attr["N"].i = len(living)
        net.nodes[node.name] = merge
        return
    index = const_node(f"{node.name}/index", np.array(data_inputs(node).index(living[0]), np.int32))
    net.nodes[index.name] = index
    aliases[node.name, 0] = living[0]
    aliases[node.name, 1] = (index.name, 0)
    del net.nodes[node.name]


def _selected(node: Any, predicate: Value, values: Mapping[Ref, Value]) -> Ref | None:
    """Return what a Select with a known scalar predicate chooses, unless that would lose the other's larger shape."""
    if predicate.size != 1 or predicate.ndim:
        return None
    _, yes, no = data_inputs(node)
    chosen = yes if bool(predicate.item()) else no
    value = values.get(chosen)
    if node.op == "SelectV2" and value is not None and value.size == 1:
        return None
    return chosen


def _applied(net: Net, outputs: list[Ref], aliases: dict[Ref, Ref], dead: set[str]) -> Net:
    rewired = net.rewired(aliases)
    for name in dead:
        rewired.nodes.pop(name, None)
    # An output keeps its name, as a copy of what it has become.
    ports: dict[str, int] = {}
    for name, port in outputs:
        if (name, port) in aliases:
            ports[name] = max(port, ports.get(name, 0))
    for name, last in ports.items():
        sources = [_end(aliases.get((name, port), aliases[name, last]), aliases) for port in range(last + 1)]
        types = [dtype_of(net.nodes[source], port) for source, port in sources]
        copy = node_of("IdentityN" if last else "Identity", name, sources)
        if last:
            copy.attr["T"].list.type.extend(types)
        else:
            copy.attr["T"].type = types[0]
        rewired.nodes[name] = copy
    return rewired.cut(rewired.nodes)


def _end(ref: Ref, aliases: Mapping[Ref, Ref]) -> Ref:
    while ref in aliases:
        ref = aliases[ref]
    return ref
