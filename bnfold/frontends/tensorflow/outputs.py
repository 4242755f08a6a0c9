"""Which tensors a program predicts with, where nobody says so: its last ones, without what only training computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnfold.errors import SignatureError
from bnfold.frontends.tensorflow.constants import values_of
from bnfold.frontends.tensorflow.functions import BRANCHES, both_branches
from bnfold.frontends.tensorflow.moments import Kind, is_data_input, kinds_of
from bnfold.frontends.tensorflow.net import Net, Ref, Value, data_inputs, is_variable, node_of, output_names, ref_of

__all__ = ["last_tensors", "named_tensors", "predicted"]

_LONGEST_LIST = 12
_ASIDE = (
    "Assign",
    "Apply",
    "ResourceApply",
    "SparseApply",
    "ResourceSparseApply",
    "ResourceScatter",
    "ScatterAdd",
    "ScatterSub",
    "ScatterUpdate",
    "Save",
    "Restore",
)
_ASIDE_OPS = frozenset(
    {
        "NoOp",
        "Assert",
        "Print",
        "PrintV2",
        "Shape",
        "ShapeN",
        "Size",
        "Rank",
        "L2Loss",
        "SaveV2",
        "RestoreV2",
        "BroadcastGradientArgs",
        "InTopK",
        "InTopKV2",
        "CheckNumerics",
        "ConfusionMatrix",
        "SoftmaxCrossEntropyWithLogits",
        "SparseSoftmaxCrossEntropyWithLogits",
        "CTCLoss",
    }
)
_WEIGHTED = frozenset(
    {
        "MatMul",
        "BatchMatMul",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "Conv1D",
        "Conv2D",
        "Conv3D",
        "Conv",
        "DepthwiseConv2dNative",
        "Conv2DBackpropInput",
        "Conv3DBackpropInputV2",
        "BiasAdd",
        "Gather",
        "GatherV2",
        "ResourceGather",
        "SparseMatMul",
        "SparseTensorDenseMatMul",
    }
)
_SMALL_STEPS = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "Cast",
        "Equal",
        "NotEqual",
        "Greater",
        "GreaterEqual",
        "Less",
        "LessEqual",
        "Round",
        "Log",
        "Log1p",
        "Exp",
        "Neg",
        "Abs",
        "Square",
        "Maximum",
        "Minimum",
        "ClipByValue",
        "TopK",
        "TopKV2",
        "ZerosLike",
        "OnesLike",
        "Select",
        "SelectV2",
        "Slice",
        "StridedSlice",
        "Squeeze",
        "ExpandDims",
        "StopGradient",
        "LogicalNot",
        "LogSoftmax",
        "SquaredDifference",
    }
)
"""What stands between a prediction and its loss or its accuracy, and is no prediction of its own there."""

_LOOPS = frozenset({"NextIteration", "RefNextIteration", "LoopCond", "Enter", "RefEnter"})
_SCALED = frozenset({"Add", "AddV2", "Sub", "Mul", "RealDiv", "Pow"})


def named_tensors(net: Net, names: Sequence[str], flag: str) -> list[Ref]:
    """Return the tensors that a user named, as ``node`` or ``node:port``.

    Raises:
        SignatureError: If one is not in the graph.
    """
    found = [ref_of(name) for name in names]
    for text, (name, port) in zip(names, found, strict=True):
        if name not in net.nodes or port < 0:
            near = sorted(other for other in net.nodes if name.lower() in other.lower())[:_LONGEST_LIST]
            last = [f"{last}:{port}" for last, port in last_tensors(net)][:_LONGEST_LIST]
            known = (
                f"close to it are {', '.join(near)}" if near else f"its last tensors are {', '.join(last) or 'none'}"
            )
            raise SignatureError(
                f"the graph has no tensor {text}; {known}",
                hint=f"Name a tensor of the graph, for example: {flag} {(near or last or ['logits'])[0]}",
            )
    return found


def predicted(net: Net, what: str) -> list[Ref]:
    """Return the tensor that a program predicts with.

    It depends on the input through weights, not on labels, and nothing but training reads it: no loss, gradient,
    update, summary or metric is a prediction.

    Args:
        net: The whole program.
        what: What the program came in, for messages: ``"a frozen graph"``.

    Raises:
        SignatureError: If several tensors could be meant, or none.
    """
    last = last_tensors(net)
    if len(last) == 1:
        return last
    if not last:
        raise SignatureError(
            f"{what} has no signature, and no tensor in it looks like a prediction",
            hint="Name the outputs, for example: --outputs logits:0",
        )
    listed = ", ".join(f"{name}:{port}" for name, port in last[:_LONGEST_LIST])
    more = f" and {len(last) - _LONGEST_LIST} more" if len(last) > _LONGEST_LIST else ""
    raise SignatureError(
        f"{what} has no signature; {len(last)} tensors could be its outputs: {listed}{more}",
        hint=f"Name the outputs, for example: --outputs {last[0][0]}:{last[0][1]}",
    )


def last_tensors(net: Net) -> list[Ref]:
    """Return the last tensors that are predictions, in the graph's order."""
    order = net.sorted(control=False)
    values = values_of(net, {})
    kinds = _kinds(net, values)
    sources = {name: {name} for name, node in net.nodes.items() if is_data_input(node)}
    weighted: set[str] = set()
    training = _training_only(net, order, kinds)
    # Twice, because a loop reads what it computes later.
    for name in [*order, *order]:
        node = net.nodes[name]
        inputs = data_inputs(node)
        if not is_data_input(node):
            sources[name] = set().union(*(sources.get(source, ()) for source, _ in inputs))
        if sources[name] and (
            any(source in weighted for source, _ in inputs)
            or (node.op in _WEIGHTED and name not in training and any(not sources.get(source) for source, _ in inputs))
        ):
            weighted.add(name)
    # An input that meets no weight before it meets another input is a label.
    fed = {source for name in weighted if name not in training for source in _before_others(net, name, sources)}
    predictions = {
        name
        for name in order
        if kinds[name] is Kind.ACTIVATION
        and name not in training
        and sources[name] <= (fed or sources[name])
        and (name in weighted or not fed)
        and not is_data_input(net.nodes[name])
        and not _aside(net.nodes[name])
        and net.nodes[name].op not in _LOOPS
        and not _reduces_all(net, net.nodes[name], values)
    }
    return _ends(net, predictions, training, values)


