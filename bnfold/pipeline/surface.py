"""What two ONNX files say of themselves: inputs, outputs, operator sets, functions, metadata, and who wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from onnx import FunctionProto, TensorProto, ValueInfoProto, helper

from bnfold.pipeline.conversion import STAMP
from bnfold.report.difference import FileChange
from bnfold.report.render_layout import plural

if TYPE_CHECKING:
    from onnx import ModelProto, TypeProto

__all__ = ["element_name", "function_name", "others_of", "says_who_wrote"]

_LONGEST = 200
"""Characters of an entry of the metadata that are shown."""
_WHO = frozenset({("metadata", STAMP), ("file", "producer_name"), ("file", "producer_version")})


def others_of(a: ModelProto, b: ModelProto) -> Iterator[FileChange]:
    """Yield everything but nodes and constants in which two models differ."""
    for kind, ours, theirs in (
        ("input", a.graph.input, b.graph.input),
        ("output", a.graph.output, b.graph.output),
    ):
        yield from _listed(kind, _ports(ours), _ports(theirs))
        one, other = [port.name for port in ours], [port.name for port in theirs]
        if one != other and sorted(one) == sorted(other):
            yield FileChange(kind, "order", ", ".join(one), ", ".join(other))
    yield from _listed("opset", _opsets(a), _opsets(b))
    yield from _listed("function", _functions(a), _functions(b))
    yield from _listed("metadata", *({entry.key: entry.value for entry in side.metadata_props} for side in (a, b)))
    facts = ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string")
    yield from _listed("file", *({name: str(getattr(side, name)) for name in facts} for side in (a, b)))
    yield from _listed("file", {"graph name": a.graph.name}, {"graph name": b.graph.name})


def says_who_wrote(change: FileChange) -> bool:
    """Whether something says who wrote the file and how, and nothing of the model."""
    return (change.kind, change.name) in _WHO


def _listed(kind: str, a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[FileChange]:
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) != b.get(name):
            yield FileChange(kind, name, _brief(a.get(name, "")), _brief(b.get(name, "")))


def _ports(ports: Iterable[ValueInfoProto]) -> dict[str, str]:
    return {port.name: _type(port.type) for port in ports}


def _opsets(model: ModelProto) -> dict[str, str]:
    return {entry.domain or "ai.onnx": str(entry.version) for entry in model.opset_import}


def _functions(model: ModelProto) -> dict[str, str]:
    found = {}
    for function in model.functions:
        opsets = ", ".join(f"{entry.domain}{entry.domain and ' '}{entry.version}" for entry in function.opset_import)
        described = (
            f"{plural(len(function.node), 'node')}, ({', '.join(function.input)}) → ({', '.join(function.output)})"
        )
        defaults = [f"{item.name}={helper.get_attribute_value(item)}" for item in function.attribute_proto]
        attributes = ", ".join([*function.attribute, *defaults])
        found[function_name(function)] = f"{described}, opset {opsets}{attributes and ', attributes '}{attributes}"
    return found


def function_name(function: FunctionProto) -> str:
    """Return the name of a function with its domain and its overload."""
    return f"{function.domain}::{function.name}{function.overload and ':'}{function.overload}"


def _type(kind: TypeProto) -> str:
    """Return a type as text: ``float32 (batch, 3, ?)``."""
    if not kind.HasField("tensor_type"):
        return " ".join(str(kind).split())
    tensor = kind.tensor_type
    name = element_name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return name
    sizes = [str(size.dim_value) if size.HasField("dim_value") else size.dim_param or "?" for size in tensor.shape.dim]
    return f"{name} ({', '.join(sizes)})"


def element_name(number: int) -> str:
    """Return numpy's name of an element type, by its number in ONNX."""
    if number == TensorProto.STRING:
        return "string"
    try:
        return str(helper.tensor_dtype_to_np_dtype(number))
    except KeyError:
        return f"type {number}"


def _brief(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
