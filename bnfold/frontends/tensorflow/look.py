"""TensorFlow's graphs looked at: what they are fed and answer, their batch norms, and what decides their mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bnfold.errors import CorruptModelError
from bnfold.frontends.glance import Glance, ModeInput, Port, SeenBatchNorm, Suspicion, Vectors, diagnosed
from bnfold.frontends.sniff import Format, checkpoint_prefix
from bnfold.frontends.tensorflow.bundle import open_bundle
from bnfold.frontends.tensorflow.functions import both_branches, without_calls
from bnfold.frontends.tensorflow.messages import dtype_name, read_graph
from bnfold.frontends.tensorflow.mode_inputs import deciders, shown
from bnfold.frontends.tensorflow.moments import is_data_input
from bnfold.frontends.tensorflow.net import (
    Net,
    Ref,
    attribute,
    data_inputs,
    is_variable,
    node_of,
    ref_of,
    small_value,
)
from bnfold.frontends.tensorflow.outputs import last_tensors
from bnfold.frontends.tensorflow.seen import Reader, dtype_shown

__all__ = ["look"]

_AGAIN = "Get the file again: it is empty, incomplete or damaged."
_TEXT = (".pbtxt", ".txt", ".prototxt")
_PAIRS = (
    ("/moving_mean", "/moving_variance"),
    ("/moments/Squeeze/ExponentialMovingAverage", "/moments/Squeeze_1/ExponentialMovingAverage"),
    ("/pop_mean", "/pop_var"),
    ("/running_mean", "/running_var"),
)
_ELSEWHERE = "The values of the variables were not read: whether the statistics are sound is seen when it is converted."
_ALONE = "No checkpoint stands beside it: it cannot be converted without the values of its variables."
_GUESSED = "No signature names the outputs: those shown are the likely ones (--outputs names others)."


def look(path: Path, found: Format) -> Glance:
    """Return what a graph's file tells, without TensorFlow.

    Args:
        path: A frozen graph, a meta graph, a checkpoint's prefix, file or folder, or a SavedModel's folder.
        found: Which of them it is.

    Raises:
        CorruptModelError: If the file holds no whole graph.
        UnsupportedOpError: If its functions call each other without end.
        OSError: If it cannot be read.
    """
    file, description, questions = _file_of(path, found)
    graph, framework, signature = _read(file, found)
    net = _net(graph, file)
    known = bool(signature.computed) and all(name in net.nodes for name, _ in signature.computed)
    if known:
        signature = replace(signature, computed=_marked(net, signature.computed))
    whole = without_calls(net)
    if known:
        # A SavedModel holds the graphs of other signatures and of saving too.
        whole = whole.cut(whole.ancestors([name for name, _ in signature.computed], control=True))
    else:
        signature = _ends(whole)
        questions = [*questions, _GUESSED]
    seen = Reader(both_branches(whole))
    batch_norms = list(seen.batch_norms())
    stored = _stored(file) if found in (Format.CHECKPOINT, Format.META_GRAPH) else []
    if stored:
        questions = [question for question in questions if question != _ELSEWHERE]
    modes = _mode_inputs(whole)
    return Glance(
        path=str(path),
        format=found.value,
        framework=framework,
        description=description,
        bytes=file.stat().st_size,
        parameters=seen.parameters([name for name, _ in signature.computed]),
        inputs=signature.inputs,
        outputs=signature.outputs,
        batch_norms=tuple(one for one, _ in batch_norms),
        mode_inputs=modes,
        suspicions=(*_suspicions(batch_norms, modes), *diagnosed(stored or [vectors for _, vectors in batch_norms])),
        open_questions=tuple(questions),
    )


def _file_of(path: Path, found: Format) -> tuple[Path, str, list[str]]:
    """Return the file that holds the graph, what it is for people, and what is not in it."""
    match found:
        case Format.SAVED_MODEL:
            folder = path if path.is_dir() else path.parent
            file = folder / "saved_model.pb"
            return (file if file.is_file() else folder / "saved_model.pbtxt"), found.described, [_ELSEWHERE]
        case Format.CHECKPOINT:
            if path.name == "checkpoint" and path.is_file():
                path = path.parent
            if path.is_dir():
                metas = sorted(path.glob("*.meta"), key=lambda meta: (meta.stat().st_mtime, meta.name))
                meta = metas[-1]
            else:
                prefix = checkpoint_prefix(path) or path
                meta = prefix.with_name(f"{prefix.name}.meta")
            return meta, f"TF1 checkpoint {meta.stem}", [_ELSEWHERE]
        case Format.META_GRAPH:
            return path, found.described, [_ALONE if checkpoint_prefix(path) is None else _ELSEWHERE]
    return path, found.described, []


def _stored(meta: Path) -> list[Vectors]:
    """Return the moving statistics that the checkpoint beside a meta graph holds, by their usual names."""
    prefix = checkpoint_prefix(meta)
    if prefix is None:
        return []
    bundle = open_bundle(prefix)
    found = []
    for name in bundle.entries:
        for mean, variance in _PAIRS:
            other = f"{name.removesuffix(mean)}{variance}"
            if name.endswith(mean) and other in bundle.entries:
                scope = name.removesuffix(mean).rstrip("/")
                half = scope[: len(scope) // 2]  # an average may repeat the scope of what it averages
                scope = half if scope == f"{half}/{half}" else scope
                found.append(Vectors(scope, mean=bundle.read(name), variance=bundle.read(other)))
    return found


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a graph is fed and answers, and the tensors that it answers with."""

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    computed: tuple[Ref, ...] = ()


