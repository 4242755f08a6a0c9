"""SavedModels of TensorFlow 1: a meta graph with signatures, and the values of its variables in a folder beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bnfold.errors import CorruptModelError, SignatureError
from bnfold.frontends.loaded import Loaded, Request
from bnfold.frontends.tensorflow.beforehand import demand_harmless_ends
from bnfold.frontends.tensorflow.checkpoint import stored_in
from bnfold.frontends.tensorflow.convert import loaded_from
from bnfold.frontends.tensorflow.guests import tensorflow
from bnfold.frontends.tensorflow.net import Net
from bnfold.frontends.tensorflow.reading import read_message
from bnfold.frontends.tensorflow.stored import constants_of

__all__ = ["load_v1_saved_model", "refuse_v1_saved_model"]

_WHAT = "a SavedModel without signatures"
_DEFAULT = "serving_default"
_OWN = ("__saved_model_init_op", "__saved_model_train_op")


def load_v1_saved_model(directory: Path, request: Request) -> Loaded:
    """Turn a SavedModel that TensorFlow 1 wrote into an ONNX model in inference mode.

    Inputs and outputs have the names that the signature gives them, unless the request names tensors.

    Args:
        directory: Its folder.
        request: ``signature`` chooses one of several; ``outputs`` may name some of its outputs, or tensors.

    Raises:
        CorruptModelError: If it holds no graph, or its variables cannot be read.
        SignatureError: If it has no signature, several without a default, or not the one that was asked for.
        InferenceModeError: If it cannot be put in inference mode.
        UnsupportedOpError: If an operation may do harm or has no ONNX form.
    """
    messages = tensorflow("tensorflow.core.protobuf.saved_model_pb2")
    saved = read_message(_file_of(directory), messages.SavedModel(), "a SavedModel")
    meta_graph = _serving_graph(saved, directory)
    net = Net.of(meta_graph.graph_def)
    prefix = directory / "variables" / "variables"
    has_values = prefix.with_name("variables.index").is_file()
    stored = stored_in(prefix, net, meta_graph.saver_def.restore_op_name) if has_values else constants_of(net)
    signature, name = _signature(meta_graph, request, directory)
    inputs, outputs = (_tensors(signature.inputs), _tensors(signature.outputs)) if signature else ({}, {})
    for key, tensor in {**inputs, **outputs}.items():
        if not tensor:
            raise SignatureError(
                f"{key} of the signature {name} is no plain tensor",
                hint="Name dense tensors with --inputs and --outputs.",
            )
    wanted = [outputs.get(text, text) for text in request.outputs] or list(outputs.values())
    fed = [inputs.get(text, text) for text in request.inputs]
    values = {inputs.get(text, text): value for text, value in request.set_values.items()}
    names: dict[str, str] = {}
    for key, tensor in [*inputs.items(), *outputs.items()]:
        names.setdefault(tensor, key if key not in names.values() else f"{key}_output")
    return loaded_from(
        net,
        stored,
        replace(request, outputs=tuple(dict.fromkeys(wanted)), inputs=tuple(fed), set_values=values),
        artifact=_WHAT,
        file_format="saved-model",
        framework=f"TensorFlow {meta_graph.meta_info_def.tensorflow_version}".strip(),
        description=f"SavedModel of TensorFlow 1, signature {name}" if signature else "SavedModel of TensorFlow 1",
        names=names,
    )


def refuse_v1_saved_model(directory: Path, request: Request, saved: Any) -> None:
    """Refuse a SavedModel whose outputs need an operation that reaches beyond computing.

    Args:
        directory: Its folder.
        request: What the user named.
        saved: Its message, of whatever library.

    Raises:
        CorruptModelError: If it holds no graph.
        SignatureError: If it has several signatures without a default, or not the one that was asked for.
        UnsupportedOpError: Naming the operations.
    """
    meta_graph = _serving_graph(saved, directory)
    signature, _ = _signature(meta_graph, request, directory)
    inputs, outputs = (_tensors(signature.inputs), _tensors(signature.outputs)) if signature else ({}, {})
    wanted = [outputs.get(text, text) for text in request.outputs] or list(outputs.values())
    fed = [inputs.get(text, text) for text in request.inputs]
    demand_harmless_ends(meta_graph.graph_def, wanted, fed, _WHAT)


def _tensors(infos: Any) -> dict[str, str]:
    return {key: info.name for key, info in sorted(infos.items())}


def _file_of(directory: Path) -> Path:
    binary, text = directory / "saved_model.pb", directory / "saved_model.pbtxt"
    path = text if text.is_file() and not binary.is_file() else binary
    if not path.is_file():
        raise CorruptModelError(
            f"the folder {directory.name} is no SavedModel: saved_model.pb is not there",
            hint="Give the folder that holds saved_model.pb.",
        )
    return path


def _serving_graph(saved: Any, directory: Path) -> Any:
    graphs = list(saved.meta_graphs)
    if not graphs or not any(graph.graph_def.node for graph in graphs):
        raise CorruptModelError(
            f"the SavedModel {directory.name} holds no graph", hint="Get the folder again: it is damaged."
        )
    serving = [graph for graph in graphs if "serve" in graph.meta_info_def.tags]
    return (serving or graphs)[0]


def _signature(meta_graph: Any, request: Request, directory: Path) -> tuple[Any, str]:
    """Return the signature to convert and its name; nothing where the user names tensors of a graph without any."""
    known = {key: value for key, value in sorted(meta_graph.signature_def.items()) if key not in _OWN}
    if request.signature is not None:
        if request.signature not in known:
            raise SignatureError(
                f"the SavedModel {directory.name} has no signature {request.signature}; "
                f"it has {', '.join(known) or 'none'}",
                hint="Name one of its signatures with --signature.",
            )
        return known[request.signature], request.signature
    if _DEFAULT in known:
        return known[_DEFAULT], _DEFAULT
    if len(known) == 1:
        return next((value, key) for key, value in known.items())
    if len(known) > 1:
        raise SignatureError(
            f"the SavedModel {directory.name} has {len(known)} signatures and none is the default: {', '.join(known)}",
            hint=f"Choose one, for example: --signature {next(iter(known))}",
        )
    return None, ""
