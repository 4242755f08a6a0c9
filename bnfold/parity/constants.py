"""The constants of a model as a reference computes with them: widened once, and kept as long as they fit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import SparseTensorProto, TensorProto, numpy_helper

from bnfold.parity.kernels import Array, computes_with, roundoff, widen
from bnfold.parity.program import dense, weights_of

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Constants"]

_KEPT = 1 << 30
"""Bytes of widened constants that are kept between runs."""


class Constants:
    """The constants of one model.

    Attributes:
        main: Those of the main graph, by name.
    """

    def __init__(
        self,
        model: ModelProto,
        *,
        stored: bool = False,
        disturbance: int | None = None,
        strength: float = 1.0,
        beside: Constants | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            model: The model.
            stored: Leave them in the type that they are stored in.
            disturbance: Move every weight by its type's round-off, up or down as this seed says.
            strength: By how many times that.
            beside: Those of the model that this one was cut from: what has the same name is shared.
            arrays: Constants of the main graph as they are stored, of those that somebody has read already.
        """
        self.main: Mapping[str, TensorProto | SparseTensorProto] = {}
        self._stored, self._disturbance, self._strength = stored, disturbance, strength
        self._weights = frozenset(weights_of(model)) if disturbance is not None else frozenset()
        self._beside, self._arrays = beside, arrays or {}
        self._kept: dict[int, Array] = {}
        self._bytes = 0

    @property
    def moves_weights(self) -> bool:
        """Whether weights are moved by their round-off."""
        return bool(self._weights)

    def warm(self) -> None:
        """Read those of the main graph, so that the first run need not; another thread may run meanwhile."""
        for tensor in self.main.values():
            if self._bytes < _KEPT:
                self.of(tensor)

    def of(self, tensor: TensorProto | SparseTensorProto) -> Array:
        """Return a constant."""
        known = self._kept.get(id(tensor))
        if known is not None:
            return known
        theirs = None if self._beside is None else self._beside.like(tensor)
        if theirs is not None:
            return theirs
        array = self._read_already(tensor)
        if array is None:
            array = np.asarray(numpy_helper.to_array(tensor)) if isinstance(tensor, TensorProto) else dense(tensor)
        name = tensor.name if isinstance(tensor, TensorProto) else tensor.values.name
        array = array if self._stored else self.disturbed(name, array)
        if self._bytes + array.nbytes <= _KEPT:
            self._kept[id(tensor)] = array  # the compiled graph keeps the tensor, and with it the id
            self._bytes += array.nbytes
        return array

    def like(self, tensor: TensorProto | SparseTensorProto) -> Array | None:
        """Return the constant of the main graph that has a tensor's name; None if there is none."""
        known = self.main.get(tensor.name) if isinstance(tensor, TensorProto) else None
        return None if known is None else self.of(known)

    def disturbed(self, name: str, array: Array) -> Array:
        """Return a constant in float64, moved by its round-off where it is a weight and that is asked for."""
        wide = widen(array)
        if name not in self._weights or not computes_with(array):
            return wide
        generator = np.random.default_rng([self._disturbance or 0, zlib.crc32(name.encode())])
        signs = 2.0 * generator.integers(0, 2, size=wide.shape) - 1
        return np.asarray(wide * (1 + self._strength * roundoff(array.dtype) * signs))

    def _read_already(self, tensor: TensorProto | SparseTensorProto) -> Array | None:
        if not isinstance(tensor, TensorProto) or self.main.get(tensor.name) is not tensor:
            return None
        return self._arrays.get(tensor.name)
