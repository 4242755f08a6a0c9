"""The bodies of loops and of branches on data, in inference mode: without dropout, switches and what gradients need.

A body is a function. It is read as a net of its own, whose arguments are placeholders, edited like any other net, and
written back as a function of another name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bnfold.errors import CorruptModelError, UnsupportedOpError
from bnfold.frontends.loaded import ModeChange
from bnfold.frontends.tensorflow.constants import values_of
from bnfold.frontends.tensorflow.dropout import without_dropout
from bnfold.frontends.tensorflow.functions import BRANCHES, spell_out, without_calls
from bnfold.frontends.tensorflow.net import (
    Net,
    Ref,
    Value,
    attribute,
    control_inputs,
    data_inputs,
    node_of,
    output_names,
)
from bnfold.frontends.tensorflow.nodes import text_of
from bnfold.frontends.tensorflow.prune import needed, pruned

__all__ = ["LOOPS", "Plain", "with_plain_bodies"]

LOOPS = frozenset({"While", "StatelessWhile"})
_DEEPEST = 16
_COUNTED = 2


@dataclass(slots=True)
class Plain:
    """A net whose bodies are in inference mode.

    Attributes:
        net: The net.
        faithful: Whether no dropout in a body would have dropped anything.
        changes: What was done in the bodies.
    """

    net: Net
    faithful: bool = True
    changes: list[ModeChange] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Body:
    """A function as a net: its arguments, in order, are placeholders of it."""

    net: Net
    arguments: tuple[str, ...]
    results: tuple[Ref, ...]


def with_plain_bodies(net: Net, outputs: Sequence[Ref], depth: int = 0) -> Plain:
    """Return the net with its loops and branches on data in inference mode.

    What a loop carries unchanged, and a branch reads, is known in the body where it is known outside. What a loop
    carries for gradients alone goes.

    Args:
        net: The net, its calls spelled out.
        outputs: The tensors to compute.
        depth: How many bodies it is inside of.

    Raises:
        UnsupportedOpError: If bodies stand in each other without end.
    """
    plain = Plain(Net(dict(net.nodes), dict(net.library), net.versions))
    calling = [node for node in net.nodes.values() if node.op in LOOPS or node.op in BRANCHES]
    if not calling:
        return Plain(net)
    if depth > _DEEPEST:
        raise UnsupportedOpError(
            f"loops and branches of the graph stand in each other more than {_DEEPEST} deep",
            hint="Export the model without recursive functions.",
        )
    values = {ref: value for ref, value in values_of(net, {}).items() if value.size == 1}
    readers = net.consumers()
    for node in calling:
        known = [values.get(ref) for ref in data_inputs(node)]
        if node.op in LOOPS:
            read = {data_inputs(net.nodes[reader])[at][1] for reader, at in readers.get(node.name, ())}
            ends = {port for name, port in outputs if name == node.name}
            _rewrite_loop(plain, node, known, read, depth, narrow=not ends)
        else:
            _rewrite_branches(plain, node, known[1:], depth)
    return plain


def _rewrite_branches(plain: Plain, node: Any, known: list[Value | None], depth: int) -> None:
    copied = _copied(plain.net.nodes[node.name])
    for function in _called_by(copied):
        body = _body(plain.net, function.name, node.name)
        pins = {(name, 0): value for name, value in zip(body.arguments, known, strict=True) if value is not None}
        whole = range(len(body.arguments))
        function.name = _write(plain, function.name, _plain_body(plain, body, pins, depth), whole)
    plain.net.nodes[node.name] = copied


def _rewrite_loop(
    plain: Plain, node: Any, known: list[Value | None], read: Collection[int], depth: int, *, narrow: bool
) -> None:
    copied = _copied(plain.net.nodes[node.name])  # it may read a loop that was rewritten before
    names = {key: attribute(node, key).func.name for key in ("cond", "body")}
    bodies = {key: _body(plain.net, name, node.name) for key, name in names.items()}
    body = bodies["body"]
    unchanged = [
        _behind_copies(body.net, ref) == (name, 0) for ref, name in zip(body.results, body.arguments, strict=True)
    ]
    for key, one in bodies.items():
        pins = {
            (name, 0): value
            for name, value, same in zip(one.arguments, known, unchanged, strict=True)
            if same and value is not None
        }
        bodies[key] = _plain_body(plain, one, pins, depth)
    kept = list(range(len(unchanged)))
    if narrow:
        kept = _carried(bodies["cond"], bodies["body"], read)
        _narrow(copied, bodies, kept)
    for key, name in names.items():
        copied.attr[key].func.name = _write(plain, name, bodies[key], kept)
    del plain.net.nodes[node.name]
    if narrow:
        copied.name = f"{node.name}/carried"
        moved: dict[Ref, Ref] = {(node.name, at): (copied.name, new) for new, at in enumerate(kept)}
        plain.net.nodes = plain.net.rewired(moved).nodes
    plain.net.nodes[copied.name] = copied


def _carried(condition: _Body, body: _Body, read: Collection[int]) -> list[int]:
    """Return what a loop must carry: what is read behind it, what decides when it ends, and what these depend on."""
    deciding = needed(condition.net, condition.results)
    # The count of iterations and its limit come first, and converters know them by these places.
    wanted = {at for at, name in enumerate(condition.arguments) if name in deciding or at < _COUNTED} | set(read)
    while True:
        living = needed(body.net, [body.results[at] for at in wanted])
        more = {at for at, name in enumerate(body.arguments) if name in living} - wanted
        if not more:
            return sorted(wanted)
        wanted |= more


def _narrow(node: Any, bodies: dict[str, _Body], kept: Sequence[int]) -> None:
    """Drop what a loop need not carry from its node and from its bodies."""
    inputs = data_inputs(node)
    waits = [text for text in node.input if text.startswith("^")]
    node.input[:] = [*(text_of(inputs[at]) for at in kept), *waits]
    types = [node.attr["T"].list.type[at] for at in kept]
    node.attr["T"].list.type[:] = types
    if "output_shapes" in node.attr and (shapes := node.attr["output_shapes"].list.shape):
        rest = [type(shapes[at]).FromString(shapes[at].SerializeToString()) for at in kept]
        del shapes[:]
        shapes.extend(rest)
    for key, one in bodies.items():
        arguments = tuple(one.arguments[at] for at in kept)
        results = one.results if key == "cond" else tuple(one.results[at] for at in kept)
        left = needed(one.net, results) | set(arguments)
        bodies[key] = _Body(one.net.cut(left), arguments, results)


def _body(net: Net, called: str, caller: str) -> _Body:
    """Return a function as a net of its own, its calls spelled out."""
    if called not in net.library:
        raise CorruptModelError(
            f"the node {caller} calls the function {called or 'without a name'}, which is not in the file",
            hint="Get the file again: it is damaged.",
        )
    function = net.library[called]
    inner = Net({}, net.library, net.versions)
    taken = {node.name for node in function.node_def}
    names: list[str] = []
    for argument in function.signature.input_arg:
        name = argument.name
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
        placeholder = node_of("Placeholder", name, [], dtype=argument.type)
        placeholder.attr["shape"].shape.unknown_rank = True
        inner.nodes[name] = placeholder
    call = node_of("PartitionedCall", caller, [(name, 0) for name in names])
    outcome = spell_out(inner, call, called, "")
    marks: list[Ref] = []
    # Results keep nodes of their own while the calls that compute them are spelled out.
    for (_, port), ref in sorted(outcome.items(), key=lambda item: item[0][1]):
        mark = f"result_{port}"
        while mark in taken:
            mark += "_"
        taken.add(mark)
        inner.nodes[mark] = node_of("Identity", mark, [ref], T=function.signature.output_arg[port].type)
        marks.append((mark, 0))
    return _Body(without_calls(inner), tuple(names), tuple(marks))


def _plain_body(plain: Plain, body: _Body, pins: Mapping[Ref, Value], depth: int) -> _Body:
    net = pruned(body.net, body.results, pins)
    net, faithful, changes = without_dropout(net)
    inner = with_plain_bodies(net, body.results, depth + 1)
    plain.faithful = plain.faithful and faithful and inner.faithful
    plain.changes += [*changes, *inner.changes]
    plain.net.library.update(inner.net.library)
    nodes = dict(inner.net.cut(needed(inner.net, body.results)).nodes)
    for name in body.arguments:
        # What is known in the body stays an argument, which nobody reads.
        if name not in nodes or nodes[name].op != "Placeholder":
            known = nodes.pop(name, None)
            if known is not None:
                copied = _copied(known)
                copied.name = f"{name}/known"
                nodes = {key: _reading(node, name, copied.name) for key, node in nodes.items()}
                nodes[copied.name] = copied
            nodes[name] = body.net.nodes[name]
    return _Body(Net(nodes, plain.net.library, net.versions), body.arguments, body.results)


def _reading(node: Any, old: str, new: str) -> Any:
    if not any(name == old for name, _ in data_inputs(node)) and old not in control_inputs(node):
        return node
    copied = _copied(node)
    copied.input[:] = [
        (f"^{new}" if text == f"^{old}" else text)
        if text.startswith("^")
        else new
        if text in (old, f"{old}:0")
        else text
        for text in node.input
    ]
    return copied


def _behind_copies(net: Net, ref: Ref) -> Ref:
    while net.nodes[ref[0]].op == "Identity":
        ref = data_inputs(net.nodes[ref[0]])[0]
    return ref


def _write(plain: Plain, called: str, body: _Body, kept: Sequence[int]) -> str:
    """Add a body to the library as a function, and return its name.

    Args:
        plain: Gets the function.
        called: The function that the body was.
        body: What it has become.
        kept: Which of the function's arguments are left.
    """
    old = plain.net.library[called]
    number, name = 1, f"{called}_inference"
    while name in plain.net.library:
        number += 1
        name = f"{called}_inference_{number}"
    function = type(old)()
    function.signature.name = name
    types = [attribute(body.net.nodes[argument], "dtype").type for argument in body.arguments]
    for argument, dtype in zip(body.arguments, types, strict=True):
        function.signature.input_arg.add(name=argument, type=dtype)
    for position, (result, port) in enumerate(body.results):
        dtype = attribute(body.net.nodes[result], "T").type
        function.signature.output_arg.add(name=f"output_{position}", type=dtype)
        function.ret[f"output_{position}"] = _function_text((result, port), body)
    for node in body.net.nodes.values():
        if node.name in body.arguments:
            continue
        added = function.node_def.add()
        added.CopyFrom(node)
        added.input[:] = [
            *(_function_text(ref, body) for ref in data_inputs(node)),
            *(f"^{waited}" for waited in control_inputs(node) if waited not in body.arguments),
        ]
    function.signature.is_stateful = old.signature.is_stateful
    for new, at in enumerate(kept):
        if at in old.arg_attr:
            function.arg_attr[new].CopyFrom(old.arg_attr[at])
    plain.net.library[name] = function
    return name


def _function_text(ref: Ref, body: _Body) -> str:
    """Return a function's way to name a tensor: ``node:argument:index``."""
    name, port = ref
    if name in body.arguments:
        return name
    node, left = body.net.nodes[name], port
    for output in output_names(node, body.net.library) or ():
        count = 1
        if output.number_attr:
            count = int(attribute(node, output.number_attr).i)
        elif output.type_list_attr:
            count = len(attribute(node, output.type_list_attr).list.type)
        if left < count:
            return f"{name}:{output.name}:{left}"
        left -= count
    return f"{name}:output:{port}"


def _called_by(node: Any) -> Iterator[Any]:
    if node.op in ("If", "StatelessIf"):
        yield node.attr["then_branch"].func
        yield node.attr["else_branch"].func
    else:
        yield from node.attr["branches"].list.func


def _copied(node: Any) -> Any:
    copied = type(node)()
    copied.CopyFrom(node)
    return copied
