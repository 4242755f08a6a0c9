"""The reference at ``/docs``: all endpoints, made from the OpenAPI document, without a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold import __version__

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["reference_page"]

_METHODS = ("get", "post", "put", "patch", "delete")


def reference_page(document: Mapping[str, Any]) -> str:
    """Return the reference as the text of an HTML page.

    Args:
        document: The OpenAPI document.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                about = methods[method]
                (tag, *_) = about.get("tags", ["other"])
                groups.setdefault(tag, []).append(_endpoint(document, method, path, about))
    return _template().render(groups=groups, document=document, version=__version__)


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pieces"] = _pieces
    return environment.get_template("reference.html.j2")


def _endpoint(document: Mapping[str, Any], method: str, path: str, about: Mapping[str, Any]) -> dict[str, Any]:
    parameters = [
        {
            "name": one["name"],
            "place": one["in"],
            "kind": _kind(document, one.get("schema", {})),
            "required": one.get("required", False),
            "says": one.get("description", ""),
        }
        for one in about.get("parameters", [])
    ]
    content = about.get("requestBody", {}).get("content", {})
    bodies = [(kind, list(_members(document, body.get("schema", {})))) for kind, body in content.items()]
    answers = [
        (status, answer.get("description", ""), ", ".join(answer.get("content", {})))
        for status, answer in about.get("responses", {}).items()
    ]
    return {
        "id": f"{method}{path}".replace("/", "-").replace("{", "").replace("}", ""),
        "method": method.upper(),
        "path": path,
        "says": about.get("description") or about.get("summary", ""),
        "parameters": parameters,
        "bodies": bodies,
        "answers": answers,
    }


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    told = schema.get("$ref", "")
    if not told.startswith("#/"):
        return schema
    found: Any = document
    for name in told.removeprefix("#/").split("/"):
        found = found[name]
    return _resolved(document, found)


def _kind(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    schema = _resolved(document, schema)
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    if "anyOf" in schema:
        kinds = [_kind(document, one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " | ".join(kinds)
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(document, schema.get('items', {}))}"
    return "file" if schema.get("format") == "binary" else kind


def _members(document: Mapping[str, Any], schema: Mapping[str, Any], before: str = "") -> Iterator[dict[str, Any]]:
    """Yield the members of an object with those of the objects in it, as far as the document names them."""
    schema = _resolved(document, schema)
    for name, member in schema.get("properties", {}).items():
        told = _resolved(document, member)
        yield {
            "name": before + name,
            "kind": _kind(document, told),
            "required": name in schema.get("required", ()),
            "says": told.get("description", ""),
        }
        inner = _resolved(document, told.get("items", told))
        if before.count(".") < 2:  # deep enough for every body of ours, and an end for one that holds itself
            yield from _members(document, inner, f"{before}{name}{'[]' if 'items' in told else ''}.")


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a text; True marks those that stand in backticks."""
    for number, piece in enumerate(text.split("`")):
        if piece:
            yield piece, number % 2 == 1
