"""ONNX files: checked, cut to the signature that was asked for, and otherwise as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.errors import CorruptModelError, SignatureError, UnsupportedOpError
from bnfold.frontends.loaded import Loaded, ModeChange, Request, TensorSpec
from bnfold.frontends.signature import listed, require_known, unknown_name
from bnfold.frontends.sniff import Format
from bnfold.graph.io import load_model
from bnfold.graph.outside import is_outside
from bnfold.graph.shapes import ValueType, infer, subgraphs
from bnfold.graph.view import STANDARD_DOMAINS, outer_names

__all__ = ["check", "cut", "load", "specs"]

_SMALL = 1 << 16
"""Initializers with more bytes are replaced by inputs of their type while the rest is checked."""

_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


def load(path: Path, request: Request) -> Loaded:
    """Read an ONNX file.

    Nothing is converted, and a file for which nothing was asked comes back as it is: its dynamic dimensions, its
    operator set and its names. ``run`` is None, because the file is its own original.

    Raises:
        UnknownFormatError: If the file is no ONNX model.
        CorruptModelError: If it is damaged, or breaks the rules of the format.
        UnsupportedOpError: If it uses a standard operator that does not exist, or inputs that are no tensors.
        SignatureError: If a named input, output or value does not exist.
        OSError: If it exists and cannot be read.
    """
    if request.signature is not None:
        raise SignatureError(
            f"an ONNX file has no named signatures, so none is called '{request.signature}'",
            hint="Leave --signature out, or cut the model with --inputs and --outputs.",
        )
    model = load_model(path, request.outside)
    check(model, path)
    mode = _pin(model, request.set_values)
    model = cut(model, request.inputs, request.outputs)
    version = model.producer_version.removesuffix(" None")  # so tf2onnx writes it where it knows no commit
    producer = " ".join(part for part in (model.producer_name, version) if part)
    inputs, outputs = specs(model)
    return Loaded(
        model=model,
        format=Format.ONNX.value,
        framework=producer or "ONNX",
        description=f"ONNX · IR {model.ir_version} · opset {_opset(model)}",
        inputs=inputs,
        outputs=outputs,
        mode=mode,
        run=None,
    )


def check(model: ModelProto, name: object = "the model") -> None:
    """Hold a model against the rules of the format, whatever operators of other domains it uses.

    Weights are left out of it, so that it takes the same time and memory for a model of any size.

    Args:
        model: What to check.
        name: What to call it in errors.

    Raises:
        CorruptModelError: If it breaks a rule.
        UnsupportedOpError: If it needs a version of the standard operators that is not known, or an operator that its
            version does not have.
    """
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= _opset(model) <= newest:
        raise UnsupportedOpError(
            f"{name} uses opset {_opset(model)}; 1 to {newest} are known",
            hint="Upgrade the onnx package, or export the model with an older opset.",
        )
    try:
        onnx.checker.check_model(_skeleton(model))
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        reason = re.sub(r"\s+", " ", str(error).partition("==>")[0]).strip()[:300]
        unknown = re.search(r"No Op registered for (\S+) with domain_version of (\d+)", str(error))
        if unknown is not None:
            raise UnsupportedOpError(
                f"{name} uses the operator {unknown[1]}, which opset {unknown[2]} does not have",
                hint="Export the model with the opset that has it; custom operators need a domain of their own.",
            ) from None
        raise CorruptModelError(
            f"{name} breaks a rule of ONNX: {reason}", hint="Export the model again, with a current exporter."
        ) from None


def cut(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    """Return the part of a model between some of its values; the model itself where that is all of it.

    Args:
        model: The whole model; it is not changed.
        inputs: Values of the main graph to feed, in this order; empty means the model's inputs, those that are needed.
        outputs: Values of the main graph to compute, in this order; empty means the model's outputs.

    Raises:
        SignatureError: If a value does not exist, if an input is missing among those that were named, or if one that
            was named influences no output.
    """
    graph = model.graph
    own_inputs = [value.name for value in _fed(graph)]
    own_outputs = [value.name for value in graph.output]
    inputs, outputs = list(inputs), list(outputs)
    if inputs in ([], own_inputs) and outputs in ([], own_outputs):
        return model
    computed = [name for node in graph.node for name in node.output if name]
    known = list(dict.fromkeys((*own_inputs, *own_outputs, *computed)))
    require_known("value", outputs, known, option="--outputs")
    require_known("value", inputs, known, option="--inputs")
    nodes, read = _ancestors(graph, outputs or own_outputs, stop=set(inputs))
    if inputs:
        _require_cover(inputs, outputs or own_outputs, own_inputs, read)
    else:
        inputs = [name for name in own_inputs if name in read]
    types = infer(model)[()]
    declared = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    result = ModelProto()
    result.CopyFrom(_without_graph(model))
    part = result.graph
    part.name, part.doc_string = graph.name, graph.doc_string
    part.node.extend(nodes)
    part.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    part.sparse_initializer.extend(tensor for tensor in graph.sparse_initializer if tensor.values.name in read)
    part.input.extend(_declaration(name, declared, types) for name in inputs)
    initializers = {tensor.name for tensor in part.initializer}
    part.input.extend(value for value in graph.input if value.name in initializers)
    part.output.extend(_declaration(name, declared, types) for name in outputs or own_outputs)
    kept = {name for node in nodes for name in node.output}
    part.value_info.extend(value for value in graph.value_info if value.name in kept)
    part.quantization_annotation.extend(note for note in graph.quantization_annotation if note.tensor_name in kept)
    part.metadata_props.extend(graph.metadata_props)
    return result


def specs(model: ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return what a model takes and gives; initializers are no inputs, even where old files list them as such.

    Raises:
        UnsupportedOpError: If one of them is a sequence, a map or a sparse tensor.
    """
    inputs = tuple(_spec(value, "input") for value in _fed(model.graph))
    outputs = tuple(_spec(value, "output") for value in model.graph.output)
    if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        return inputs, outputs
    types = infer(model)[()]  # some output leaves its shape to the runtime
    shapes = (types[spec.name].shape if spec.name in types else None for spec in outputs)
    return inputs, tuple(
        spec if spec.shape or not shape else replace(spec, shape=shape)
        for spec, shape in zip(outputs, shapes, strict=True)
    )


