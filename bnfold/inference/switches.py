"""Inputs that choose between training and inference: found by what they leave of training, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.inference.change import Change
from bnfold.inference.program import Program, Scalar
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


def prove(program: Program) -> tuple[dict[str, Scalar], list[Change]]:
    """Return the inputs that switch training on and off, each with the value that is proved to be inference.

    Each value of an input of one element is set in turn, and what is left of training is looked up. A value is
    inference if it leaves some of it out, and leaves nothing that the other value would not leave as well.
    """
    pins: dict[str, Scalar] = {}
    changes: list[Change] = []
    pending = list(_candidates(program))
    while pending:
        for name, kind, values in pending:
            left = [
                training_nodes(program, program.live(_with(pins, name, value)), _with(pins, name, value))
                for value in values
            ]
            if left[0] == left[1] or not (left[0] < left[1] or left[1] < left[0]):
                continue
            inference = 0 if left[0] < left[1] else 1
            pins[name] = values[inference]
            proof = ", ".join(f"{values[one]} leaves {_count(len(left[one]))}" for one in (1 - inference, inference))
            changes.append(Change("switch", name, f"{kind} input", str(values[inference]), proof))
            break
        else:
            break
        pending = [candidate for candidate in pending if candidate[0] not in pins]
    return pins, changes


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


def drop_idle_inputs(model: ModelProto, before: frozenset[str]) -> list[Change]:
    """Remove the inputs that nothing reads any more, and return what was removed.

    Args:
        model: The model, changed in place.
        before: What its nodes read before anything was switched: an input that was idle then is left alone.
    """
    read = read_names(model)
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


def read_names(model: ModelProto) -> frozenset[str]:
    """Return every name that a node or an output of any graph of a model reads."""
    program = Program(model)
    nodes = (name for view in program.views.values() for node in view.graph.node for name in node.input)
    outputs = (name for view in program.views.values() for name in view.outputs)
    return frozenset((*nodes, *outputs))


def _candidates(program: Program) -> Iterator[tuple[str, str, tuple[Scalar, Scalar]]]:
    main = program.views[()]
    for value in program.model.graph.input:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            continue
        single = all(dimension.dim_value == 1 for dimension in tensor.shape.dim)
        if single and tensor.elem_type in _TYPES and main.tensor(value.name) is None:
            yield value.name, _kind(value), _TYPES[tensor.elem_type]


def _with(pins: Mapping[str, Scalar], name: str, value: Scalar) -> dict[str, Scalar]:
    return {**pins, name: value}


def _kind(value: ValueInfoProto) -> str:
    element = value.type.tensor_type.elem_type
    if element == TensorProto.STRING or not element:
        return "str" if element else "unknown"
    return np.dtype(helper.tensor_dtype_to_np_dtype(element)).name


def _count(number: int) -> str:
    return f"{number} node{'' if number == 1 else 's'} of training"
