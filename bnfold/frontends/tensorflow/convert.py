"""The last step that all TensorFlow 1 programs have in common: a program and its values become a loaded model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bnfold.frontends.loaded import Array, Loaded, Request, Runner
from bnfold.frontends.tensorflow.batch_norms import convert
from bnfold.frontends.tensorflow.concrete import Frozen
from bnfold.frontends.tensorflow.inference_graph import Inference, in_inference_mode
from bnfold.frontends.tensorflow.io_names import nodes_in, rename_io, specs_of
from bnfold.frontends.tensorflow.layer_values import layer_reader
from bnfold.frontends.tensorflow.net import Net
from bnfold.frontends.tensorflow.spelled_out import plain_scope, with_markers
from bnfold.frontends.tensorflow.stored import Stored

if TYPE_CHECKING:
    import onnx

__all__ = ["loaded_from"]

_BRANCH = re.compile(r"/cond(_\d+)?(/then|/else)?$")


def loaded_from(
    net: Net,
    stored: Stored,
    request: Request,
    *,
    artifact: str,
    file_format: str,
    framework: str,
    description: str,
    names: Mapping[str, str] | None = None,
    original: Callable[[Inference], Runner | None] | None = None,
) -> Loaded:
    """Put a program in inference mode, convert it, and return it with what runs the original.

    Args:
        net: The whole program.
        stored: The values that it was stored with.
        request: What the user named.
        artifact: What the program came in, for messages: ``"a frozen graph"``.
        file_format: One of the names of ``sniff.Format``.
        framework: What wrote it.
        description: A short line for people.
        names: What tensors are called in ONNX, by their names in the graph; the others keep theirs.
        original: Returns what runs the original program by ONNX names, where something better than a session of its
            graph does.
    """
    inference = in_inference_mode(net, stored, request, artifact)
    frozen = Frozen(inference.graph_def, inference.inputs, inference.outputs)
    model = convert(*with_markers(frozen), request.opset)
    _name_by_scope(model)
    ends = {*inference.inputs, *inference.outputs}
    chosen = {tensor: name for tensor, name in (names or {}).items() if tensor in ends}
    if chosen:
        rename_io(model, chosen)
    return Loaded(
        model=model,
        format=file_format,
        framework=framework,
        description=description,
        inputs=specs_of(model.graph.input),
        outputs=specs_of(model.graph.output),
        mode=inference.changes,
        run=(None if original is None else original(inference)) or _renamed(inference.run, chosen),
        own=None if inference.own is None else _renamed(inference.own, chosen),
        own_says=inference.own_says,
        layers=layer_reader(frozen, [chosen.get(tensor, tensor) for tensor in frozen.inputs]),
    )


def _name_by_scope(model: onnx.ModelProto) -> None:
    """Give batch norms the names of their scopes: ``fc1/bn`` for ``fc1/bn/cond/FusedBatchNormV3_1``."""
    nodes = list(nodes_in(model.graph))
    taken = {node.name for node in nodes}
    for node in nodes:
        if node.op_type == "BatchNormalization" and (scope := _scope(node.name)) not in taken:
            taken.add(scope)
            node.name = scope


def _scope(name: str) -> str:
    return _BRANCH.sub("", plain_scope(name))


def _renamed(run: Runner, names: Mapping[str, str]) -> Runner:
    if not names:
        return run
    tensors = {name: tensor for tensor, name in names.items()}

    def renamed(feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = run({tensors.get(name, name): value for name, value in feeds.items()})
        return {names.get(tensor, tensor): value for tensor, value in found.items()}

    return renamed
