"""Running a model in onnxruntime, with every graph optimization off: the only place of bnfold that knows onnxruntime.

onnxruntime folds batch norms itself, and some of them wrongly; what is compared here is what the file says. Only where
somebody asks what becomes of a file at onnxruntime's default level, it may rewrite the graph. Where it has no kernel
(float64 convolutions, bfloat16), the reference's kernels stand in, rounded to the stored type after every node, and the
session says so.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.errors import CorruptModelError, SignatureError, UnsupportedOpError
from bnfold.parity.kernels import Array
from bnfold.parity.lanes import half
from bnfold.parity.nodes import STANDARD
from bnfold.parity.program import reads_of
from bnfold.parity.reference import Reference
from bnfold.parity.static import fits_one_message

__all__ = ["Session", "run_node"]

_STRANGERS = ("bfloat16", "float8", "float4")
"""Types for which onnxruntime's refusal of a graph means that it has no kernel, not that the graph is wrong."""


class Session:
    """A model that is ready to run.

    Attributes:
        engine: What runs it, as reports say.
        inputs: Its inputs that have to be fed, by name.
        outputs: What it returns, in order.
    """

    def __init__(
        self,
        model: ModelProto,
        *,
        also: Sequence[str] = (),
        native: bool = True,
        weights: Mapping[str, Array] | None = None,
        rewritten: bool = False,
    ) -> None:
        """Prepare a model.

        Args:
            model: Any ONNX model; it is not changed.
            also: Inner values of the main graph to return behind the outputs.
            native: Whether to try onnxruntime at all.
            weights: Constants that the model lists as inputs; they are fed with every run.
            rewritten: Whether onnxruntime may rewrite the graph as it does at its default level.

        Raises:
            CorruptModelError: If onnxruntime rejects the graph.
            UnsupportedOpError: If neither onnxruntime nor the reference knows an operation.
        """
        constants = {tensor.name for tensor in model.graph.initializer}
        self._weights = dict(weights or {})
        constants |= set(self._weights)
        self.inputs = {value.name: value for value in model.graph.input if value.name not in constants}
        self.outputs = [value.name for value in model.graph.output]
        self.outputs += [name for name in also if name not in self.outputs]
        self._optional = {value.name for value in model.graph.input} - set(self.inputs) - set(self._weights)
        self._native: Any = None
        self._stand_in: Reference | None = None
        reason = "asked for"
        if native:
            # What it rewrites depends on which weights are constants.
            light, lifted = (model, {}) if rewritten else _lifted(model)
            self._native, reason = _open(light, self.outputs, rewritten=rewritten)
            self._weights.update(lifted if self._native is not None else {})
        self._model = model
        if self._native is None:
            self._replace(reason)
        else:
            level = "its default level" if rewritten else "no graph optimization"
            self.engine = f"onnxruntime {_onnxruntime().__version__}, {level}"

    def _replace(self, reason: str) -> None:
        """Let the reference's kernels stand in."""
        self._stand_in = Reference(self._model, stored=True)
        self.engine = f"float64 kernels, rounded after every node ({reason})"

    @property
    def weights(self) -> Mapping[str, Array]:
        """The large constants, as far as they were read to be fed with every run."""
        return self._weights

    @property
    def native(self) -> bool:
        """Whether onnxruntime itself runs the model."""
        return self._native is not None

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
        """Run the model once.

        Raises:
            SignatureError: If the feeds are not what the model takes.
            UnsupportedOpError: If the model fails on them.
        """
        self._check(feeds)
        if self._stand_in is not None:
            return self._stand_in.run({**self._weights, **feeds}, self.outputs)
        try:
            values = self._native.run(self.outputs, {**self._weights, **feeds})
        except Exception as error:  # onnxruntime's errors have no common class of their own
            if _ABSENT.search(str(error)):  # some kernels tell only when they run for which types they are none
                self._native = None
                self._replace(_first_line(error))
                return self.run(feeds)
            raise UnsupportedOpError(
                f"onnxruntime cannot run the model on {_shapes(feeds)}: {_first_line(error)}",
                hint="Give inputs that the model accepts.",
            ) from error
        return dict(zip(self.outputs, values, strict=True))

    def _check(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        """Refuse feeds that the model does not take, before a runtime says so in its own words."""
        hint = f"Feed {', '.join(self.inputs) or 'nothing'}."
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise SignatureError(f"no values for {', '.join(missing)}", hint=hint)
        unknown = [name for name in feeds if name not in self.inputs and name not in self._optional]
        if unknown:
            raise SignatureError(f"the model has no input {', '.join(unknown)}", hint=hint)
        for name, value in self.inputs.items():
            tensor, array = value.type.tensor_type, feeds[name]
            if not value.type.HasField("tensor_type") or not isinstance(array, np.ndarray):
                continue
            if tensor.elem_type and tensor.elem_type != TensorProto.STRING:
                dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                if array.dtype != dtype:
                    raise SignatureError(
                        f"input {name} takes {dtype.name}, not {array.dtype.name}", hint=f"Convert it to {dtype.name}."
                    )
            if not tensor.HasField("shape"):
                continue
            wanted = [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]
            fits = len(wanted) == array.ndim and all(
                size is None or size == got for size, got in zip(wanted, array.shape, strict=True)
            )
            if not fits:
                shown = ", ".join("?" if size is None else str(size) for size in wanted)
                raise SignatureError(
                    f"input {name} takes the shape ({shown}), not {array.shape}", hint="Give it that shape."
                )


def run_node(node: NodeProto, inputs: Sequence[Any]) -> Sequence[Array]:
    """Run one node of a domain that only onnxruntime knows, in the types that it has kernels for.

    Raises:
        UnsupportedOpError: If onnxruntime does not know it either.
    """
    narrow = [
        value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value
        for value in inputs
    ]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
        for name, value in zip(node.input, narrow, strict=True)
        if name
    ]
    graph = helper.make_graph([node], "node", values, [ValueInfoProto(name=name) for name in node.output if name])
    domains = [helper.make_opsetid("", 17), helper.make_opsetid(node.domain, 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    session = Session(model)
    if not session.native:
        raise UnsupportedOpError(
            f"nothing here computes {node.domain}::{node.op_type}", hint="Replace it by standard operations."
        )
    got = session.run({name: value for name, value in zip(node.input, narrow, strict=True) if name})
    return [got[name] if name else np.zeros(0) for name in node.output]


_ABSENT = re.compile(r"does not support (double|float16|bfloat16|.*tensor\()|not (yet )?implemented", re.IGNORECASE)

_LIFTED = 1 << 14
"""Weights of more elements than this are fed, not stored in the model that onnxruntime reads: they are not copied."""
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FED = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})


