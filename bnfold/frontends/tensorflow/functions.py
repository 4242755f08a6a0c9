"""The functions of a graph, spelled out as nodes: calls always, branches when it is known which one runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnfold.errors import CorruptModelError, UnsupportedOpError
from bnfold.frontends.tensorflow.net import Net, Ref, attribute, data_inputs, node_of, output_names, ref_of

__all__ = ["BRANCHES", "MOST_NODES", "both_branches", "branch_of", "spell_out", "too_many_nodes", "without_calls"]

BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
MOST_NODES = 500_000
"""Nodes that a graph may have once its functions are spelled out."""
_DEEPEST = 64


def without_calls(net: Net) -> Net:
    """Return the net with the calls of its functions spelled out; branches and loops stay.

    Raises:
        UnsupportedOpError: If functions call each other without end.
    """
    result = net.copy()
    aliases: dict[Ref, Ref] = {}
    for _ in range(_DEEPEST):
        calls = [node for node in result.nodes.values() if node.op in _CALLS or node.op in result.library]
        if not calls:
            return result.rewired(aliases)
        for node in calls:
            called = attribute(node, "f").func.name if node.op in _CALLS else node.op
            aliases.update(spell_out(result, node, called, f"{node.name}/", caller=attribute(node, "f").func.attr))
            del result.nodes[node.name]
    raise UnsupportedOpError(
        f"functions of the graph call each other more than {_DEEPEST} deep",
        hint="Export the model without recursive functions.",
    )


def both_branches(net: Net) -> Net:
    """Return the net with all branches side by side, each outcome a ``Merge`` of both.

    Such a net is for reading only: it shows every update of every variable, wherever the program wrote it.
    """
    result = net.copy()
    aliases: dict[Ref, Ref] = {}
    for _ in range(_DEEPEST):
        nodes = [node for node in result.nodes.values() if node.op in BRANCHES]
        if not nodes:
            break
        for node in nodes:
            outcomes: list[dict[Ref, Ref]] = []
            for index in range(_count(node)):
                called, prefix = branch_of(node, index)
                outcomes.append(spell_out(result, node, called, prefix, skip=1))
            del result.nodes[node.name]
            for ref in outcomes[0]:
                merging = [outcome[ref] for outcome in outcomes]
                merged = node_of("Merge", f"{node.name}/_{ref[1]}", merging, like=node)
                result.nodes[merged.name] = merged
                aliases[ref] = (merged.name, 0)
    return result.rewired(aliases)


def branch_of(node: Any, index: int) -> tuple[str, str]:
    """Return the function that a branch runs, and what the names of its nodes begin with.

    Args:
        node: An ``If``, where index 1 is the branch for True, or a ``Case``.
        index: Which branch; out of a ``Case``'s range is its last one.
    """
    if node.op in ("If", "StatelessIf"):
        name = "then_branch" if index else "else_branch"
        return attribute(node, name).func.name, f"{node.name}/{name[:4]}/"
    index = index if 0 <= index < _count(node) else _count(node) - 1
    return attribute(node, "branches").list.func[index].name, f"{node.name}/{index}/"


def too_many_nodes() -> UnsupportedOpError:
    """Return the refusal of a graph whose functions stand for more nodes than that."""
    return UnsupportedOpError(
        f"the graph has more than {MOST_NODES} nodes once its functions are spelled out",
        hint="Export the model with fewer layers in one file.",
    )


def _count(node: Any) -> int:
    return 2 if node.op in ("If", "StatelessIf") else len(attribute(node, "branches").list.func)


def spell_out(net: Net, node: Any, called: str, prefix: str, *, skip: int = 0, caller: Any = None) -> dict[Ref, Ref]:
    """Add a function's nodes to a net, and return which tensors take the place of the calling node's outputs.

    Args:
        net: Gets the nodes, under names that begin with ``prefix``.
        node: The node that calls; it stays.
        called: The function's name.
        prefix: What the new names begin with.
        skip: How many inputs of the calling node are no arguments, for example the predicate.
        caller: Attributes that the function's own ones are taken from.

    Raises:
        CorruptModelError: If the function is not in the file, or does not fit its call.
    """
    function = net.library.get(called)
    arguments = data_inputs(node)[skip:]
    if function is None or len(arguments) != len(function.signature.input_arg):
        raise CorruptModelError(
            f"the node {node.name} calls the function {called or 'without a name'}, which "
            + ("is not in the file" if function is None else "takes another number of arguments"),
            hint="Get the file again: it is damaged.",
        )
    if len(net.nodes) + len(function.node_def) > MOST_NODES:
        raise too_many_nodes()
    given = {argument.name: ref for argument, ref in zip(function.signature.input_arg, arguments, strict=True)}
    body = _Body(called, given, {child.name: child for child in function.node_def}, prefix, net)
    for child in function.node_def:
        added = type(child)()
        added.CopyFrom(child)
        added.name = prefix + child.name
        added.input[:] = [_translated(text, body) for text in child.input]
        for value in added.attr.values():
            wanted = value.placeholder
            if wanted and caller and wanted in caller:
                value.CopyFrom(caller[wanted])
            elif wanted and wanted in node.attr:
                value.CopyFrom(node.attr[wanted])
        net.nodes[added.name] = added
    outcome: dict[Ref, Ref] = {}
    for port, argument in enumerate(function.signature.output_arg):
        outcome[node.name, port] = ref_of(_translated(function.ret.get(argument.name, ""), body))
    return outcome


@dataclass(frozen=True, slots=True)
class _Body:
    called: str
    given: dict[str, Ref]
    inner: dict[str, Any]
    prefix: str
    net: Net


def _translated(text: str, body: _Body) -> str:
    """Return a graph's way to name a tensor of a function: ``node:port`` for ``node:argument:index``."""
    if text.startswith("^"):
        waited = text[1:]
        return f"^{body.given[waited][0]}" if waited in body.given else f"^{body.prefix}{waited}"
    name, _, rest = text.partition(":")
    if name in body.given:
        return f"{body.given[name][0]}:{body.given[name][1]}"
    if name not in body.inner:
        raise CorruptModelError(
            f"the function {body.called} reads {text or 'a tensor without a name'}, which is not in it",
            hint="Get the file again: it is damaged.",
        )
    argument, _, index = rest.partition(":")
    port = _first_port(body.inner[name], argument, body.net) + (int(index) if index.isdecimal() else 0)
    return f"{body.prefix}{name}:{port}"


def _first_port(node: Any, argument: str, net: Net) -> int:
    """Return the number of the first tensor of an output argument.

    A frozen function may still say ``ReadVariableOp:value`` of what has become an ``Identity``: an argument that the
    operation does not have is its first one.
    """
    port = 0
    for output in output_names(node, net.library) or ():
        if output.name == argument:
            return port
        if output.number_attr:
            port += int(attribute(node, output.number_attr).i)
        elif output.type_list_attr:
            port += len(attribute(node, output.type_list_attr).list.type)
        else:
            port += 1
    return 0
