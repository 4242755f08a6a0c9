"""Batch statistics that are spelled out: means over the batch on their way to a standard deviation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from bnfold.errors import InferenceModeError
from bnfold.graph.view import GraphView
from bnfold.inference.program import Place, Program, Scalar, is_random, standard

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["batch_statistics", "refuse_batch_statistics"]

_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare"})
_CARRY = _REDUCTIONS | {
    "Abs",
    "Add",
    "Cast",
    "Clip",
    "Div",
    "Expand",
    "Flatten",
    "Identity",
    "Max",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "Relu",
    "Reshape",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
}
_ALONE = frozenset({"Abs", "Cast", "Clip", "Identity", "Neg", "Relu"})
"""Operations that leave the axes of their one input alone."""

_BRANCHES = ("then_branch", "else_branch")
_ROOTS = (0.5, -0.5)
_NAMED = 5


def refuse_batch_statistics(program: Program, live: Collection[Place]) -> None:
    """Refuse a model whose outputs depend on statistics of the batch that they are computed in.

    Raises:
        InferenceModeError: Naming the reductions.
    """
    found = sorted(batch_statistics(program, live, {}))
    if not found:
        return
    names = ", ".join(f"'{program.name(place)}'" for place in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    one = len(found) == 1
    raise InferenceModeError(
        f"{'a node computes' if one else f'{len(found)} nodes compute'} statistics of each batch instead of using "
        f"running ones: {names}{more}",
        hint="Export the model again in evaluation mode, with running statistics.",
    )


def batch_statistics(program: Program, live: Collection[Place], pins: Mapping[str, Scalar]) -> set[Place]:
    """Return the live nodes that reduce over the batch on the way to a root, or to the statistics of a batch norm.

    Where it cannot be told whether an axis is the batch, it is taken for it.
    """
    if not any(standard(program.node(place)) in _REDUCTIONS | {"MeanVarianceNormalization"} for place in live):
        return set()
    found = {place for place in live if _normalises_over_batch(program, place)}
    pending = [start for place in live for start in _under_roots(program, place)]
    seen: set[tuple[object, str]] = set()
    while pending:
        view, name = pending.pop()
        home = program.home(view, name)
        if home is None or (home.path, name) in seen:
            continue
        seen.add((home.path, name))
        if name not in home.producers:
            continue
        index = home.producers[name]
        node = home.graph.node[index]
        if standard(node) in _REDUCTIONS and _reduces_batch(program, home, node):
            found.add((home.path, index))
        elif standard(node) in _CARRY:
            pending += [(home, read) for read in node.input if read]
        elif standard(node) == "If":
            chosen = program.chosen(home, node, pins)
            bodies = [program.views[*home.path, (index, branch)] for branch in _BRANCHES if chosen in (None, branch)]
            pending += [(body, body.graph.output[list(node.output).index(name)].name) for body in bodies]
    return found & set(live)


def _under_roots(program: Program, place: Place) -> list[tuple[GraphView, str]]:
    """Return the values of which a node takes the root; a batch norm does so of its statistics."""
    view, node = program.views[place[0]], program.node(place)
    op_type = standard(node)
    if op_type == "Sqrt" or (op_type == "Pow" and _is_root(view, node)):
        return [(view, node.input[0])]
    return [(view, name) for name in node.input[3:5]] if op_type == "BatchNormalization" else []


def _normalises_over_batch(program: Program, place: Place) -> bool:
    node = program.node(place)
    if standard(node) != "MeanVarianceNormalization":
        return False
    return _over_batch(program, program.views[place[0]], node, _listed(node) or (0, 2, 3))


def _is_root(view: GraphView, node: NodeProto) -> bool:
    exponent = view.constant(node.input[1])
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(-1)[0]) in _ROOTS


def _listed(node: NodeProto) -> tuple[int, ...]:
    return tuple(int(axis) for attribute in node.attribute if attribute.name == "axes" for axis in attribute.ints)


def _reduces_batch(program: Program, view: GraphView, node: NodeProto) -> bool:
    if not _varies(program, view, node.input[0]) or _is_of_one_sample(program, view, node.input[0]):
        return False
    axes = _listed(node)
    if len(node.input) > 1 and node.input[1]:
        constant = view.constant(node.input[1])
        if constant is None:
            return True
        axes = tuple(int(axis) for axis in constant.reshape(-1))
    if not axes and any(attribute.name == "noop_with_empty_axes" and attribute.i for attribute in node.attribute):
        return False
    return _over_batch(program, view, node, axes)


def _varies(program: Program, view: GraphView, name: str) -> bool:
    """Say whether a value is computed from anything but weights: those have no batch, whatever is done to them."""
    pending, seen = [(view, name)], set[tuple[object, str]]()
    while pending:
        view, name = pending.pop()
        home = program.home(view, name)
        if home is None:
            return True
        if (home.path, name) in seen:
            continue
        seen.add((home.path, name))
        if name in home.producers:
            node = home.graph.node[home.producers[name]]
            if is_random(node) or any(attribute.HasField("g") for attribute in node.attribute):
                return True
            pending += [(home, read) for read in node.input if read]
        elif not program.initialized(home, name):
            return True
    return False


def _is_of_one_sample(program: Program, view: GraphView, name: str) -> bool:
    """Say whether a value is computed from a single sample, which a loop over the batch took out of an input."""
    pending, seen, taken = [(view, name)], set[tuple[object, str]](), False
    while pending:
        view, name = pending.pop()
        home = program.home(view, name)
        if home is None:
            return False
        if (home.path, name) in seen or program.initialized(home, name):
            continue
        seen.add((home.path, name))
        if name not in home.producers:
            return False
        node = home.graph.node[home.producers[name]]
        if _takes_sample(program, home, node):
            taken = True
        elif standard(node) == "Constant":
            continue
        elif standard(node) in _CARRY - {"Expand", "Flatten", "Reshape"}:
            pending += [(home, read) for read in node.input if read]
        else:
            return False
    return taken


def _takes_sample(program: Program, view: GraphView, node: NodeProto) -> bool:
    """Say whether a node takes one element along the first axis of an input of the model, and leaves that axis out."""
    left_out: tuple[int, ...] = ()
    if standard(node) == "Squeeze" and node.input[0] in view.producers:
        axes = view.constant(node.input[1]) if len(node.input) > 1 else None
        if (tuple(axes.reshape(-1)) if axes is not None else _listed(node)) != (0,):
            return False
        node, left_out = view.graph.node[view.producers[node.input[0]]], (1,)
    if standard(node) != "Gather" or any(attribute.name == "axis" and attribute.i for attribute in node.attribute):
        return False
    if program.typed_views[view.path].shape(node.input[1]) != left_out:
        return False
    name = node.input[0]
    while True:
        home = program.home(view, name)
        if home is None or program.initialized(home, name):
            return False
        if name not in home.producers:
            return home.path == ()
        producer = home.graph.node[home.producers[name]]
        if standard(producer) not in _ALONE:
            return False
        view, name = home, producer.input[0]


def _over_batch(program: Program, view: GraphView, node: NodeProto, axes: tuple[int, ...]) -> bool:
    """Say whether axes contain the batch; no axes are all axes."""
    if axes and all(axis > 0 for axis in axes):
        return False
    shape = program.typed_views[view.path].shape(node.input[0])
    if shape is None:
        return not axes or 0 in axes
    if not shape or (axes and 0 not in {axis % len(shape) for axis in axes}):
        return False
    size = shape[0]
    if not isinstance(size, int):
        return True
    if size == 1:
        return False
    batches = _batch_sizes(program)
    # A batch of fixed size may have been folded into a larger axis.
    return any(not isinstance(batch, int) or (batch > 1 and size % batch == 0) for batch in batches)


def _batch_sizes(program: Program) -> set[int | str | None]:
    main = program.typed_views[()]
    sizes: set[int | str | None] = set()
    for value in main.graph.input:
        if program.initialized(program.views[()], value.name):
            continue
        shape = main.shape(value.name)
        if shape is None:
            sizes.add(None)
        elif shape:
            sizes.add(shape[0] if not isinstance(shape[0], int) or shape[0] > 0 else None)
    return sizes
