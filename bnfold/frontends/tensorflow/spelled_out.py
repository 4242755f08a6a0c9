"""Batch norms that a graph spells out as arithmetic, found by their structure and marked as what they are.

``tf.nn.batch_normalization`` writes ``x·inv + (beta − mean·inv)`` with ``inv = gamma / sqrt(var + epsilon)``; people
write ``(x − mean) / sqrt(var + epsilon) · gamma + beta``. With its weights being constants that is a multiplication and
an addition, which fold; but whoever counts batch norms does not see it, and one that cannot be folded would be lost
without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.frontends.tensorflow.batch_norms import MARKER, BatchNorm
from bnfold.frontends.tensorflow.concrete import Frozen
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.net import Net, Ref, attribute, const_node, data_inputs, dtype_of, node_of, value_of
from bnfold.frontends.tensorflow.shapes import Shape, shapes_of

__all__ = ["plain_scope", "with_markers"]

Array = npt.NDArray[Any]

_LARGEST = 1 << 22
_MOST_STEPS = 200
_ADD = ("Add", "AddV2")
_DIVIDE = ("RealDiv", "Div")
_SAME = ("Identity", "StopGradient", "Cast", "Reshape", "ExpandDims")
_CONSTANT = frozenset([*_SAME, *_ADD, "Const", "Sub", "Mul", "Neg", "Rsqrt", "Sqrt", "Reciprocal", *_DIVIDE])
_OWN_SCOPE = re.compile(r"/batchnorm(_\d+)?/add_1(_\d+)?$|/FusedBatchNorm(V\d)?(_\d+)?$")
_CALLS = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")


def plain_scope(name: str) -> str:
    """Return the scope of a batch norm: its operation's name without the calls around it and without its own parts."""
    return _OWN_SCOPE.sub("", _CALLS.sub("", name)) or name


def with_markers(frozen: Frozen) -> tuple[Frozen, dict[str, BatchNorm]]:
    """Return a frozen graph with a marker for every batch norm that it spells out, and what the markers stand for.

    A batch norm is taken for one only where every part is there, the channel is one axis, and its parts multiply out to
    the constants that the graph computes with. Everything else stays as it is.
    """
    net = Net.of(frozen.graph_def)
    constants = _constants(net)
    if not any(node.op in ("Rsqrt", "Sqrt") and node.name in constants for node in net.nodes.values()):
        return frozen, {}
    readers = net.consumers()
    shapes = shapes_of(net)
    marked = net.copy()
    found: dict[str, BatchNorm] = {}
    for node in net.nodes.values():
        if node.name in constants:
            continue
        spelled = _read(net, constants, shapes, node) if node.op in _ADD else None
        if spelled is None and node.op in (*_ADD, "Mul", *_DIVIDE):
            spelled = _read_steps(net, constants, shapes, node, readers.get(node.name, ()))
        if spelled is not None:
            key = f"bnfold/spelled-out/{len(found)}"
            found[key] = spelled.norm
            _mark(marked, node, spelled, key)
    return Frozen(marked.graph_def(), frozen.inputs, frozen.outputs), found


@dataclass(frozen=True, slots=True)
class _Spelled:
    norm: BatchNorm
    source: Ref
    rank: int
    axis: int


def _constants(net: Net) -> set[str]:
    """Return the nodes that compute the same whatever is fed."""
    found: set[str] = set()
    stack = list(net.nodes)
    seen: set[str] = set()
    while stack:
        node = net.nodes[stack[-1]]
        waiting = [name for name, _ in data_inputs(node) if name not in seen] if node.op in _CONSTANT else []
        if node.name not in seen and waiting:
            seen.add(node.name)
            stack.extend(waiting)
            continue
        seen.add(stack.pop())
        if node.op in _CONSTANT and all(name in found for name, _ in data_inputs(node)):
            found.add(node.name)
    return found


def _read(net: Net, constants: set[str], shapes: Mapping[Ref, Shape], node: Any) -> _Spelled | None:
    """Return the batch norm that an addition completes; None where it completes none."""
    for product, shift in _both_orders(data_inputs(node)):
        if shift[0] not in constants or net.nodes[product[0]].op != "Mul":
            continue
        for source, factor in _both_orders(data_inputs(net.nodes[product[0]])):
            if factor[0] in constants and source[0] not in constants:
                norm = _norm(net, plain_scope(node.name), factor, shift)
                scale, offset = _evaluate(net, factor), _evaluate(net, shift)
                if norm is None or scale is None or offset is None or not _multiplies_out(norm, scale, offset):
                    return None
                axis = _axis(scale, offset, shapes.get(source))
                return None if axis is None else _Spelled(norm, source, len(shapes[source]), axis)
    return None


