"""Frozen graphs of TensorFlow 1: a program whose variables have become constants."""

from __future__ import annotations

from pathlib import Path

from bnfold.errors import CorruptModelError
from bnfold.frontends.loaded import Loaded, Request
from bnfold.frontends.tensorflow.beforehand import demand_bounded, demand_harmless_ends, read_own
from bnfold.frontends.tensorflow.convert import loaded_from
from bnfold.frontends.tensorflow.net import Net
from bnfold.frontends.tensorflow.reading import is_text, read_graph_def
from bnfold.frontends.tensorflow.stored import constants_of

__all__ = ["load"]

_WHAT = "a frozen graph"


def load(path: Path, request: Request) -> Loaded:
    """Turn a frozen graph into an ONNX model in inference mode.

    Args:
        path: A ``.pb`` file, or a ``.pbtxt``.
        request: ``outputs`` names what to compute where the graph leaves it open.

    Raises:
        CorruptModelError: If the file holds no whole graph.
        SignatureError: If outputs or inputs are ambiguous or do not exist.
        InferenceModeError: If it cannot be put in inference mode.
        UnsupportedOpError: If an operation may do harm or has no ONNX form.
        MissingExtraError: If TensorFlow is not installed.
    """
    own = read_own(path, "Graph")
    if own is not None:
        demand_bounded(own, path.stat().st_size)
        demand_harmless_ends(own, request.outputs, request.inputs, _WHAT)
    del own  # it is as large as the file
    graph_def = read_graph_def(path)
    net = Net.of(graph_def)
    loose = sorted(name for name, node in net.nodes.items() if node.op in ("Variable", "VariableV2", "VarHandleOp"))
    if loose and not any(node.op == "Const" for node in net.nodes.values()):
        raise CorruptModelError(
            f"{path.name} is not frozen: its {len(loose)} variables, {loose[0]} among them, have no values in the file",
            hint="Give the checkpoint that belongs to it, with its .meta file.",
        )
    text = is_text(path)
    return loaded_from(
        net,
        constants_of(net),
        request,
        artifact=_WHAT,
        file_format="frozen-graph-text" if text else "frozen-graph",
        framework=f"TensorFlow (graph version {graph_def.versions.producer})",
        description="TF1 frozen graph as text" if text else "TF1 frozen graph",
    )
