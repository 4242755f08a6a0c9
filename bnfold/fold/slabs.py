"""New weights slab by slab, in the place of the old numbers: one tensor is held for them, and no second one."""

from __future__ import annotations

import io
import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.affine import Linear, PerChannelAffine
from bnfold.fold.linear_nodes import FLOATING, read_but_weight, stored_dtype
from bnfold.graph.outside import content, is_outside
from bnfold.graph.tensors import byte_length
from bnfold.rules import Side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from onnx import TensorProto

    from bnfold.affine.per_channel import Float64Array
    from bnfold.fold.draft import Draft
    from bnfold.fold.taken import Taken
    from bnfold.graph.view import NodeView
    from bnfold.rules import Form

__all__ = ["Slabs", "shift_behind", "slabs_of"]

_SMALLEST = 1 << 16
"""Weights with fewer bytes are computed in one go."""

_ELEMENTS = 1 << 16
_LEAST = 16
"""A slab that is not of rows is at least so wide: less than that of a row is not worth the way through memory."""

_OPERATIONS = frozenset({"Conv", "ConvTranspose", "Gather", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Slabs:
    """A layer's weight, cut along an axis so that every slab takes in its part of all maps by the layer's own rules.

    Attributes:
        node: The layer.
        form: Where its parts are.
        parts: The maps that it takes in, in order.
        tensor: Its weight.
        axis: The axis along which the weight is cut.
    """

    node: NodeView
    form: Form
    parts: tuple[Taken, ...]
    tensor: TensorProto
    axis: int

    def written(self) -> tuple[bytes | bytearray, Linear]:
        """Return the new weight as it is stored, and what else has become of the layer; the weight in that is empty."""
        around = read_but_weight(self.node, self.form)
        if is_outside(self.tensor):
            raw = content(self.tensor)
            return raw, self._overwrite(np.frombuffer(raw, self._dtype), around)
        # What protobuf hands out is a copy that nobody else has: the buffer takes it over, and gives it back changed.
        buffer = io.BytesIO(self.tensor.raw_data)
        linear = self._overwrite(np.frombuffer(buffer.getbuffer(), self._dtype), around)
        return buffer.getvalue(), linear

    def shift(self) -> Float64Array:
        """Return what the last map adds to the output of a layer that has no bias."""
        around = read_but_weight(self.node, self.form)
        last = self.parts[-1]
        if last.absorber.side is Side.OUTPUT and not self._along_outputs:  # then it does not depend on the weight
            sizes = [1 if axis == self.axis else size for axis, size in enumerate(self._shape)]
            return replace(self, parts=(last,))._with_maps(around, np.zeros(sizes), slice(0, 1)).bias  # noqa: SLF001
        raw = content(self.tensor) if is_outside(self.tensor) else self.tensor.raw_data
        numbers = np.frombuffer(raw, self._dtype).reshape(self._shape)
        cuts = self._cuts()
        return self._whole_bias([self._with_maps(around, _wide(numbers[place]), cut).bias for cut, place in cuts])

    @property
    def _dtype(self) -> np.dtype[np.generic]:
        return stored_dtype(self.node, self.form)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.dims)

    @property
    def _along_outputs(self) -> bool:
        return self.axis == self.form.output_axis

    @property
    def _bias_axis(self) -> int:
        """The axis of the bias that runs along the output's channels."""
        return -1 if self.form.weight == 1 else -2

    def _overwrite(self, flat: npt.NDArray[np.generic], around: Linear) -> Linear:
        numbers = flat.reshape(self._shape)
        linear, biases = around, []
        for cut, place in self._cuts():
            linear = self._with_maps(around, _wide(numbers[place]), cut)
            numbers[place] = linear.weight.astype(self._dtype)
            assert np.isfinite(numbers[place]).all(), "the plan has tried this rounding"
            biases.append(linear.bias)
        return replace(linear, weight=around.weight, bias=self._whole_bias(biases))

    def _cuts(self) -> Iterator[tuple[slice, tuple[slice, ...]]]:
        length = self._shape[self.axis]
        step = max(_ELEMENTS * length // math.prod(self._shape), _LEAST if self.axis else 1)
        for start in range(0, length, step):
            cut = slice(start, min(start + step, length))
            yield cut, (*[slice(None)] * self.axis, cut)

    def _with_maps(self, around: Linear, weight: Float64Array, cut: slice) -> Linear:
        bias, length = around.bias, self._shape[self.axis]
        if self._along_outputs and bias.ndim >= -self._bias_axis and bias.shape[self._bias_axis] == length:
            bias = np.take(bias, range(cut.start, cut.stop), axis=self._bias_axis)
        linear = replace(around, weight=weight, bias=bias)
        for number, part in enumerate(self.parts):
            assert part.affine is not None
            if number and self.form.bias is None:  # what came before stands in an Add behind the layer already
                linear = replace(linear, bias=np.zeros(1))
            partly = self._along_outputs and part.absorber.side is Side.OUTPUT
            changed = part.absorber.absorb(linear, _part(part.affine, cut) if partly else part.affine)
            assert isinstance(changed, Linear), "the plan has tried this fold"
            linear = changed
        return linear

    def _whole_bias(self, biases: Sequence[Float64Array]) -> Float64Array:
        if not self._along_outputs or len(biases) == 1:
            return biases[0]
        return np.concatenate(biases, axis=self._bias_axis)


def slabs_of(draft: Draft, index: int, form: Form, parts: Sequence[Taken]) -> Slabs | None:
    """Return the slabs in which a layer can take in maps; None where it has to take them in as a whole.

    Args:
        draft: The graph so far.
        index: The layer.
        form: Where its parts are.
        parts: What it takes in, in order.
    """
    node = draft.view.node(index)
    tensor = draft.view.tensor(node.reads[form.weight])
    if node.op_type not in _OPERATIONS or tensor is None or index in draft.blocks or sys.byteorder != "little":
        return None
    length = byte_length(tensor)
    if length is None or length < _SMALLEST or stored_dtype(node, form) not in FLOATING:
        return None
    if not is_outside(tensor) and not tensor.HasField("raw_data"):
        return None
    sizes = tuple(tensor.dims)
    if node.op_type in {"Gemm", "MatMul"} and len(sizes) != 2:
        return None
    if node.op_type == "Gather" and (node.integer("axis", 0) or len(sizes) < 2):  # else no map varies along axis 0
        return None
    through = all(part.affine is not None and part.absorber.side is Side.OUTPUT for part in parts)
    if node.integer("group", 1) != 1 and not (through and node.op_type == "Conv"):
        return None
    # What stands behind the layer multiplies each number by itself, so that the weight may be cut along any axis.
    axis = 0 if through else form.output_axis
    for part in parts:
        if part.affine is None:
            return None
        whole = part.absorber.side is Side.INPUT or axis != form.output_axis
        if not whole and (part.affine.channels != sizes[axis] or len(part.affine.sizes or (1,)) != 1):
            return None
    return Slabs(node, form, tuple(parts), tensor, axis)


def shift_behind(draft: Draft, index: int, form: Form, parts: Sequence[Taken]) -> Float64Array | None:
    """Return what the last of some maps adds behind a layer without a bias; None where that takes it as a whole."""
    slabs = slabs_of(draft, index, form, parts)
    return None if slabs is None else slabs.shift()


def _wide(numbers: npt.NDArray[np.generic]) -> Float64Array:
    return numbers.astype(np.float64)


def _part(affine: PerChannelAffine, cut: slice) -> PerChannelAffine:
    sizes = None if affine.sizes is None else (cut.stop - cut.start,)
    return PerChannelAffine(affine.scale[cut], affine.shift[cut], sizes)
