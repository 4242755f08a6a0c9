"""The one object that folding is about: a scale and a shift for each channel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Float64Array", "PerChannelAffine"]

Float64Array = npt.NDArray[np.float64]

_all = np.logical_and.reduce


@dataclass(frozen=True, slots=True, eq=False)
class PerChannelAffine:
    """An affine map that acts on each channel alone.

    ``y[c] = scale[c] * x[c] + shift[c]``

    Attributes:
        scale: Shape ``(C,)``, float64, finite.
        shift: Shape ``(C,)``, float64, finite, in units of y.
        sizes: How the channels are laid out, in row-major order, where they run along several axes of a layer's
            weights: one size an axis. None where they run along one.

    Raises:
        ValueError: If the two are not finite vectors of one length.
    """

    scale: Float64Array
    shift: Float64Array
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        assert self.sizes is None or math.prod(self.sizes) == self.scale.size
        if self.scale.ndim != 1 or self.scale.shape != self.shift.shape:
            raise ValueError(
                f"scale and shift must be vectors of one length, not {self.scale.shape}, {self.shift.shape}"
            )
        if not (_all(np.isfinite(self.scale)) and _all(np.isfinite(self.shift))):
            raise ValueError("scale and shift must be finite")

    @classmethod
    def of_batch_norm(
        cls,
        gamma: Float64Array,
        beta: Float64Array,
        running_mean: Float64Array,
        running_var: Float64Array,
        epsilon: float,
    ) -> PerChannelAffine:
        """Return the affine map that a batch norm computes in inference mode.

        ``scale = gamma / sqrt(running_var + epsilon)``, ``shift = beta - running_mean * scale``.

        Args:
            gamma: Learned multiplier, shape ``(C,)``.
            beta: Learned offset, shape ``(C,)``, in units of y.
            running_mean: Mean over the training set, shape ``(C,)``, in units of x.
            running_var: Population variance over the training set, shape ``(C,)``, in units of x².
            epsilon: Added to ``running_var`` before the root, in units of x². ONNX default 1e-5, Keras default 1e-3:
                never assume it.

        Raises:
            ValueError: If ``running_var + epsilon`` is not positive in some channel, or a result is not finite.

        Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2.
        """
        variance = running_var + epsilon
        if not _all(variance > 0):
            raise ValueError("running_var + epsilon must be positive in every channel")
        with np.errstate(over="ignore", invalid="ignore"):
            scale = gamma / np.sqrt(variance)
            shift = beta - running_mean * scale
        return cls(scale=scale, shift=shift)

    @property
    def channels(self) -> int:
        """The number of channels, C."""
        return int(self.scale.shape[0])

    def laid_over(self, axes: int) -> tuple[Float64Array, Float64Array]:
        """Return scale and shift with so many axes each, of size 1 where they do not vary; one axis is the last."""
        sizes = (*(1,) * (axes - 1), self.channels) if self.sizes is None else self.sizes
        sizes = sizes if axes else ()
        return self.scale.reshape(sizes), self.shift.reshape(sizes)

    def after(self, first: PerChannelAffine) -> PerChannelAffine:
        """Return the map that applies ``first`` and then this one.

        ``(s2, o2) ∘ (s1, o1) = (s2·s1, s2·o1 + o2)``
        """
        return PerChannelAffine(self.scale * first.scale, self.scale * first.shift + self.shift)

    def repeat(self, times: int) -> PerChannelAffine:
        """Return the map with each channel standing ``times`` times in a row, shape ``(C * times,)``."""
        return PerChannelAffine(np.repeat(self.scale, times), np.repeat(self.shift, times))
