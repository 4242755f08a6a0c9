"""A traced TensorFlow function as a frozen graph: variables become constants, and what no output needs goes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bnfold.errors import InferenceModeError
from bnfold.frontends.tensorflow.guests import quiet, tensorflow

__all__ = ["Frozen", "cut", "freeze", "nodes_of", "refuse_training_mode"]

_RANDOM = re.compile(
    r"(Stateless|Stateful)?(Random(Uniform|Normal|StandardNormal|Gamma|Poisson|Binomial|Shuffle|Index)|TruncatedNormal"
    r"|ParameterizedTruncatedNormal|Multinomial|StandardNormal|UniformInt|UniformFullInt|Uniform)\w*"
)
_CHANGES = re.compile(r"Assign(Add|Sub)?(VariableOp)?|Resource(Scatter|Apply|SparseApply|StridedSliceAssign)\w*")


@dataclass(frozen=True, slots=True)
class Frozen:
    """A graph without variables.

    Attributes:
        graph_def: The graph, a ``GraphDef``.
        inputs: Names of the tensors to feed, such as ``"x:0"``, in the function's order.
        outputs: Names of the tensors to compute, in the function's order.
    """

    graph_def: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def only(self, chosen: Sequence[int]) -> Frozen:
        """Return what some of the outputs need, by their positions."""
        outputs = tuple(self.outputs[index] for index in chosen)
        return Frozen(cut(self.graph_def, self.inputs, outputs), self.inputs, outputs)


def freeze(concrete: Any) -> Frozen:  # a guest's concrete function
    """Return a concrete function as a frozen graph, its calls spelled out, nothing computed ahead or combined.

    Raises:
        InferenceModeError: If it computes in training mode.
    """
    # What trains cannot be frozen either, and TensorFlow would say so in its own words.
    refuse_training_mode(cut(concrete.graph.as_graph_def(), (), [tensor.name for tensor in concrete.outputs]))
    converter = tensorflow("tensorflow.python.framework.convert_to_constants")
    with quiet(), _no_session(), _compiled_functions_inlined(converter):
        frozen = converter.convert_variables_to_constants_v2(
            concrete, lower_control_flow=False, aggressive_inlining=True
        )
    inputs, outputs = (tuple(tensor.name for tensor in tensors) for tensors in (frozen.inputs, frozen.outputs))
    graph_def = cut(frozen.graph.as_graph_def(), inputs, outputs)
    refuse_training_mode(graph_def)
    return Frozen(graph_def, inputs, outputs)


@contextmanager
def _compiled_functions_inlined(converter: Any) -> Iterator[None]:
    """Let TensorFlow inline functions that are marked to be compiled, as Keras marks grouped convolutions.

    The mark says how to run them, not what they compute; with it they would stay calls, which ONNX does not have.
    """
    original = converter.disable_lower_using_switch_merge

    def unmarked(graph_def: Any) -> Any:
        graph_def = original(graph_def)
        for marked in (*graph_def.library.function, *nodes_of(graph_def)):
            for mark in ("_XlaMustCompile", "_XlaCompile"):
                marked.attr.pop(mark, None)
        return graph_def

    converter.disable_lower_using_switch_merge = unmarked
    try:
        yield
    finally:
        converter.disable_lower_using_switch_merge = original


@contextmanager
def _no_session() -> Iterator[None]:
    """Let TensorFlow inline functions without starting a session on this machine, which it would announce on stderr."""
    clusters = tensorflow("tensorflow.python.grappler.cluster")
    devices = tensorflow("tensorflow.core.protobuf.device_properties_pb2")
    cpu = devices.NamedDevice(name="/CPU:0", properties=devices.DeviceProperties(type="CPU", num_cores=1))
    original = clusters.Cluster
    clusters.Cluster = lambda: original(devices=[cpu])
    try:
        yield
    finally:
        clusters.Cluster = original


def cut(graph_def: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return what some tensors are computed from, without control edges: in inference mode nothing has an effect.

    Inputs stay even where no output needs them, so that the signature stays what it is.
    """
    nodes = {node.name: node for node in graph_def.node}
    needed: set[str] = set()
    stack = [name.partition(":")[0] for name in (*outputs, *inputs)]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(_node_of(source) for source in nodes[name].input if not source.startswith("^"))
    kept = type(graph_def)()
    kept.CopyFrom(graph_def)
    del kept.node[:]
    for node in graph_def.node:
        if node.name in needed:
            copy = kept.node.add()
            copy.CopyFrom(node)
            copy.input[:] = [source for source in node.input if not source.startswith("^")]
    called = _called(kept)
    functions = [function for function in graph_def.library.function if function.signature.name in called]
    del kept.library.function[:]
    kept.library.function.extend(functions)
    return kept


def _called(graph_def: Any) -> set[str]:
    functions = {function.signature.name: function.node_def for function in graph_def.library.function}
    called: set[str] = set()
    stack = [graph_def.node]
    while stack:
        for node in stack.pop():
            for attribute in node.attr.values():
                for name in (attribute.func.name, *(one.name for one in attribute.list.func), node.op):
                    if name in functions and name not in called:
                        called.add(name)
                        stack.append(functions[name])
    return called


def _node_of(source: str) -> str:
    return source.partition(":")[0]


def nodes_of(graph_def: Any) -> list[Any]:
    """Return the nodes of a graph and of its functions."""
    return [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]


def refuse_training_mode(graph_def: Any) -> None:
    """Check that nothing is left of training: no batch statistics, nothing random, no variable that changes.

    Raises:
        InferenceModeError: Naming the first such operation.
    """
    nodes = nodes_of(graph_def)
    for found, says in (
        ([node for node in nodes if _on_batch_statistics(node)], "normalises with the statistics of each batch"),
        ([node for node in nodes if _RANDOM.fullmatch(node.op)], "draws random numbers"),
        ([node for node in nodes if _CHANGES.fullmatch(node.op)], "changes a variable"),
    ):
        if found:
            more = f" ({len(found)} such operations)" if len(found) > 1 else ""
            raise InferenceModeError(
                f"the network stays in training mode: {found[0].op} at {found[0].name} {says}{more}",
                hint="Export the model again with training=False.",
            )


def _on_batch_statistics(node: Any) -> bool:
    # Without the attribute an operation has its default, which is training.
    return node.op.startswith("FusedBatchNorm") and (
        "Grad" not in node.op and ("is_training" not in node.attr or node.attr["is_training"].b)
    )