def _read_steps(
    net: Net, constants: set[str], shapes: Mapping[Ref, Shape], node: Any, readers: Sequence[tuple[str, int]]
) -> _Spelled | None:
    """Return the batch norm whose last step a node is, where each of its parts is a step of its own."""
    if node.op not in _ADD and any(_step(constants, net.nodes[reader]) is not None for reader, _ in readers):
        return None  # it goes on
    beta: Ref | None = None
    factors: list[tuple[str, Ref]] = []
    last: Any = node
    while (step := _step(constants, last)) is not None:
        source, constant = step
        if last.op in _ADD and beta is None and not factors:
            beta = constant
        elif last.op in ("Mul", *_DIVIDE):
            factors.append((last.op, constant))
        elif last.op == "Sub" and factors:
            return _stepped(net, shapes, node, _Steps(source, constant, factors, beta))
        else:
            return None
        last = net.nodes[source[0]]
    return None


def _step(constants: set[str], node: Any) -> tuple[Ref, Ref] | None:
    """Return what a node computes with a constant, and the constant; None where it does something else."""
    if node.op not in (*_ADD, "Mul", "Sub", *_DIVIDE):
        return None
    pairs = _both_orders(data_inputs(node))
    for source, constant in pairs[: 2 if node.op in (*_ADD, "Mul") else 1]:
        if constant[0] in constants and source[0] not in constants:
            return source, constant
    return None


@dataclass(frozen=True, slots=True)
class _Steps:
    source: Ref
    mean: Ref
    factors: list[tuple[str, Ref]]
    beta: Ref | None


def _stepped(net: Net, shapes: Mapping[Ref, Shape], node: Any, steps: _Steps) -> _Spelled | None:
    roots = [(op, ref, found) for op, ref in steps.factors if (found := _rooted(net, op, ref)) is not None]
    mean = _evaluate(net, steps.mean)
    beta = None if steps.beta is None else _evaluate(net, steps.beta)
    factors = [(op, _evaluate(net, ref)) for op, ref in steps.factors]
    if len(roots) != 1 or mean is None or (beta is None and steps.beta is not None):
        return None
    ((_, _, (variance, epsilon)),) = roots
    scale = np.ones((), variance.dtype)
    with np.errstate(all="ignore"):
        for op, factor in factors:
            if factor is None:
                return None
            scale = np.asarray(scale * factor if op == "Mul" else scale / factor)
        # What is beside the root is gamma, wherever it stands; in float64, because it is taken out again.
        wide = np.asarray(scale, np.float64) * np.sqrt(np.asarray(variance, np.float64) + epsilon)
        offset = np.asarray((0 if beta is None else beta) - mean * scale)
    parts = [np.asarray(part, variance.dtype) for part in (wide, 0.0 if beta is None else beta, mean)]
    if any(part.size not in (1, variance.size) for part in parts) or scale.size != variance.size:
        return None
    gamma, shift, centre = (np.broadcast_to(part.reshape(-1), variance.size).copy() for part in parts)
    norm = BatchNorm(plain_scope(node.name), gamma, shift, centre, variance.reshape(-1), epsilon)
    scale, offset = (
        np.broadcast_to(value, np.broadcast_shapes(scale.shape, offset.shape)) for value in (scale, offset)
    )
    axis = _axis(scale, offset, shapes.get(steps.source))
    if axis is None or not _multiplies_out(norm, scale, offset):
        return None
    return _Spelled(norm, steps.source, len(shapes[steps.source]), axis)


