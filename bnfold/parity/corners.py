"""Where a few pixels show as much of a fold as the whole image: its corner.

A convolution does at every place the same, but for its borders. So what a fold is fed need not be as large as what the
network has there: its borders and some pixels between them are all that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bnfold.parity.kernels import Array, computes_with
from bnfold.parity.nodes import STANDARD, attributes_of

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["smaller"]

_EVERYWHERE = frozenset(
    {
        *("Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "Div", "Elu"),
        *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Relu"),
        *("Sigmoid", "Softplus", "Sub", "Sum", "Tanh"),
    }
)
"""Operations that do at every place the same."""
_SIDE = 16
_PERIOD = 8
"""A side is shortened by a multiple of this, so that strides meet the far border as they do in the whole image."""
_APART = 8
"""How many pixels there are at least between what the borders reach."""


def smaller(values: Mapping[str, Array], pieces: Iterable[ModelProto]) -> dict[str, Array] | None:
    """Return corners of the values that enter a piece; None where they would show less, or would not be smaller.

    Args:
        values: The piece's inputs, shape (N, C, …) each.
        pieces: The models that read them.
    """
    shapes = {value.shape[2:] for value in values.values()}
    if len(shapes) != 1 or not all(value.ndim > 2 and computes_with(value) for value in values.values()):
        return None
    widest = 1
    for model in pieces:
        sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.domain not in STANDARD or node.op_type not in _EVERYWHERE:
                return None
            attributes = attributes_of(node)
            kernel = attributes.get("kernel_shape") or ()
            if node.op_type == "Conv":
                if node.input[1] not in sizes:
                    return None
                kernel = sizes[node.input[1]][2:]
            dilations = attributes.get("dilations") or (1,) * len(kernel)
            steps = attributes.get("strides") or (1,) * len(kernel)
            for size, dilation, step in zip(kernel, dilations, steps, strict=True):
                if step > 1 and _PERIOD % step:
                    return None
                widest = max(widest, (size - 1) * dilation + 1)
    (shape,) = shapes
    least = max(_SIDE, 2 * widest + _APART)
    cut = tuple(min(size, least + (size - least) % _PERIOD) for size in shape)
    if cut == shape:
        return None
    place = (slice(None), slice(None), *(slice(side) for side in cut))
    return {name: value[place] for name, value in values.items()}