def _kinds(net: Net, values: dict[Ref, Value]) -> dict[str, Kind]:
    """Return what each node depends on, where what an assignment leaves in a variable counts as the variable.

    Whoever only hands an update on, to be waited for, predicts nothing.
    """
    wide = both_branches(net)
    for name, node in wide.nodes.items():
        if node.op.startswith(("Assign", "Scatter")) and len(data_inputs(node)) > 1:
            wide.nodes[name] = node_of("Identity", name, data_inputs(node)[:1], like=node)
    kinds = kinds_of(wide, values, {})
    branches: dict[str, set[Kind]] = {}
    for name in wide.nodes:
        branches.setdefault(name.rpartition("/_")[0], set()).add(kinds[name])
    for name in net.nodes:
        if name not in kinds:
            outcomes = branches.get(name, set())
            kinds[name] = next((kind for kind in (Kind.ACTIVATION, Kind.STATISTIC) if kind in outcomes), Kind.FREE)
    return kinds


def _before_others(net: Net, name: str, sources: dict[str, set[str]]) -> set[str]:
    """Return the inputs that a weighted node depends on, if it is the first weight that they meet."""
    node = net.nodes[name]
    return (
        sources[name]
        if node.op in _WEIGHTED and any(not sources.get(source) for source, _ in data_inputs(node))
        else set()
    )


def _training_only(net: Net, order: Sequence[str], kinds: Mapping[str, Kind]) -> set[str]:
    """Return the nodes that only lead to updates of variables, or come from gradients."""
    found = _updates(net, order, kinds)
    for name in order:
        node = net.nodes[name]
        gradient = node.op.endswith(("Grad", "GradV2", "GradV3", "GradInput")) or node.op.startswith(
            "BroadcastGradient"
        )
        scope = any(part.startswith("gradients") or part == "gradient_tape" for part in name.split("/")[:-1])
        behind = any(source in found and not _aside(net.nodes[source]) for source, _ in data_inputs(node))
        if (gradient or scope or behind or _aside(node)) and not is_variable(node):
            found.add(name)
    return found


