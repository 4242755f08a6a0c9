"""What carriers let pass and what they refuse, each with its reason, node by node and both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from bnfold.affine import Field
from bnfold.graph.view import views
from bnfold.rules import RULES, Carried, Reason, Refusal
from tests.rules.single_nodes import Single, backward, computed, field_for, forward, view_of

Array = npt.NDArray[Any]


def value(*shape: int) -> Array:
    return np.random.default_rng(sum(shape) + len(shape)).normal(size=shape)


def ints(*numbers: int) -> Array:
    return np.asarray(numbers, np.int64)


def one(op_type: str, *shape: int, **attributes: Any) -> Single:
    return Single(op_type, (value(*shape),), attributes=attributes)


def fed(op_type: str, *inputs: Array | None, declared: Mapping[int, Any] | None = None, **attributes: Any) -> Single:
    """Return a node whose inputs but the first are constants."""
    return Single(op_type, inputs, frozenset(range(1, len(inputs))), attributes, declared=declared or {})


def joined(op_type: str, *inputs: Array, declared: Mapping[int, Any] | None = None, **attributes: Any) -> Single:
    """Return a node whose inputs are all computed."""
    return Single(op_type, inputs, attributes=attributes, declared=declared or {})


def reversed_operands(single: Single) -> Single:
    """Return a node whose first input is the constant one."""
    return replace(single, constants=frozenset({0}))


@dataclass(frozen=True, slots=True)
class Row:
    """A node, the map that meets it, and what is refused; None where it passes.

    Attributes:
        single: The node.
        kind: What kind of map is drawn.
        axes: Along which axes it varies.
        refused: The reason.
        says: The refusal's own words.
        at: The output behind which the map stands, or the inputs in front of which it does.
    """

    single: Single
    kind: str
    axes: tuple[int, ...]
    refused: Reason | None = None
    says: str = ""
    at: int | tuple[int, ...] = 0


IMAGE = (1, 4, 6, 6)

BACKWARD = {
    "Identity": Row(one("Identity", 2, 3), "shift", (1,)),
    "Identity, a map of another size": Row(
        one("Identity", 2, 3), "scale", (0, 1), Reason.CHANNEL_MISMATCH, "at node a map over [2, 5] meets [2, 3]"
    ),
    "Dropout": Row(one("Dropout", 2, 3), "scale", (1,)),
    "Dropout that trains": Row(
        fed("Dropout", value(2, 3), np.asarray(0.5), np.ones((), bool)),
        "scale",
        (1,),
        Reason.NO_RULE,
        "node drops at random",
    ),
    "Cast": Row(one("Cast", 2, 3, to=11), "scale", (1,)),
    "Cast from whole numbers": Row(
        replace(one("Cast", 2, 3, to=11), inputs=(np.arange(6).reshape(2, 3),)),
        "scale",
        (1,),
        Reason.NO_RULE,
        "node converts from or to a type that is not known to be floating",
    ),
    "Transpose": Row(one("Transpose", 2, 3, 4, perm=[1, 2, 0]), "scale", (0, 2)),
    "Reshape, heads": Row(fed("Reshape", value(2, 5, 6), ints(0, 0, 2, 3)), "scale", (2, 3)),
    "Reshape, a free batch and height": Row(
        fed("Reshape", value(2, 6, 5, 4), ints(0, 2, 3, -1, 4), declared={0: (None, 6, None, 4)}), "scale", (1, 2)
    ),
    "Reshape by a shape that is computed": Row(
        joined("Reshape", value(2, 6, 5), ints(2, 2, 3, 5), declared={0: ("N", 6, "T"), 1: (4,)}),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "node reshapes [?, ?, ?, ?] to [N, 6, T]: the channel is lost track of",
    ),
    "Reshape, rows of another length": Row(
        fed("Reshape", value(6, 6), ints(4, 9)),
        "scale",
        (1,),
        Reason.SCRAMBLED,
        "node lays [4, 9] out as [6, 6], in other rows",
    ),
    "Reshape, sizes that are not known": Row(
        fed("Reshape", value(2, 6), ints(-1, 4), declared={0: (2, None)}),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "node reshapes [?, 4] to [2, ?]: the channel is lost track of",
    ),
    "Reshape, where 0 means no elements": Row(
        fed("Reshape", value(0, 4), ints(0, 2), allowzero=1),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "node reshapes [0, 2] to [0, 4]: the channel is lost track of",
    ),
    "Flatten": Row(one("Flatten", 2, 3, 4), "scale", (1,)),
    "Squeeze": Row(fed("Squeeze", value(2, 3, 1), ints(-1)), "scale", (1,)),
    "Unsqueeze": Row(fed("Unsqueeze", value(2, 3), ints(-1)), "scale", (1,)),
    "Split, the second output": Row(
        replace(fed("Split", value(2, 5), ints(2, 3), axis=1), outputs=2), "shift", (1,), at=1
    ),
    "Split, a map for all of one output": Row(
        replace(fed("Split", value(2, 5), ints(2, 3), axis=-1), outputs=2), "scale", (), at=0
    ),
    "Split, sizes that are not known": Row(
        replace(joined("Split", value(2, 5), ints(2, 3), axis=1, declared={0: (2, None)}), outputs=2),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "the sizes into which node splits are not known",
        1,
    ),
    "Slice, backward steps": Row(fed("Slice", value(2, 7), ints(-2), ints(-100), ints(1), ints(-2)), "shift", (1,)),
    "Slice by attributes": Row(replace(one("Slice", 2, 7, starts=[1], ends=[1000], axes=[1]), opset=9), "scale", (1,)),
    "Slice of an axis whose size is not known": Row(
        fed("Slice", value(2, 7), ints(1), ints(5), ints(1), declared={0: (2, None)}),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "node slices axis 1, whose size is not known",
    ),
    "Slice of an axis whose size is not known, one map for all": Row(
        fed("Slice", value(2, 7), ints(1), ints(5), ints(1), declared={0: (2, None)}), "scale", (0,)
    ),
    "Gather, one element for all": Row(fed("Gather", value(2, 5), np.asarray(-1), axis=1), "scale", (0,)),
    "Gather, twice with one map": Row(fed("Gather", value(2, 3), ints(2, 2, 2), axis=1), "scale", ()),
    "Gather, twice with two maps": Row(
        fed("Gather", value(2, 3), ints(2, 0, 2), axis=1),
        "scale",
        (1,),
        Reason.SCRAMBLED,
        "node repeats elements along axis 1, and each has another map",
    ),
    "Gather by computed indices": Row(
        joined("Gather", value(2, 3), ints(2, 0), axis=1),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "node picks by indices that are computed while the model runs",
    ),
    "Gather by computed indices, one map for all": Row(
        joined("Gather", value(2, 3), ints(2, 0), axis=1), "shift", (0,)
    ),
    "Expand": Row(fed("Expand", value(3, 1), ints(2, 1, 4)), "shift", (1,)),
    "Expand of one channel": Row(
        fed("Expand", value(1, 4), ints(3, 1)),
        "scale",
        (0,),
        Reason.SCRAMBLED,
        "node repeats elements along axis 0, and each has another map",
    ),
    "Expand of an axis that may be 1": Row(
        fed("Expand", value(3, 4), ints(3, 1), declared={0: (None, 4)}),
        "scale",
        (0,),
        Reason.UNKNOWN_SHAPE,
        "node may repeat axis 0: its size is not known",
    ),
    "Tile": Row(fed("Tile", value(3, 4), ints(2, 1)), "scale", (1,)),
    "Tile of the channels": Row(
        fed("Tile", value(3, 4), ints(1, 2)),
        "scale",
        (1,),
        Reason.SCRAMBLED,
        "node repeats elements along axis 1, and each has another map",
    ),
    "DepthToSpace, free height and width": Row(
        replace(one("DepthToSpace", 1, 8, 3, 5, blocksize=2, mode="CRD"), declared={0: (1, 8, None, None)}),
        "scale",
        (1,),
    ),
    "SpaceToDepth": Row(one("SpaceToDepth", 1, 3, 4, 6, blocksize=2), "scale", (1,)),
    "SpaceToDepth, free height and width": Row(
        replace(one("SpaceToDepth", 1, 3, 4, 6, blocksize=2), declared={0: (1, 3, "H", "W")}),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "the sizes that node moves blocks of are not known",
    ),
    "Concat of channels": Row(joined("Concat", value(2, 3), value(2, 1), value(2, 2), axis=-1), "scale", (1,)),
    "Concat, one size left over": Row(
        joined("Concat", value(2, 3), value(2, 4), axis=1, declared={0: (2, None)}), "scale", (1,)
    ),
    "Concat, two sizes not known": Row(
        joined("Concat", value(2, 3), value(2, 4), axis=1, declared={0: (2, None), 1: (2, "C")}),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "the sizes of what node joins are not known",
    ),
    "Concat of rows, sizes not known": Row(
        joined("Concat", value(2, 3), value(1, 3), axis=0, declared={0: (None, 3), 1: (None, 3)}), "shift", (1,)
    ),
    "Add, the scale to both": Row(joined("Add", value(*IMAGE), value(4, 1, 1)), "scale", (1,)),
    "Add, the shift to one": Row(joined("Add", value(*IMAGE), value(6, 6)), "shift", (1,)),
    "Add, an operand of one channel": Row(
        joined("Add", value(*IMAGE), value(1, 6, 6)),
        "scale",
        (1,),
        Reason.WRONG_AXIS,
        "input 1 of node is broadcast along axis 1, along which the map varies",
    ),
    "Add, an operand that may have one channel": Row(
        joined("Add", value(*IMAGE), value(*IMAGE), declared={1: (1, None, 6, 6)}),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "input 1 of node may be broadcast along axis 1: its size is not known",
    ),
    "Add, channels by one name": Row(
        joined("Add", value(*IMAGE), value(*IMAGE), declared={0: (1, "C", 6, 6), 1: (1, "C", 6, 6)}), "scale", (1,)
    ),
    "Add, a constant that grows": Row(fed("Add", value(*IMAGE), np.asarray(0.5)), "scale", (1,)),
    "Add, a constant along an axis, opset 6": Row(
        Single("Add", (value(2, 3, 4), value(3)), frozenset({1}), {"broadcast": 1, "axis": 1}, opset=6), "scale", (1,)
    ),
    "Add, a constant that cannot grow, opset 6": Row(
        Single("Add", (value(2, 3, 4), value(3)), frozenset({1}), {"broadcast": 1, "axis": 1}, opset=6),
        "scale",
        (2,),
        Reason.NO_GAIN,
        "the constant of node would grow from 3 to 12 elements",
    ),
    "Sub": Row(joined("Sub", value(2, 3), value(2, 3)), "shift", (1,)),
    "Sub from a constant": Row(reversed_operands(joined("Sub", value(3), value(2, 3))), "shift", (1,)),
    "Sum of one": Row(joined("Sum", value(2, 3)), "scale", (1,)),
    "Mean of three": Row(joined("Mean", value(2, 3), value(2, 3), value(2, 3)), "shift", (1,)),
    "Mul, a scale": Row(joined("Mul", value(*IMAGE), value(1, 4, 1, 1)), "scale", (1,)),
    "Mul, a shift": Row(
        joined("Mul", value(2, 3), value(2, 3)),
        "shift",
        (1,),
        Reason.NO_RULE,
        "node multiplies what is computed: its inputs take no shift",
    ),
    "Mul by a constant, a shift": Row(fed("Mul", value(2, 3), value(3)), "shift", (1,)),
    "Mul by a constant that is zero somewhere, a shift": Row(
        fed("Mul", value(2, 3), np.asarray([1.0, 0.0, 2.0])),
        "shift",
        (1,),
        Reason.NON_FINITE,
        "the constant of node is zero somewhere",
    ),
    "Div, a scale": Row(joined("Div", value(2, 3), value(2, 3)), "scale", (1,)),
    "Div, a numerator that broadcasts": Row(
        joined("Div", value(1, 3), value(2, 3)),
        "scale",
        (0,),
        Reason.WRONG_AXIS,
        "input 0 of node is broadcast along axis 0, along which the map varies",
    ),
    "Where": Row(joined("Where", value(2, 3) > 0, value(2, 3), value(2, 3)), "shift", (1,)),
    "Max of a value and a constant": Row(fed("Max", value(2, 3), np.asarray(0.2)), "positive", (1,)),
    "Max, a negative scale": Row(
        joined("Max", value(2, 3), value(2, 3)),
        "negative",
        (1,),
        Reason.SIGN,
        "3 of 3 scales are negative, which node turns round",
    ),
    "Relu": Row(one("Relu", 2, 3), "zero", (1,)),
    "Relu, a negative scale": Row(
        one("Relu", 2, 3), "negative", (1,), Reason.SIGN, "3 of 3 scales are negative, which node turns round"
    ),
    "Relu, a shift": Row(one("Relu", 2, 3), "shift", (1,)),
    "Relu, a shift, where Max does not broadcast": Row(
        replace(one("Relu", 2, 3), opset=7),
        "shift",
        (1,),
        Reason.NO_RULE,
        "node would become a Max, which broadcasts since opset 8",
    ),
    "LeakyRelu, a shift": Row(
        one("LeakyRelu", 2, 3), "shift", (1,), Reason.NO_RULE, "node bends at zero, which a shift moves"
    ),
    "Clip, one scale": Row(fed("Clip", value(2, 3), np.asarray(-0.5), np.asarray(0.5)), "positive", ()),
    "Clip, an upper bound": Row(fed("Clip", value(2, 3), None, np.asarray(0.5)), "positive", (1,)),
    "Clip, two bounds for every channel": Row(
        fed("Clip", value(2, 3), np.asarray(-0.5), np.asarray(0.5)), "positive", (1,)
    ),
    "Clip, two bounds, opset 7": Row(
        replace(one("Clip", 2, 3, min=-0.5, max=0.5), opset=7),
        "positive",
        (1,),
        Reason.NO_RULE,
        "node would become a Max or a Min, which broadcast since opset 8",
    ),
    "Clip, a bound that means none": Row(
        fed("Clip", value(2, 3), np.asarray(0.0), np.asarray(np.finfo(np.float64).max)), "positive", (1,)
    ),
    "Clip, a bound that is computed": Row(
        joined("Clip", value(2, 3), np.asarray(0.0)),
        "positive",
        (1,),
        Reason.NO_RULE,
        "the min of node is computed while the model runs",
    ),
    "MaxPool, padded": Row(one("MaxPool", *IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "positive", (1,)),
    "MaxPool, a shift": Row(one("MaxPool", *IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "shift", (1,)),
    "MaxPool over what varies": Row(
        one("MaxPool", *IMAGE, kernel_shape=[1, 1]),
        "positive",
        (3,),
        Reason.WRONG_AXIS,
        "node pools over axis 3, along which the map varies",
    ),
    "MaxPool, a window of pads alone": Row(
        one("MaxPool", 1, 2, 5, kernel_shape=[1], strides=[3], ceil_mode=1),
        "positive",
        (1,),
        Reason.NO_RULE,
        "a window of node may hold nothing but padding",
    ),
    "AveragePool, pads that do not count": Row(
        one("AveragePool", *IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "shift", (1,)
    ),
    "AveragePool, pads that count, a scale": Row(
        one("AveragePool", *IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), "scale", (1,)
    ),
    "AveragePool, pads that count, a shift": Row(
        one("AveragePool", *IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        "shift",
        (1,),
        Reason.PADDED_SHIFT,
        "node counts zeros that it pads with, which take no shift",
    ),
    "LpPool, a shift": Row(
        one("LpPool", *IMAGE, kernel_shape=[2, 2]),
        "shift",
        (1,),
        Reason.NO_RULE,
        "node takes powers, which no shift passes",
    ),
    "ReduceMean without the axes": Row(fed("ReduceMean", value(2, 3, 4), ints(-1), keepdims=0), "scale", (1,)),
    "ReduceSum, a shift": Row(fed("ReduceSum", value(2, 3, 4), ints(0, 2)), "shift", (1,)),
    "ReduceSum of a number of elements that is not known": Row(
        fed("ReduceSum", value(2, 3, 4), ints(0, 2), declared={0: (None, 3, 4)}),
        "shift",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "it is not known how many elements node adds up",
    ),
    "Resize": Row(
        fed("Resize", value(*IMAGE), None, np.asarray([1, 1, 2, 2], np.float32), mode="linear"), "shift", (1,)
    ),
    "Resize to sizes": Row(fed("Resize", value(*IMAGE), None, None, ints(1, 4, 9, 3), mode="cubic"), "scale", (1,)),
    "Resize of the channels": Row(
        fed("Resize", value(*IMAGE), None, np.asarray([1, 2, 1, 1], np.float32)),
        "scale",
        (1,),
        Reason.SCRAMBLED,
        "node stretches axis 1, along which the map varies",
    ),
    "Pad with a number for all": Row(fed("Pad", value(2, 3), ints(1, 0, 0, 2), np.asarray(0.5)), "shift", ()),
    "Pad with zeros that become a number": Row(fed("Pad", value(2, 3), ints(1, 0, 0, 2)), "shift", ()),
    "Pad with zeros, a shift for each": Row(
        fed("Pad", value(2, 3), ints(1, 0, 0, 0)),
        "shift",
        (1,),
        Reason.PADDED_SHIFT,
        "node pads all channels with 0, and they take different maps",
    ),
    "Pad that mirrors what varies": Row(
        fed("Pad", value(2, 3), ints(0, 1, 0, 1), mode="reflect"),
        "scale",
        (1,),
        Reason.SCRAMBLED,
        "node repeats elements along axis 1, each with another map",
    ),
}

FORWARD = {
    "Transpose": Row(one("Transpose", 2, 3, 4), "scale", (2,)),
    "Reshape": Row(fed("Reshape", value(2, 6, 5), ints(0, -1)), "shift", (1,)),
    "Split": Row(replace(fed("Split", value(2, 5), ints(2, 3), axis=1), outputs=2), "scale", (1,)),
    "Slice": Row(fed("Slice", value(2, 7), ints(1), ints(5), ints(1), declared={0: (2, None)}), "scale", (1,)),
    "Gather": Row(fed("Gather", value(2, 3), ints(2, 0, 2, -1), axis=1), "scale", (1,)),
    "Gather by computed indices": Row(
        joined("Gather", value(2, 3), ints(2, 0), axis=1),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "node picks by indices that are computed while the model runs",
    ),
    "Expand": Row(fed("Expand", value(3, 1), ints(2, 1, 4)), "shift", (0,)),
    "Tile": Row(fed("Tile", value(3, 2), ints(1, 3)), "scale", (1,)),
    "DepthToSpace": Row(one("DepthToSpace", 1, 8, 3, 5, blocksize=2), "scale", (1,)),
    "SpaceToDepth, free height and width": Row(
        replace(one("SpaceToDepth", 1, 3, 4, 6, blocksize=2), declared={0: (1, 3, "H", "W")}), "scale", (1,)
    ),
    "Concat of one mapped input and others": Row(
        joined("Concat", value(2, 3), value(2, 1), value(2, 2), axis=1), "scale", (1,), at=1
    ),
    "Concat beside a size that is not known": Row(
        joined("Concat", value(2, 3), value(2, 1), axis=1, declared={1: (2, None)}),
        "scale",
        (1,),
        Reason.UNKNOWN_SHAPE,
        "the sizes of what node joins are not known",
    ),
    "Add, a shift": Row(joined("Add", value(*IMAGE), value(4, 1, 1)), "shift", (0,), at=1),
    "Add, one scale for both": Row(joined("Add", value(2, 3), value(2, 3)), "scale", (1,), at=(0, 1)),
    "Add, a scale on one of two": Row(
        joined("Add", value(2, 3), value(2, 3)),
        "scale",
        (1,),
        Reason.NO_RULE,
        "input 1 of node does not carry the same map",
    ),
    "Add of a constant, a scale": Row(fed("Add", value(2, 3), value(3)), "scale", (1,)),
    "Sub, a shift": Row(joined("Sub", value(2, 3), value(2, 3)), "shift", (1,), at=1),
    "Mul, two scales": Row(joined("Mul", value(2, 3), value(2, 3)), "scale", (1,), at=(0, 1)),
    "Mul, a shift": Row(
        joined("Mul", value(2, 3), value(2, 3)),
        "shift",
        (1,),
        Reason.NO_RULE,
        "node would multiply the shift by what is computed",
    ),
    "Mul by a constant, a shift": Row(fed("Mul", value(2, 3), value(3)), "shift", (1,)),
    "Div, the denominator": Row(
        joined("Div", value(2, 3), value(2, 3)), "scale", (1,), Reason.NO_RULE, "node divides by it", 1
    ),
    "Where, both branches": Row(joined("Where", value(2, 3) > 0, value(2, 3), value(2, 3)), "shift", (1,), at=(1, 2)),
    "Where, one branch": Row(
        joined("Where", value(2, 3) > 0, value(2, 3), value(2, 3)),
        "shift",
        (1,),
        Reason.NO_RULE,
        "input 2 of node does not carry the same map",
        1,
    ),
    "Where, a constant branch": Row(
        Single("Where", (value(2, 3) > 0, value(2, 3), np.asarray(-1e4)), frozenset({2})), "scale", (1,), at=1
    ),
    "Max of a constant": Row(fed("Max", value(2, 3), np.asarray(0.2)), "positive", (1,)),
    "Max of a constant, a scale that is zero": Row(
        fed("Max", value(2, 3), np.asarray(0.2)),
        "none",
        (1,),
        Reason.NON_FINITE,
        "node has a constant, and a scale in front of it is zero",
    ),
    "Relu": Row(one("Relu", 2, 3), "zero", (1,)),
    "Relu, a negative scale": Row(
        one("Relu", 2, 3), "negative", (1,), Reason.SIGN, "3 of 3 scales are negative, which node turns round"
    ),
    "PRelu": Row(joined("PRelu", value(2, 3), value(3)), "positive", (1,)),
    "PRelu, its slope": Row(
        joined("PRelu", value(2, 3), value(3)),
        "positive",
        (0,),
        Reason.NO_RULE,
        "node does not read it as its value",
        1,
    ),
    "Abs": Row(one("Abs", 2, 3), "scale", (1,)),
    "Clip": Row(fed("Clip", value(2, 3), np.asarray(-0.5), np.asarray(0.5)), "shift", ()),
    "MaxPool": Row(one("MaxPool", *IMAGE, kernel_shape=[2, 2]), "positive", (1,)),
    "AveragePool": Row(one("AveragePool", *IMAGE, kernel_shape=[2, 2], auto_pad="SAME_UPPER"), "shift", (1,)),
    "GlobalMaxPool": Row(one("GlobalMaxPool", *IMAGE), "positive", (1,)),
    "LpPool": Row(one("LpPool", *IMAGE, kernel_shape=[2, 2]), "scale", (1,)),
    "ReduceMean of a shift that varies": Row(fed("ReduceMean", value(2, 3, 4), ints(1), keepdims=0), "shift", (0, 1)),
    "ReduceMean of a scale that varies": Row(
        fed("ReduceMean", value(2, 3, 4), ints(1)),
        "scale",
        (1,),
        Reason.WRONG_AXIS,
        "node reduces axis 1, along which the map varies",
    ),
    "ReduceL2": Row(fed("ReduceL2", value(2, 3, 4), ints(2)), "scale", (1,)),
    "Resize": Row(fed("Resize", value(*IMAGE), None, np.asarray([1, 1, 2, 2], np.float32)), "scale", (1,)),
    "Resize into a box": Row(
        fed(
            "Resize",
            value(*IMAGE),
            np.asarray([0, 0, 0, 0, 1, 1, 1, 1], np.float32),
            None,
            ints(1, 4, 3, 3),
            coordinate_transformation_mode="tf_crop_and_resize",
        ),
        "scale",
        (1,),
        Reason.PADDED_SHIFT,
        "node fills in a number outside of its box",
    ),
    "Pad of the channels": Row(fed("Pad", value(2, 3), ints(0, 1, 0, 2), np.asarray(0.5)), "shift", (1,)),
    "Pad of a border, a scale": Row(fed("Pad", value(2, 3), ints(1, 0, 1, 0)), "scale", (1,)),
}


def _drawn(kind: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Field:
    rng = np.random.default_rng(len(shape) + sum(axes))
    if kind == "negative":
        positive = field_for(rng, shape, "positive", axes)
        return Field(-positive.scale, positive.shift)
    if kind == "none":
        positive = field_for(rng, shape, "positive", axes)
        return Field(positive.scale * 0, positive.shift)
    if kind == "zero":
        field = field_for(rng, shape, "positive", axes)
        scale = field.scale.copy()
        scale.reshape(-1)[0] = 0.0
        return Field(scale, field.shift)
    return field_for(rng, shape, kind, axes)


def _judge(found: object, row: Row) -> None:
    if row.refused is None:
        assert not isinstance(found, Refusal), found
    else:
        assert isinstance(found, Refusal)
        assert (found.reason, found.detail) == (row.refused, row.says)


@pytest.mark.parametrize("name", BACKWARD)
def test_behind_a_node(name: str) -> None:
    row = BACKWARD[name]
    assert isinstance(row.at, int)
    shape = computed(row.single)[row.at].shape if row.single.op_type != "Dropout" else (2, 3)
    if row.refused is Reason.CHANNEL_MISMATCH:
        shape = (*shape[:-1], 5)
    _judge(backward(row.single, _drawn(row.kind, shape, row.axes), row.at), row)


@pytest.mark.parametrize("name", FORWARD)
def test_in_front_of_a_node(name: str) -> None:
    row = FORWARD[name]
    places = (row.at,) if isinstance(row.at, int) else row.at
    shapes = {place: np.asarray(row.single.inputs[place]).shape for place in places}
    _judge(forward(row.single, {place: _drawn(row.kind, shape, row.axes) for place, shape in shapes.items()}), row)


def test_a_relu_in_front_of_a_shift_becomes_a_max_with_that_shift() -> None:
    shift = Field(np.ones((1, 3)), np.asarray([[1.0, -2.0, 0.5]]))
    found = backward(one("Relu", 2, 3), shift)
    assert isinstance(found, list)
    (way,) = found
    assert way.becomes == "Max"
    assert list(way.constants) == [1]
    np.testing.assert_array_equal(way.constants[1], shift.shift)


def test_a_shift_behind_a_sum_goes_into_a_constant_first() -> None:
    single = reversed_operands(joined("Add", value(3), value(2, 3)))
    ways = backward(single, Field(np.ones((1, 3)), np.ones((1, 3))))
    assert isinstance(ways, list)
    assert [(sorted(way.fields), sorted(way.constants)) for way in ways] == [([], [0]), ([1], [])]


def test_outputs_of_a_split_that_take_nothing_are_not_named() -> None:
    single = replace(fed("Split", value(2, 5), ints(2, 3), axis=1), outputs=2)
    found = forward(single, {0: Field(np.asarray([[1.0, 1.0, 2.0, 1.0, 1.0]]), np.zeros((1, 5)))})
    assert isinstance(found, Carried)
    assert list(found.fields) == [1]


def test_inputs_of_a_concatenation_that_take_nothing_are_not_named() -> None:
    single = joined("Concat", value(2, 3), value(2, 2), axis=1)
    found = backward(single, Field(np.asarray([[1.0, 1.0, 1.0, 1.0, 3.0]]), np.zeros((1, 5))))
    assert isinstance(found, list)
    assert [list(way.fields) for way in found] == [[1]]


def test_a_channel_shuffle_whose_shapes_are_all_computed_moves_each_channel() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]> shuffle (double[N,8,H,W] x) => (double y)
        <int64 i = {0}, int64 j = {2}, int64 k = {3}, int64[1] z = {0}, int64[1] g = {2}, int64[1] c = {4},
         int64[1] m = {-1}> {
        s = Shape(x) n = Gather(s, i) h = Gather(s, j) w = Gather(s, k)
        a = Unsqueeze(n, z) b = Unsqueeze(h, z) d = Unsqueeze(w, z) e = Concat<axis=0>(a, g, c, b, d)
        r = Reshape(x, e) t = Transpose<perm=[0,2,1,3,4]>(r) f = Concat<axis=0>(a, m, b, d) y = Reshape(t, f) }""")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    view = next(views(model))
    field = Field(np.arange(8.0).reshape(1, 8, 1, 1), np.zeros((1, 8, 1, 1)))
    for index in reversed(
        [index for index in range(len(view)) if view.node(index).op_type in {"Reshape", "Transpose"}]
    ):
        node = view.node(index)
        found = RULES.carriers[node.op_type].backward(node, 0, field)
        assert isinstance(found, Carried)
        field = found.fields[0]
    np.testing.assert_array_equal(field.scale.reshape(-1), np.arange(8.0).reshape(4, 2).T.reshape(-1))


def test_a_mask_that_is_read_keeps_a_dropout_as_it_is() -> None:
    field = Field(np.full((1, 1), 2.0), np.zeros((1, 1)))
    node = view_of(replace(one("Dropout", 2, 3), outputs=2))
    refusal = RULES.carriers["Dropout"].backward(node, 0, field)
    assert refusal == Refusal(Reason.NO_RULE, "node also returns its mask")


def test_indices_that_are_read_keep_a_max_pool_as_it_is() -> None:
    field = Field(np.full((1, 1, 1), 2.0), np.zeros((1, 1, 1)))
    node = view_of(replace(one("MaxPool", 1, 2, 5, kernel_shape=[2]), outputs=2))
    refusal = RULES.carriers["MaxPool"].backward(node, 0, field)
    assert refusal == Refusal(Reason.NO_RULE, "node also tells where the largest elements stand")
