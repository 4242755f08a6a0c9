"""What a program is fed: its placeholders, tensors that the user names, and what input pipelines bring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bnfold.errors import SignatureError
from bnfold.frontends.loaded import Request
from bnfold.frontends.tensorflow.net import Net, Ref, attribute, data_inputs, dtype_of, node_of
from bnfold.frontends.tensorflow.outputs import named_tensors
from bnfold.frontends.tensorflow.prune import needed
from bnfold.frontends.tensorflow.shapes import Shape, shapes_of

__all__ = ["PIPELINES", "left_to_feed", "with_inputs"]

PIPELINES = ("IteratorGetNext", "QueueDequeue", "OneShotIterator")
"""What the operations that bring input are called, in front."""
_RANKS = {
    "Conv2D": 4,
    "DepthwiseConv2dNative": 4,
    "MaxPool": 4,
    "AvgPool": 4,
    "FusedBatchNorm": 4,
    "FusedBatchNormV2": 4,
    "Conv3D": 5,
    "MaxPool3D": 5,
    "AvgPool3D": 5,
    "MatMul": 2,
}
"""The rank that an operation takes, whatever it is fed; BiasAdd and FusedBatchNormV3 take several."""


def with_inputs(net: Net, outputs: Sequence[Ref], request: Request) -> Net:
    """Return the net with placeholders for the tensors that the user feeds, and for what input pipelines bring."""
    pipelines = [node for name in needed(net, outputs) if (node := net.nodes[name]).op.startswith(PIPELINES)]
    readers = net.consumers()
    brought: list[Ref] = []
    for node in pipelines:
        ports = {data_inputs(net.nodes[reader])[position][1] for reader, position in readers.get(node.name, ())}
        brought += [(node.name, port) for port in sorted(ports)]
    wanted = named_tensors(net, request.inputs, "--inputs") if request.inputs else []
    # What the user names may stand behind a pipeline, and has the shape that follows from it.
    behind = _replaced(net, [ref for ref in brought if ref not in wanted])
    return _with_ranks(_replaced(behind, wanted), outputs)


def _replaced(net: Net, wanted: Iterable[Ref]) -> Net:
    """Return the net with a placeholder for each of some tensors."""
    wanted = [(name, port) for name, port in wanted if not net.nodes[name].op.startswith("Placeholder")]
    shapes = shapes_of(net.cut(net.ancestors([name for name, _ in wanted]))) if wanted else {}
    result = net.copy()
    aliases: dict[Ref, Ref] = {}
    for name, port in wanted:
        new = name if port == 0 else _free(f"{name}_{port}", result)
        placeholder = node_of("Placeholder", new, [], dtype=dtype_of(net.nodes[name], port))
        _write_shape(placeholder, shapes.get((name, port)) or _recorded_shape(net, (name, port)))
        result.nodes[new] = placeholder
        if port:
            aliases[name, port] = (new, 0)
    return result.rewired(aliases)


def _free(name: str, net: Net) -> str:
    number, free = 1, name
    while free in net.nodes:
        number += 1
        free = f"{name}_{number}"
    return free


def _write_shape(placeholder: object, shape: Shape | None) -> None:
    written = placeholder.attr["shape"].shape  # type: ignore[attr-defined]  # a guest's message
    written.unknown_rank = shape is None
    del written.dim[:]
    for size in shape or ():
        written.dim.add(size=-1 if size is None else size)


def _recorded_shape(net: Net, ref: Ref) -> Shape | None:
    """Return the shape that a program noted of a tensor, or that its queue gives to elements; None without either."""
    node = net.nodes[ref[0]]
    noted = attribute(node, "_output_shapes").list.shape
    if ref[1] < len(noted) and not noted[ref[1]].unknown_rank:
        return _sizes(noted[ref[1]])
    if not node.op.startswith("QueueDequeue") or not data_inputs(node):
        return None
    held = attribute(net.nodes[data_inputs(node)[0][0]], "shapes").list.shape
    if ref[1] >= len(held) or held[ref[1]].unknown_rank:
        return None
    element = _sizes(held[ref[1]])
    return element if node.op in ("QueueDequeue", "QueueDequeueV2") else (None, *element)


def _sizes(shape: object) -> Shape:
    return tuple(None if one.size < 0 else int(one.size) for one in shape.dim)  # type: ignore[attr-defined]


def _with_ranks(net: Net, outputs: Sequence[Ref]) -> Net:
    """Return the net whose placeholders without a shape have the rank that their first reader takes."""
    readers = net.consumers()
    result = net.copy()
    for name in needed(net, outputs):
        node = net.nodes[name]
        shape = attribute(node, "shape").shape
        if not node.op.startswith("Placeholder") or ("shape" in node.attr and not shape.unknown_rank):
            continue
        rank = _rank_read(net, readers, name)
        if rank is not None:
            copied = type(node)()
            copied.CopyFrom(node)
            _write_shape(copied, (None,) * rank)
            result.nodes[name] = copied
    return result


def _rank_read(net: Net, readers: Mapping[str, list[tuple[str, int]]], name: str) -> int | None:
    """Return the rank that operations take a tensor with; None where none says it, or they contradict each other."""
    found: set[int] = set()
    stack = [name]
    while stack:
        for reader, position in readers.get(stack.pop(), ()):
            node = net.nodes[reader]
            if node.op in ("Identity", "Relu", "StopGradient"):
                stack.append(reader)
            elif node.op in _RANKS and position == 0:
                found.add(_RANKS[node.op])
    return found.pop() if len(found) == 1 else None


def left_to_feed(net: Net, request: Request) -> list[str]:
    """Return the placeholders that are left, in the order that the user gave, or that of the graph.

    Raises:
        SignatureError: If none is left, or one that the user did not name.
    """
    left = [name for name, node in net.nodes.items() if node.op in ("Placeholder", "PlaceholderV2")]
    if not left:
        raise SignatureError(
            "the outputs depend on no input: no placeholder is in front of them",
            hint="Name outputs that depend on the input, for example: --outputs logits:0",
        )
    if not request.inputs:
        return left
    wanted = [text.rpartition(":")[0] if text.endswith(":0") else text.replace(":", "_") for text in request.inputs]
    others = [name for name in left if name not in wanted]
    if others:
        raise SignatureError(
            f"the outputs also depend on {', '.join(f'{name}:0' for name in others)}, which --inputs does not name",
            hint=f"Name it too, or pin it, for example: --set {others[0]}=0",
        )
    return [name for name in wanted if name in left]
