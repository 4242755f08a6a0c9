"""``DequantizeLinear`` of constants: a scale of the weights goes into the scales that they are stored with."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bnfold.affine import Linear, PerChannelAffine
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Absorber, Example, Form, Side
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["OUTPUT_SIDE"]

_SCALES_OF_AN_AXIS = 13
"""From this opset on there may be one scale for each element of an axis; before, there is one for the tensor."""

Number = TypeVar("Number", bound=np.generic)
Integers = npt.NDArray[np.generic]


def _form(node: NodeView) -> Form | Refusal:
    if not (node.is_constant(0) and node.is_constant(1)) or (node.has_input(2) and not node.is_constant(2)):
        return Refusal(Reason.NO_RULE, f"{node.name} dequantises what the model computes")
    shapes = (node.shape(0), node.shape(1))
    sizes = [size for size in shapes[0] or () if isinstance(size, int)]
    if shapes[0] is None or shapes[1] is None or len(sizes) != len(shapes[0]):
        return Refusal(Reason.DYNAMIC_WEIGHT, f"the shapes of the constants of {node.name} are not known")
    axes = tuple(range(-len(sizes), 0))
    if not node.integer("block_size", 0):
        if any(size != 1 for size in shapes[1]):  # one scale for each element of an axis
            axis = node.integer("axis", 1)
            if not -len(sizes) <= axis < len(sizes):
                return Refusal(Reason.WRONG_AXIS, f"{node.name} has scales along axis {axis} of {len(sizes)} axes")
            axes = (axis % len(sizes) - len(sizes),)
        elif node.opset < _SCALES_OF_AN_AXIS:
            axes = ()
    return Form(
        data=0,
        weight=1,
        bias=None,
        axis=axes[-1] if axes else -1,
        channels=sizes[axes[-1]] if axes else 1,
        output_axis=0,
        fan_in=1,
        axes=axes,
        sizes=tuple(sizes[axis] for axis in axes),
        rank=len(sizes),
    )


def _laid_over(node: Linear, affine: PerChannelAffine) -> tuple[Float64Array, Float64Array]:
    """Return scale and shift with one axis for each axis of the quantised tensor."""
    rank = node.constants[0].ndim
    given = rank if affine.sizes is None else len(affine.sizes)
    parts = affine.laid_over(given)
    shape = (1,) * rank
    if given == rank:
        return parts
    if given:  # along the one axis that has several scales
        (axis,) = node.ints("axis")
        shape = tuple(-1 if place == axis % rank else 1 for place in range(rank))
    scale, shift = (part.reshape(shape) for part in parts)
    return scale, shift


def _spread(node: Linear, parameter: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Lay a parameter of blocks, of an axis or of the whole tensor out so that it broadcasts against the tensor."""
    shape = node.constants[0].shape
    if parameter.size == 1:
        return parameter.reshape((1,) * len(shape))
    (axis,), (block,) = node.ints("axis"), node.ints("block_size")
    if block:
        return _repeated(parameter, block, axis, shape[axis])
    return parameter.reshape([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])


def _repeated(array: npt.NDArray[Number], block: int, axis: int, size: int) -> npt.NDArray[Number]:
    """Let one number for each block stand for each element of an axis; the last block may be shorter."""
    return np.repeat(array, min(block, size), axis=axis).take(np.arange(size), axis=axis)


def _mirrored(node: Linear, scale: Float64Array) -> Integers | Refusal:
    """Return the quantised tensor turned around its zero point where the scale is negative, and on it where it is 0."""
    stored = node.constants[0]
    wide = np.int64 if stored.dtype.kind in "iu" or "int" in stored.dtype.name else np.float64
    values = stored.astype(wide)
    zero = _spread(node, node.constants.get(2, np.zeros(1))).astype(wide)
    turned = np.where(scale < 0, 2 * zero - values, np.where(scale == 0, zero, values))
    with np.errstate(all="ignore"):
        result = turned.astype(stored.dtype)
    lost = np.argwhere(result.astype(wide) != turned)
    if lost.size:
        first = tuple(int(place) for place in lost[0])
        detail = (
            f"a negative scale would turn {values[first]} at {list(first)} into {turned[first]}, which "
            f"{stored.dtype.name} cannot hold"
        )
        return Refusal(Reason.OUT_OF_RANGE, detail)
    return result