def _read(file: Path, found: Format) -> tuple[Any, str, _Signature]:
    """Return the graph, who wrote it, and its signature where it has one."""
    text = file.suffix in _TEXT
    if found in (Format.FROZEN_GRAPH, Format.FROZEN_GRAPH_TEXT):
        graph = read_graph(file, "Graph", text=text)
        return graph, f"TensorFlow (graph version {graph.versions.producer})", _Signature()
    if found is Format.SAVED_MODEL:
        saved = read_graph(file, "SavedModel", text=text)
        serving = [meta for meta in saved.meta_graphs if "serve" in meta.meta_info_def.tags]
        metas = [*serving, *saved.meta_graphs]
        if not metas:
            raise CorruptModelError(f"{file.name} is a SavedModel without a graph", hint=_AGAIN)
        meta = metas[0]
    else:
        meta = read_graph(file, "MetaGraph", text=text)
    version = f"TensorFlow {meta.meta_info_def.tensorflow_version}".strip()
    return meta.graph_def, version, _signature(meta.signature_def)


def _signature(signatures: Mapping[str, Any]) -> _Signature:
    """Return the signature that is used where nobody names one."""
    usual = [name for name in ("serving_default", *sorted(signatures)) if name in signatures]
    usual = [name for name in usual if signatures[name].outputs and not name.startswith("__saved_model")]
    if not usual:
        return _Signature()
    chosen = signatures[usual[0]]
    inputs, outputs = (sorted(infos.items()) for infos in (chosen.inputs, chosen.outputs))
    return _Signature(
        tuple(_declared(name, info) for name, info in inputs),
        tuple(_declared(name, info) for name, info in outputs),
        tuple(ref_of(info.name) for _, info in outputs),
    )


def _declared(name: str, info: Any) -> Port:
    return Port(name, dtype_name(info.dtype), _shape(info.tensor_shape))


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    if shape.unknown_rank:
        return None
    return tuple(None if dimension.size < 0 else int(dimension.size) for dimension in shape.dim)