def _rooted(net: Net, op: str, ref: Ref) -> tuple[Array, float] | None:
    """Return the variance and the epsilon under the root that a factor is made with; None where there is no root."""
    node = _bare(net, ref)
    if op in _DIVIDE:
        return _under(net, node) if node.op == "Sqrt" else None
    if node.op == "Mul":
        found = [_bare(net, part) for part in data_inputs(node) if _bare(net, part).op in ("Rsqrt", "Reciprocal")]
        node = found[0] if len(found) == 1 else node
    divides = node.op in _DIVIDE
    if divides:
        node = _bare(net, data_inputs(node)[1])
    if node.op == "Reciprocal":
        node = _bare(net, data_inputs(node)[0])
        return _under(net, node) if node.op == "Sqrt" else None
    root = node.op == "Rsqrt" or (node.op == "Sqrt" and divides)
    return _under(net, node) if root else None


def _under(net: Net, root: Any) -> tuple[Array, float] | None:
    under = _bare(net, data_inputs(root)[0])
    if under.op not in _ADD:
        return None
    variance, epsilon = (_evaluate(net, ref) for ref in data_inputs(under))
    if variance is None or epsilon is None:
        return None
    if epsilon.size != 1:
        variance, epsilon = epsilon, variance
    if epsilon.size != 1 or variance.dtype not in (np.float32, np.float64):
        return None
    return variance, float(epsilon.reshape(-1)[0])


def _both_orders(inputs: list[Ref]) -> list[tuple[Ref, Ref]]:
    return [(inputs[0], inputs[1]), (inputs[1], inputs[0])] if len(inputs) == 2 else []


def _bare(net: Net, ref: Ref) -> Any:
    """Return the node behind what only passes a constant on or gives it another shape or precision."""
    node = net.nodes[ref[0]]
    while node.op in _SAME:
        node = net.nodes[data_inputs(node)[0][0]]
    return node


def _norm(net: Net, name: str, factor: Ref, shift: Ref) -> BatchNorm | None:
    """Return the batch norm whose multiplier and shift two constants are, if they are put together like one."""
    inverse = _bare(net, factor)
    root, gamma_ref = inverse, None
    if inverse.op == "Mul":
        for one, other in _both_orders(data_inputs(inverse)):
            if _bare(net, one).op == "Rsqrt":
                root, gamma_ref = _bare(net, one), other
    mean_ref, beta_ref = _mean_and_beta(net, _bare(net, shift), inverse)
    if root.op != "Rsqrt" or mean_ref is None:
        return None
    under, mean = _under(net, root), _evaluate(net, mean_ref)
    if under is None or mean is None:
        return None
    variance, epsilon = under
    gamma = np.ones_like(variance) if gamma_ref is None else _evaluate(net, gamma_ref)
    beta = np.zeros_like(variance) if beta_ref is None else _evaluate(net, beta_ref)
    if gamma is None or beta is None:
        return None
    flat = [np.asarray(value, variance.dtype).reshape(-1) for value in (gamma, beta, mean, variance)]
    if any(value.size != variance.size for value in flat):
        return None
    return BatchNorm(name, flat[0], flat[1], flat[2], flat[3], epsilon)


def _mean_and_beta(net: Net, shift: Any, inverse: Any) -> tuple[Ref | None, Ref | None]:
    """Return where mean and beta are in ``beta − mean·inv``, or in ``−mean·inv`` where there is no beta."""
    if shift.op == "Sub":
        beta, product = data_inputs(shift)
        return _other(net, _bare(net, product), inverse), beta
    if shift.op == "Mul":
        negative = _other(net, shift, inverse)
        if negative is not None and _bare(net, negative).op == "Neg":
            return data_inputs(_bare(net, negative))[0], None
    return None, None


def _other(net: Net, product: Any, inverse: Any) -> Ref | None:
    if product.op == "Mul":
        for one, other in _both_orders(data_inputs(product)):
            if _bare(net, other) is inverse:
                return one
    return None


def _axis(scale: Array, offset: Array, shape: Shape | None) -> int | None:
    """Return the one axis that the constants go along; None where it is not one, or its size is not known."""
    if shape is None or len(shape) < 2 or max(scale.ndim, offset.ndim) > len(shape):
        return None
    sizes = [(1,) * (len(shape) - value.ndim) + value.shape for value in (scale, offset)]
    if sizes[0] != sizes[1]:
        return None
    wide = [axis for axis, size in enumerate(sizes[0]) if size != 1]
    axis = wide[0] if len(wide) == 1 else len(shape) - 1
    return axis if len(wide) <= 1 and shape[axis] == scale.size else None


