"""The bodies of an inference request and of its answer in the Open Inference Protocol: JSON, with raw bytes behind.

There are two ways to read a request: a fast one for requests as clients write them, and one that takes everything apart
and says what is wrong. The first accepts less than the second and reads it as the same, and gives up without a word.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from service.problems import MalformedError, TensorError, TooLargeError, UnsupportedMediaError
from service.serving.tensors import (
    Array,
    Raw,
    Spec,
    fits,
    flat_from_json,
    from_json,
    from_raw,
    sizes_of,
    to_json,
    to_raw,
)

__all__ = ["Asked", "Signature", "deflated", "inflated", "read_json", "read_question", "short", "write_answer"]

_LIST = "Follow the Open Inference Protocol, version 2."
_SHARED = "shared_memory_region"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and answers, by name and in order."""

    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants to know.

    Attributes:
        id: What the client called the request; None where it did not.
        feeds: An array for each input of the model.
        outputs: Names of the outputs that are wanted, in order.
        binary: Those of them that are wanted as raw bytes.
    """

    id: str | None
    feeds: dict[str, Array]
    outputs: tuple[str, ...]
    binary: frozenset[str]


class _Input(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct, gc=False):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: dict[str, Any] = {}


_REQUEST = msgspec.json.Decoder(_Request)
_WRITE = msgspec.json.Encoder()
_ELEMENTS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "FP": msgspec.json.Decoder(list[float]),
    "IN": msgspec.json.Decoder(list[int]),
    "UI": msgspec.json.Decoder(list[int]),
    "BO": msgspec.json.Decoder(list[bool]),
}


def read_question(body: Raw, header_length: str | None, signature: Signature) -> Asked:
    """Return what a request asks, checked against what the model takes.

    Args:
        body: JSON, and behind it the raw bytes of the inputs that say so.
        header_length: How much of it is JSON; None where all is.
        signature: Of the model.

    Raises:
        TensorError: If it is not what the protocol and the model say.
    """
    view = memoryview(body)
    length = len(view) if header_length is None else _length(header_length, len(view))
    text, raw = view[:length], view[length:]
    asked = _fast(text, raw, signature)
    return asked if asked is not None else _slow(bytes(text), raw, signature)


def write_answer(
    model: str, version: str, asked: Asked, signature: Signature, answers: Sequence[Array]
) -> tuple[list[Raw], int]:
    """Return the pieces of the body of an answer, and how much of it is JSON; -1 where all is.

    Raises:
        TensorError: If an output cannot be written as JSON, and was not asked for as raw bytes.
    """
    outputs: list[dict[str, Any]] = []
    raw: list[Raw] = []
    for name, array in zip(asked.outputs, answers, strict=True):
        datatype = signature.outputs[name].datatype
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if name in asked.binary:
            content = to_raw(datatype, array)
            output["parameters"] = {"binary_data_size": len(content)}
            raw.append(content)
        else:
            output["data"] = to_json(name, datatype, array)
        outputs.append(output)
    told: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if asked.id is not None:
        told["id"] = asked.id
    text = _WRITE.encode(told)
    return [text, *raw], len(text) if raw else -1


def inflated(body: Raw, encoding: str, most: int) -> Raw:
    """Return a body that is no longer compressed.

    Raises:
        MalformedError: If it is not compressed as it says.
        TooLargeError: If it would be larger than it may be; no more than that is ever made of it.
    """
    if encoding == "gzip":
        window = 16 + zlib.MAX_WBITS
    elif encoding == "deflate":
        # The word stands for zlib's form; some clients send what is inside of it without the two bytes before.
        start = int.from_bytes(body[:2], "big")
        window = zlib.MAX_WBITS if len(body) > 1 and body[0] & 15 == 8 and start % 31 == 0 else -zlib.MAX_WBITS
    else:
        raise UnsupportedMediaError(
            f"the request is encoded as {encoding[:40]}", hint="Send it as it is, or as gzip or deflate."
        )
    inflate = zlib.decompressobj(window)
    try:
        content = inflate.decompress(body, most + 1)
    except zlib.error as error:
        raise _not_compressed(encoding, str(error)) from None
    if len(content) > most:
        raise TooLargeError(
            f"the request is larger than {most} bytes when it is no longer compressed",
            hint="Send fewer rows at a time, or set BNFOLD_INFER_SIZE higher.",
            members={"limit": most},
        )
    if not inflate.eof or inflate.unused_data:
        raise _not_compressed(encoding, "it breaks off" if not inflate.eof else "more comes behind its end")
    return content


def deflated(body: Raw, encoding: str) -> bytes:
    """Return a body compressed as ``gzip`` or ``deflate``, quickly rather than well."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS + (16 if encoding == "gzip" else 0))
    return deflate.compress(body) + deflate.flush()


def read_json(content: bytes) -> dict[str, Any]:
    """Return the JSON object that a request is.

    Raises:
        TensorError: If it is none.
    """
    return _object(_json(content), "the request")


