"""One order and one set of names for a converted graph, so that the same file gives the same bytes in every run.

tf2onnx walks over Python sets on its way, so the order of its nodes and the numbers in the names that it invents differ
from one run to the next.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence

import onnx

__all__ = ["make_canonical"]

_DRAWING = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_INVENTED = re.compile(r"__\d+(?=:\d+$|$)")


def make_canonical(model: onnx.ModelProto, known: Collection[str]) -> None:
    """Sort a model's nodes and initializers by the first use on the way to its outputs, and number the invented names.

    What no output needs goes, and what was invented twice is there once.

    Args:
        model: Changed in place.
        known: Names of the TensorFlow graph's nodes: they stay. Other names that end in ``__`` and a number were
            invented on the way.
    """
    _sort(model.graph)
    if _share(model.graph, known):
        _sort(model.graph)
    ends = {value.name.partition(":")[0] for value in [*model.graph.input, *model.graph.output]}
    values = _numbered(list(_value_names(model.graph)), {*known, *ends})
    nodes = _numbered(list(_node_names(model.graph)), known)
    _apply(model.graph, values, nodes)


def _sort(graph: onnx.GraphProto) -> None:
    producers = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    order: list[int] = []
    seen: set[int] = set()
    uses: dict[str, None] = {}
    # Depth first, from the outputs, in the order of each node's inputs; a stack of its own, for deep networks.
    stack: list[tuple[str, int | None]] = [(value.name, None) for value in reversed(graph.output)]
    while stack:
        name, finished = stack.pop()
        if finished is not None:
            order.append(finished)
            continue
        uses.setdefault(name)
        at = producers.get(name)
        if at is None or at in seen:
            continue
        seen.add(at)
        stack.append((name, at))
        stack.extend((used, None) for used in reversed(_reads(graph.node[at])))
    nodes = [graph.node[at] for at in order]
    initializers = {initializer.name: initializer for initializer in graph.initializer}
    kept = [initializers[name] for name in uses if name in initializers]
    for node in nodes:
        for inner in _subgraphs(node):
            _sort(inner)
    _replace(graph.node, nodes)
    _replace(graph.initializer, kept)
    # Shapes of inner values: whoever needs them infers them.
    del graph.value_info[:]


def _share(graph: onnx.GraphProto, known: Collection[str]) -> bool:
    """Let equal constants, and equal nodes of the main graph, be one where their names were invented."""
    names: dict[str, str] = {}
    first: dict[tuple[object, ...], Sequence[str]] = {}

    def same(key: tuple[object, ...], written: Sequence[str]) -> None:
        mine = first.setdefault(key, written)
        if mine is not written and all(_is_invented(name, known) for name in written):
            names.update(zip(written, mine, strict=True))

    ends = {value.name for value in graph.output}
    for initializer in graph.initializer:
        content = onnx.TensorProto.FromString(initializer.SerializeToString())
        content.ClearField("name")
        if _is_invented(initializer.name, known):
            same(("", hashlib.sha256(content.SerializeToString(deterministic=True)).digest()), [initializer.name])
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        if any(_subgraphs(node)) or node.op_type in _DRAWING or not ends.isdisjoint(node.output):
            continue
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        same((node.domain, node.op_type, *node.input, None, *attributes), list(node.output))
    return bool(names)


def _is_invented(name: str, known: Collection[str]) -> bool:
    return bool(_INVENTED.search(name)) and name.partition(":")[0] not in known


def _replace(field: object, values: list[onnx.NodeProto] | list[onnx.TensorProto]) -> None:
    copies = [type(value).FromString(value.SerializeToString(deterministic=True)) for value in values]
    del field[:]  # type: ignore[attr-defined]  # protobuf's repeated fields have no common type
    field.extend(copies)  # type: ignore[attr-defined]


def _reads(node: onnx.NodeProto) -> list[str]:
    """Return what a node reads, its subgraphs' readings of outer values included."""
    names = [name for name in node.input if name]
    for inner in _subgraphs(node):
        own = {name for child in inner.node for name in child.output}
        own |= {value.name for value in inner.input} | {initializer.name for initializer in inner.initializer}
        wanted = [name for child in inner.node for name in _reads(child)] + [value.name for value in inner.output]
        names.extend(name for name in wanted if name not in own)
    return names


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _value_names(graph: onnx.GraphProto) -> Iterator[str]:
    for value in [*graph.input, *graph.output, *graph.initializer]:
        yield value.name
    for node in graph.node:
        yield from node.input
        yield from node.output
        for inner in _subgraphs(node):
            yield from _value_names(inner)


def _node_names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.name
        for inner in _subgraphs(node):
            yield from _node_names(inner)


def _numbered(names: list[str], known: Collection[str]) -> dict[str, str]:
    """Return what each name becomes: itself, or where it was invented, its stem and a number in order of appearance."""
    invented = {name for name in names if _is_invented(name, known)}
    chosen = {name: name for name in names if name not in invented}
    taken = set(chosen) | set(known)
    counts: dict[str, int] = {}
    for name in names:
        if name in chosen:
            continue
        stem, colon, port = _INVENTED.sub("", name).partition(":")
        new = ""
        while not new or new in taken:
            counts[stem] = counts.get(stem, 0) + 1
            new = f"{stem}__{counts[stem]}{colon}{port}"
        chosen[name] = new
        taken.add(new)
    return chosen


def _apply(graph: onnx.GraphProto, values: dict[str, str], nodes: dict[str, str]) -> None:
    for node in graph.node:
        node.name = nodes.get(node.name, node.name)
        node.input[:] = [values.get(name, name) for name in node.input]
        node.output[:] = [values.get(name, name) for name in node.output]
        for inner in _subgraphs(node):
            _apply(inner, values, nodes)
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.name = values.get(value.name, value.name)