def _absorb(node: Linear, affine: PerChannelAffine) -> Linear | Refusal:
    scale, shift = _laid_over(node, affine)
    if np.any(shift) and node.attributes.get("output_dtype"):
        return Refusal(Reason.WEIGHT_TYPE, "it computes another type than that of its scales, and the shift has theirs")
    constants = dict(node.constants)
    if np.any(scale <= 0):
        mirrored = _mirrored(node, scale)
        if isinstance(mirrored, Refusal):
            return mirrored
        constants[0] = mirrored
    changed = replace(node, bias=node.bias.reshape((1,) * scale.ndim) * scale + shift, constants=constants)
    factor = np.where(scale == 0, 1.0, np.abs(scale))
    return _with_factor_of_blocks(changed, factor) if node.ints("block_size") != (0,) else _with_factor(changed, factor)


def _with_factor_of_blocks(node: Linear, factor: Float64Array) -> Linear | Refusal:
    """Multiply the scales of a tensor that has one for each block of neighbours along an axis."""
    (block,), (axis,), shape = node.ints("block_size"), node.ints("axis"), node.constants[0].shape
    if factor.shape[axis] != 1:
        first = factor.take(np.arange(0, shape[axis], block), axis=axis)
        if np.any(_repeated(first, block, axis, shape[axis]) != factor):
            detail = f"it varies inside the blocks of {block} elements of axis {axis} that share a scale"
            return Refusal(Reason.WRONG_AXIS, detail)
        factor = first
    return replace(node, weight=node.weight * factor)


def _with_factor(node: Linear, factor: Float64Array) -> Linear | Refusal:
    """Multiply the scales of a tensor that has one, or one for each element of an axis."""
    varying = [place for place, size in enumerate(factor.shape) if size != 1]
    if not varying:
        return replace(node, weight=node.weight * factor.reshape(()))
    single, (axis,) = node.weight.size == 1, node.ints("axis")
    if len(varying) > 1 or not (single or varying[0] == axis % factor.ndim):
        detail = f"scales can vary along one axis, and these would vary along axes {varying}"
        if not single:
            detail = f"its scales vary along axis {axis}, and the map along axes {varying}"
        return Refusal(Reason.WRONG_AXIS, detail)
    weight = node.weight.reshape(-1) * factor.reshape(-1)
    constants = dict(node.constants)
    if 2 in constants:  # a zero point has the shape of the scales
        constants[2] = np.broadcast_to(constants[2].reshape(-1), weight.shape).copy()
    return replace(node, weight=weight, constants=constants, attributes={**node.attributes, "axis": varying[0]})


OUTPUT_SIDE = Absorber(
    op_type="DequantizeLinear",
    side=Side.OUTPUT,
    algebra="s·(q − z)·Δ = (q' − z)·(Δ·|s|), where q' is q for s > 0, 2z − q for s < 0 and z for s = 0",
    form=_form,
    absorb=_absorb,
    examples=(
        Example(
            "one scale becomes one for each column, of either sign",
            """(float[3,4] x) => (float y) <int8[4,5] q, float d = {0.25}, float[5] c = {0.5, -2.0, 0.0, 4.0, 1.0}> {
               w = DequantizeLinear(q, d)
               m = Mul(w, c)
               y = MatMul(x, m) }""",
        ),
        Example(
            "a scale and a zero point for each row",
            """(float[3,4] x) => (float y)
               <uint8[2,4] q = {0, 8, 200, 255, 120, 130, 140, 150}, float[2] d = {0.25, 0.5},
                uint8[2] z = {3, 128}, float[2,1] c = {4.0, -0.5}> {
               w = DequantizeLinear<axis=0>(q, d, z)
               m = Mul(w, c)
               y = Gemm<transB=1>(x, m) }""",
        ),
        Example(
            "a number that has no negative in eight bits",
            """(float[3,1] x) => (float y)
               <int8[1,2] q = {-128, 127}, float[2] d = {0.25, 0.5}, float[2] c = {-1.0, 1.0}> {
               w = DequantizeLinear<axis=1>(q, d)
               m = Mul(w, c)
               y = Gemm(x, m) }""",
            refused=Reason.OUT_OF_RANGE,
        ),
        Example(
            "scales along one axis, and a constant along the other",
            """(float[3,4] x) => (float y)
               <int8[4,5] q, float[5] d = {0.25, 0.5, 1.0, 2.0, 4.0}, float[4,1] c = {0.5, 2.0, 0.25, 4.0}> {
               w = DequantizeLinear<axis=1>(q, d)
               m = Mul(w, c)
               y = Sigmoid(m) }""",
            refused=Reason.WRONG_AXIS,
        ),
    ),
)
