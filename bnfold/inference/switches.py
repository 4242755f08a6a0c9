"""Inputs that choose between training and inference: found by what they leave of training, whatever they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.inference.change import Change
from bnfold.inference.program import Place, Program, Scalar, standard
from bnfold.inference.training import training_nodes

__all__ = ["drop_idle_inputs", "pin", "prove", "read_names"]

_TYPES = {
    TensorProto.BOOL: (False, True),
    TensorProto.INT32: (0, 1),
    TensorProto.INT64: (0, 1),
    TensorProto.UINT8: (0, 1),
    TensorProto.INT8: (0, 1),
    TensorProto.FLOAT: (0.0, 1.0),
    TensorProto.FLOAT16: (0.0, 1.0),
    TensorProto.DOUBLE: (0.0, 1.0),
}
_Candidate = tuple[str, str, tuple[Scalar, Scalar]]

_LAYERS = frozenset(
    {
        "BatchNormalization",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DeformConv",
        "Einsum",
        "GRU",
        "Gather",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LSTM",
        "LayerNormalization",
        "MatMul",
        "MatMulInteger",
        "PRelu",
        "QLinearConv",
        "QLinearMatMul",
        "RMSNormalization",
        "RNN",
    }
)
"""What is a layer if it reads an array of numbers. A constant affine is none: branches may spell it differently."""


def prove(program: Program) -> tuple[dict[str, Scalar], list[Change]]:
    """Return the inputs that switch training on and off, each with the value that is proved to be inference.

    Each value of an input of one element is set in turn, and what is left of training is looked up. A value is
    inference if it leaves some of it out, leaves nothing that the other value would not leave as well, and loses no
    layer: an input that skips a part of the network is no mode, even where that part happens to be in training mode.
    """
    pins: dict[str, Scalar] = {}
    changes: list[Change] = []
    pending = list(_candidates(program))
    while pending:
        for candidate in pending:
            change = _decide(program, candidate, pins)
            if change is not None:
                changes.append(change)
                break
        else:
            break
        pending = [candidate for candidate in pending if candidate[0] not in pins]
    return pins, changes


def _decide(program: Program, candidate: _Candidate, pins: dict[str, Scalar]) -> Change | None:
    """Pin one input if one of its values is proved to be inference."""
    name, kind, values = candidate
    live = [program.live({**pins, name: value}) for value in values]
    left = [training_nodes(program, nodes, {**pins, name: value}) for nodes, value in zip(live, values, strict=True)]
    if not (left[0] < left[1] or left[1] < left[0]):
        return None
    inference = 0 if left[0] < left[1] else 1
    if _loses_layers(program, live[1 - inference] - live[inference], live[inference]):
        return None
    pins[name] = values[inference]
    proof = ", ".join(f"{values[one]} leaves {_count(len(left[one]))}" for one in (1 - inference, inference))
    return Change("switch", name, f"{kind} input", str(values[inference]), proof)


def _loses_layers(program: Program, lost: set[Place], kept: set[Place]) -> bool:
    """Say whether one of the nodes that are lost has weights that nothing reads among those that are kept."""
    layers = [weights for place in lost if (weights := _weights(program, place))]
    if not layers:
        return False
    read = {weight for place in kept for weight in _weights(program, place, layers_only=False)}
    return any(read.isdisjoint(weights) for weights in layers)


def _weights(program: Program, place: Place, *, layers_only: bool = True) -> set[bytes]:
    """Return what identifies the constants that a layer reads, whatever they are called."""
    view, node = program.views[place[0]], program.node(place)
    if layers_only and standard(node) and node.op_type not in _LAYERS:
        return set()
    found = set()
    for name in node.input:
        value = view.constant(name) if name else None
        if value is not None and value.size > 1:
            found.add(hashlib.sha256(repr(value.shape).encode() + value.tobytes()).digest())
    return found


def pin(model: ModelProto, pins: Mapping[str, Scalar]) -> None:
    """Make constants of inputs, in place."""
    graph = model.graph
    for name, scalar in pins.items():
        (place,) = [index for index, value in enumerate(graph.input) if value.name == name]
        tensor = graph.input[place].type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        constant = numpy_helper.from_array(np.full([1] * len(tensor.shape.dim), scalar, dtype=dtype), name)
        for index in reversed(range(len(graph.initializer))):
            if graph.initializer[index].name == name:
                del graph.initializer[index]
        graph.initializer.append(constant)
        if model.ir_version >= 4:  # before that, an initializer has to be listed as an input
            del graph.input[place]


def drop_idle_inputs(program: Program, before: frozenset[str]) -> list[Change]:
    """Remove the inputs that nothing reads any more, and return what was removed.

    Args:
        program: The model, changed in place.
        before: What its nodes read before anything was switched: an input that was idle then is left alone.
    """
    model, read = program.model, read_names(program)
    initializers = {tensor.name for tensor in model.graph.initializer}
    changes = []
    for place in reversed(range(len(model.graph.input))):
        value = model.graph.input[place]
        if value.name in before - read - initializers:
            changes.append(
                Change("switch", value.name, f"{_kind(value)} input", "dropped", "nothing reads it in inference mode")
            )
            del model.graph.input[place]
    return changes[::-1]


def read_names(program: Program) -> frozenset[str]:
    """Return every name that a node or an output of any graph of a model reads."""
    nodes = (name for view in program.views.values() for node in view.graph.node for name in node.input)
    outputs = (name for view in program.views.values() for name in view.outputs)
    return frozenset((*nodes, *outputs))


def _candidates(program: Program) -> Iterator[_Candidate]:
    main = program.views[()]
    for value in program.model.graph.input:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            continue
        single = all(dimension.dim_value == 1 for dimension in tensor.shape.dim)
        if single and tensor.elem_type in _TYPES and main.tensor(value.name) is None:
            yield value.name, _kind(value), _TYPES[tensor.elem_type]


def _kind(value: ValueInfoProto) -> str:
    element = value.type.tensor_type.elem_type
    if element == TensorProto.STRING or not element:
        return "str" if element else "unknown"
    return np.dtype(helper.tensor_dtype_to_np_dtype(element)).name


def _count(number: int) -> str:
    return f"{number} node{'' if number == 1 else 's'} of training"
