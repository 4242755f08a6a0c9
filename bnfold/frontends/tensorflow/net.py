"""A TensorFlow graph as nodes by name: what the steps towards inference mode read and edit.

Everything here is on the protobuf messages alone. Nothing is imported into TensorFlow, so a graph that a current
TensorFlow would refuse can still be cut down and repaired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bnfold.errors import CorruptModelError
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.nodes import (
    TEXT,
    Ref,
    Value,
    attribute,
    const_node,
    control_inputs,
    data_inputs,
    demand_arity,
    demand_possible_sizes,
    dtype_of,
    is_variable,
    node_of,
    output_names,
    ref_of,
    small_value,
    text_of,
    value_of,
)

__all__ = [
    "TEXT",
    "Net",
    "Ref",
    "Value",
    "attribute",
    "const_node",
    "control_inputs",
    "data_inputs",
    "dtype_of",
    "is_variable",
    "node_of",
    "output_names",
    "ref_of",
    "small_value",
    "unnamed",
    "value_of",
]

_NOTED = ("_class", "_output_shapes", "_xla_inferred_shapes", "_lower_using_switch_merge")
_SCALARS_HAVE_SHAPES = 24
"""The version of graphs from which on an empty shape means a single number; before, it meant that nothing is known."""


@dataclass(slots=True)
class Net:
    """A graph that can be edited.

    Attributes:
        nodes: The graph's nodes by name, in the file's order.
        library: The graph's functions by name.
        versions: The graph's ``VersionDef``.
    """

    nodes: dict[str, Any]
    library: dict[str, Any] = field(default_factory=dict)
    versions: Any = None

    @classmethod
    def of(cls, graph_def: Any) -> Net:
        """Return the nodes of a graph; the messages are shared with it until someone edits a copy.

        Raises:
            CorruptModelError: If a node has no name or no operation, a name comes twice, or an input leads nowhere.
        """
        nodes: dict[str, Any] = {}
        for node in graph_def.node:
            if not node.name or not node.op:
                raise unnamed(len(nodes), len(graph_def.node))
            if node.name in nodes:
                raise CorruptModelError(
                    f"two nodes have the name {node.name}", hint="Get the file again: it is damaged."
                )
            nodes[node.name] = node
        for inner in [graph_def.node, *(function.node_def for function in graph_def.library.function)]:
            demand_possible_sizes(inner)
        library = {function.signature.name: function for function in graph_def.library.function}
        for node in graph_def.node:
            demand_arity(node, library)
            for text in node.input:
                if ref_of(text)[0] not in nodes:
                    raise CorruptModelError(
                        f"the node {node.name} reads {text.lstrip('^')}, which is not in the graph",
                        hint="Get the file again: it is incomplete.",
                    )
        if graph_def.versions.producer < _SCALARS_HAVE_SHAPES:
            for node in graph_def.node:
                if node.op == "Placeholder" and "shape" in node.attr and not node.attr["shape"].shape.dim:
                    node.attr["shape"].shape.unknown_rank = True
        for function in library.values():
            for node in function.node_def:
                demand_arity(node, library)
        return cls(nodes, library, graph_def.versions)

    def copy(self) -> Net:
        """Return a net whose dictionary can be edited; nodes are shared: replace them, do not change them."""
        return Net(dict(self.nodes), self.library, self.versions)

    def consumers(self) -> dict[str, list[tuple[str, int]]]:
        """Return who reads each node's outputs: ``(reader, position)`` by node name; control edges do not count."""
        found: dict[str, list[tuple[str, int]]] = {}
        for node in self.nodes.values():
            for position, (name, _) in enumerate(data_inputs(node)):
                found.setdefault(name, []).append((node.name, position))
        return found

    def ancestors(self, roots: Iterable[str], *, control: bool = False, stop: Iterable[str] = ()) -> set[str]:
        """Return the names of all nodes that some nodes need, themselves included.

        Args:
            roots: Names of the nodes.
            control: Whether control edges count.
            stop: Nodes whose own inputs are not followed.
        """
        found: set[str] = set()
        stopped = set(stop)
        stack = list(roots)
        while stack:
            name = stack.pop()
            if name in found or name not in self.nodes:
                continue
            found.add(name)
            if name in stopped:
                continue
            node = self.nodes[name]
            stack.extend(source for source, _ in data_inputs(node))
            if control:
                stack.extend(control_inputs(node))
        return found

    def sorted(self, names: Iterable[str] | None = None, *, control: bool = True) -> list[str]:
        """Return names so that every node comes after those it reads; loops are cut where an iteration begins again.

        Raises:
            CorruptModelError: If nodes feed themselves.
        """
        chosen = self.nodes.keys() if names is None else set(names)
        waiting: dict[str, int] = {}
        readers: dict[str, list[str]] = {}
        ready: list[str] = []
        for name in self.nodes:
            if name not in chosen:
                continue
            node = self.nodes[name]
            sources = {source for source, _ in data_inputs(node)}
            if control:
                sources.update(control_inputs(node))
            sources = {source for source in sources if source in chosen and not self._begins_again(node, source)}
            waiting[name] = len(sources)
            for source in sources:
                readers.setdefault(source, []).append(name)
            if not sources:
                ready.append(name)
        order: list[str] = []
        ready.reverse()
        while ready:
            name = ready.pop()
            order.append(name)
            for reader in readers.get(name, ()):
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        if len(order) != len(waiting):
            caught = sorted(name for name, left in waiting.items() if left)
            raise CorruptModelError(
                f"{len(caught)} nodes feed themselves, {caught[0]} among them",
                hint="Get the file again: it is damaged.",
            )
        return order

    def _begins_again(self, node: Any, source: str) -> bool:
        return node.op in ("Merge", "RefMerge") and self.nodes[source].op in ("NextIteration", "RefNextIteration")

    def cut(self, names: Iterable[str]) -> Net:
        """Return the net with some of its nodes only; control edges to the others are dropped."""
        chosen = set(names)
        kept: dict[str, Any] = {}
        for name, node in self.nodes.items():
            if name not in chosen:
                continue
            if any(source not in chosen for source in control_inputs(node)):
                copied = _copied(node)
                copied.input[:] = [text for text in node.input if not text.startswith("^") or ref_of(text)[0] in chosen]
                kept[name] = copied
            else:
                kept[name] = node
        return Net(kept, self.library, self.versions)

    def rewired(self, aliases: Mapping[Ref, Ref]) -> Net:
        """Return the net with readers of some tensors reading others instead."""
        if not aliases:
            return self
        changed: dict[str, Any] = {}
        for name, node in self.nodes.items():
            if any(ref in aliases for ref in data_inputs(node)):
                copied = _copied(node)
                copied.input[:] = [
                    text if text.startswith("^") else text_of(_resolved(ref_of(text), aliases)) for text in node.input
                ]
                changed[name] = copied
            else:
                changed[name] = node
        return Net(changed, self.library, self.versions)

    def graph_def(self) -> Any:
        """Return the net as a ``GraphDef``, with the functions that it calls, and without what hinders an import.

        Left out are devices, places (``_class``), recorded output shapes, which a newer TensorFlow may contradict, and
        the wish to have branches and loops in their old form.
        """
        tf = tensorflow()
        graph = tf.compat.v1.GraphDef()
        if self.versions is not None:
            graph.versions.CopyFrom(self.versions)
        for node in self.nodes.values():
            added = graph.node.add()
            added.CopyFrom(node)
            added.device = ""
            for noted in _NOTED:
                if noted in added.attr:
                    del added.attr[noted]
        for name in self.called():
            function = graph.library.function.add()
            function.CopyFrom(self.library[name])
            _repair(function, self.library)
        return graph

    def called(self) -> list[str]:
        """Return the names of the functions that the net's nodes call, and those call, and so on."""
        found: dict[str, None] = {}
        stack = list(self.nodes.values())
        while stack:
            node = stack.pop()
            names = [node.op] if node.op in self.library else []
            for value in node.attr.values():
                names.extend([value.func.name] if value.func.name else [])
                names.extend(function.name for function in value.list.func)
            for name in names:
                if name in self.library and name not in found:
                    found[name] = None
                    stack.extend(self.library[name].node_def)
        return sorted(found)


