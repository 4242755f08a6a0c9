"""The option fields of a request to ``/fold``: the same as the command line's, with the same meaning."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from service.problems import MalformedError
from service.registry.registry import is_name

__all__ = ["FIELDS", "key_of", "read_options"]

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "tensorflow", "keras", "tf-keras", "tf2onnx", "h5py")


def _names(field: str, values: Sequence[str]) -> list[str]:
    del field
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _pairs(field: str, values: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, equals, told = value.partition("=")
        if not (name.strip() and equals and told.strip()):
            raise MalformedError(
                f"{field}={value!r} is not of the form NAME=VALUE", hint=f"Write it as {field}=NAME=VALUE."
            )
        pairs[name.strip()] = told.strip()
    return pairs


def _one(field: str, values: Sequence[str]) -> str:
    if len(values) != 1:
        raise MalformedError(f"the field {field} came {len(values)} times", hint="Send it once.")
    return values[0].strip()


def _number(least: int) -> Callable[[str, Sequence[str]], int]:
    def read(field: str, values: Sequence[str]) -> int:
        text = _one(field, values)
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= least):
            raise MalformedError(
                f"{field} is {text[:40]!r}, no whole number from {least}", hint=f"Send {field} as a number."
            )
        return int(text)

    return read


def _choice(*allowed: str) -> Callable[[str, Sequence[str]], str]:
    def read(field: str, values: Sequence[str]) -> str:
        text = _one(field, values)
        if text not in allowed:
            raise MalformedError(f"{field} is {text[:40]!r}", hint=f"Send one of {', '.join(allowed)}.")
        return text

    return read


def _model_name(field: str, values: Sequence[str]) -> str:
    name = _one(field, values)
    if name and not is_name(name):
        raise MalformedError(
            f"a model cannot be called {name[:100]!r}",
            hint="Take 1 to 100 letters, digits, dots, dashes and underscores, the first a letter or a digit.",
        )
    return name


def _globs(field: str, values: Sequence[str]) -> list[str]:
    del field
    return [value.strip() for value in values if value.strip()]


FIELDS: Mapping[str, tuple[Callable[[str, Sequence[str]], Any], str]] = {
    "inputs": (_names, "Tensors to feed, separated by commas; may be repeated."),
    "outputs": (_names, "Tensors to compute, separated by commas; may be repeated."),
    "set": (_pairs, "`NAME=VALUE`: pin a mode input; may be repeated."),
    "signature": (_one, "The SavedModel's signature."),
    "opset": (_number(1), "The ONNX opset to convert to."),
    "ema": (_choice("auto", "yes", "no"), "Whether weights are their moving averages: `auto`, `yes` or `no`."),
    "fold": (_choice("all", "fewest", "none"), "`all`, `fewest` or `none`."),
    "freeze_initializers": (_choice("yes", "no"), "`yes`: initializers that are also inputs are constants."),
    "keep": (_globs, "Name of batch norms to leave as they are, or a glob pattern; may be repeated."),
    "verify": (_choice("full", "fast", "off"), "`full`, `fast` or `off`."),
    "seed": (_number(0), "What the probes are drawn with."),
    "layerwise": (_choice("yes", "no"), "`yes`: the report also says how far every value in the model is off."),
    "name": (_model_name, "Keep it as the next version of the model of this name; each content has a name otherwise."),
}
"""How each field is read, and what it is."""


def read_options(fields: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the options that the fields of a form tell; what is not told is not in it.

    Raises:
        MalformedError: If a field is unknown, or has a value that it cannot have.
    """
    options = {}
    for field, values in sorted(fields.items()):
        if field not in FIELDS:
            close = difflib.get_close_matches(field, [*FIELDS, "model", "architecture"], n=1)
            known = f"model, architecture, {', '.join(FIELDS)}"
            raise MalformedError(
                f"{field[:40]!r} is no field of this form",
                hint=f"Did you mean {close[0]}?" if close else f"The fields are {known}.",
            )
        read, _ = FIELDS[field]
        told = read(field, values)
        if told not in ("", [], {}):
            options[field] = told
    return options


def key_of(digests: Mapping[str, str], suffix: str, options: Mapping[str, Any]) -> str:
    """Return the name of a conversion: the same for the same content, options and versions, and for nothing else.

    Args:
        digests: The sha256 of each uploaded file, by field.
        suffix: The suffix of the model's file name, which breaks ties where the content leaves open what it is.
        options: What ``read_options`` returned.
    """
    what = {"files": dict(digests), "suffix": suffix, "options": dict(options), "versions": _versions()}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode("utf-8")).hexdigest()


@cache
def _versions() -> dict[str, str]:
    """Return all that may change what a conversion writes: an older result must not be taken for one of newer code."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = ""
    spec = find_spec("bnfold")
    assert spec is not None
    assert spec.origin is not None
    code = hashlib.sha256()
    folder = Path(spec.origin).parent
    for path in sorted(folder.rglob("*.py")):
        code.update(path.relative_to(folder).as_posix().encode("utf-8") + b"\0" + path.read_bytes() + b"\0")
    for name in ("child.py", "serving/session.py"):
        code.update((Path(__file__).parent / name).read_bytes())
    return {**found, "bnfold": code.hexdigest()}
