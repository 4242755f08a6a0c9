"""The algebra of a product of two factors that is summed over shared labels: every axis has a label, as in einsum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnfold.affine import Linear, PerChannelAffine
from bnfold.affine.per_channel import Float64Array
from bnfold.rules.declare import Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["Labels", "absorb_input", "absorb_output", "form_of"]


@dataclass(frozen=True, slots=True)
class Labels:
    """One label an axis; no factor has the same label twice. Axes of size 1 broadcast against those of another size.

    Attributes:
        data: Of the computed factor.
        weight: Of the constant factor.
        output: Of the product, which is summed over all labels that are not here.
    """

    data: tuple[int, ...]
    weight: tuple[int, ...]
    output: tuple[int, ...]

    def shared(self, side: Side) -> tuple[int, ...]:
        """Return the labels of the weight that the value on one side has too, in the order of that value's axes."""
        value = self.data if side is Side.INPUT else self.output
        return tuple(label for label in value if label in self.weight)


def form_of(labels: Labels, sizes: Sequence[int], weight: int, side: Side) -> Form:
    """Return where the parts of a product stand.

    Args:
        labels: The labels of its axes.
        sizes: The shape of the constant factor.
        weight: Which input the constant factor is.
        side: Where the map stands.
    """
    value = labels.data if side is Side.INPUT else labels.output
    shared = labels.shared(side)
    size_of = dict(zip(labels.weight, sizes, strict=True))
    own = [axis for axis, label in enumerate(labels.weight) if label in labels.output and label not in labels.data]
    axes = tuple(value.index(label) - len(value) for label in shared)
    return Form(
        data=1 - weight,
        weight=weight,
        bias=None,
        axis=axes[-1] if axes else -1,
        channels=size_of[shared[-1]] if shared else 1,
        output_axis=own[-1] if own else 0,
        fan_in=int(np.prod([size_of[label] for label in labels.weight if label not in labels.output], dtype=np.int64)),
        axes=axes,
        sizes=tuple(size_of[label] for label in shared),
        rank=len(labels.output),
    )


def _arranged(array: Float64Array, have: tuple[int, ...], want: tuple[int, ...]) -> Float64Array:
    """Bring the axes of an array into another order, with axes of size 1 for the labels that it does not have."""
    order = [have.index(label) if label in have else -1 for label in want]
    moved = array.transpose([axis for axis in order if axis >= 0])
    return moved.reshape([1 if axis < 0 else array.shape[axis] for axis in order])


def absorb_output(linear: Linear, affine: PerChannelAffine, labels: Labels) -> Linear | Refusal:
    """Scale the constant factor along the labels that it shares with the product; the shift is added behind it."""
    shared = labels.shared(Side.OUTPUT)
    scale, shift = affine.laid_over(len(shared))
    bias = linear.bias.reshape((1,) * (len(labels.output) - linear.bias.ndim) + linear.bias.shape)
    return replace(
        linear,
        weight=linear.weight * _arranged(scale, shared, labels.weight),
        bias=bias * _arranged(scale, shared, labels.output) + _arranged(shift, shared, labels.output),
    )


def absorb_input(linear: Linear, affine: PerChannelAffine, labels: Labels) -> Linear | Refusal:
    """Scale the constant factor along the labels that it shares with the data; the shift is its product with it."""
    shared = labels.shared(Side.INPUT)
    scale, shift = affine.laid_over(len(shared))
    taps = linear.weight * _arranged(shift, shared, labels.weight)
    times = _times_summed(linear, labels) if np.any(taps) else 1
    if isinstance(times, Refusal):
        return times
    taps = taps.sum(axis=tuple(axis for axis, label in enumerate(labels.weight) if label not in labels.output))
    left = tuple(label for label in labels.weight if label in labels.output)
    bias = linear.bias.reshape((1,) * (len(labels.output) - linear.bias.ndim) + linear.bias.shape)
    return replace(
        linear,
        weight=linear.weight * _arranged(scale, shared, labels.weight),
        bias=bias + times * _arranged(np.asarray(taps), left, labels.output),
    )


def _times_summed(linear: Linear, labels: Labels) -> int | Refusal:
    """Return how often each product of the shift and the weight is summed up for labels that the weight does not have.

    The weight has size 1 along a label that broadcasts, which is as if it did not have the label.
    """
    times = 1
    for label, size in zip(labels.data, linear.data_shape, strict=True):
        if label in labels.output or (label in labels.weight and linear.weight.shape[labels.weight.index(label)] != 1):
            continue
        if size is None:
            axis = labels.data.index(label)
            return Refusal(Reason.UNKNOWN_SHAPE, f"it sums over axis {axis} of its input, whose size is not known")
        times *= size
    return times