def _updates(net: Net, order: Sequence[str], kinds: Mapping[str, Kind]) -> set[str]:
    """Return the nodes that nothing reads but assignments to variables, and what computes what is assigned.

    A branch that answers with nothing of the input is there for what it assigns.
    """
    readers = net.consumers()
    found: set[str] = set()
    branches = {name for name, node in net.nodes.items() if node.op in ("If", "Case") and kinds[name] is Kind.FREE}
    for name in reversed(order):
        reading = {other for other, _ in readers.get(name, ())}
        if net.nodes[name].op.startswith(("Assign", "Scatter")) or (reading and reading <= found | branches):
            found.add(name)
    return found


def _aside(node: Any) -> bool:
    return (
        node.op in _ASIDE_OPS
        or node.op.startswith(_ASIDE)
        or node.op.endswith(("Summary", "SummaryV2"))
        or node.op == "MergeSummary"
        or output_names(node, {}) == []
    )


def _reduces_all(net: Net, node: Any, values: dict[Ref, Value]) -> bool:
    """Return whether a node sums a whole batch up, as a loss does, and as the moments of a batch norm do."""
    if node.op not in ("Mean", "Sum") or len(node.input) < 2:
        return False
    axes = values.get(data_inputs(node)[1])
    if axes is None:
        return bool(net.nodes[data_inputs(node)[1][0]].op == "Range")
    return bool(axes.size) and 0 in axes.ravel().tolist()


_TURNS = frozenset({"NextIteration", "RefNextIteration"})


def _ends(net: Net, predictions: set[str], training: set[str], values: dict[Ref, Value]) -> list[Ref]:
    readers = net.consumers()
    left = set(predictions)
    while True:
        # What is only read for a statistic that goes on to a prediction is no end either.
        leading = _leading(net, left, training)
        ends = [
            name
            for name in net.nodes
            if name in left
            and not any(
                # What goes into a loop's next turn is inside of it, where nobody can fetch it.
                other in left or other in leading or net.nodes[other].op in _TURNS
                for other, _ in readers.get(name, ())
            )
        ]
        # A small step that somebody reads who predicts nothing belongs to a loss or a metric.
        steps = {name for name in ends if readers.get(name) and _is_step(net.nodes[name], values)}
        # So does a difference that only such steps read: what an autoencoder compares with its own input.
        for name in ends:
            reading = {other for other, _ in readers.get(name, ()) if other not in training}
            if net.nodes[name].op == "Sub" and reading and reading <= predictions:
                steps.add(name)
        if not steps or left == steps:
            break
        left -= steps
    return [(name, 0) for name in ends if not _is_intermediate(net, readers, name)]


def _leading(net: Net, predictions: set[str], training: set[str]) -> set[str]:
    """Return the nodes that are no predictions, nor there for training, and that predictions are computed from."""
    found: set[str] = set()
    stack = list(predictions)
    while stack:
        for source, _ in data_inputs(net.nodes[stack.pop()]):
            if source not in found and source not in predictions and source not in training:
                found.add(source)
                stack.append(source)
    return {name for name in found if net.nodes[name].op not in _LOOPS}


def _is_intermediate(net: Net, readers: dict[str, list[tuple[str, int]]], name: str) -> bool:
    """Return whether nobody reads an outcome of a branch whose other outcomes are read: gradients would have."""
    node = net.nodes[name]
    if node.op != "Identity" or readers.get(name):
        return False
    branch = data_inputs(node)[0][0]
    if net.nodes[branch].op not in BRANCHES:
        return False
    others = [other for other, _ in readers.get(branch, ()) if other != name]
    return any(readers.get(other) or net.nodes[other].op != "Identity" for other in others)


def _is_step(node: Any, values: dict[Ref, Value]) -> bool:
    if node.op in _SMALL_STEPS:
        return True
    known = [values.get(ref) for ref in data_inputs(node)]
    return node.op in _SCALED and any(value is not None and value.size == 1 for value in known)
