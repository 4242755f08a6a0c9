"""Operations that tf2onnx does not know, written with those that ONNX has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from bnfold.frontends.tensorflow.guests import tf2onnx

__all__ = ["operations_known"]

Writer = Callable[..., None]


@contextmanager
def operations_known() -> Iterator[None]:
    """Teach tf2onnx these operations while the block runs."""
    registry = tf2onnx("tf2onnx.handler").tf_op
    known = registry.get_opsets()[""][1]
    missing = {op: writer for op, writer in _WRITERS.items() if op not in known}
    for op, writer in missing.items():
        registry(op).register_compat_handler(writer, 1)
    try:
        yield
    finally:
        for op in missing:
            known.pop(op, None)


def _one_less(op_type: str) -> Writer:
    """Return what writes ``1 - f(x)``."""

    def write(graph: Any, node: Any, **_: Any) -> None:
        inner, outputs, shapes, dtypes = _taken_out(graph, node)
        value = graph.make_node(op_type, [inner], shapes=shapes, dtypes=dtypes).output[0]
        graph.make_node(
            "Sub", [_one(graph, dtypes[0]), value], outputs=outputs, shapes=shapes, dtypes=dtypes, name=node.name
        )

    return write


def _write_expm1(graph: Any, node: Any, **_: Any) -> None:
    """Write ``exp(x) - 1``."""
    inner, outputs, shapes, dtypes = _taken_out(graph, node)
    value = graph.make_node("Exp", [inner], shapes=shapes, dtypes=dtypes).output[0]
    graph.make_node(
        "Sub", [value, _one(graph, dtypes[0])], outputs=outputs, shapes=shapes, dtypes=dtypes, name=node.name
    )


def _write_log1p(graph: Any, node: Any, **_: Any) -> None:
    """Write ``log(x + 1)``."""
    inner, outputs, shapes, dtypes = _taken_out(graph, node)
    value = graph.make_node("Add", [inner, _one(graph, dtypes[0])], shapes=shapes, dtypes=dtypes).output[0]
    graph.make_node("Log", [value], outputs=outputs, shapes=shapes, dtypes=dtypes, name=node.name)


def _pass_on(graph: Any, node: Any, **_: Any) -> None:  # noqa: ARG001  # tf2onnx's shape
    """Make of a node what it is in inference mode: its first input."""
    for attribute in list(node.attr):
        del node.attr[attribute]
    del node.input[1:]
    node.type = "Identity"


def _taken_out(graph: Any, node: Any) -> tuple[str, list[str], list[Any], list[Any]]:
    inner, outputs = node.input[0], list(node.output)
    shapes, dtypes = [graph.get_shape(outputs[0])], [graph.get_dtype(outputs[0])]
    graph.remove_node(node.name)
    return inner, outputs, shapes, dtypes


def _one(graph: Any, dtype: int) -> str:
    utils = tf2onnx("tf2onnx.utils")
    one = np.array(1, utils.map_onnx_to_numpy_type(dtype))
    return str(graph.make_const(utils.make_name("one"), one).output[0])


_WRITERS: Mapping[str, Writer] = {
    "Erfc": _one_less("Erf"),
    "Expm1": _write_expm1,
    "Log1p": _write_log1p,
    "PreventGradient": _pass_on,
    "Print": _pass_on,
    "Snapshot": _pass_on,
}
