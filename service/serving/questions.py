"""The bodies of an inference request and of its answer in the Open Inference Protocol: JSON, with raw bytes behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.cards import Card, TensorCard
from service.problems import TensorError
from service.serving.tensors import Tensor, from_json, tensor, to_json

__all__ = ["Question", "read_question", "write_answer"]

_LIST = "Follow the Open Inference Protocol, version 2."


@dataclass(frozen=True, slots=True)
class Question:
    """What a client wants to know.

    Attributes:
        id: What the client called the request; None where it did not.
        inputs: One for each input of the model.
        outputs: Names of the outputs that are wanted, in order.
        binary: Those of them that are wanted as raw bytes.
    """

    id: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    binary: frozenset[str]


def read_question(body: bytes, header_length: str | None, card: Card) -> Question:
    """Return what a request asks, checked against what the model takes.

    Args:
        body: JSON, and behind it the raw bytes of the inputs that say so.
        header_length: How much of it is JSON; None where all is.
        card: Of the model.

    Raises:
        TensorError: If it is not what the protocol and the model say.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    asked = _object(_json(body[:length]), "the request")
    parameters = _object(asked.get("parameters", {}), "parameters")
    name = asked.get("id")
    if name is not None and not isinstance(name, str):
        raise TensorError("the id of the request is no text", hint=_LIST)
    inputs = _inputs(_list(asked.get("inputs"), "inputs"), memoryview(body)[length:], card)
    wanted = asked.get("outputs")
    outputs, binary = _outputs([] if wanted is None else _list(wanted, "outputs"), parameters, card)
    return Question(name, inputs, outputs, binary)


def write_answer(card: Card, question: Question, answers: Sequence[Tensor]) -> tuple[bytes, int | None]:
    """Return the body of an answer, and how much of it is JSON; None where all is.

    Raises:
        TensorError: If an output cannot be written as JSON, and was not asked for as raw bytes.
    """
    outputs, raw = [], []
    for answer in answers:
        output: dict[str, Any] = {"name": answer.name, "datatype": answer.datatype, "shape": list(answer.shape)}
        if answer.name in question.binary:
            output["parameters"] = {"binary_data_size": len(answer.raw)}
            raw.append(answer.raw)
        else:
            output["data"] = to_json(answer)
        outputs.append(output)
    told: dict[str, Any] = {"model_name": card.name, "model_version": card.version, "outputs": outputs}
    if question.id is not None:
        told["id"] = question.id
    text = json.dumps(told, allow_nan=False, separators=(",", ":")).encode("ascii")
    return b"".join([text, *raw]), len(text) if raw else None


def _inputs(asked: Sequence[Any], raw: memoryview, card: Card) -> tuple[Tensor, ...]:
    specs = {spec.name: spec for spec in card.inputs}
    names = ", ".join(specs) or "nothing"
    found: dict[str, Tensor] = {}
    at = 0
    for item in asked:
        one = _object(item, "an input")
        name = one.get("name")
        if not isinstance(name, str) or name not in specs:
            raise TensorError(f"the model has no input {_short(name)}", hint=f"It takes {names}.")
        if name in found:
            raise TensorError(f"the input {name} came twice", hint="Send each input once.")
        size = _object(one.get("parameters", {}), "parameters").get("binary_data_size")
        if size is None:
            if "data" not in one:
                raise TensorError(f"{name} came without data", hint="Send its elements as data, or as binary.")
            found[name] = from_json(name, one.get("datatype"), one.get("shape"), one["data"])
        else:
            if type(size) is not int or not 0 <= size <= len(raw) - at:
                raise TensorError(
                    f"{name} says that it has {_short(size)} bytes, and {len(raw) - at} are left",
                    hint="Send the raw bytes of the inputs behind the JSON, in the order of the inputs.",
                )
            found[name] = tensor(name, one.get("datatype"), one.get("shape"), bytes(raw[at : at + size]))
            at += size
        _fits(found[name], specs[name])
    if at != len(raw):
        raise TensorError(
            f"{len(raw) - at} bytes are left behind the last input", hint="Let binary_data_size say how many are sent."
        )
    missing = [name for name in specs if name not in found]
    if missing:
        raise TensorError(f"the request lacks the input {', '.join(missing)}", hint=f"The model takes {names}.")
    return tuple(found[name] for name in specs)


def _fits(given: Tensor, spec: TensorCard) -> None:
    if given.datatype != spec.datatype:
        raise TensorError(
            f"{given.name} is {given.datatype}, and the model takes {spec.datatype}",
            hint=f"Send it as {spec.datatype}.",
        )
    fits = len(given.shape) == len(spec.shape) and all(
        wanted in (-1, size) for size, wanted in zip(given.shape, spec.shape, strict=False)
    )
    if not fits:
        raise TensorError(
            f"{given.name} has the shape {list(given.shape)}, and the model takes {list(spec.shape)}",
            hint="Send the shape that the model takes; -1 stands for any size.",
        )


def _outputs(asked: Sequence[Any], parameters: Mapping[str, Any], card: Card) -> tuple[tuple[str, ...], frozenset[str]]:
    names = [spec.name for spec in card.outputs]
    everything = _flag(parameters, "binary_data_output", default=False)
    if not asked:
        return tuple(names), frozenset(names if everything else ())
    wanted: dict[str, bool] = {}
    for item in asked:
        one = _object(item, "an output")
        name = one.get("name")
        if not isinstance(name, str) or name not in names:
            raise TensorError(f"the model has no output {_short(name)}", hint=f"It answers {', '.join(names)}.")
        if name in wanted:
            raise TensorError(f"the output {name} is asked for twice", hint="Ask for each output once.")
        told = _object(one.get("parameters", {}), "parameters")
        if "classification" in told:
            raise TensorError("outputs as classes are not offered", hint="Ask for the output itself.")
        wanted[name] = _flag(told, "binary_data", default=everything)
    return tuple(wanted), frozenset(name for name, binary in wanted.items() if binary)


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    flag = parameters.get(name, default)
    if not isinstance(flag, bool):
        raise TensorError(f"{name} is {_short(flag)}", hint="Send true or false.")
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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
