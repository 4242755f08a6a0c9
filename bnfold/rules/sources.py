"""Sources: nodes that are affine maps, batch norms first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np

from bnfold.affine import Field, PerChannelAffine
from bnfold.affine.per_channel import Float64Array
from bnfold.graph.small import SmallConstants
from bnfold.graph.view import NodeView
from bnfold.rules.declare import Affine, Example, Source
from bnfold.rules.reasons import Reason, Refusal

__all__ = ["BATCH_NORM", "SOURCES"]

_LARGEST_CONSTANT = 1 << 22
"""Constants with more elements than this are no affine that a layer could take in."""

_LARGEST_READ = 1 << 18
"""So many channels of batch norms are read together."""

_Numbers = tuple[int, Sequence[int], float]
"""Which batch norm, where its gamma, beta, mean and variance are, its epsilon."""

_PARAMETERS = ("gamma", "beta", "running_mean", "running_var")


def _trains(node: NodeView) -> bool:
    if node.opset >= 14:
        return node.integer("training_mode", 0) != 0
    used = [name for name in node.proto.output[1:] if name]
    if node.opset >= 7:
        return bool(used)
    return node.integer("is_test", 0) == 0


def _read_batch_norms(nodes: Sequence[NodeView]) -> Sequence[Affine | Refusal]:
    """Read batch norms, those of one size together: a network has hundreds of them, and few channels in each."""
    readings: list[Affine | Refusal | None] = [None] * len(nodes)
    alike: dict[tuple[int, int], list[_Numbers]] = defaultdict(list)
    for place, node in enumerate(nodes):
        small = node.view.small
        parameters = [small.places.get(name, -1) for name in node.reads[1:5]]
        if len(parameters) < 4 or -1 in parameters or _trains(node) or node.integer("spatial", 1) == 0:
            continue
        channels, *others = (small.lengths[parameter] for parameter in parameters)
        rank = _rank(node) if channels > 0 and others == [channels] * 3 else None
        if rank is not None and rank >= 2:
            alike[channels, rank].append((place, parameters, node.number("epsilon", 1e-5)))
    for (channels, rank), every in alike.items():
        together = max(1, _LARGEST_READ // channels)
        for start in range(0, len(every), together):
            part = every[start : start + together]
            affines = _affines(nodes[0].view.small, part, channels, rank)
            for (place, _parameters, _epsilon), affine in zip(part, affines, strict=True):
                readings[place] = affine
    # What is no batch norm like most others is looked at alone, and accepted, or refused for its reason.
    return [_read_batch_norm(node) if known is None else known for node, known in zip(nodes, readings, strict=True)]


def _affines(small: SmallConstants, every: Sequence[_Numbers], channels: int, rank: int) -> Iterator[Affine | None]:
    """Return the maps of batch norms of one size; None for one whose numbers are not as they should be."""
    numbers = small.vectors([parameters for _place, parameters, _epsilon in every], channels)
    gamma, beta, mean, var = numbers.transpose(1, 0, 2)
    variance = var + np.array([[epsilon] for _place, _parameters, epsilon in every])
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance)
        shift = beta - mean * scale
    sound = (variance > 0).all(axis=1) & np.isfinite(numbers).all(axis=(1, 2))
    sound &= np.isfinite(scale).all(axis=1) & np.isfinite(shift).all(axis=1)
    shape = (-1, 1, channels, *(1,) * (rank - 2))
    rows = zip(scale.reshape(shape), shift.reshape(shape), sound.tolist(), strict=True)
    return (Affine(0, Field(each, offset)) if fine else None for each, offset, fine in rows)


def _rank(node: NodeView) -> int | None:
    rank = node.view.rank(node.reads[0])
    return node.view.rank(node.proto.output[0]) if rank is None else rank


def _read_batch_norm(node: NodeView) -> Affine | Refusal:
    if _trains(node):
        return Refusal(Reason.TRAINING_MODE, f"{node.name} uses the statistics of each batch")
    parameters: list[Float64Array] = []
    for position, parameter in enumerate(_PARAMETERS, start=1):
        value = node.constant(position)
        if value is None or value.dtype != np.float64:
            return Refusal(Reason.DYNAMIC_PARAMETERS, f"{parameter} of {node.name} is not a constant")
        extent = node.extent(position)
        if extent is None or not extent.finite:
            return Refusal(Reason.NON_FINITE, f"{parameter} of {node.name} holds NaN or infinity")
        parameters.append(cast("Float64Array", value))
    if node.integer("spatial", 1) == 0 and any(parameter.ndim > 1 for parameter in parameters):
        return Refusal(Reason.PER_ACTIVATION, f"{node.name} has statistics of shape {parameters[2].shape}")
    sizes = {parameter.shape for parameter in parameters}
    if len(sizes) != 1 or parameters[0].ndim != 1:
        return Refusal(Reason.CHANNEL_MISMATCH, f"the parameters of {node.name} have shapes {sorted(sizes)}")
    if not parameters[0].size:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name} has no channels")
    rank = _rank(node)
    if rank is None:
        return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the input of {node.name} is not known")
    if rank < 2:
        return Refusal(Reason.CHANNEL_MISMATCH, f"{node.name} normalises a value with {rank} axes")
    if node.integer("spatial", 1) == 0 and rank > 2:
        return Refusal(Reason.PER_ACTIVATION, f"{node.name} has spatial=0 over {rank} axes")
    epsilon = node.number("epsilon", 1e-5)
    lowest = float((parameters[3] + epsilon).min())
    if not lowest > 0:
        return Refusal(
            Reason.VARIANCE_NOT_POSITIVE, f"running_var + epsilon of {node.name} is {lowest:.6g} in some channel"
        )
    try:
        gamma, beta, mean, var = parameters
        affine = PerChannelAffine.of_batch_norm(gamma, beta, mean, var, epsilon)
    except ValueError:
        return Refusal(Reason.NON_FINITE, f"scale or shift of {node.name} is not finite")
    return Affine(0, Field.along_axis(affine, 1, rank))


def _aligned(node: NodeView, constant: Float64Array, rank: int) -> Float64Array | None:
    """Give a constant one axis for each axis of the value, as the op's opset aligns them."""
    if node.opset < 7:
        if not node.integer("broadcast", 0):
            return constant if constant.ndim == rank else None
        axis = node.integer("axis", rank - constant.ndim) % rank if rank else 0
        behind = rank - axis - constant.ndim
        return None if behind < 0 else constant.reshape((1,) * axis + constant.shape + (1,) * behind)
    return None if constant.ndim > rank else constant.reshape((1,) * (rank - constant.ndim) + constant.shape)


