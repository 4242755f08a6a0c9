"""onnxruntime, as the service uses it: only ever in a child, and rewriting a graph only where that is proved right."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.serving.tensors import Array, Spec

__all__ = ["UnrunnableError", "open_session", "run", "signature_of"]

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
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_BF16 = 16  # onnx.TensorProto.BFLOAT16


class UnrunnableError(Exception):
    """The model can be kept and not be served; the text says why, in one line."""


def open_session(path: Path, threads: int, *, rewrite: bool = False) -> Any:  # onnxruntime has no types of its own
    """Load a model, ready to run.

    What bnfold proves first is that the folded graph, run as it stands, computes what the original computes. From
    ``ORT_ENABLE_BASIC`` on, onnxruntime rewrites the graph by rules of its own, and some of them are wrong: it folds a
    batch norm behind a Reshape into the MatMul before it without asking whether the channel axis is still the same
    one. A model in which a batch norm was kept for a good reason would then be served with wrong numbers. So the level
    is ``ORT_DISABLE_ALL``, unless the proof of this very model has seen that the default level computes the same;
    convolutions are two to three times as fast there.

    Args:
        path: The model.
        threads: Threads for one operation; 0 leaves the choice to onnxruntime.
        rewrite: Whether onnxruntime may rewrite the graph as it does at its default level.

    Raises:
        UnrunnableError: If onnxruntime cannot run it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: it would report to its maker
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not rewrite:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is told by exceptions
    # Between two runs its threads would wait at full speed, and take the time of whoever brings the next request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class
        raise UnrunnableError(f"onnxruntime cannot load it: {' '.join(str(error).split())[:500]}") from error


def signature_of(session: Any) -> tuple[tuple[Spec, ...], tuple[Spec, ...]]:
    """Return the inputs and the outputs of a loaded model.

    Raises:
        UnrunnableError: If they are not tensors that the protocol can carry and onnxruntime can be given.
    """
    inputs = tuple(_spec(argument) for argument in session.get_inputs())
    outputs = tuple(_spec(argument) for argument in session.get_outputs())
    bf16 = any(spec.datatype == "BF16" for spec in (*inputs, *outputs))
    if bf16 and any(spec.datatype == "BYTES" for spec in inputs):
        raise UnrunnableError("it takes BF16 and BYTES at once, which onnxruntime cannot be given")
    return inputs, outputs


def run(session: Any, outputs: Sequence[Spec], feeds: Mapping[str, Array], bf16: Sequence[str], options: Any) -> Any:
    """Run a loaded model and return an array for each output that is asked for.

    Args:
        session: The model.
        outputs: What is asked for.
        feeds: An array for each input.
        bf16: Names of the inputs whose arrays are patterns of BF16, which numpy has no numbers for.
        options: onnxruntime's ``RunOptions``.
    """
    if not bf16 and all(spec.datatype != "BF16" for spec in outputs):
        return session.run([spec.name for spec in outputs], feeds, options)
    import onnxruntime

    value = onnxruntime.OrtValue
    given = {
        name: value.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), _BF16)
        if name in bf16
        else value.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    answers = session.run_with_ort_values([spec.name for spec in outputs], given, options)
    return [
        _patterns(answer) if spec.datatype == "BF16" else answer.numpy()
        for spec, answer in zip(outputs, answers, strict=True)
    ]


def _patterns(value: Any) -> Array:
    shape = tuple(value.shape())
    array = np.empty(shape, np.uint16)
    if array.nbytes:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array


def _spec(argument: Any) -> Spec:
    datatype = _ELEMENTS.get(argument.type)
    if datatype is None:
        raise UnrunnableError(f"{argument.name} is a {argument.type}, which the protocol cannot carry")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in argument.shape)
    return Spec(argument.name, datatype, shape)
