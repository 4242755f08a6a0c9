"""Functions that a model brings along: what they stand for, and calls replaced by it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, defs, helper

from bnfold.errors import CorruptModelError
from bnfold.graph.inlining import Inliner, Key, bodies_of, called_by, key_of

__all__ = ["MOST_BYTES", "MOST_NODES", "Key", "calls", "functions_with", "inline_functions", "key_of", "obstacles"]

MOST_NODES = 200_000
"""Nodes that a model may have once its functions are replaced: a few nested ones can stand for billions."""

MOST_BYTES = 1 << 31
"""Bytes that those nodes may take, constants in them included."""

_DEEPEST = 64
_STANDARD = {"": "", "ai.onnx": ""}
_WITHOUT = "Export the model without functions of its own."


def inline_functions(model: ModelProto, only: Collection[Key] | None = None) -> ModelProto:
    """Return a model in which calls of its functions are replaced by what they stand for.

    What is named is gone afterwards, called or not; all other functions, and all nodes that are no such call, stay as
    they are. A function that has an obstacle stays, and so do its calls and what it calls itself.

    Args:
        model: Any valid model; it is not changed.
        only: The functions to replace; None means all. One that calls another of them has to be named too.

    Returns:
        The new model; the model itself where there is nothing to replace.

    Raises:
        CorruptModelError: If the functions call each other in a circle, stand for too much, or break a rule of the
            format.
    """
    wanted = {key_of(function) for function in model.functions if only is None or key_of(function) in only}
    if not wanted:
        return model
    _require_bounded(model)
    wanted -= obstacles(model).keys()
    if not wanted:
        return model
    result = ModelProto()
    result.CopyFrom(model)
    inliner = Inliner({key_of(function): function for function in model.functions if key_of(function) in wanted}, model)
    inliner.replace_calls(result.graph)
    needed = _still_called(result, wanted)
    stay = [function for function in model.functions if key_of(function) not in wanted or key_of(function) in needed]
    del result.functions[:]
    result.functions.extend(stay)
    imported = {_STANDARD.get(entry.domain, entry.domain) for entry in result.opset_import}
    for domain, version in _versions(model).items():
        if domain not in imported and any(domain == _STANDARD.get(name, name) for name in inliner.domains):
            result.opset_import.append(helper.make_opsetid(domain, version))
    return result


def functions_with(model: ModelProto, op_type: str) -> frozenset[Key]:
    """Return the functions that hold a standard operation: themselves, in a body, or in a function that they call."""
    functions = {key_of(function): function for function in model.functions}
    callers: dict[Key, set[Key]] = {}
    found = []
    for key, function in functions.items():
        nodes = list(_all_nodes(function.node))
        if any(node.op_type == op_type and node.domain in _STANDARD and called_by(node) != key for node in nodes):
            found.append(key)
        for node in nodes:
            callers.setdefault(called_by(node), set()).add(key)
    holding = set(found)
    while found:
        more = callers.get(found.pop(), set()) - holding
        holding |= more
        found += more
    return frozenset(holding)


def calls(model: ModelProto) -> Mapping[Key, int]:
    """Return how often each function of a model is called, by the graph and by other functions, bodies included."""
    counted = {key_of(function): 0 for function in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _all_nodes(nodes):
            if called_by(node) in counted:
                counted[called_by(node)] += 1
    return counted


def obstacles(model: ModelProto) -> Mapping[Key, str]:
    """Return why calls of some functions cannot be replaced by what these stand for, in one clause each.

    A function may be written in another version of an operator set than the model. That is none where all of its
    operations mean the same in both.
    """
    own = {key_of(function) for function in model.functions}
    versions = _versions(model)
    found = {}
    for function in model.functions:
        others = {_STANDARD.get(entry.domain, entry.domain): entry.version for entry in function.opset_import}
        for node in _all_nodes(function.node):
            domain = _STANDARD.get(node.domain, node.domain)
            before, after = others.get(domain), versions.get(domain)
            if called_by(node) in own or before is None or after is None or before == after:
                continue
            if _since(node, domain, before) != _since(node, domain, after):
                found[key_of(function)] = (
                    f"the function {function.name} is written in opset {before}{f' of {domain}' if domain else ''}, "
                    f"the model in {after}, and {node.op_type} may mean something else there"
                )
                break
    return found


def _versions(model: ModelProto) -> Mapping[str, int]:
    """Return the version of every domain; where the model does not import one, its first function that does decides."""
    versions: dict[str, int] = {}
    for importing in (model, *model.functions):
        for entry in importing.opset_import:
            versions.setdefault(_STANDARD.get(entry.domain, entry.domain), entry.version)
    return versions


def _still_called(model: ModelProto, wanted: Collection[Key]) -> set[Key]:
    """Return the functions that the graph, or a function that stays, still calls, directly or through others."""
    functions = {key_of(function): function for function in model.functions}
    staying = [function for key, function in functions.items() if key not in wanted]
    pending, found = [node for holder in (model.graph, *staying) for node in _all_nodes(holder.node)], set[Key]()
    while pending:
        key = called_by(pending.pop())
        if key in functions and key not in found:
            found.add(key)
            pending += _all_nodes(functions[key].node)
    return found


def _since(node: NodeProto, domain: str, version: int) -> int:
    """Return the version that gave an operation the meaning it has in another; what is not known may differ in any."""
    try:
        return int(defs.get_schema(node.op_type, version, domain).since_version)
    except defs.SchemaError:
        return -version


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from _all_nodes(body.node)


def _require_bounded(model: ModelProto) -> None:
    """Refuse a model whose functions stand for too much, before any of it is written out."""
    functions = {key_of(function): function for function in model.functions}
    nodes, size = _extent(model.graph.node, functions, {}, ())
    if nodes > MOST_NODES:
        raise CorruptModelError(
            f"the model's functions stand for {nodes} nodes; at most {MOST_NODES} are read", hint=_WITHOUT
        )
    if size > MOST_BYTES:
        raise CorruptModelError(
            f"the model's functions stand for {size} bytes of nodes; at most {MOST_BYTES} are read", hint=_WITHOUT
        )


def _extent(
    nodes: Iterable[NodeProto],
    functions: Mapping[Key, FunctionProto],
    known: dict[Key, tuple[int, int]],
    calling: tuple[Key, ...],
) -> tuple[int, int]:
    """Return how many nodes, and bytes of constants, there are once every call is replaced by its function's."""
    count = size = 0
    for node in nodes:
        for body in bodies_of(node):
            inner, inner_size = _extent(body.node, functions, known, calling)
            count, size = count + inner, size + inner_size
        key = called_by(node)
        if key not in functions:
            count += 1
            size += 0 if not calling else _constants(node)
            continue
        if key in calling or len(calling) > _DEEPEST:
            raise CorruptModelError(
                f"the model's function '{key[1]}' calls itself, or is nested deeper than {_DEEPEST}", hint=_WITHOUT
            )
        if key not in known:
            known[key] = _extent(functions[key].node, functions, known, (*calling, key))
        count, size = count + known[key][0], size + known[key][1]
    return count, size


def _constants(node: NodeProto) -> int:
    return sum(attribute.ByteSize() for attribute in node.attribute if attribute.type != AttributeProto.GRAPH)