Pair = tuple[Float64Array, Float64Array]


def _read_pair(maps: Callable[[Float64Array, bool], Pair | None]) -> Callable[[NodeView], Affine | Refusal | None]:
    """Return a reader for ops of one computed and one constant operand.

    ``maps(constant, constant_is_left)`` gives scale and shift.
    """

    def read(node: NodeView) -> Affine | Refusal | None:
        if len(node.reads) != 2:
            return None
        constants = [node.constant(0), node.constant(1)]
        if (constants[0] is None) == (constants[1] is None):
            return None
        data = 0 if constants[0] is None else 1
        constant = constants[1 - data]
        assert constant is not None
        if constant.dtype != np.float64 or constant.size > _LARGEST_CONSTANT:
            return None
        if not np.isfinite(constant).all():
            return Refusal(Reason.NON_FINITE, f"the constant of {node.name} holds NaN or infinity")
        shape = node.shape(data)
        if shape is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f"the rank of the input of {node.name} is not known")
        aligned = _aligned(node, constant.astype(np.float64), len(shape))
        if aligned is None:
            return Refusal(Reason.ENLARGES, f"{node.name} adds axes to a value of shape {list(shape)}")
        wide = [axis for axis, size in enumerate(aligned.shape) if size != 1]
        if any(isinstance(shape[axis], int) and shape[axis] != aligned.shape[axis] for axis in wide):
            return Refusal(
                Reason.ENLARGES, f"{node.name} broadcasts {list(shape)} against its constant {list(aligned.shape)}"
            )
        with np.errstate(all="ignore"):
            mapped = maps(aligned, data == 1)
        if mapped is None:
            return None
        if not (np.isfinite(mapped[0]).all() and np.isfinite(mapped[1]).all()):
            return Refusal(Reason.NON_FINITE, f"{node.name} divides by zero or overflows")
        assumed = frozenset(axis for axis in wide if not isinstance(shape[axis], int))
        return Affine(data, Field.of(*mapped), assumed)

    return read


