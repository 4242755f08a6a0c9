"""onnxruntime, as the service uses it: only ever in a child, and with its own rewriting of graphs switched off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from service.serving.tensors import Spec

__all__ = ["UnrunnableError", "open_session", "signature_of"]

_ELEMENTS = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class UnrunnableError(Exception):
    """The model can be kept and not be served; the text says why, in one line."""


def open_session(path: Path, threads: int) -> Any:  # onnxruntime has no types of its own
    """Load a model as it is, ready to run.

    The level is ``ORT_DISABLE_ALL``. What bnfold proves is that the folded graph, run as it stands, computes what the
    original computes. From ``ORT_ENABLE_BASIC`` on, onnxruntime rewrites the graph by rules of its own, and some of
    them are wrong: it folds a batch norm behind a Reshape into the MatMul before it without asking whether the channel
    axis is still the same one. A model in which a batch norm was kept for a good reason would then be served with wrong
    numbers that no proof has seen. What is worth folding is folded already, so little is lost.

    Args:
        path: The model.
        threads: Threads for one operation; 0 leaves the choice to onnxruntime.

    Raises:
        UnrunnableError: If onnxruntime cannot run it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: it would report to its maker
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is told by exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class
        raise UnrunnableError(f"onnxruntime cannot load it: {' '.join(str(error).split())[:500]}") from error


def signature_of(session: Any) -> tuple[tuple[Spec, ...], tuple[Spec, ...]]:
    """Return the inputs and the outputs of a loaded model.

    Raises:
        UnrunnableError: If one of them is no tensor that the protocol can carry.
    """
    return tuple(_spec(argument) for argument in session.get_inputs()), tuple(
        _spec(argument) for argument in session.get_outputs()
    )


def _spec(argument: Any) -> Spec:
    datatype = _ELEMENTS.get(argument.type)
    if datatype is None:
        raise UnrunnableError(f"{argument.name} is a {argument.type}, which the protocol cannot carry")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in argument.shape)
    return Spec(argument.name, datatype, shape)
