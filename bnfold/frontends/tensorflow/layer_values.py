"""What the operations of a TensorFlow graph compute, to find the one at which a translation goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bnfold.frontends.loaded import Array, LayerReader, LayerValue
from bnfold.frontends.tensorflow.concrete import Frozen
from bnfold.frontends.tensorflow.guests import quiet, tensorflow

__all__ = ["layer_reader"]

_MOST = 1 << 29
"""Bytes of values that are kept at most."""
_AT_ONCE = 32
_PASSING = frozenset({"Const", "Identity", "Placeholder", "PlaceholderWithDefault", "NoOp"})


def layer_reader(frozen: Frozen, names: Sequence[str]) -> LayerReader:
    """Return a function that runs a frozen graph in TensorFlow and returns what its operations compute.

    Args:
        frozen: The graph, before anything in it is converted.
        names: The ONNX names of its inputs, in order.
    """

    def read(feeds: Mapping[str, Array]) -> tuple[LayerValue, ...]:
        tf = tensorflow()
        graph = tf.Graph()
        with quiet(), graph.as_default(), tf.device("/cpu:0"):
            tf.import_graph_def(frozen.graph_def, name="")
        fed = {tensor: feeds[name] for tensor, name in zip(frozen.inputs, names, strict=True) if name in feeds}
        varying = _varying(graph, [tensor.partition(":")[0] for tensor in frozen.inputs])
        wanted = [
            operation
            for operation in varying
            if operation.type not in _PASSING and operation.outputs and operation.outputs[0].dtype.is_floating
        ]
        known = {operation.name for operation in wanted}
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        with quiet(), tf.compat.v1.Session(graph=graph, config=config) as session:
            found = list(_fetched(session, wanted, fed))
        return tuple(
            LayerValue(operation.name, operation.type, value, tuple(_reads(operation, known)))
            for operation, value in found
        )

    return read


def _varying(graph: Any, fed: Sequence[str]) -> Iterator[Any]:
    """Yield the operations that depend on what is fed; the graph has its operations in no order."""
    pending = [graph.get_operation_by_name(name) for name in fed]
    seen: set[str] = set()
    while pending:
        operation = pending.pop()
        for tensor in operation.outputs:
            for reader in tensor.consumers():
                if reader.name not in seen:
                    seen.add(reader.name)
                    pending.append(reader)
    left = {name: {tensor.op.name for tensor in graph.get_operation_by_name(name).inputs} & seen for name in seen}
    while left:  # one after what it reads; a loop that reads itself ends it
        ready = [name for name, reads in left.items() if left.keys().isdisjoint(reads)]
        for name in sorted(ready or left):
            yield graph.get_operation_by_name(name)
            del left[name]


def _fetched(session: Any, wanted: Sequence[Any], fed: Mapping[str, Array]) -> Iterator[tuple[Any, Array]]:
    """Yield operations with their first output; what lies in a branch that is not taken has none."""
    held = 0
    pending = [list(wanted[start : start + _AT_ONCE]) for start in range(0, len(wanted), _AT_ONCE)][::-1]
    while pending and held <= _MOST:
        some = pending.pop()
        try:
            values = session.run([operation.outputs[0] for operation in some], fed)
        except (ValueError, tensorflow().errors.OpError):
            if len(some) > 1:
                pending += [some[len(some) // 2 :], some[: len(some) // 2]]
            continue
        for operation, value in zip(some, values, strict=True):
            array = np.asarray(value)
            held += array.nbytes
            yield operation, array


def _reads(operation: Any, known: set[str]) -> Iterator[str]:
    """Yield the operations whose values it reads, through those that only pass values on."""
    pending = [tensor.op for tensor in operation.inputs]
    seen: set[str] = set()
    while pending:
        source = pending.pop()
        if source.name in seen:
            continue
        seen.add(source.name)
        if source.name in known:
            yield source.name
        else:
            pending += [tensor.op for tensor in source.inputs]
