"""A copy of a model without its weights: the memory of what was copied does not come back once it is dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import ModelProto

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["copied_without_weights"]


def copied_without_weights(model: ModelProto) -> ModelProto | None:
    """Return a copy of a model without the initializers of its main graph; those of bodies are in it.

    Returns:
        None where the model has fields that this version of the format does not know, which only a whole copy keeps.
    """
    if len(UnknownFieldSet(model)) or len(UnknownFieldSet(model.graph)):
        return None
    copy = ModelProto()
    _copy_fields(model, copy, "graph")
    copy.graph.SetInParent()
    _copy_fields(model.graph, copy.graph, "initializer")
    return copy


def _copy_fields(source: Message, target: Message, without: str) -> None:
    for field, value in source.ListFields():
        if field.name == without:
            continue
        if hasattr(value, "MergeFrom"):
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)