def unnamed(number: int, of: int) -> CorruptModelError:
    """Return the refusal of a graph with a node that has no name, or no operation."""
    return CorruptModelError(
        f"node {number} of {of} has no name or no operation", hint="Get the file again: it is damaged."
    )


def _repair(function: Any, library: Mapping[str, Any]) -> None:
    """Give a function's tensors the names that its operations give them.

    Freezing makes an ``Identity`` of a ``ReadVariableOp`` and leaves ``ReadVariableOp:value`` to be read of it.
    """
    only = {}
    for node in function.node_def:
        outputs = output_names(node, library)
        if outputs is not None and len(outputs) == 1:
            only[node.name] = outputs[0].name
        for noted in _NOTED:
            if noted in node.attr:
                del node.attr[noted]

    def repaired(text: str) -> str:
        name, _, rest = text.partition(":")
        argument, _, index = rest.partition(":")
        return f"{name}:{only[name]}:{index or 0}" if rest and name in only and argument != only[name] else text

    for node in function.node_def:
        node.input[:] = [repaired(text) for text in node.input]
    for key in list(function.ret):
        function.ret[key] = repaired(function.ret[key])


def _copied(node: Any) -> Any:
    copied = type(node)()
    copied.CopyFrom(node)
    return copied


def _resolved(ref: Ref, aliases: Mapping[Ref, Ref]) -> Ref:
    seen = {ref}
    while ref in aliases:
        ref = aliases[ref]
        if ref in seen:
            raise CorruptModelError(
                f"the tensor {text_of(ref)} feeds itself", hint="Get the file again: it is damaged."
            )
        seen.add(ref)
    return ref