def _lifted(model: ModelProto) -> tuple[ModelProto, dict[str, Array]]:
    """Return the model with the large weights of its linear operations as inputs, and these weights."""
    large = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if math.prod(tensor.dims) > _LIFTED and tensor.data_type in _FED and not tensor.external_data
    }
    for value in (*model.graph.input, *model.graph.output):
        large.pop(value.name, None)
    for node in model.graph.node if large else ():
        plain = node.domain in STANDARD and node.op_type in _LINEAR
        for name in reads_of(node):
            if name in large and not (
                plain and list(node.input).index(name) == 1 and list(node.input).count(name) == 1
            ):
                del large[name]
    if not large:
        return model, {}
    light = ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in large)
    light.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    light.graph.input.extend(model.graph.input)
    light.graph.input.extend(
        helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)) for name, tensor in large.items()
    )
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    return light, {name: np.asarray(numpy_helper.to_array(tensor)) for name, tensor in large.items()}


def _onnxruntime() -> Any:
    """Import onnxruntime without its telemetry, which writes into the home folder and reports to its maker."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _open(model: ModelProto, outputs: Sequence[str], *, rewritten: bool = False) -> tuple[Any, str]:
    """Return onnxruntime's session, or None and the reason why there is none."""
    onnxruntime = _onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    if not rewritten:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = half()
    # Threads that wait by spinning take the processor from the reference, which computes in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    arguments = {"sess_options": options, "providers": ["CPUExecutionProvider"]}
    try:
        model = _with_outputs(model, outputs)
        if fits_one_message(model):
            return onnxruntime.InferenceSession(model.SerializeToString(), **arguments), ""
        # A protobuf message ends at 2 GiB: the tensors go beside it.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            copy = ModelProto()
            copy.CopyFrom(model)
            onnx.save_model(copy, path, save_as_external_data=True)
            return onnxruntime.InferenceSession(str(path), **arguments), ""
    except state.NotImplemented as error:
        return None, f"onnxruntime has no kernel: {_first_line(error)}"
    except Exception as error:
        line = _first_line(error)
        if any(kind in str(error) for kind in _STRANGERS):
            return None, f"onnxruntime has no kernel: {line}"
        raise CorruptModelError(
            f"onnxruntime rejects the model: {line}", hint="Check the model with onnx.checker."
        ) from error


def _with_outputs(model: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """Return the model with more outputs, and of a version that this onnxruntime reads; itself where it is both."""
    onnxruntime = _onnxruntime()
    have = {value.name for value in model.graph.output}
    missing = [name for name in outputs if name not in have]
    newest = 10 if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < (1, 23) else 11
    if not missing and model.ir_version <= newest:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(ValueInfoProto(name=name) for name in missing)
    copy.ir_version = min(copy.ir_version, newest)
    return copy


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]}…"


def _shapes(feeds: Mapping[str, npt.NDArray[Any]]) -> str:
    return ", ".join(f"{name} {np.shape(value)}" for name, value in feeds.items())
