"""What TensorFlow's files are refused for before TensorFlow is imported, which takes seconds and half a gigabyte.

A file that was made to do harm shall cost no more than its reading. Everything here is looked at again once TensorFlow
is there, on its own messages: so whatever cannot be told for certain is let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bnfold.errors import BnfoldError, CorruptModelError
from bnfold.frontends.tensorflow.functions import MOST_NODES, too_many_nodes, without_calls
from bnfold.frontends.tensorflow.harmful import reaches_out
from bnfold.frontends.tensorflow.inputs import PIPELINES
from bnfold.frontends.tensorflow.messages import read_graph
from bnfold.frontends.tensorflow.net import Net, Ref, attribute, node_of, ref_of, unnamed
from bnfold.frontends.tensorflow.nodes import count_of, demand_possible_sizes
from bnfold.frontends.tensorflow.outputs import named_tensors, predicted
from bnfold.frontends.tensorflow.prune import needed
from bnfold.frontends.tensorflow.reading import demand_harmless, is_text

__all__ = ["demand_bounded", "demand_harmless_ends", "read_own"]

_OPERATION = re.compile(rb"""\bop\s*:\s*["']([^"'\\]*)["']""")
# Old programs write what each variable and each of its averages begins with as one number and a shape.
_MOST_ELEMENTS = 1 << 33
_MOST_EXPANSION = 100


def read_own(path: Path, kind: str) -> Any | None:
    """Return a file's message as one of our own; None where it is better left to TensorFlow.

    That is so for what does not parse, and for text that names no harmful operation: reading text takes long.

    Args:
        path: The file.
        kind: ``"Graph"``, ``"MetaGraph"`` or ``"SavedModel"``.
    """
    text = is_text(path)
    if text:
        named = {op.decode("ascii", "replace") for op in _OPERATION.findall(path.read_bytes())}
        if not any(reaches_out(op, checkpoints=True) for op in named):
            return None
    try:
        return read_graph(path, kind, text=text)
    except CorruptModelError:
        return None


def demand_bounded(graph: Any, size: int) -> None:
    """Refuse a graph that is small in its file, and becomes large by being read.

    Args:
        graph: The message of the graph.
        size: How many bytes its file has.

    Raises:
        CorruptModelError: If its constants have far more elements than the file has room for, or a node has no name.
        UnsupportedOpError: If its functions stand for more nodes than are spelled out.
    """
    for number, node in enumerate(graph.node):
        if not node.name or not node.op:
            raise unnamed(number, len(graph.node))
    every = [graph.node, *(function.node_def for function in graph.library.function)]
    elements = 0
    for nodes in every:
        demand_possible_sizes(nodes)
        elements += sum(count_of(node) for node in nodes if node.op == "Const")
    most = max(_MOST_ELEMENTS, _MOST_EXPANSION * size)
    if elements > most:
        raise CorruptModelError(
            f"the graph's constants say that they hold {elements} elements, in a file of {size} bytes",
            hint="Get the file again: it is damaged.",
        )
    # Not all of it need be read; what is so much larger is made to be so.
    if _spelled_out(graph) > 10 * MOST_NODES:
        raise too_many_nodes()


def _spelled_out(graph: Any) -> int:
    """Return how many nodes a graph has once its calls are spelled out; those that call without end count once."""
    library = {function.signature.name: function for function in graph.library.function}
    totals: dict[str, int] = {}
    begun: set[str] = set()
    stack = [*library]
    while stack:
        name = stack[-1]
        called = _called(library[name].node_def, library)
        waiting = [other for other in called if other not in totals and other not in begun]
        begun.add(name)
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        totals[name] = len(library[name].node_def) + sum(totals.get(other, 0) for other in called)
    return len(graph.node) + sum(totals.get(other, 0) for other in _called(graph.node, library))


def _called(nodes: Iterable[Any], library: Mapping[str, Any]) -> list[str]:
    """Return the functions that nodes call outright, each as often as it is called."""
    found = []
    for node in nodes:
        is_call = node.op in ("PartitionedCall", "StatefulPartitionedCall")
        name = attribute(node, "f").func.name if is_call else node.op
        found += [name] if name in library else []
    return found


def demand_harmless_ends(graph: Any, outputs: Sequence[str], inputs: Sequence[str], what: str) -> None:
    """Refuse a program whose outputs need an operation that reaches beyond computing.

    Args:
        graph: The message of the graph.
        outputs: The tensors that it is converted for; none where that is to be found out.
        inputs: The tensors that are fed, and so not computed.
        what: What the program came in, for messages: ``"a frozen graph"``.

    Raises:
        UnsupportedOpError: Naming the operations.
    """
    everywhere = [graph.node, *(function.node_def for function in graph.library.function)]
    if not any(reaches_out(node.op, checkpoints=True) for nodes in everywhere for node in nodes):
        return
    try:
        program = _program(graph, outputs, inputs, what)
    except (BnfoldError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        return  # it is told of where it is met again
    functions = [program.library[name] for name in program.called()]
    demand_harmless(SimpleNamespace(node=program.nodes.values(), library=SimpleNamespace(function=functions)))


def _program(graph: Any, outputs: Sequence[str], inputs: Sequence[str], what: str) -> Net:
    nodes = {node.name: node for node in graph.node}
    library = {function.signature.name: function for function in graph.library.function}
    for node in graph.node:
        if any(ref_of(text)[0] not in nodes for text in node.input):
            raise CorruptModelError(f"{node.name} reads what is not in the graph", hint="")
    net = without_calls(Net(nodes, library, graph.versions))
    ends: list[Ref] = named_tensors(net, outputs, "--outputs") if outputs else predicted(net, what)
    if not outputs and any(reaches_out(net.nodes[name].op, checkpoints=True) for name, _ in ends):
        # Only TensorFlow knows that such an operation has no result, and so is no prediction.
        raise CorruptModelError(f"{what} ends in what only TensorFlow knows", hint="")
    fed = {name for name, _ in named_tensors(net, inputs, "--inputs")}
    for name, node in net.nodes.items():
        if name in fed or node.op.startswith(PIPELINES):
            net.nodes[name] = node_of("Placeholder", name, [], like=node)
    return net.cut(needed(net, ends))