def _multiplies_out(norm: BatchNorm, scale: Array, offset: Array) -> bool:
    """Whether a batch norm is, up to rounding, the multiplier and the shift that the graph computes with."""
    if scale.dtype != norm.gamma.dtype or scale.size != norm.gamma.size or offset.size != norm.gamma.size:
        return False
    gamma, beta, mean, variance = (
        np.asarray(value, np.float64) for value in (norm.gamma, norm.beta, norm.running_mean, norm.running_var)
    )
    with np.errstate(all="ignore"):
        expected = gamma / np.sqrt(variance + norm.epsilon)
        products = np.abs(beta) + np.abs(mean * expected)
    tolerance = 64 * float(np.finfo(scale.dtype).eps)
    return bool(
        np.all(variance + norm.epsilon > 0)
        and np.all(np.abs(scale.reshape(-1) - expected) <= tolerance * np.abs(expected))
        and np.all(np.abs(offset.reshape(-1) - (beta - mean * expected)) <= tolerance * products)
    )


def _evaluate(net: Net, ref: Ref, budget: list[int] | None = None) -> Array | None:
    """Return the value of a constant expression; None where it is larger than those of a batch norm are."""
    budget = [_MOST_STEPS] if budget is None else budget
    budget[0] -= 1
    if budget[0] < 0:
        return None
    node = net.nodes[ref[0]]
    if node.op == "Const":
        sizes = [dimension.size for dimension in attribute(node, "value").tensor.tensor_shape.dim]
        return value_of(node) if int(np.prod(sizes, dtype=np.int64)) <= _LARGEST else None
    values = []
    for source in data_inputs(node):
        value = _evaluate(net, source, budget)
        if value is None:
            return None
        values.append(value)
    return _compute(node, values)


def _compute(node: Any, values: list[Array]) -> Array | None:
    first = values[0]
    with np.errstate(all="ignore"):
        match node.op:
            case "Identity" | "StopGradient":
                return first
            case "Cast":
                return first.astype(tensorflow().as_dtype(attribute(node, "DstT").type).as_numpy_dtype)
            case "Reshape":
                return first.reshape([int(size) for size in values[1].reshape(-1)])
            case "ExpandDims":
                return np.expand_dims(first, int(values[1].reshape(-1)[0]))
            case "Add" | "AddV2":
                return np.asarray(first + values[1])
            case "Sub":
                return np.asarray(first - values[1])
            case "Mul":
                return np.asarray(first * values[1])
            case "RealDiv" | "Div":
                return np.asarray(first / values[1])
            case "Neg":
                return np.asarray(-first)
            case "Sqrt":
                return np.asarray(np.sqrt(first))
            case "Rsqrt":
                return np.asarray(first.dtype.type(1) / np.sqrt(first))
            case "Reciprocal":
                return np.asarray(first.dtype.type(1) / first)
    return None


def _mark(net: Net, node: Any, spelled: _Spelled, key: str) -> None:
    """Put a marker in a batch norm's place; what its last operation was called, the end of it is called."""
    kept = [axis for axis in range(spelled.rank) if axis != spelled.axis]
    order = [kept[0], spelled.axis, *kept[1:]]
    dtype = dtype_of(node)
    if order == sorted(order):
        net.nodes[node.name] = _marker(node.name, spelled.source, dtype, key)
        return
    there, back = f"{node.name}/channel_second", f"{node.name}/channel_back"
    integer = tensorflow().int32.as_datatype_enum
    net.nodes[f"{there}/order"] = const_node(f"{there}/order", np.array(order, np.int32))
    net.nodes[there] = node_of("Transpose", there, [spelled.source, (f"{there}/order", 0)], T=dtype, Tperm=integer)
    net.nodes[f"{node.name}/marked"] = _marker(f"{node.name}/marked", (there, 0), dtype, key)
    inverse = np.array([order.index(axis) for axis in range(spelled.rank)], np.int32)
    net.nodes[f"{back}/order"] = const_node(f"{back}/order", inverse)
    net.nodes[node.name] = node_of(
        "Transpose", node.name, [(f"{node.name}/marked", 0), (f"{back}/order", 0)], T=dtype, Tperm=integer
    )


def _marker(name: str, source: Ref, dtype: int, key: str) -> Any:
    node = node_of(MARKER, name, [source], T=dtype)
    node.attr["message"].s = key.encode()
    return node
