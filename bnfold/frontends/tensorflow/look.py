"""TensorFlow's graphs looked at: what they are fed and answer, their batch norms, and what decides their mode."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.errors import CorruptModelError
from bnfold.frontends.glance import Glance, ModeInput, Port, SeenBatchNorm, Statistics, Suspicion, Vectors, diagnosed
from bnfold.frontends.sniff import Format, checkpoint_prefix
from bnfold.frontends.tensorflow.constants import values_of
from bnfold.frontends.tensorflow.functions import BRANCHES, both_branches, without_calls
from bnfold.frontends.tensorflow.messages import array_of, dtype_name, read_graph
from bnfold.frontends.tensorflow.mode_inputs import deciders
from bnfold.frontends.tensorflow.moments import FUSED, Kind, is_data_input, kinds_of
from bnfold.frontends.tensorflow.net import (
    Net,
    Ref,
    Value,
    attribute,
    data_inputs,
    is_variable,
    node_of,
    ref_of,
    small_value,
)
from bnfold.frontends.tensorflow.outputs import last_tensors

__all__ = ["look"]

_AGAIN = "Get the file again: it is empty, incomplete or damaged."
_TEXT = (".pbtxt", ".txt", ".prototxt")
_CALL = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")
_COPIES = frozenset({"Identity", "RefIdentity", "ReadVariableOp", "Switch", "RefSwitch", "Enter", "Squeeze", "Reshape",
    "ExpandDims", "StopGradient", "Cast", "Snapshot", "Merge"})  # fmt: skip
_LAYERS = ("Conv", "MatMul", "Depthwise", "Einsum", "BatchMatMul", "Gather", "Concat", "Mean", "MaxPool", "AvgPool",
    "Relu", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Placeholder")  # fmt: skip
_ON_THE_WAY = frozenset({"Identity", "BiasAdd", "Reshape", "Switch", "Merge", "Squeeze", "ExpandDims", "Transpose"})
_ELSEWHERE = "The values of the variables were not read: whether the statistics are sound is seen when it is converted."
_ALONE = "No checkpoint stands beside it: it cannot be converted without the values of its variables."
_GUESSED = "No signature names the outputs: those shown are the likely ones (--outputs names others)."
_FUSED_EPSILON = float(np.float32(1e-4))


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
    seen = _Reader(both_branches(whole))
    batch_norms = list(seen.batch_norms())
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
        suspicions=(*_suspicions(batch_norms, modes), *diagnosed([vectors for _, vectors in batch_norms])),
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
    return Port(f"{node.name}:0", _dtype(node), shape)


def _answered(net: Net, ref: Ref) -> Port:
    node = net.nodes[ref[0]]
    known = attribute(node, "_output_shapes").list.shape
    return Port(f"{ref[0]}:{ref[1]}", _dtype(node), _shape(known[ref[1]]) if ref[1] < len(known) else None)


def _dtype(node: Any) -> str:
    number = next((attribute(node, name).type for name in ("dtype", "T") if attribute(node, name).type), 0)
    return dtype_name(number) if number else ""


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
        found.append(ModeInput(f"{name}:0", f"{_dtype(node)} {kind}".strip(), default, count))
    return tuple(found)


def _default(net: Net, node: Any) -> str:
    source = net.nodes[data_inputs(node)[0][0]] if node.op == "PlaceholderWithDefault" else node
    while source.op == "Identity":
        source = net.nodes[data_inputs(source)[0][0]]
    value = small_value(source)
    return str(value.item()) if value is not None and value.size == 1 else ""


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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a batch norm stands: its nodes, its vectors, what it normalises."""

    node: Any
    kind: str
    statistics: Statistics
    epsilon: float | None
    vectors: Mapping[str, Ref]
    source: Ref | None