def _opset(model: ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS]
    return int(versions[0]) if versions else 1


def _fed(graph: GraphProto) -> list[ValueInfoProto]:
    initializers = {tensor.name for tensor in graph.initializer}
    initializers |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in initializers]


def _spec(value: ValueInfoProto, what: str) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        kind = (value.type.WhichOneof("value") or "value of unknown type").replace("_type", "").replace("_", " ")
        raise UnsupportedOpError(
            f"{what} '{value.name}' is a {kind}, not a tensor",
            hint=f"Cut the model at tensors with --{what}s, for example in front of what makes the {kind}.",
        )
    tensor = value.type.tensor_type
    if tensor.elem_type == TensorProto.STRING:
        dtype = "str"
    else:
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
        except (KeyError, TypeError):
            raise CorruptModelError(
                f"{what} '{value.name}' has the unknown type {tensor.elem_type}", hint="Export the model again."
            ) from None
    # Exporters have written open dimensions as 0 and as -1 too.
    shape: list[int | str | None] = [
        dimension.dim_value if dimension.dim_value > 0 else dimension.dim_param or None
        for dimension in tensor.shape.dim
    ]
    return TensorSpec(value.name, dtype, tuple(shape))


def _skeleton(model: ModelProto) -> ModelProto:
    """Return the model with its large weights as mere inputs, and some shape for outputs that declare none.

    Every runtime takes an output without a shape, and finds it out by itself; onnx's own checker does not.
    """
    skeleton = _without_graph(model)
    graph, bare = model.graph, skeleton.graph
    listed_inputs = {value.name for value in graph.input}
    bare.name, bare.doc_string = graph.name, graph.doc_string
    bare.node.extend(graph.node)
    bare.input.extend(graph.input)
    bare.output.extend(graph.output)
    for value in bare.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()
    bare.value_info.extend(graph.value_info)
    bare.sparse_initializer.extend(graph.sparse_initializer)
    for tensor in graph.initializer:
        large = tensor.HasField("raw_data") and int(np.prod(tensor.dims, dtype=np.float64)) > _SMALL
        if large or is_outside(tensor):
            if tensor.name not in listed_inputs:
                bare.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            bare.initializer.append(tensor)
    return skeleton


