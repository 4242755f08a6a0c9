"""A linear node as float64 arrays, without any graph around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bnfold.affine.per_channel import Float64Array

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Linear"]

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A node that is linear in its data input: a convolution, a matrix product.

    Attributes:
        weight: The constant operand, in the layout of the node's own op.
        bias: What is added to each output, in units of the output; zeros where the node has none. The shape is the
            op's: ``(C_out,)`` for convolutions, two axes for ``Gemm``; where the op has no bias, any that broadcasts.
        attributes: The node's attributes with the op's defaults filled in. A rule may change them.
        weight_input: Which of the node's inputs the weight is: 1, or 0 for a matrix product with its constant left.
        data_shape: Sizes of the data input, None where one is not known; empty where no rule of the op asks for them.
        constants: Further constant inputs that a rule reads, by position, floats as float64 and all others as they are
            stored. A rule may change them.
    """

    weight: Float64Array
    bias: Float64Array
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    weight_input: int = 1
    data_shape: tuple[int | None, ...] = ()
    constants: Mapping[int, npt.NDArray[np.generic]] = field(default_factory=dict)

    def ints(self, name: str) -> tuple[int, ...]:
        """Return an attribute as integers; a lone integer is a tuple of one. Empty if the node has none.

        Raises:
            TypeError: If the attribute holds something else.
        """
        value = self.attributes.get(name, ())
        values = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(item, int) for item in values):
            raise TypeError(f"attribute {name} holds {value!r}, not integers")
        return tuple(int(item) for item in values)

    def number(self, name: str) -> float:
        """Return an attribute as one number.

        Raises:
            TypeError: If the attribute holds something else.
        """
        value = self.attributes[name]
        if not isinstance(value, (int, float)):
            raise TypeError(f"attribute {name} holds {value!r}, not a number")
        return float(value)