class _Reader:
    """A graph with all branches side by side, for reading."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._values = values_of(net, {})
        self._kinds = kinds_of(net, self._values, {})
        self._readers = net.consumers()

    def parameters(self, outputs: Iterable[str]) -> int | None:
        """Return how many numbers the variables, or the constants, hold that some outputs depend on."""
        needed = [self._net.nodes[name] for name in self._net.ancestors(outputs)]
        shapes = [attribute(node, "shape").shape for node in needed if is_variable(node)]
        if not shapes:
            constants = (node for node in needed if node.op == "Const" and _dtype(node).startswith("float"))
            shapes = [attribute(node, "value").tensor.tensor_shape for node in constants]
        sizes = (np.prod([max(dimension.size, 0) for dimension in shape.dim]) for shape in shapes)
        return sum(map(int, sizes)) if shapes else None

    def batch_norms(self) -> Iterator[tuple[SeenBatchNorm, Vectors]]:
        """Yield the batch norms; two spellings of one, for training and for inference, are one."""
        groups: dict[object, list[_Place]] = {}
        for place in (*self._fused(), *self._spelled_out()):
            root = self._root(place.vectors.get("gamma") or place.vectors.get("beta"))
            groups.setdefault(place.node.name if root is None else root.name, []).append(place)
        for places in groups.values():
            modes = {place.statistics for place in places}
            statistics: Statistics = places[0].statistics if len(modes) == 1 else "switched"
            # What is used in inference is where the moving statistics are.
            place = next((place for place in places if place.statistics == "moving"), places[0])
            name = _scope(places)
            roots = {key: self._root(ref) for key, ref in place.vectors.items()}
            behind = "" if place.source is None else self._behind(place.source)
            shape = next((shape for root in roots.values() if (shape := _vector_shape(root)) is not None), None)
            vectors = {key: _numbers(root) for key, root in roots.items()}
            yield (
                SeenBatchNorm(name, place.kind, shape, place.epsilon, statistics, behind),
                Vectors(name, **vectors),
            )

    def _fused(self) -> Iterator[_Place]:
        for node in self._net.nodes.values():
            inputs = data_inputs(node)
            if node.op not in FUSED or len(inputs) != 5:
                continue
            trains = attribute(node, "is_training").b if "is_training" in node.attr else True
            if trains and self._of_one_sample(inputs[0]):
                continue
            epsilon = _short(np.float32(attribute(node, "epsilon").f if "epsilon" in node.attr else _FUSED_EPSILON))
            vectors = dict(zip(("gamma", "beta", "mean", "variance"), inputs[1:], strict=True))
            if trains:
                vectors = {key: vectors[key] for key in ("gamma", "beta")}
            yield _Place(node, node.op, "batch" if trains else "moving", epsilon, vectors, inputs[0])

    def _of_one_sample(self, source: Ref) -> bool:
        """Tell whether what is normalised was reshaped to a batch of one: so a layer norm is spelled."""
        producer = self._net.nodes[source[0]]
        if producer.op != "Reshape" or len(data_inputs(producer)) != 2:
            return False
        sizes = data_inputs(producer)[1]
        shape = self._values.get(sizes)
        packed = self._net.nodes[sizes[0]]
        if shape is None and packed.op == "Pack" and packed.input:
            shape = self._values.get(data_inputs(packed)[0])
        return shape is not None and shape.size > 0 and int(shape.ravel()[0]) == 1

    def _spelled_out(self) -> Iterator[_Place]:
        """Yield places where something is scaled by ``1 / sqrt(variance + epsilon)`` of no sample of its own."""
        for name, node in self._net.nodes.items():
            if node.op not in ("Rsqrt", "Sqrt") or self._kinds[name] is Kind.ACTIVATION:
                continue
            inside = self._net.nodes[data_inputs(node)[0][0]]
            if inside.op not in ("Add", "AddV2") or len(data_inputs(inside)) != 2:
                continue
            operands = data_inputs(inside)
            added = [self._values.get(ref) for ref in operands]
            at = next((at for at, value in enumerate(added) if value is not None and value.size == 1), None)
            scaled = self._scaled(name)
            if at is None or scaled is None:
                continue
            epsilon, variance = added[at], operands[1 - at]
            assert epsilon is not None
            gamma, source = scaled
            vectors = {"variance": variance, **({} if gamma is None else {"gamma": gamma})}
            yield _Place(node, "spelled out", self._statistics(variance), _short(epsilon.ravel()[0]), vectors, source)

    def _statistics(self, variance: Ref) -> Statistics:
        if self._kinds[variance[0]] is Kind.FREE:
            return "moving"
        behind = self._net.ancestors(
            [variance[0]], stop=[n for n, kind in self._kinds.items() if kind is Kind.ACTIVATION]
        )
        merges = {"Merge", "RefMerge", "Select", "SelectV2", *BRANCHES}
        return "switched" if any(self._net.nodes[name].op in merges for name in behind) else "batch"

    def _scaled(self, root: str) -> tuple[Ref | None, Ref] | None:
        """Return the gamma that a root is multiplied with, and the activation that both scale."""
        gamma: Ref | None = None
        stack, seen = [root], {root}
        while stack:
            name = stack.pop()
            for reader, _ in self._readers.get(name, ()):
                node = self._net.nodes[reader]
                if node.op not in ("Mul", "RealDiv", "Div", *_COPIES) or reader in seen:
                    continue
                seen.add(reader)
                others = [ref for ref in data_inputs(node) if ref[0] not in seen]
                active = [ref for ref in others if self._kinds[ref[0]] is Kind.ACTIVATION]
                if active:
                    return gamma, active[0]
                gamma = others[0] if others and node.op == "Mul" and gamma is None else gamma
                stack.append(reader)
        return None

    def _root(self, ref: Ref | None) -> Any:
        """Return the variable or constant that a vector comes from; None where it is computed, or there are several."""
        for _step in range(64):
            if ref is None:
                return None
            node = self._net.nodes[ref[0]]
            if node.op == "Const" or is_variable(node) or node.op.startswith("Placeholder"):
                return node
            inputs = data_inputs(node)
            if node.op not in _COPIES or not inputs:
                return None
            ref = inputs[0]
        return None

    def _behind(self, ref: Ref) -> str:
        """Return the operation whose result stands at a tensor, as far as nothing but shapes and biases is between."""
        for _step in range(16):
            node = self._net.nodes[ref[0]]
            shown = f"{node.op} {_plain(node.name)}"
            if node.op in ("Add", "AddV2") and len(data_inputs(node)) == 2:
                free = [self._kinds[name] is Kind.FREE for name, _ in data_inputs(node)]
                if free in ([False, True], [True, False]):
                    ref = data_inputs(node)[free.index(False)]
                    continue
            if node.op.startswith(_LAYERS) or node.op not in _ON_THE_WAY or not data_inputs(node):
                return shown
            ref = data_inputs(node)[0]
        return ""


def _short(number: Any) -> float:
    """Return a number as it was written: 0.001 where float32 holds it, and not that number's nearest neighbour."""
    return float(str(number))


def _numbers(root: Any) -> Value | None:
    return array_of(attribute(root, "value").tensor) if root is not None and root.op == "Const" else None


def _vector_shape(root: Any) -> int | None:
    if root is None:
        return None
    shape = attribute(root, "value").tensor.tensor_shape if root.op == "Const" else attribute(root, "shape").shape
    sizes = [int(dimension.size) for dimension in shape.dim if dimension.size != 1]
    return sizes[0] if len(sizes) == 1 and sizes[0] > 0 else 1 if shape.dim and not sizes else None


def _plain(name: str) -> str:
    return _CALL.sub("", name)


def _scope(places: Iterable[_Place]) -> str:
    """Return the name of a batch norm: the scope that all of its nodes are in."""
    paths = [_plain(place.node.name).split("/") for place in places]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    while len(shared) > 1 and re.fullmatch(
        r"(batchnorm|cond|then|else|FusedBatchNorm|Rsqrt|Sqrt)(V\d)?(_\d+)?", shared[-1]
    ):
        shared.pop()
    return "/".join(shared) or "/".join(paths[0])
