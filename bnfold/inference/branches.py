"""Conditionals whose condition is known: the branch that is taken moves to where the conditional stood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, helper

from bnfold.graph.shapes import subgraphs
from bnfold.graph.view import GraphView
from bnfold.inference.program import Program

__all__ = ["inline_known", "known", "prune"]


def known(program: Program) -> list[tuple[str, str]]:
    """Return the conditionals whose condition is the same in every run, by name, with the branch that they take."""
    return [
        (view.node(index).name, chosen)
        for view in program.views.values()
        for index, node in enumerate(view.graph.node)
        if (chosen := program.chosen(view, node, {})) is not None
    ]


def inline_known(model: ModelProto) -> None:
    """Replace conditionals whose condition is constant by the branch that they take.

    The values that a conditional gave keep their names. Inside a branch, names are kept as far as nothing else in the
    model has them; node names are kept always.
    """
    while True:
        program = Program(model)
        views = [view for view in program.views.values() if _replaceable(program, view)]
        if not views:
            return
        # One graph at a time: what is inlined changes the places of everything inside it.
        _inline_in(program, min(views, key=lambda view: len(view.path)))


def prune(model: ModelProto) -> Program:
    """Remove nodes that influence no output and initializers that nothing reads; return a look at what is left."""
    program = Program(model)
    live = program.live({}, whole=True)
    dead = [
        (view.graph, index)
        for path, view in sorted(program.views.items(), key=lambda entry: -len(entry[0]))
        for index in reversed(range(len(view)))
        if (path, index) not in live
    ]
    for graph, index in dead:
        del graph.node[index]
    _drop_initializers(model.graph)
    return Program(model) if dead else program


def _drop_initializers(graph: GraphProto) -> None:
    for _place, body in subgraphs(graph):
        _drop_initializers(body)
    read = {value.name for value in graph.output} | _reads(graph)
    for index in reversed(range(len(graph.initializer))):
        name = graph.initializer[index].name
        if name not in read:
            del graph.initializer[index]
            for place in reversed(range(len(graph.input))):
                if graph.input[place].name == name:
                    del graph.input[place]
    produced = {name for node in graph.node for name in node.output}
    for index in reversed(range(len(graph.value_info))):
        if graph.value_info[index].name not in produced:
            del graph.value_info[index]


def _reads(graph: GraphProto) -> set[str]:
    found = {name for node in graph.node for name in node.input}
    for _place, body in subgraphs(graph):
        found |= _reads(body) | {value.name for value in body.output}
    return found


def _replaceable(program: Program, view: GraphView) -> bool:
    return any(
        program.chosen(view, node, {}) is not None or program.selected(view, node, {}) is not None
        for node in view.graph.node
    )


def _inline_in(program: Program, view: GraphView) -> None:
    taken = Counter(_defined(program.model.graph))
    graph = view.graph
    nodes: list[NodeProto] = []
    for node in graph.node:
        chosen = program.chosen(view, node, {})
        selected = program.selected(view, node, {})
        if selected is not None:
            nodes.append(helper.make_node("Identity", [selected], [node.output[0]], name=node.name))
        elif chosen is None:
            nodes.append(node)
        else:
            branches = {attribute.name: attribute.g for attribute in node.attribute}
            for branch in branches.values():
                taken.subtract(_defined(branch))
            nodes += _moved(program.model, view, branches[chosen], list(node.output), taken)
    moved = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(moved)


def _defined(graph: GraphProto) -> Iterator[str]:
    """Yield every name that a graph and the bodies in it define, as often as they do."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in node.output if name)
    for _place, body in subgraphs(graph):
        yield from _defined(body)


def _moved(
    model: ModelProto, view: GraphView, branch: GraphProto, outputs: list[str], taken: Counter[str]
) -> list[NodeProto]:
    """Return a branch's nodes as they stand in the graph around it, and put its initializers there."""
    produced = {name for node in branch.node for name in node.output if name}
    initialized = {tensor.name for tensor in branch.initializer}
    initialized |= {tensor.values.name for tensor in branch.sparse_initializer}
    names: dict[str, str] = {}
    behind: list[tuple[str, str]] = []
    for inner, outer in zip((value.name for value in branch.output), outputs, strict=False):
        if not outer:
            continue
        if inner in produced and inner not in names:
            names[inner] = outer
        else:
            # An input of the branch, a constant, or one value under two names.
            behind.append((inner, outer))
    for _place, body in subgraphs(branch):
        taken.update(_defined(body))
    for name in sorted((produced | initialized) - names.keys()):
        names[name] = _fresh(name, taken)
        taken[names[name]] += 1
    constants: list[NodeProto] = []
    for tensor in branch.initializer:
        value = view.graph.initializer.add() if model.ir_version >= 4 or view.path else None
        if value is None:
            # In old files initializers of the main graph must be inputs too: these become nodes instead.
            node = helper.make_node("Constant", [], [names[tensor.name]])
            attribute = node.attribute.add(name="value", type=4)
            value = attribute.t
            constants.append(node)
        value.CopyFrom(tensor)
        value.name = names[tensor.name]
    for tensor in branch.sparse_initializer:
        sparse = view.graph.sparse_initializer.add()
        sparse.CopyFrom(tensor)
        sparse.values.name = names[tensor.values.name]
    for info in branch.value_info:
        if info.name in names and names[info.name] not in outputs:
            copy = view.graph.value_info.add()
            copy.CopyFrom(info)
            copy.name = names[info.name]
    moved = []
    for node in branch.node:
        copy = NodeProto.FromString(node.SerializeToString())
        _rename(copy, names)
        moved.append(copy)
    moved += [helper.make_node("Identity", [names.get(inner, inner)], [outer]) for inner, outer in behind]
    return [*constants, *moved]


def _fresh(name: str, taken: Counter[str]) -> str:
    number, wanted = 1, name
    while taken[wanted] > 0:
        number += 1
        wanted = f"{name}_{number}"
    return wanted


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    for position, name in enumerate(node.input):
        node.input[position] = names.get(name, name)
    for position, name in enumerate(node.output):
        node.output[position] = names.get(name, name)
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _rename_in(body, names)


def _rename_in(body: GraphProto, names: Mapping[str, str]) -> None:
    """Rename what a body takes from around it; what it defines itself stays."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own |= {name for node in body.node for name in node.output}
    outer = {old: new for old, new in names.items() if old not in own}
    for node in body.node:
        inner = NodeProto.FromString(node.SerializeToString())
        _rename(inner, outer)
        node.CopyFrom(inner)
    for value in body.output:
        value.name = outer.get(value.name, value.name)
