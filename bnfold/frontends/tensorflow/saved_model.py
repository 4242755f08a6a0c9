"""SavedModels: read as a message first, so that what a file would do is known before any of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.errors import CorruptModelError, InferenceModeError, SignatureError, UnsupportedOpError
from bnfold.frontends.loaded import Array, Loaded, Request, Runner
from bnfold.frontends.signature import listed, require_known, unknown_name
from bnfold.frontends.sniff import Format
from bnfold.frontends.tensorflow.batch_norms import convert
from bnfold.frontends.tensorflow.beforehand import demand_bounded, read_own
from bnfold.frontends.tensorflow.concrete import Frozen, freeze
from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from bnfold.frontends.tensorflow.harmful import reaches_out
from bnfold.frontends.tensorflow.io_names import nodes_in, rename_io, specs_of
from bnfold.frontends.tensorflow.layer_values import layer_reader
from bnfold.frontends.tensorflow.saved_program import load_program, program_of
from bnfold.frontends.tensorflow.spelled_out import plain_scope, with_markers

if TYPE_CHECKING:
    import onnx

__all__ = ["load", "refuse_dangerous"]

_LARGEST = 2**31 - 1
_INIT = "__saved_model_init_op"
_DEFAULTS = ("serving_default", "serve")


def load(path: Path, request: Request) -> Loaded:
    """Turn a SavedModel into an ONNX model in inference mode.

    Args:
        path: Its folder.
        request: ``signature`` chooses one of several; ``outputs`` may name fewer outputs than it has.

    Raises:
        CorruptModelError: If the folder is not a whole SavedModel.
        UnsupportedOpError: If it would read, write or run something, or an operation has no ONNX form.
        SignatureError: If it has no signature, several without a default, or not the one that was asked for.
        InferenceModeError: If the signature trains, and cannot be put in inference mode.
        MissingExtraError: If TensorFlow is not installed.
    """
    _look_first(path, request)
    saved = _read(path)
    graph = _serving_graph(saved, path)
    if not graph.object_graph_def.nodes:
        from bnfold.frontends.tensorflow.saved_model_v1 import load_v1_saved_model

        return load_v1_saved_model(path, request)
    refuse_dangerous(graph, path.name)  # before TensorFlow loads it, which runs what initialises it
    name = _signature(graph, request.signature, path)
    unknown = sorted(set(request.set_values) - set(graph.signature_def[name].inputs))
    if unknown:
        raise SignatureError(
            f"{path.name} is a SavedModel of TensorFlow 2, which has no mode inputs to set: {', '.join(unknown)}",
            hint="Leave out --set, or export the model again with training=False.",
        )
    program = program_of(graph, name)
    if request.set_values or request.ema != "auto" or program.trains():
        return load_program(path, graph, program, request, lambda: _load_function(path, graph, name))
    function = _load_function(path, graph, name)
    inputs, outputs = (tuple(sorted(names)) for names in (_inputs_of(function), function.structured_outputs))
    require_known("input", request.inputs, inputs, option="--inputs")
    require_known("output", request.outputs, outputs, option="--outputs")
    chosen = request.outputs or outputs
    frozen = _freeze(function, path).only([outputs.index(output) for output in chosen])
    model = convert(*with_markers(frozen), request.opset)
    _name_batch_norms(model)
    rename_io(model, dict(zip((*frozen.inputs, *frozen.outputs), _distinct(inputs, chosen), strict=True)))
    return Loaded(
        model=model,
        format=Format.SAVED_MODEL.value,
        framework=f"TensorFlow {graph.meta_info_def.tensorflow_version}".strip(),
        description=f"SavedModel, signature {name}",
        inputs=specs_of(model.graph.input),
        outputs=specs_of(model.graph.output),
        run=_runner(function, inputs, dict(zip(chosen, _distinct(inputs, chosen)[len(inputs) :], strict=True))),
        layers=layer_reader(frozen, inputs),
    )


def _look_first(path: Path, request: Request) -> None:
    """Refuse what can be refused before TensorFlow is imported."""
    file = _file(path)
    saved = read_own(file, "SavedModel")
    if saved is None or not saved.meta_graphs:
        return
    graph = _serving_graph(saved, path)
    demand_bounded(graph.graph_def, file.stat().st_size)
    if graph.object_graph_def.nodes:
        refuse_dangerous(graph, path.name)
        return
    from bnfold.frontends.tensorflow.saved_model_v1 import refuse_v1_saved_model

    refuse_v1_saved_model(path, request, saved)


def _distinct(inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the names of inputs and outputs in ONNX, where an output may not be called like an input."""
    return (*inputs, *(f"{name}_output" if name in inputs else name for name in outputs))


def _file(path: Path) -> Path:
    binary, readable = path / "saved_model.pb", path / "saved_model.pbtxt"
    file = binary if binary.is_file() or not readable.is_file() else readable
    if not file.is_file():
        raise CorruptModelError(
            f"{path} is not a SavedModel: it has no saved_model.pb",
            hint="Give the folder that tf.saved_model.save() or model.export() wrote.",
        )
    if file.stat().st_size > _LARGEST:
        raise CorruptModelError(
            f"{file} has {file.stat().st_size} bytes; a SavedModel's graph has at most {_LARGEST}",
            hint="Export the model again.",
        )
    return file