def short(value: object) -> str:
    """Return a value as it is quoted in a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _not_compressed(encoding: str, why: str) -> MalformedError:
    return MalformedError(
        f"the request says that it is compressed as {encoding}, and is not: {why}",
        hint="Let Content-Encoding say how the body is compressed.",
    )


def _fast(text: memoryview, raw: memoryview, signature: Signature) -> Asked | None:
    try:
        request = _REQUEST.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(request.inputs) != len(signature.inputs):
        return None
    feeds: dict[str, Array] = {}
    at = 0
    for one in request.inputs:
        spec = signature.inputs.get(one.name)
        if spec is None or one.name in feeds or not fits(spec, one.datatype, one.shape):
            return None
        size = one.parameters.get("binary_data_size")
        if size is None:
            decoder = _ELEMENTS.get(one.datatype[:2])
            if decoder is None or not one.data or one.datatype == "FP16" or _SHARED in one.parameters:
                return None
            try:
                array = flat_from_json(one.datatype, one.shape, decoder.decode(one.data))
            except msgspec.MsgspecError:
                return None
            if array is None:
                return None
        else:
            if type(size) is not int or not 0 <= size <= len(raw) - at:
                return None
            array = from_raw(one.name, one.datatype, one.shape, raw[at : at + size])
            at += size
        feeds[one.name] = array
    if at != len(raw) or "sequence_id" in request.parameters:
        return None
    outputs, binary = _outputs(
        [] if request.outputs is None else [(one.name, one.parameters) for one in request.outputs],
        request.parameters,
        signature,
    )
    return Asked(request.id, feeds, outputs, binary)


def _slow(text: bytes, raw: memoryview, signature: Signature) -> Asked:
    asked = _object(_json(text), "the request")
    parameters = _object(asked.get("parameters", {}), "parameters")
    if "sequence_id" in parameters:
        raise TensorError("sequences of requests are not offered", hint="Send every request by itself.")
    name = asked.get("id")
    if name is not None and not isinstance(name, str):
        raise TensorError("the id of the request is no text", hint=_LIST)
    feeds = _inputs(_list(asked.get("inputs"), "inputs"), raw, signature)
    wanted = asked.get("outputs")
    listed = []
    for item in [] if wanted is None else _list(wanted, "outputs"):
        one = _object(item, "an output")
        listed.append((one.get("name"), _object(one.get("parameters", {}), "parameters")))
    outputs, binary = _outputs(listed, parameters, signature)
    return Asked(name, feeds, outputs, binary)


def _inputs(asked: Sequence[Any], raw: memoryview, signature: Signature) -> dict[str, Array]:
    specs = signature.inputs
    names = ", ".join(specs) or "nothing"
    found: dict[str, Array] = {}
    at = 0
    for item in asked:
        one = _object(item, "an input")
        name = one.get("name")
        if not isinstance(name, str) or name not in specs:
            raise TensorError(f"the model has no input {short(name)}", hint=f"It takes {names}.")
        if name in found:
            raise TensorError(f"the input {name} came twice", hint="Send each input once.")
        parameters = _object(one.get("parameters", {}), "parameters")
        _refuse_shared(name, parameters)
        size = parameters.get("binary_data_size")
        spec = specs[name]
        if size is None:
            if "data" not in one:
                raise TensorError(f"{name} came without data", hint="Send its elements as data, or as binary.")
            sizes = sizes_of(name, spec, one.get("datatype"), one.get("shape"))
            found[name] = from_json(name, spec.datatype, sizes, one["data"])
        else:
            if type(size) is not int or not 0 <= size <= len(raw) - at:
                raise TensorError(
                    f"{name} says that it has {short(size)} bytes, and {len(raw) - at} are left",
                    hint="Send the raw bytes of the inputs behind the JSON, in the order of the inputs.",
                )
            sizes = sizes_of(name, spec, one.get("datatype"), one.get("shape"))
            found[name] = from_raw(name, spec.datatype, sizes, raw[at : at + size])
            at += size
    if at != len(raw):
        raise TensorError(
            f"{len(raw) - at} bytes are left behind the last input", hint="Let binary_data_size say how many are sent."
        )
    missing = [name for name in specs if name not in found]
    if missing:
        raise TensorError(f"the request lacks the input {', '.join(missing)}", hint=f"The model takes {names}.")
    return found


def _outputs(
    asked: Sequence[tuple[object, Mapping[str, Any]]], parameters: Mapping[str, Any], signature: Signature
) -> tuple[tuple[str, ...], frozenset[str]]:
    names = signature.outputs
    everything = _flag(parameters, "binary_data_output", default=False)
    if not asked:
        return tuple(names), frozenset(names if everything else ())
    wanted: dict[str, bool] = {}
    for name, told in asked:
        if not isinstance(name, str) or name not in names:
            raise TensorError(f"the model has no output {short(name)}", hint=f"It answers {', '.join(names)}.")
        if name in wanted:
            raise TensorError(f"the output {name} is asked for twice", hint="Ask for each output once.")
        if "classification" in told:
            raise TensorError("outputs as classes are not offered", hint="Ask for the output itself.")
        _refuse_shared(name, told)
        wanted[name] = _flag(told, "binary_data", default=everything)
    return tuple(wanted), frozenset(name for name, binary in wanted.items() if binary)


def _refuse_shared(name: str, parameters: Mapping[str, Any]) -> None:
    if _SHARED in parameters:
        raise TensorError(
            f"{name} is meant to go through shared memory, which is not offered", hint="Send it with the request."
        )


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    flag = parameters.get(name, default)
    if not isinstance(flag, bool):
        raise TensorError(f"{name} is {short(flag)}", hint="Send true or false.")
    return flag


def _length(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= most):
        raise TensorError(
            f"Inference-Header-Content-Length is {text[:40]!r} in a request of {most} bytes",
            hint="Send the length of the JSON in bytes.",
        )
    return int(text)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise TensorError("the request is nested too deeply", hint=_LIST) from None
    except ValueError as error:  # UnicodeDecodeError included
        raise TensorError(f"the request is no JSON: {error}", hint=_LIST) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TensorError(f"{what} is no JSON object", hint=_LIST)
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise TensorError(f"the request has no list {what}", hint=_LIST)
    return value
