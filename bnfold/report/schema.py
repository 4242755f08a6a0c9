"""The JSON Schema of a report, read from its dataclasses."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bnfold.frontends.glance import Glance
from bnfold.report.difference import Difference
from bnfold.report.record import SCHEMA, Report

__all__ = ["difference_schema", "glance_schema", "report_schema"]

_PLAIN: dict[object, str] = {str: "string", int: "integer", bool: "boolean", type(None): "null"}


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of ``Report.to_json``."""
    return _document(Report, SCHEMA, "The report of one run of bnfold")


def glance_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what ``bnfold inspect --format json`` prints of a framework's file."""
    return _document(Glance, "bnfold-glance/1", "A file of a framework that bnfold looked at")


def difference_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what ``bnfold diff --format json`` prints."""
    return _document(Difference, "bnfold-difference/1", "How two ONNX files differ")


def _document(kind: type, name: str, title: str) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    root = _schema(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": name,
        "title": title,
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if kind is float:
        # JSON has no infinity: a figure that is not finite is written as null.
        return {"type": ["number", "null"]}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in {Union, types.UnionType}:
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if isinstance(origin, type) and issubclass(origin, tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": _schema(arguments[0], definitions)}
        items = [_schema(argument, definitions) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if isinstance(origin, type) and issubclass(origin, Sequence | frozenset):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if isinstance(kind, type) and issubclass(kind, PurePath):
        return {"type": "string"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, definitions)
    raise TypeError(f"a report cannot hold {kind}")


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{kind.__name__}"}
    if kind.__name__ in definitions:
        return reference
    definitions[kind.__name__] = {}  # a placeholder that ends a recursion
    hints, said = get_type_hints(kind), _attributes(kind.__doc__ or "")
    properties = {}
    for field in dataclasses.fields(kind):
        described = {"description": said[field.name]} if field.name in said else {}
        properties[field.name] = _schema(hints[field.name], definitions) | described
    definitions[kind.__name__] = {
        "type": "object",
        "description": _in_json((kind.__doc__ or "").partition("\n\n")[0]),
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return reference


def _attributes(docstring: str) -> dict[str, str]:
    """Return what the section "Attributes" of a docstring says about each field."""
    _, _, section = docstring.partition("Attributes:\n")
    found: dict[str, list[str]] = {}
    name = ""
    for line in section.splitlines():
        if not line.strip():
            break
        match = re.fullmatch(r" {8}(\w+): (.*)", line)
        if match:
            name = match[1]
            found[name] = [match[2]]
        elif name:
            found[name].append(line.strip())
    return {name: _in_json(" ".join(lines)) for name, lines in found.items()}


def _in_json(said: str) -> str:
    """Return what a docstring says in the words of the other format."""
    return " ".join(said.replace("``", "").replace("None", "null").split())