def _net(graph: Any, file: Path) -> Net:
    nodes = {node.name: node for node in graph.node}
    if not nodes or len(nodes) < len(graph.node) or "" in nodes:
        raise CorruptModelError(
            f"{file.name} is no TensorFlow graph: it has no nodes, or nodes without a name of their own", hint=_AGAIN
        )
    for node in graph.node:
        lost = [text for text in node.input if ref_of(text)[0] not in nodes]
        if lost:
            raise CorruptModelError(
                f"{file.name}: the node {node.name} reads {lost[0].lstrip('^')}, which is not in the graph", hint=_AGAIN
            )
    return Net(nodes, {function.signature.name: function for function in graph.library.function}, graph.versions)


def _marked(net: Net, refs: Sequence[Ref]) -> tuple[Ref, ...]:
    """Give tensors nodes of their own, which stay when the calls that compute them are spelled out."""
    like, marks = next(iter(net.nodes.values())), []
    for number, ref in enumerate(refs):
        name = f"signature/output_{number}"
        net.nodes[name] = node_of("Identity", name, [ref], like=like)
        marks.append((name, 0))
    return tuple(marks)


def _ends(net: Net) -> _Signature:
    """Return what a graph is likely fed, and its last tensors that are predictions."""
    outputs = last_tensors(net)
    needed = net.ancestors([name for name, _ in outputs] or net.nodes)
    fed = [net.nodes[name] for name in net.nodes if name in needed and is_data_input(net.nodes[name])]
    return _Signature(tuple(map(_fed, fed)), tuple(_answered(net, ref) for ref in outputs), tuple(outputs))


def _fed(node: Any) -> Port:
    shape = _shape(attribute(node, "shape").shape) if "shape" in node.attr else None
    return Port(f"{node.name}:0", dtype_shown(node), shape)


def _answered(net: Net, ref: Ref) -> Port:
    node = net.nodes[ref[0]]
    known = attribute(node, "_output_shapes").list.shape
    return Port(f"{ref[0]}:{ref[1]}", dtype_shown(node), _shape(known[ref[1]]) if ref[1] < len(known) else None)


def _mode_inputs(net: Net) -> tuple[ModeInput, ...]:
    counted = Counter(leaf for leaves in deciders(net) for leaf in set(leaves))
    found = []
    for name, count in counted.items():
        node = net.nodes[name]
        if is_data_input(node):
            continue
        default = _default(net, node)
        kind = {"Const": "constant", "PlaceholderWithDefault": "placeholder with a default"}.get(node.op, "placeholder")
        kind = "variable" if is_variable(node) or node.op == "ReadVariableOp" else kind
        found.append(ModeInput(f"{name}:0", f"{dtype_shown(node)} {kind}".strip(), default, count))
    return tuple(found)


def _default(net: Net, node: Any) -> str:
    source = net.nodes[data_inputs(node)[0][0]] if node.op == "PlaceholderWithDefault" else node
    while source.op == "Identity":
        source = net.nodes[data_inputs(source)[0][0]]
    value = small_value(source)
    return shown(value) if value is not None and value.size == 1 else ""


def _suspicions(
    batch_norms: Sequence[tuple[SeenBatchNorm, Vectors]], modes: Sequence[ModeInput]
) -> Iterator[Suspicion]:
    batch = tuple(one.name for one, _ in batch_norms if one.statistics == "batch")
    if batch:
        yield Suspicion(
            batch,
            f"{len(batch)} of {len(batch_norms)} batch norms normalise with the statistics of each batch: "
            "the graph is in training mode there",
            "Convert it: their moving statistics take over where they are found. Or export the graph for inference.",
        )
    for mode in modes:
        if mode.default in ("True", "1", "1.0") and any(one.statistics == "switched" for one, _ in batch_norms):
            yield Suspicion(
                (mode.name,),
                f"{mode.name} is {mode.default} by default and decides {mode.decides} switches: "
                "the graph may be in training mode unless it is fed",
                f"See with bnfold convert which value means inference, or say it: --set {mode.name}=False",
            )
