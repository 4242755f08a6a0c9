"""A call of a function replaced by the function's nodes, under names that nothing else in the model has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, helper

from bnfold.errors import CorruptModelError

__all__ = ["Inliner", "Key", "bodies_of", "called_by", "key_of"]

Key = tuple[str, str, str]
"""What identifies a function of a model: its domain, its name and its overload."""

_AGAIN = "Export the model again, or without functions of its own."


def key_of(function: FunctionProto) -> Key:
    """Return what identifies a function."""
    return function.domain, function.name, function.overload


def called_by(node: NodeProto) -> Key:
    """Return what identifies the function that a node would call; most nodes call none."""
    return node.domain, node.op_type, node.overload


def bodies_of(node: NodeProto) -> list[GraphProto]:
    """Return the graphs in a node's attributes."""
    found: list[GraphProto] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.append(attribute.g)
        found += attribute.graphs
    return found


class Inliner:
    """Replaces calls in one model after another graph of it, so that all new names differ.

    Attributes:
        functions: What to replace.
        domains: The domains of the nodes that were written out.
    """

    def __init__(self, functions: Mapping[Key, FunctionProto], model: ModelProto) -> None:
        self.functions = functions
        self.domains: set[str] = set()
        self._taken: set[str] = set()
        self._node_names: set[str] = set()
        self._note(model.graph)

    def replace_calls(self, graph: GraphProto) -> None:
        """Replace the calls in a graph and in all of its bodies; a graph without any stays as it is."""
        for node in graph.node:
            for body in bodies_of(node):
                self.replace_calls(body)
        if any(called_by(node) in self.functions for node in graph.node):
            nodes = list(self._expanded(graph.node))
            del graph.node[:]
            graph.node.extend(nodes)

    def _note(self, graph: GraphProto) -> None:
        """Remember the names of a graph and its bodies."""
        self._taken.update(value.name for value in (*graph.input, *graph.output, *graph.value_info))
        self._taken.update(tensor.name for tensor in graph.initializer)
        self._taken.update(tensor.values.name for tensor in graph.sparse_initializer)
        for node in graph.node:
            self._taken.update(node.input)
            self._taken.update(node.output)
            self._node_names.add(node.name)
            for body in bodies_of(node):
                self._note(body)

    def _expanded(self, nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
        for node in nodes:
            function = self.functions.get(called_by(node))
            if function is None:
                yield node
                continue
            written = self._written_out(node, function)
            for inner in written:
                for body in bodies_of(inner):
                    self.replace_calls(body)
            yield from self._expanded(written)

    def _written_out(self, call: NodeProto, function: FunctionProto) -> list[NodeProto]:
        """Return a function's nodes as they stand for one call of it."""
        if len(call.input) > len(function.input) or len(call.output) > len(function.output):
            raise CorruptModelError(
                f"{_shown(call)} calls the function {function.name} with {len(call.input)} inputs and "
                f"{len(call.output)} outputs; it has {len(function.input)} and {len(function.output)}",
                hint=_AGAIN,
            )
        scope = _Scope(self, call, function)
        names: dict[str, str] = dict(zip_longest(function.input, call.input, fillvalue=""))
        repeated: list[tuple[str, str]] = []
        for formal, actual in zip(function.output, call.output, strict=False):
            if actual and formal in names:  # an input that is handed back, or one value under two names
                repeated.append((formal, actual))
            elif actual:
                names[formal] = actual
        produced = set(function.input)
        nodes = []
        for node in function.node:
            nodes.append(scope.renamed(node, names, produced))
            produced.update(node.output)
        for formal, actual in zip(function.output, call.output, strict=False):
            if actual and (formal not in produced or (formal in function.input and not names[formal])):
                raise CorruptModelError(
                    f"the function {function.name} does not compute its output {formal} for {_shown(call)}", hint=_AGAIN
                )
        for formal, actual in repeated:
            nodes.append(helper.make_node("Identity", [names[formal]], [actual], name=scope.node_name(formal)))
        return nodes

    def fresh(self, wish: str) -> str:
        """Return a name for a value that nothing has, as near to a wish as can be."""
        return _unique(wish, self._taken)

    def fresh_node(self, wish: str) -> str:
        """Return a name for a node that no other has."""
        return _unique(wish, self._node_names)


class _Scope:
    """One call: where its names come from, and what its attributes are."""

    def __init__(self, inliner: Inliner, call: NodeProto, function: FunctionProto) -> None:
        self._inliner, self._function = inliner, function
        self._prefix = _shown(call)
        self._attributes = {attribute.name: attribute for attribute in function.attribute_proto}
        self._attributes |= {attribute.name: attribute for attribute in call.attribute}

    def node_name(self, name: str) -> str:
        """Return the name of a node of the function, for this call."""
        return self._inliner.fresh_node(f"{self._prefix}/{name}")

    def renamed(self, node: NodeProto, names: dict[str, str], produced: set[str] | None) -> NodeProto:
        """Return a copy of a node under the names of this call.

        Args:
            node: A node of the function, or of a body in it.
            names: What the function's values are called for this call; what the node computes is added.
            produced: The values that exist when it runs; None inside a body, where ``names`` says that.
        """
        result = NodeProto()
        result.CopyFrom(node)
        self._inliner.domains.add(node.domain)
        for position, name in enumerate(node.input):
            if name and (name not in names or (produced is not None and name not in produced)):
                raise CorruptModelError(
                    f"the function {self._function.name} reads {name}, which nothing in it computes", hint=_AGAIN
                )
            result.input[position] = names[name] if name else ""
        while result.input and not result.input[-1] and node.input[len(result.input) - 1]:
            del result.input[-1]
        for position, name in enumerate(node.output):
            if name and name not in names:
                names[name] = self._inliner.fresh(f"{self._prefix}/{name}")
            result.output[position] = names[name] if name else ""
        if node.name:
            result.name = self.node_name(node.name)
        for attribute in result.attribute:
            if not attribute.ref_attr_name:
                for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                    self._rename_body(body, names)
        self._set_attributes(result)
        return result

    def _rename_body(self, graph: GraphProto, outer: Mapping[str, str]) -> None:
        """Rename what a body has of its own, and what it reads from the function around it."""
        names = dict(outer)
        own = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
        own += [tensor.values.name for tensor in graph.sparse_initializer]
        own += [name for node in graph.node for name in node.output if name]
        for name in dict.fromkeys(own):
            names[name] = self._inliner.fresh(f"{self._prefix}/{name}")
        nodes = [self.renamed(node, names, None) for node in graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        for value in (*graph.input, *graph.output, *graph.value_info):
            value.name = names.get(value.name, value.name)
        for tensor in graph.initializer:
            tensor.name = names[tensor.name]
        for sparse in graph.sparse_initializer:
            sparse.values.name = names[sparse.values.name]
        for note in graph.quantization_annotation:
            note.tensor_name = names.get(note.tensor_name, note.tensor_name)

    def _set_attributes(self, node: NodeProto) -> None:
        """Give attributes that stand for the function's own the values of this call; without a value they are gone."""
        kept: list[AttributeProto] = []
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                kept.append(attribute)
                continue
            told = self._attributes.get(attribute.ref_attr_name)
            if told is not None:
                value = AttributeProto()
                value.CopyFrom(told)
                value.name = attribute.name
                kept.append(value)
        if len(kept) < len(node.attribute) or any(attribute.ref_attr_name for attribute in node.attribute):
            copies = [AttributeProto.FromString(attribute.SerializeToString()) for attribute in kept]
            del node.attribute[:]
            node.attribute.extend(copies)


def _unique(wish: str, taken: set[str]) -> str:
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    taken.add(name)
    return name


def _shown(node: NodeProto) -> str:
    return node.name or next((name for name in node.output if name), node.op_type)