def _zeros(constant: Float64Array) -> Float64Array:
    return np.zeros_like(constant)


def _ones(constant: Float64Array) -> Float64Array:
    return np.ones_like(constant)


def _add(constant: Float64Array, _left: bool) -> Pair:  # noqa: FBT001 - the reader's own protocol
    return _ones(constant), constant


def _sub(constant: Float64Array, left: bool) -> Pair:  # noqa: FBT001 - the reader's own protocol
    return (-_ones(constant), constant) if left else (_ones(constant), -constant)


def _mul(constant: Float64Array, _left: bool) -> Pair:  # noqa: FBT001 - the reader's own protocol
    return constant, _zeros(constant)


def _div(constant: Float64Array, left: bool) -> Pair | None:  # noqa: FBT001 - the reader's own protocol
    return None if left else (1.0 / constant, _zeros(constant))


def _read_neg(node: NodeView) -> Affine | Refusal | None:
    shape = node.shape(0)
    if shape is None or node.constant(0) is not None:
        return None
    ones = np.ones((1,) * len(shape))
    return Affine(0, Field.of(-ones, _zeros(ones)))


BATCH_NORM = "BatchNormalization"

SOURCES: Mapping[str, Source] = {
    source.op_type: source
    for source in (
        Source(
            BATCH_NORM,
            "s = γ/√(var+ε), o = β − s·mean, along axis 1",
            _read_batch_norm,
            (
                Example(
                    "behind a convolution",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y)
                       <double[8,3,3,3] W, double[8] gamma, double[8] beta, double[8] mean, double[8] var> {
                       h = Conv(x, W)
                       y = BatchNormalization<epsilon=0.001>(h, gamma, beta, mean, var) }""",
                ),
                Example(
                    "a variance that cannot be",
                    """(double[1,3,6,6] x) => (double[1,2,4,4] y)
                       <double[2,3,3,3] W, double[2] gamma, double[2] beta, double[2] mean, double[2] v = {1.0, -1.0}> {
                       h = Conv(x, W)
                       y = BatchNormalization(h, gamma, beta, mean, v) }""",
                    refused=Reason.VARIANCE_NOT_POSITIVE,
                ),
                Example(
                    "statistics that a caller passes in",
                    """(double[1,3,6,6] x, double[8] mean) => (double[1,8,4,4] y)
                       <double[8,3,3,3] W, double[8] gamma, double[8] beta, double[8] var> {
                       h = Conv(x, W)
                       y = BatchNormalization(h, gamma, beta, mean, var) }""",
                    refused=Reason.DYNAMIC_PARAMETERS,
                ),
                Example(
                    "parameters of another layer",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y)
                       <double[8,3,3,3] W, double[8] gamma, double[8] beta, double[8] mean, double[7] var> {
                       h = Conv(x, W)
                       y = BatchNormalization(h, gamma, beta, mean, var) }""",
                    refused=Reason.CHANNEL_MISMATCH,
                ),
            ),
            read_many=_read_batch_norms,
        ),
        Source(
            "Mul",
            "x·c = (c, 0)",
            _read_pair(_mul),
            (
                Example(
                    "decomposed batch norm: Mul and Add of computed statistics",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y)
                       <double[8,3,3,3] W, double[8,1,1] gamma, double[8,1,1] var, double[8,1,1] beta,
                        double[1] e = {0.001}> {
                       h = Conv(x, W)
                       v = Add(var, e)
                       r = Sqrt(v)
                       q = Reciprocal(r)
                       s = Mul(gamma, q)
                       m = Mul(h, s)
                       y = Add(m, beta) }""",
                ),
                Example(
                    "eight columns are not eight channels",
                    """(double[1,3,10,10] x) => (double[1,8,8,8] y) <double[8,3,3,3] W, double[8] c> {
                       h = Conv(x, W)
                       y = Mul(h, c) }""",
                    refused=Reason.WRONG_AXIS,
                ),
                Example(
                    "a constant that enlarges the value",
                    """(double[1,3,6,6] x) => (double[2,8,4,4] y) <double[8,3,3,3] W, double[2,1,1,1] c> {
                       h = Conv(x, W)
                       y = Mul(h, c) }""",
                    refused=Reason.ENLARGES,
                ),
                Example(
                    "a constant with more axes than the value",
                    """(double[1,3,6,6] x) => (double[1,1,8,4,4] y) <double[8,3,3,3] W, double[1,1,1,1,1] c> {
                       h = Conv(x, W)
                       y = Mul(h, c) }""",
                    refused=Reason.ENLARGES,
                ),
            ),
        ),
        Source(
            "Add",
            "x + c = (1, c)",
            _read_pair(_add),
            (
                Example(
                    "constant on the left, channels in place",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y) <double[8,3,3,3] W, double[8] b, double[1,8,1,1] c> {
                       h = Conv(x, W, b)
                       y = Add(c, h) }""",
                ),
                Example(
                    "a bias for every position",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y) <double[8,3,3,3] W, double[1,8,4,4] c> {
                       h = Conv(x, W)
                       y = Add(h, c) }""",
                    refused=Reason.WRONG_AXIS,
                ),
            ),
        ),
        Source(
            "Sub",
            "x − c = (1, −c); c − x = (−1, c)",
            _read_pair(_sub),
            (
                Example(
                    "what is left of a mean",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y) <double[8,3,3,3] W, double[8,1,1] c> {
                       h = Conv(x, W)
                       y = Sub(h, c) }""",
                ),
                Example(
                    "subtracted from a constant that another node shares",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y, double[8,1,1] z)
                       <double[8,3,3,3] W, double[8,1,1] c> {
                       h = Conv(x, W)
                       z = Abs(c)
                       y = Sub(c, h) }""",
                ),
                Example(
                    "a constant for each of two images enlarges a batch of one",
                    """(double[1,3,6,6] x) => (double[2,8,4,4] y) <double[8,3,3,3] W, double[2,1,1,1] c> {
                       h = Conv(x, W)
                       y = Sub(h, c) }""",
                    refused=Reason.ENLARGES,
                ),
            ),
        ),
        Source(
            "Div",
            "x / c = (1/c, 0); c / x is no affine",
            _read_pair(_div),
            (
                Example(
                    "what is left of a deviation",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y) <double[8,3,3,3] W, double[8,1,1] var> {
                       h = Conv(x, W)
                       y = Div(h, var) }""",
                ),
                Example(
                    "division by zero",
                    """(double[1,3,6,6] x) => (double[1,2,4,4] y)
                       <double[2,3,3,3] W, double[2,1,1] c = {1.0, 0.0}> {
                       h = Conv(x, W)
                       y = Div(h, c) }""",
                    refused=Reason.NON_FINITE,
                ),
            ),
        ),
        Source(
            "Neg",
            "−x = (−1, 0)",
            _read_neg,
            (
                Example(
                    "behind a convolution",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y) <double[8,3,3,3] W> {
                       h = Conv(x, W)
                       y = Neg(h) }""",
                ),
                Example(
                    "behind a convolution whose output is read twice",
                    """(double[1,3,6,6] x) => (double[1,8,4,4] y, double[1,8,4,4] z) <double[8,3,3,3] W> {
                       h = Conv(x, W)
                       z = Relu(h)
                       y = Neg(h) }""",
                    refused=Reason.USED_ELSEWHERE,
                ),
            ),
        ),
    )
}
