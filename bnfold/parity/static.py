"""Gate 0: what can be said of a folded model without running it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.parity.kernels import computes_with
from bnfold.parity.nodes import STANDARD
from bnfold.parity.verdict import Finding

__all__ = ["check_static", "fits_one_message"]

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_MODE = re.compile(
    r"(^|[/_.:])(is_?)?(train(ing)?|phase_?train|learning_phase|keep_?prob|is_?test)([/_.:]|$)", re.IGNORECASE
)
_LARGEST_MESSAGE = (1 << 31) - (1 << 20)


def fits_one_message(model: ModelProto) -> bool:
    """Whether a model is small enough to be serialized in one piece."""
    # Counting the bytes of a message costs as much as serializing it: a bound on its tensors does in nearly all cases.
    pending: list[GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    held = 0
    while pending:
        graph = pending.pop()
        tensors = list(graph.initializer) if isinstance(graph, GraphProto) else []
        if isinstance(graph, GraphProto) and graph.sparse_initializer:
            return bool(model.ByteSize() < _LARGEST_MESSAGE)
        for node in graph.node:
            for attribute in node.attribute:
                held += 16 * (len(attribute.floats) + len(attribute.ints)) + 1000
                pending += [attribute.g] if attribute.type == AttributeProto.GRAPH else []
                pending += attribute.graphs
                tensors += [attribute.t] if attribute.type == AttributeProto.TENSOR else []
        if any(tensor.data_type == TensorProto.STRING for tensor in tensors):
            return bool(model.ByteSize() < _LARGEST_MESSAGE)
        held += sum(16 * math.prod(tensor.dims) + 1000 for tensor in tensors)
    return held < _LARGEST_MESSAGE // 2 or bool(model.ByteSize() < _LARGEST_MESSAGE)


def check_static(unfolded: ModelProto, folded: ModelProto, *, apart: bool = False) -> tuple[Finding, ...]:
    """Return what is wrong with a folded model on the face of it; nothing, if all is well.

    Args:
        unfolded: The model before.
        folded: The model after.
        apart: Whether the two were written independently: then symbols of free axes, the order of inputs and outputs,
            and the names of constants are nobody's business.
    """
    checks = (
        _checker(unfolded, folded),
        _kinds(unfolded, folded) if apart else _signature(unfolded, folded),
        _training(folded),
        iter(()) if apart else _non_finite(unfolded, folded),
    )
    return tuple(finding for check in checks for finding in check)


def _checker(unfolded: ModelProto, folded: ModelProto) -> Iterator[Finding]:
    """Ask onnx.checker; what it already said of the unfolded model is not the fold's doing."""
    after = _complaint(folded)
    if after and _complaint(unfolded) is None:
        yield Finding("onnx.checker", after)


def _complaint(model: ModelProto) -> str | None:
    try:
        onnx.checker.check_model(_light(model))
    except (onnx.checker.ValidationError, ValueError) as error:
        return str(error).strip().splitlines()[0]
    return None


def _light(model: ModelProto) -> ModelProto:
    """Return the model with its large tensors as inputs: the checker looks at the graph, and copies what it gets."""
    light = ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name or "graph"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    listed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) < 1 << 14 or tensor.data_type == TensorProto.STRING:
            light.graph.initializer.append(tensor)
        elif tensor.name not in listed:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return light


def _signature(unfolded: ModelProto, folded: ModelProto) -> Iterator[Finding]:
    for side in ("input", "output"):
        before, after = (
            {value.name: _described(value) for value in getattr(model.graph, side) if not _is_constant(model, value)}
            for model in (unfolded, folded)
        )
        if list(before) != list(after):
            yield Finding(f"{side}s", f"{_listed(before)} became {_listed(after)}")
            continue
        for name, described in before.items():
            if described != after[name]:
                yield Finding(f"{side}s", f"{name} was {described} and is {after[name]}")


def _kinds(unfolded: ModelProto, folded: ModelProto) -> Iterator[Finding]:
    """Compare what the arrays are, but not what the free axes are called."""
    for side in ("input", "output"):
        before, after = (
            {value.name: value for value in getattr(model.graph, side) if not _is_constant(model, value)}
            for model in (unfolded, folded)
        )
        if set(before) != set(after):
            yield Finding(f"{side}s", f"{_listed(before)} here, {_listed(after)} there")
            continue
        for name, value in before.items():
            other = after[name]
            if not _alike(value, other):
                yield Finding(f"{side}s", f"{name} is {_described(value)} here and {_described(other)} there")