def _without_graph(model: ModelProto) -> ModelProto:
    bare = ModelProto()
    for field, value in model.ListFields():
        if field.name in {"opset_import", "metadata_props", "functions"}:
            getattr(bare, field.name).extend(value)
        elif not hasattr(value, "DESCRIPTOR") and isinstance(value, str | int):
            setattr(bare, field.name, value)
    return bare


def _ancestors(graph: GraphProto, outputs: Sequence[str], stop: set[str]) -> tuple[list[NodeProto], set[str]]:
    """Return the nodes that compute the outputs from where to stop, in their order, and every value that is read."""
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    bodies: dict[int, set[str]] = {}
    for (owner, _attribute), body in subgraphs(graph):
        bodies.setdefault(owner, set()).update(outer_names(body))
    wanted, read, pending = set[int](), set(outputs), list(outputs)
    while pending:
        name = pending.pop()
        index = producers.get(name)
        if name in stop or index is None or index in wanted:
            continue
        wanted.add(index)
        needed = {*graph.node[index].input, *bodies.get(index, ())} - {""}
        pending += sorted(needed - read)
        read |= needed
    return [graph.node[index] for index in sorted(wanted)], read


def _require_cover(inputs: Sequence[str], outputs: Sequence[str], own: Sequence[str], read: set[str]) -> None:
    idle = [name for name in inputs if name not in read]
    if idle:
        raise SignatureError(
            f"input '{idle[0]}' influences none of the outputs {listed(outputs)}",
            hint="Leave it out of --inputs, or name the outputs that need it with --outputs.",
        )
    missing = [name for name in own if name in read and name not in inputs]
    if missing:
        raise SignatureError(
            f"the outputs {listed(outputs)} also need the input {listed(missing)}",
            hint=f"Name it too: --inputs {','.join([*inputs, *missing])}",
        )


def _declaration(name: str, declared: Mapping[str, ValueInfoProto], types: Mapping[str, ValueType]) -> ValueInfoProto:
    known = types.get(name)
    if name in declared and declared[name].type.WhichOneof("value"):
        return declared[name]
    if known is None or not known.element:
        raise SignatureError(
            f"the type of value '{name}' is not known, so the model cannot be cut there",
            hint="Name a value of which the file states the type, or run onnx.shape_inference on the file first.",
        )
    return helper.make_tensor_value_info(name, known.element, known.shape)


def _pin(model: ModelProto, values: Mapping[str, str]) -> tuple[ModeChange, ...]:
    """Make constants of the inputs that the caller set."""
    changes = []
    for name, text in values.items():
        fed = {value.name: value for value in _fed(model.graph)}
        if name not in fed:
            raise unknown_name("input", name, list(fed), option="--set")
        spec = _spec(fed[name], "input")
        model.graph.initializer.append(numpy_helper.from_array(_parse(spec, text), name))
        _drop_input(model.graph, name)
        changes.append(ModeChange("switch", name, f"{spec.dtype} input", text, "set by the caller"))
    return tuple(changes)


def _drop_input(graph: GraphProto, name: str) -> None:
    for index, value in enumerate(graph.input):
        if value.name == name:
            del graph.input[index]
            return


def _parse(spec: TensorSpec, text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    sizes = [size for size in spec.shape if isinstance(size, int)]
    if len(sizes) < len(spec.shape):
        raise SignatureError(
            f"input '{spec.name}' has the open shape {list(spec.shape)}, so it cannot be set to one value",
            hint="Set inputs of a fixed shape only.",
        )
    word = text.strip().lower()
    value: bool | int | float
    try:
        if spec.dtype == "bool":
            if word not in _TRUE | _FALSE:
                raise ValueError(text)  # noqa: TRY301 - the same answer as for a number that is none
            value = word in _TRUE
        elif np.dtype(spec.dtype).kind in "iu":
            value = int(word)
        else:
            value = float(word)
        return np.full(sizes, value, dtype=np.dtype(spec.dtype))
    except (ValueError, TypeError, OverflowError):
        raise SignatureError(
            f"'{text}' is no value for input '{spec.name}' of type {spec.dtype}",
            hint="Write true or false for bool, and a number otherwise, for example: --set "
            f"{spec.name}={'false' if spec.dtype == 'bool' else '0'}",
        ) from None
