"""A short way to write a small graph: ``inputs [-> outputs] | constants | nodes``.

Inputs, outputs and constants are words as ``x[1,3,6,6]``, ``int64:i[2]``, ``s={3,4}`` (a vector of int64),
``c[2]={1.5,2}`` or ``k[]=2.5`` (a scalar); without a type they have the graph's own. Nodes are ONNX text, in which
``BN4(h)`` is a batch norm of four channels with scales of both signs, and with parameters of its own:

========  =====================================
``BN4``   scales of both signs
``PBN4``  positive scales
``UBN4``  one positive scale and one shift for all
``SBN4``  scales of both signs, no shift
``ZBN4``  one scale is zero
========  =====================================

The input ``_`` stands for one that is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["Case", "Cases", "built"]


@dataclass(frozen=True, slots=True)
class Case:
    """A small graph and what must become of it.

    Attributes:
        graph: The graph, in the short notation.
        after: The operations that are left, in any order; where algebra leaves a choice, alternatives between bars.
        why: The reasons for the batch norms that stay, by id, in the order of the graph.
        opset: Version of the standard operators.
        ir_version: Version of the file format; before 4, initializers are inputs too.
        element: The type of everything that says no other.
        edit: What ONNX text cannot say.
        seed: Of the drawn values.
        free: How large free dimensions are when the graph runs.
        checked: Whether onnx's checker takes it; it refuses operators that were withdrawn.
    """

    graph: str
    after: str
    why: tuple[str, ...] = ()
    opset: int = 20
    ir_version: int = 9
    element: str = "double"
    edit: Callable[[onnx.ModelProto], None] | None = field(default=None)
    seed: int = 7
    free: int = 2
    checked: bool = True


Cases = dict[str, Case]

_BATCH_NORM = re.compile(r"\b([PUSZ]?)BN(\d+)\(([\w.]+)\)")
_WORD = re.compile(r"(?:(\w+):)?([\w.]+)(\[[^\]]*\])?(?:=(\{[^}]*\}|\S+))?")


def built(case: Case) -> onnx.ModelProto:
    """Return the model of a case."""
    ends, constants, nodes = case.graph.split("|")
    inputs, _, outputs = ends.partition("->")
    known: dict[str, list[float]] = {}
    declared = [_constant(word, case.element, known) for word in _words(constants)]
    body = _BATCH_NORM.sub(lambda match: _batch_norm(match, declared, case.element, known), nodes)
    text = "({}) => ({}) <{}> {{ {} }}".format(
        ", ".join(_value(word, case.element) for word in _words(inputs)),
        ", ".join(_value(word, case.element) for word in _words(outputs) or ["y"]),
        ", ".join(declared),
        body,
    )
    graph = onnx.parser.parse_graph(f"small {text}")
    rng = np.random.default_rng(case.seed)
    for value in graph.value_info:
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        drawn = rng.uniform(0.3, 2.0, shape) if value.name.startswith("var") else rng.normal(size=shape)
        # ONNX text has no numbers for narrow floats.
        array = np.asarray(known.get(value.name, drawn)).reshape(shape).astype(dtype)
        graph.initializer.append(numpy_helper.from_array(array, value.name))
    del graph.value_info[:]
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == "_":
                node.input[position] = ""
        for position, name in enumerate(node.output):
            if name == "_":
                node.output[position] = ""
    if case.ir_version < 4:
        graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            for tensor in graph.initializer
        )
    domains = ["", "com.example"] if "com.example" in nodes else [""]
    opsets = [helper.make_opsetid(domain, 1 if domain else case.opset) for domain in domains]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=case.ir_version)
    _infer_outputs(model)
    if case.edit is not None:
        case.edit(model)
    return model


def _infer_outputs(model: onnx.ModelProto) -> None:
    """Give the outputs the shapes that follow, where the text states none."""
    open_outputs = [value for value in model.graph.output if not value.type.tensor_type.shape.dim]
    for value in open_outputs:
        value.type.tensor_type.ClearField("shape")
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.output}
    for value in open_outputs:
        value.CopyFrom(inferred[value.name])


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s{]+(?:\{[^}]*\})?", text)


def _value(word: str, element: str) -> str:
    match = _WORD.fullmatch(word)
    assert match, word
    kind, name, shape, _values = match.groups()
    return f"{kind or element}{'' if shape == '[]' else shape or ''} {name}"


def _constant(word: str, element: str, known: dict[str, list[float]]) -> str:
    match = _WORD.fullmatch(word)
    assert match, word
    kind, name, shape, values = match.groups()
    if shape is None:  # s={3,4}
        numbers = [] if values == "{}" else values.strip("{}").split(",")
        return f"int64[{len(numbers)}] {name} = {{{', '.join(numbers)}}}"
    kind = kind or element
    sizes = [int(size) for size in shape.strip("[]").split(",") if size]
    if values is None and kind in {"int8", "uint8", "int32"}:
        rng = np.random.default_rng(len(name) + sum(sizes))
        low, high = {"int8": (-127, 128), "uint8": (1, 256), "int32": (-500, 500)}[kind]
        values = "{" + ",".join(str(number) for number in rng.integers(low, high, int(np.prod(sizes)))) + "}"
    shape = "" if shape == "[]" else shape
    if values is None:
        return f"{kind}{shape} {name}"
    numbers = values.strip("{}").split(",")
    if kind in {"double", "float", "float16", "bfloat16"}:
        known[name] = [float(number) for number in numbers]
        return f"{kind}{shape} {name}"
    return f"{kind}{shape} {name} = {{{', '.join(numbers)}}}"


def _batch_norm(match: re.Match[str], declared: list[str], element: str, known: dict[str, list[float]]) -> str:
    kind, size, name = match.groups()
    number = sum(row.split()[1].startswith("gamma") for row in declared) + 1
    count = int(size)
    gamma = [round(0.4 + 0.3 * (place % 5), 1) for place in range(count)]
    if kind in {"", "S"}:
        gamma = [-value if place % 2 else value for place, value in enumerate(gamma)]
    if kind == "Z":
        gamma[0] = 0.0
    values = {"gamma": gamma}
    if kind == "S":
        values |= {"beta": [0.0] * count, "mean": [0.0] * count}
    if kind == "U":
        values = {"gamma": [1.5] * count, "beta": [0.7] * count, "mean": [0.2] * count, "var": [1.0] * count}
    known.update({f"{parameter}{number}": row for parameter, row in values.items()})
    names = [f"{parameter}{number}" for parameter in ("gamma", "beta", "mean", "var")]
    declared.extend(f"{element}[{count}] {name}" for name in names)
    return f"BatchNormalization({name}, {', '.join(names)})"
