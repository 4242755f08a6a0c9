"""Running models outside of our own code: onnx's reference evaluator and onnxruntime without its optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, parser

from bnfold.inference import Change, to_inference_mode

Array = npt.NDArray[Any]


def parsed(text: str) -> ModelProto:
    """Read a model written as text, and see that it is a valid one."""
    model = parser.parse_model(text)
    onnx.checker.check_model(model)
    return model


def run(model: ModelProto, **feeds: npt.ArrayLike) -> list[Array]:
    """Compute a model's outputs with onnxruntime, nothing optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    arrays = {name: np.asarray(value) for name, value in feeds.items()}
    return [np.asarray(value) for value in session.run(None, arrays)]


def switched(text: str) -> tuple[ModelProto, tuple[Change, ...]]:
    """Put a model in inference mode, and see that the result is valid and the model untouched."""
    model = parsed(text)
    before = model.SerializeToString(deterministic=True)
    result, changes = to_inference_mode(model)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result, full_check=True)
    again, nothing = to_inference_mode(result)
    assert again is result
    assert nothing == ()
    return result, changes


def kept(text: str) -> None:
    """See that a model comes back as the same object."""
    model = parsed(text)
    result, changes = to_inference_mode(model)
    assert result is model
    assert changes == ()


def op_types(model: ModelProto) -> list[str]:
    """Return the operations of the main graph."""
    return [node.op_type for node in model.graph.node]


def input_names(model: ModelProto) -> list[str]:
    """Return the names of a model's inputs."""
    return [value.name for value in model.graph.input]
