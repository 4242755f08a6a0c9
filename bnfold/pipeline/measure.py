"""What an artifact and a model consist of, counted."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from bnfold.frontends.loaded import Loaded
from bnfold.frontends.sniff import checkpoint_prefix
from bnfold.graph.outside import outside_bytes
from bnfold.graph.shapes import subgraphs
from bnfold.graph.tensors import byte_length, graph_initializers, model_tensors
from bnfold.report import Measure, Source

__all__ = ["measure", "node_outputs", "source_of", "versions"]

_FLOATING = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_CHUNK = 1 << 20
_LARGE = 1 << 26


def measure(model: ModelProto) -> Measure:
    """Count what a model consists of, bodies of control flow and functions included."""
    ops = Counter(node.op_type for node in _nodes(model))
    constants = {tensor.name for tensor in model.graph.initializer}
    return Measure(
        opset=max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0),
        bytes=_bytes(model),
        parameters=sum(math.prod(t.dims) for t in graph_initializers(model.graph) if t.data_type in _FLOATING),
        nodes=ops.total(),
        inputs=sum(value.name not in constants for value in model.graph.input),
        ops=dict(sorted(ops.items())),
    )


def _bytes(model: ModelProto) -> int:
    """Return the size of a model; asking protobuf for it writes the model once, so of a large one the weights count."""
    weights = sum(byte_length(tensor) or 0 for tensor in model_tensors(model))
    return weights if weights > _LARGE else model.ByteSize() + outside_bytes(model)


def node_outputs(model: ModelProto) -> Iterator[str]:
    """Yield the first output of every node, in the order in which the nodes stand in the file."""
    for node in _nodes(model):
        if node.output:
            yield node.output[0]


def source_of(path: Path, loaded: Loaded) -> Source:
    """Say what was read, with its hash."""
    digest, size = _hash(path)
    return Source(str(path), loaded.format, loaded.framework, loaded.description, digest, size)


def versions(source_format: str) -> dict[str, str]:
    """Return the versions of bnfold, of Python, and of the libraries that a result depends on."""
    import platform
    from importlib import metadata

    names = ["bnfold", "numpy", "onnx", "onnxruntime"]
    if source_format != "onnx":
        names += ["h5py", "keras", "tensorflow", "tf-keras", "tf2onnx"]
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"python": platform.python_version()}


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from _graph_nodes(model.graph)
    for function in model.functions:
        yield from function.node


def _graph_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    yield from graph.node
    for _place, body in subgraphs(graph):
        yield from _graph_nodes(body)


def _hash(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file; of several files, that of their names and hashes, so that none can be swapped."""
    if path.is_file():
        return _file_hash(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        base = path
    else:
        prefix = checkpoint_prefix(path) or path
        files = sorted(file for file in prefix.parent.glob("*") if file.name.startswith(f"{prefix.name}."))
        base = prefix.parent
    digest, total = hashlib.sha256(), 0
    for file in files:
        inner, size = _file_hash(file)
        digest.update(os.fsencode(file.relative_to(base).as_posix()) + b"\0" + inner.encode("ascii") + b"\n")
        total += size
    return digest.hexdigest(), total


def _file_hash(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
