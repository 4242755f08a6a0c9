"""An affine map laid over the axes of a value, as broadcasting lays it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnfold.affine.per_channel import Float64Array, PerChannelAffine

__all__ = ["Field"]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """An affine map of a whole value: a scale and a shift for each element, as arrays that broadcast against it.

    ``y = scale * x + shift``

    A batch norm is the field that varies along axis 1 alone. Carriers map fields; absorbers ask for the per-channel
    affine along the one axis that they can take in.

    Attributes:
        scale: As many axes as the value; each of size 1 (constant along it) or of the value's dimension.
        shift: The same shape as ``scale``.
    """

    scale: Float64Array
    shift: Float64Array

    def __post_init__(self) -> None:
        assert self.scale.shape == self.shift.shape

    @classmethod
    def of(cls, scale: Float64Array, shift: Float64Array) -> Field:
        """Return the field of two arrays of one rank, each constant along the axes where its size is 1."""
        assert scale.ndim == shift.ndim
        if scale.shape == shift.shape:
            return cls(scale, shift).reduced()
        shape = np.broadcast_shapes(scale.shape, shift.shape)
        return cls(np.broadcast_to(scale, shape), np.broadcast_to(shift, shape)).reduced()

    @classmethod
    def along_axis(cls, affine: PerChannelAffine, axis: int, rank: int) -> Field:
        """Return the field that is ``affine`` along ``axis`` of a value with ``rank`` axes."""
        shape = [1] * rank
        shape[axis] = affine.channels
        return cls(affine.scale.reshape(shape), affine.shift.reshape(shape))

    @property
    def rank(self) -> int:
        """The number of axes of the value."""
        return self.scale.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """One size an axis: 1, or the value's dimension."""
        return self.scale.shape

    @property
    def has_scale(self) -> bool:
        """Whether it multiplies by anything but 1."""
        return bool(np.any(self.scale != 1.0))

    @property
    def has_shift(self) -> bool:
        """Whether it adds anything but 0."""
        return bool(np.any(self.shift))

    def axes(self) -> tuple[int, ...]:
        """The axes along which it may vary."""
        return tuple(axis for axis, size in enumerate(self.shape) if size != 1)

    def along(self, axis: int, size: int) -> PerChannelAffine | None:
        """Return the per-channel affine along ``axis``, of ``size`` channels; None if it varies along another axis.

        A field that is constant along ``axis`` is the same affine for every channel.
        """
        if size < 1 or not -self.rank <= axis < self.rank:
            return None
        here = self.scale.shape[axis]
        if here not in (1, size) or self.scale.size != here:
            return None
        scale, shift = self.scale.reshape(-1), self.shift.reshape(-1)
        if here != size:
            scale, shift = np.repeat(scale, size), np.repeat(shift, size)
        return PerChannelAffine(scale, shift)

    def after(self, first: Field) -> Field:
        """Return the field that applies ``first`` and then this one."""
        return Field.of(self.scale * first.scale, self.scale * first.shift + self.shift)

    def scale_only(self) -> Field:
        """Return the field that multiplies as this one does and adds nothing."""
        return Field.of(self.scale, np.zeros_like(self.scale))

    def shift_only(self) -> Field:
        """Return the field that adds what this one adds and multiplies by nothing."""
        return Field.of(np.ones_like(self.scale), self.shift)

    def shift_in_front(self) -> Float64Array | None:
        """Return what, added first, leaves only the scale to do: ``s·(x + o/s) = s·x + o``.

        A channel that becomes 0 needs nothing in front. None where some scale is zero and its shift is not, and where
        the quotient is not finite.
        """
        with np.errstate(all="ignore"):
            shift = np.where((self.scale == 0) & (self.shift == 0), 0.0, self.shift / self.scale)
        return shift if np.isfinite(shift).all() else None

    def transposed(self, perm: tuple[int, ...]) -> Field:
        """Return the field of the transposed value."""
        return Field(self.scale.transpose(perm), self.shift.transpose(perm))

    def reshaped(self, inner: tuple[int, ...], outer: tuple[int, ...]) -> Field:
        """Return the field of a reshaped value: broadcast to ``inner`` (a size an axis), laid out as ``outer``."""
        return Field(
            np.broadcast_to(self.scale, inner).reshape(outer), np.broadcast_to(self.shift, inner).reshape(outer)
        ).reduced()

    def reduced(self) -> Field:
        """Return the same field with size 1 on every axis along which it is constant."""
        scale, shift = self.scale, self.shift
        for axis in range(scale.ndim):
            if scale.shape[axis] > 1:
                if scale.size == scale.shape[axis] and not _is_constant(scale, shift):
                    break  # the only axis, and it varies
                first = tuple(slice(0, 1) if other == axis else slice(None) for other in range(scale.ndim))
                if np.array_equal(scale, np.broadcast_to(scale[first], scale.shape)) and np.array_equal(
                    shift, np.broadcast_to(shift[first], shift.shape)
                ):
                    scale, shift = scale[first], shift[first]
        return Field(scale, shift)


def _is_constant(scale: Float64Array, shift: Float64Array) -> bool:
    """Tell whether two arrays hold one number each."""
    scales, shifts = scale.reshape(-1), shift.reshape(-1)
    return bool((scales == scales[0]).all() and (shifts == shifts[0]).all())
