"""A report, read back from the JSON that it was written as."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, Union

from bnfold.report.record import SCHEMA, Report

__all__ = ["report_from_json"]


def report_from_json(text: str | bytes) -> Report:
    """Return the report that ``Report.to_json`` wrote; a number that was not finite is not a number now.

    What a later version has added is left out.

    Raises:
        ValueError: If it is no such report, or lacks something.
    """
    plain = json.loads(text)
    if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
        raise ValueError(f"it is no report of the form {SCHEMA}")
    report = _read(Report, plain, "report")
    assert isinstance(report, Report)
    return report


def _read(kind: Any, plain: Any, where: str) -> Any:
    """Return what is to stand where something of some type is expected."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _record(kind, plain, where)
    if origin is tuple and isinstance(plain, list):
        if arguments[-1] is Ellipsis:
            return tuple(_read(arguments[0], item, where) for item in plain)
        if len(arguments) == len(plain):
            return tuple(_read(each, item, where) for each, item in zip(arguments, plain, strict=True))
    elif origin is Mapping and isinstance(plain, dict):
        return {key: _read(arguments[1], value, where) for key, value in plain.items()}
    elif origin in (Union, types.UnionType):
        return _one_of(arguments, plain, where)
    elif origin is Literal:
        if plain in arguments:
            return plain
    elif isinstance(kind, type):
        if issubclass(kind, Enum):
            return kind(plain)
        if kind is float and (plain is None or (isinstance(plain, int | float) and not isinstance(plain, bool))):
            return math.nan if plain is None else float(plain)
        if type(plain) is kind:
            return plain
    raise ValueError(f"{where} is no {getattr(kind, '__name__', kind)}")


def _record(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, dict):
        raise ValueError(f"{where} is no {kind.__name__}")  # noqa: TRY004  (of the text that is read, not of the caller)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    told = {name: _read(hints[name], plain[name], f"{where}.{name}") for name in names if name in plain}
    try:
        return kind(**told)
    except TypeError as error:
        raise ValueError(f"{where} lacks something: {error}") from error


def _one_of(kinds: tuple[Any, ...], plain: Any, where: str) -> Any:
    if plain is None and types.NoneType in kinds:
        return None
    for kind in kinds:
        if kind is not types.NoneType:
            try:
                return _read(kind, plain, where)
            except ValueError:
                continue
    raise ValueError(f"{where} is none of what it may be")