def _read(path: Path) -> Any:
    messages = tensorflow("tensorflow.core.protobuf.saved_model_pb2")
    protobuf = tensorflow("google.protobuf.message")
    text = tensorflow("google.protobuf.text_format")
    file = _file(path)
    saved = messages.SavedModel()
    try:
        if file.suffix == ".pb":
            saved.ParseFromString(file.read_bytes())
        else:
            text.Parse(file.read_text("utf-8"), saved)
    except (protobuf.DecodeError, text.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptModelError(
            f"{file} is not the graph of a SavedModel, or is not whole: {' '.join(str(error).split())}",
            hint="Copy or download the folder again.",
        ) from None
    if not saved.meta_graphs:
        raise CorruptModelError(f"{file} holds no graph", hint="Export the model again.")
    return saved


def _serving_graph(saved: Any, path: Path) -> Any:
    serving = [graph for graph in saved.meta_graphs if list(graph.meta_info_def.tags) == ["serve"]]
    serving = serving or [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    if len(saved.meta_graphs) == 1:
        return saved.meta_graphs[0]
    if len(serving) != 1:
        tags = ["+".join(graph.meta_info_def.tags) for graph in saved.meta_graphs]
        raise SignatureError(
            f"{path.name} holds {len(tags)} graphs, and none of them alone is for serving: {listed(tags)}",
            hint="Export the model again for serving only, with the tag 'serve'.",
        )
    return serving[0]


def refuse_dangerous(meta_graph: Any, name: str) -> None:
    """Check that no graph or function of a SavedModel runs code, touches files or talks to other machines.

    Raises:
        UnsupportedOpError: Naming the operation and where it is.
    """
    graph_def = meta_graph.graph_def
    nodes = [("", node) for node in graph_def.node]
    nodes += [(f" in the function {function.signature.name}", node) for function in graph_def.library.function
        for node in function.node_def]  # fmt: skip
    found = [(where, node) for where, node in nodes if reaches_out(node.op, checkpoints=False)]
    if found:
        where, node = found[0]
        others = sorted({other.op for _, other in found} - {node.op})
        raise UnsupportedOpError(
            f"{name} holds the operation {node.op} at {node.name}{where}, which reads, writes or runs "
            "something outside the network" + (f"; and also {listed(others)}" if others else ""),
            hint="Export the model again without it: what reads and writes files belongs in front of the network.",
        )


def _signature(graph: Any, wanted: str | None, path: Path) -> str:
    names: list[str] = sorted(name for name in graph.signature_def if name != _INIT)
    if wanted is not None:
        if wanted not in names:
            raise unknown_name("signature", wanted, names, option="--signature")
        return wanted
    if not names:
        raise SignatureError(
            f"{path.name} has no signature: nothing in it says what its inputs and outputs are",
            hint="Export the model again with model.export(), or with signatures= of tf.saved_model.save().",
        )
    for name in (*_DEFAULTS, *(names if len(names) == 1 else [])):
        if name in names:
            return name
    raise SignatureError(
        f"{path.name} has {len(names)} signatures and no default: {listed(names)}",
        hint=f"Choose one, for example: --signature {names[0]}",
    )


def _load_function(path: Path, graph: Any, name: str) -> Any:
    tf = tensorflow()
    try:
        with quiet():
            loaded = tf.saved_model.load(str(path), tags=list(graph.meta_info_def.tags))
            function = loaded.signatures[name]
    except Exception as error:
        raise CorruptModelError(
            f"TensorFlow cannot load {path.name}: {_short(error)}",
            hint="Check that the folder is whole: saved_model.pb, variables/ and assets/.",
        ) from error
    function._bnfold_keeps = loaded  # noqa: SLF001  # its variables live as long as what was loaded
    return function


def _inputs_of(function: Any) -> list[str]:
    names: Mapping[str, Any] = function.structured_input_signature[1]
    return list(names)


def _name_batch_norms(model: onnx.ModelProto) -> None:
    """Name batch norms after their scopes: without the calls around them, and without the operation's own name."""
    nodes = list(nodes_in(model.graph))
    taken = {node.name for node in nodes}
    for node in nodes:
        if node.op_type == "BatchNormalization":
            plain = plain_scope(node.name)
            if plain not in taken:
                taken.add(plain)
                node.name = plain


def _freeze(function: Any, path: Path) -> Frozen:
    try:
        return freeze(function)
    except InferenceModeError:
        raise
    except Exception as error:
        raise UnsupportedOpError(
            f"the variables of {path.name} cannot be turned into constants: {_short(error)}",
            hint="Export the model again without what it remembers between calls.",
        ) from error


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def _runner(function: Any, inputs: Sequence[str], outputs: Mapping[str, str]) -> Runner:
    """Return a function that runs the signature itself.

    Args:
        function: The concrete function.
        inputs: Names of its arguments.
        outputs: The ONNX name of every output that is computed, by its name in the signature.
    """

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        tf = tensorflow()
        specs = function.structured_input_signature[1]
        with quiet():
            values = function(
                **{name: tf.convert_to_tensor(np.asarray(feeds[name]), specs[name].dtype) for name in inputs}
            )
        return {onnx_name: np.asarray(values[name]) for name, onnx_name in outputs.items()}

    return run
