"""The messages of an inference request and of its answer in the Open Inference Protocol over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from service.problems import TensorError
from service.serving.messages import message
from service.serving.questions import Asked, Signature, short
from service.serving.tensors import Array, Raw, from_json, from_raw, joined, sizes_of, to_raw

__all__ = ["read_rpc", "write_rpc"]

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_RAW_TAG = b"\x32"  # field 6, with a length
_REFUSED = ("shared_memory_region", "classification")


def read_rpc(body: Raw, signature: Signature) -> Asked:
    """Return what a request asks, checked against what the model takes.

    Raises:
        TensorError: If it is not what the protocol and the model say.
    """
    request = message("ModelInferRequest")()
    try:
        request.ParseFromString(bytes(body))
    except DecodeError as error:
        raise TensorError(
            f"the request is no ModelInferRequest: {error}", hint="Follow the Open Inference Protocol, version 2."
        ) from None
    if "sequence_id" in request.parameters:
        raise TensorError("sequences of requests are not offered", hint="Send every request by itself.")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise TensorError(
            f"{len(request.inputs)} inputs came with {len(raw)} raw contents", hint="Send raw contents for each input."
        )
    feeds = _feeds(request, signature)
    outputs = _outputs(request, signature)
    return Asked(request.id or None, feeds, outputs, frozenset(outputs))


def write_rpc(model: str, version: str, asked: Asked, signature: Signature, answers: Sequence[Array]) -> list[Raw]:
    """Return the pieces of the message of an answer; the outputs are raw bytes."""
    told = message("ModelInferResponse")(model_name=model, model_version=version, id=asked.id or "")
    raw: list[Raw] = []
    for name, array in zip(asked.outputs, answers, strict=True):
        datatype = signature.outputs[name].datatype
        told.outputs.add(name=name, datatype=datatype, shape=array.shape)
        content = to_raw(datatype, array)
        # Fields of a message may be written one by one: so the elements are not copied into it.
        raw += [_RAW_TAG + _varint(len(content)), content]
    return [told.SerializeToString(), *raw]


def _feeds(request: Any, signature: Signature) -> dict[str, Array]:
    specs = signature.inputs
    names = ", ".join(specs) or "nothing"
    feeds: dict[str, Array] = {}
    for number, one in enumerate(request.inputs):
        spec = specs.get(one.name)
        if spec is None:
            raise TensorError(f"the model has no input {short(one.name)}", hint=f"It takes {names}.")
        if one.name in feeds:
            raise TensorError(f"the input {one.name} came twice", hint="Send each input once.")
        _refuse(one)
        sizes = sizes_of(one.name, spec, one.datatype, list(one.shape))
        if request.raw_input_contents:
            if one.HasField("contents"):
                raise TensorError(f"{one.name} came with contents and with raw contents", hint="Send one of them.")
            feeds[one.name] = from_raw(one.name, spec.datatype, sizes, request.raw_input_contents[number])
        else:
            feeds[one.name] = _typed(one, spec.datatype, sizes)
    missing = [name for name in specs if name not in feeds]
    if missing:
        raise TensorError(f"the request lacks the input {', '.join(missing)}", hint=f"The model takes {names}.")
    return feeds


def _typed(one: Any, datatype: str, sizes: Sequence[int]) -> Array:
    field = _CONTENTS.get(datatype)
    filled = [found.name for found, _ in one.contents.ListFields()]
    if field is None:
        raise TensorError(f"{one.name} is {datatype}, which has no typed contents", hint="Send it as raw contents.")
    if filled not in ([], [field]):
        raise TensorError(
            f"{one.name} is {datatype} and came as {' and '.join(filled)}", hint=f"Send it as {field}, or raw."
        )
    elements = getattr(one.contents, field)
    if datatype == "BYTES":
        return from_raw(one.name, datatype, sizes, joined(list(elements)))
    if datatype in ("FP32", "FP64"):  # they may be infinite here
        array = np.fromiter(elements, dtype="f4" if datatype == "FP32" else "f8", count=len(elements))
        return from_raw(one.name, datatype, sizes, to_raw(datatype, array))
    return from_json(one.name, datatype, sizes, list(elements))


def _outputs(request: Any, signature: Signature) -> tuple[str, ...]:
    names = signature.outputs
    wanted: dict[str, None] = {}
    for one in request.outputs:
        if one.name not in names:
            raise TensorError(f"the model has no output {short(one.name)}", hint=f"It answers {', '.join(names)}.")
        if one.name in wanted:
            raise TensorError(f"the output {one.name} is asked for twice", hint="Ask for each output once.")
        _refuse(one)
        wanted[one.name] = None
    return tuple(wanted or names)


def _refuse(one: Any) -> None:
    for parameter in _REFUSED:
        if parameter in one.parameters:
            raise TensorError(
                f"{one.name} has the parameter {parameter}, which is not offered", hint="Send the request without it."
            )


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)
