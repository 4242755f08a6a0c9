"""TensorFlow's graph files, read with distrust: what does not parse is corrupt, what could do harm is refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bnfold.errors import CorruptModelError, UnsupportedOpError
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.harmful import reaches_out

__all__ = ["demand_harmless", "is_text", "read_graph_def", "read_message"]

_AGAIN = "Get the file again: it is empty, incomplete or damaged."


def is_text(path: Path) -> bool:
    """Return whether a file's name says that it holds a message as text."""
    return path.suffix in (".pbtxt", ".txt", ".prototxt")


def read_message(path: Path, message: Any, what: str) -> Any:
    """Fill a protobuf message from a file, in binary or, for ``.pbtxt`` and ``.txt``, as text, and return it.

    Raises:
        CorruptModelError: If the file is empty or does not parse.
    """
    content = path.read_bytes()
    if not content:
        raise CorruptModelError(f"{path.name} is empty", hint=_AGAIN)
    decode = tensorflow("google.protobuf.message")
    text_format = tensorflow("google.protobuf.text_format")
    try:
        if is_text(path):
            text_format.Parse(content.decode(), message)
        else:
            message.ParseFromString(content)
    except (decode.DecodeError, text_format.ParseError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise CorruptModelError(
            f"{path.name} ({len(content)} bytes) is not {what}: {' '.join(str(error).split())[:200]}", hint=_AGAIN
        ) from error
    return message


def read_graph_def(path: Path) -> Any:
    """Return the ``GraphDef`` in a ``.pb`` or ``.pbtxt`` file.

    Raises:
        CorruptModelError: If the file holds none, or one without nodes.
    """
    graph = read_message(path, tensorflow().compat.v1.GraphDef(), "a TensorFlow graph")
    if not graph.node:
        raise CorruptModelError(f"{path.name} is no TensorFlow graph: it has no nodes", hint=_AGAIN)
    return graph


def demand_harmless(graph_def: Any) -> None:
    """Refuse a graph whose operations reach beyond computing: files, code, devices, the network.

    Raises:
        UnsupportedOpError: If there is one, with the names of its nodes.
    """
    found: dict[str, list[str]] = {}
    for nodes in [graph_def.node, *(function.node_def for function in graph_def.library.function)]:
        _look(nodes, found)
    if found:
        listed = "; ".join(f"{op} at {', '.join(sorted(names)[:4])}" for op, names in sorted(found.items()))
        raise UnsupportedOpError(
            f"the graph reads files, runs code or talks to others, and such operations are not converted: {listed}",
            hint="Name outputs that do not need them, for example: --outputs logits:0",
        )


def _look(nodes: Iterable[Any], found: dict[str, list[str]]) -> None:
    for node in nodes:
        if reaches_out(node.op, checkpoints=True):
            found.setdefault(node.op, []).append(node.name)
