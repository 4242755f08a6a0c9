"""Whether new constants can be stored in the types that the model has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from bnfold.affine import Field, Unstorable, round_to
from bnfold.fold.linear_nodes import FLOATING, stored_dtype
from bnfold.rules import Form, Reason, Refusal
from bnfold.rules.attributes import attribute_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from bnfold.affine.per_channel import Float64Array
    from bnfold.fold.draft import Draft

__all__ = [
    "attribute_in_place",
    "dtype_of",
    "element",
    "own_dtype",
    "storable",
    "storable_constants",
    "storable_shift",
    "unsayable",
]


def storable(draft: Draft, index: int, own: Field) -> Refusal | None:
    """Tell why a constant Add or Mul cannot have another constant."""
    if index in draft.fixed:
        return Refusal(Reason.KEPT_ON_REQUEST, f"{draft.name(index)} is to stay as it is")
    constant = own.shift if draft.is_shift(index) else own.scale
    return _along_one_axis(draft, own.shape) or _unstorable(draft, index, constant, own_dtype(draft, index))


def storable_shift(draft: Draft, index: int, shift: Field) -> Refusal | None:
    """Tell why a batch norm cannot become an Add of a shift."""
    dtype = dtype_of(draft, index, draft.affines[index].data_input)
    return _along_one_axis(draft, shift.shape) or _unstorable(draft, index, shift.shift, dtype)


def unsayable(draft: Draft, index: int, shift: Float64Array) -> Refusal | None:
    """Tell why a shift cannot be added behind a layer, beside what is added there already."""
    behind = draft.affines.get(draft.add_behind.get(index, -1))
    shape = shift.shape if behind is None else np.broadcast_shapes(shift.shape, behind.field.shape)
    return _along_one_axis(draft, shape)


def _along_one_axis(draft: Draft, shape: tuple[int, ...]) -> Refusal | None:
    if draft.view.opset >= 7 or sum(size > 1 for size in shape) < 2:
        return None
    return Refusal(Reason.NO_GAIN, f"the Add of opset {draft.view.opset} broadcasts along one axis")


def storable_constants(
    draft: Draft, index: int, constants: Mapping[int, Float64Array], becomes: str = ""
) -> Refusal | None:
    """Tell why a carrier, or what it ``becomes``, cannot have other constants."""
    if index in draft.fixed:
        return Refusal(Reason.KEPT_ON_REQUEST, f"{draft.name(index)} is to stay as it is")
    refusals = (
        _unstorable(draft, index, array, dtype_of(draft, index, position, becomes))
        for position, array in constants.items()
    )
    return next((refusal for refusal in refusals if refusal is not None), None)


def _unstorable(draft: Draft, index: int, array: Float64Array, dtype: npt.DTypeLike | None) -> Refusal | None:
    if dtype is None or np.dtype(dtype) not in FLOATING:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the type of the constants of {draft.name(index)} is not known")
    stored = round_to(array, dtype, -1)
    if isinstance(stored, Unstorable):
        return Refusal(Reason.OUT_OF_RANGE, f"{draft.name(index)}: {stored.detail}")
    return None


def dtype_of(draft: Draft, index: int, position: int, becomes: str = "") -> npt.DTypeLike | None:
    """Return the type of an input of a node; one that the node does not have yet is of the type of its first."""
    if not becomes and attribute_in_place(draft, index, position):
        return np.float32
    names = draft.node(index).reads
    given = position < len(names) and bool(names[position])
    known = draft.view.type(names[position if given else 0]).element
    if not known and not given:
        known = draft.view.type(draft.view.graph.node[index].output[0]).element
    return helper.tensor_dtype_to_np_dtype(known) if known else None


def attribute_in_place(draft: Draft, index: int, position: int) -> str:
    """Return the attribute that a node has in the place of an input; empty where that is an input."""
    if index in draft.becomes:  # what a node turns into has inputs alone
        return ""
    return attribute_of(draft.op_type(index), position, draft.view.opset)


def element(draft: Draft, index: int, value: str) -> int:
    """Return the type of a node's value; where its name is new, that of the node's output."""
    return draft.view.type(value).element or draft.view.type(draft.view.graph.node[index].output[0]).element


def own_dtype(draft: Draft, index: int) -> npt.DTypeLike | None:
    """Return the type of the constant of a constant Add or Mul."""
    if index < len(draft.view):
        affine = draft.affines[index]
        return dtype_of(draft, index, affine.data_input if index in draft.becomes else 1 - affine.data_input)
    producer = draft.wiring.producers[draft.wiring.reads(index)[0]]
    form = draft.form(producer, draft.taken_in[producer][0].absorber)
    assert isinstance(form, Form)
    return stored_dtype(draft.view.node(producer), form)
