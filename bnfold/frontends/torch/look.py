"""Exported programs looked at: their inputs and outputs, their batch norms and the statistics in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bnfold.errors import BnfoldError
from bnfold.frontends.glance import Array, Glance, Port, SeenBatchNorm, Statistics, Suspicion, Vectors, diagnosed
from bnfold.frontends.sniff import Format
from bnfold.frontends.torch.archive import DTYPES, Packed, Tree, as_written, read_archive
from bnfold.frontends.torch.harmless import argument, graphs, layer_of, op_of, program_of, tensors
from bnfold.frontends.torch.loading import input_names, output_names
from bnfold.frontends.torch.modes import BATCH_NORMS, buffers, in_inference_mode, trains

__all__ = ["look"]

_VECTORS = ("weight", "bias", "running_mean", "running_var")


def look(path: Path) -> Glance:
    """Return what an exported program tells, without PyTorch.

    Raises:
        CorruptModelError: If it breaks off, or is not what PyTorch writes.
        UnsupportedOpError: If it holds what only running code from the file could bring back.
        SignatureError: If it holds several programs, and none of them is the model.
        OSError: If it cannot be read.
    """
    packed = read_archive(path)
    with as_written(path.name):
        return _glance(packed, program_of(packed.program, path.name))


def _glance(packed: Packed, program: Tree) -> Glance:
    path = packed.path
    module = program["graph_module"]
    norms = list(_norms(packed, program))
    answers = [
        value["as_tensor"]["name"]
        for value, spec in zip(module["graph"]["outputs"], module["signature"]["output_specs"], strict=True)
        if "user_output" in spec
    ]
    inputs = input_names(program)
    types = module["graph"]["tensor_values"]
    return Glance(
        path=str(path),
        format=Format.TORCH_EXPORT.value,
        framework=f"PyTorch {packed.version}".strip(),
        description=Format.TORCH_EXPORT.described,
        bytes=path.stat().st_size,
        parameters=sum(payload.elements for payload in packed.weights.values() if payload.dtype.kind in "fV"),
        inputs=tuple(_port(name, types.get(name)) for name in inputs),
        outputs=tuple(
            _port(name, types.get(value)) for name, value in zip(output_names(packed.program), answers, strict=True)
        ),
        batch_norms=tuple(seen for seen, _vectors in norms),
        mode_inputs=(),
        suspicions=(*_suspicions(program, path.name), *diagnosed([vectors for _seen, vectors in norms])),
        open_questions=(),
    )


def _norms(packed: Packed, program: Tree) -> Iterator[tuple[SeenBatchNorm, Vectors]]:
    own = buffers(program["graph_module"])
    for graph in graphs(program["graph_module"]["graph"]):
        makers = {name: node for node in graph["nodes"] for name in tensors(node["outputs"])}
        for node in graph["nodes"]:
            if op_of(node) not in BATCH_NORMS:
                continue
            found: Mapping[str, Array | None] = {name: _value(packed, own, node, name) for name in _VECTORS}
            known = [vector for vector in found.values() if vector is not None]
            epsilon = (argument(node, "eps") or argument(node, "epsilon") or {}).get("as_float")
            name = layer_of(node) or str(node["name"] or op_of(node))
            statistics: Statistics = "batch" if trains(node) else "moving"
            source = next(iter(tensors(node["inputs"][:1])), "")
            behind = f"{op_of(makers[source])} {layer_of(makers[source])}".strip() if source in makers else ""
            yield (
                SeenBatchNorm(name, op_of(node), known[0].size if known else None, epsilon, statistics, behind),
                Vectors(name, found["weight"], found["bias"], found["running_mean"], found["running_var"]),
            )


def _value(packed: Packed, own: Mapping[str, str], node: Tree, key: str) -> Array | None:
    name = next(tensors(argument(node, key) or {}), None)
    path = own.get(name or "")
    payload = packed.weights.get(path or "") or packed.constants.get(path or "")
    return None if payload is None else packed.value(payload)


def _suspicions(program: Tree, name: str) -> Iterator[Suspicion]:
    try:
        _, changes = in_inference_mode(program, name)
    except BnfoldError as error:
        yield Suspicion((), f"the conversion will refuse it: {error}", error.hint)
        return
    told = tuple(change.name for change in changes if change.kind == "training-mode")
    if told:
        yield Suspicion(
            told,
            f"it was exported in training mode: {len(told)} batch norm{'s use' if len(told) > 1 else ' uses'} the "
            "statistics of each batch",
            "Convert it: the result uses the running statistics. Or call model.eval() before torch.export.export.",
        )


def _port(name: str, told: Tree | None) -> Port:
    if told is None:
        return Port(name)
    dtype = DTYPES.get(told.get("dtype", 0))
    return Port(name, "" if dtype is None else dtype.name, _shape(told.get("sizes", ())))


def _shape(sizes: Sequence[Tree]) -> tuple[int | None, ...]:
    return tuple(size.get("as_int") for size in sizes)