def _alike(value: ValueInfoProto, other: ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    if kind != other.type.WhichOneof("value"):
        return False
    if kind != "tensor_type":
        return True
    one, two = value.type.tensor_type, other.type.tensor_type
    if one.elem_type != two.elem_type:
        return False
    if not one.HasField("shape") or not two.HasField("shape"):
        return True
    if len(one.shape.dim) != len(two.shape.dim):
        return False
    sizes = [
        (a.dim_value, b.dim_value)
        for a, b in zip(one.shape.dim, two.shape.dim, strict=True)
        if a.HasField("dim_value") and b.HasField("dim_value")
    ]
    return all(a == b for a, b in sizes)


def _is_constant(model: ModelProto, value: ValueInfoProto) -> bool:
    return any(tensor.name == value.name for tensor in model.graph.initializer)


def _described(value: ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value"))
    tensor = value.type.tensor_type
    element = TensorProto.DataType.Name(tensor.elem_type).lower()
    if not tensor.HasField("shape"):
        return f"{element} of any shape"
    sizes = [str(size.dim_value) if size.HasField("dim_value") else size.dim_param or "?" for size in tensor.shape.dim]
    return f"{element}[{', '.join(sizes)}]"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _nodes(model: ModelProto) -> Iterator[tuple[NodeProto, GraphProto | onnx.FunctionProto]]:
    pending: list[GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        for node in graph.node:
            yield node, graph
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _training(folded: ModelProto) -> Iterator[Finding]:
    opset = next((entry.version for entry in folded.opset_import if entry.domain in STANDARD), 1)
    constants = {tensor.name: tensor for tensor in folded.graph.initializer}
    for node, _graph in _nodes(folded):
        if node.domain not in STANDARD:
            continue
        name = node.name or next(iter(node.output), "")
        numbers = {attribute.name: attribute.i for attribute in node.attribute if attribute.type == AttributeProto.INT}
        if node.op_type == "BatchNormalization":
            trains = (
                numbers.get("training_mode", 0) == 1 if opset >= 14 else opset < 7 and not numbers.get("is_test", 0)
            )
            if trains:
                yield Finding("training mode", f"batch norm {name} computes with its batch's statistics")
        elif node.op_type == "Dropout":
            if (opset < 7 and not numbers.get("is_test", 0)) or _switched_on(node, folded, constants):
                yield Finding("training mode", f"dropout {name} is not switched off")
        elif node.op_type in _RANDOM:
            yield Finding("random", f"{node.op_type} {name} draws random numbers")
    for value in folded.graph.input:
        tensor = value.type.tensor_type
        scalar = tensor.HasField("shape") and all(size.dim_value == 1 for size in tensor.shape.dim)
        if value.name not in constants and scalar and _MODE.search(value.name):
            yield Finding("mode input", f"{value.name} still switches between training and inference")


def _switched_on(node: NodeProto, model: ModelProto, constants: dict[str, TensorProto]) -> bool:
    name = node.input[2] if len(node.input) > 2 else ""
    if not name:
        return False
    if name in constants:
        return bool(np.any(numpy_helper.to_array(constants[name])))
    for other, _graph in _nodes(model):
        if other.op_type == "Constant" and name in other.output:
            return any(bool(np.any(numpy_helper.to_array(item.t))) for item in other.attribute if item.name == "value")
    return True


def _non_finite(unfolded: ModelProto, folded: ModelProto) -> Iterator[Finding]:
    """A mask of minus infinities belongs to the model; what a fold wrote has to be finite."""
    before = {tensor.name: tensor for tensor in unfolded.graph.initializer}
    for tensor in folded.graph.initializer:
        old = before.get(tensor.name)
        if old is not None and (old is tensor or old.raw_data == tensor.raw_data) and old.dims == tensor.dims:
            continue
        if tensor.data_type == TensorProto.STRING:
            continue
        array = np.asarray(numpy_helper.to_array(tensor))
        if computes_with(array) and not np.isfinite(array.astype(np.float64)).all():
            count = int((~np.isfinite(array.astype(np.float64))).sum())
            yield Finding("finite", f"initializer {tensor.name} holds {count} numbers that are not finite")
