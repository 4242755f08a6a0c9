"""The float64 reference: what a model computes when nothing on the way is rounded to a narrower type.

Floating tensors of every width are widened once, and stay float64: a Cast to a float is the identity. Attributes keep
the exact value that the file holds, so an epsilon is a float32. Integers, booleans and text are computed as they are,
and eight-bit floats keep their grid, because quantization is part of the program.

The usual operations have kernels of our own (``parity/kernels``); the others run one by one through onnx's reference
implementation, or through the body that their definition gives. With ``stored`` the same kernels stand in for a
runtime that lacks them: every node computes in float64 and rounds its outputs to the types that the model states.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    numpy_helper,
)

from bnfold.errors import SignatureError, UnsupportedOpError
from bnfold.parity.kernels import Array, computes_with, roundoff, widen
from bnfold.parity.nodes import STANDARD, Computation, Foreign, attributes_of, computation, round_outputs

__all__ = ["Reference", "Scope", "run_float64"]

Scope = tuple[str, ...]
"""Names of the control-flow nodes around a graph, outermost first; empty for the main graph."""

_MEMO = 1 << 30
"""Bytes of widened constants that one reference keeps between runs."""
_VISITS = 4
"""How many runs of one body are captured."""


def run_float64(
    model: ModelProto, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str] | None = None
) -> dict[str, Array]:
    """Compute a model in float64.

    Args:
        model: Any ONNX model; it is not changed.
        feeds: Arrays by input name; floats of any width.
        outputs: Values to return, inner values of the main graph among them; None means the model's outputs.

    Raises:
        SignatureError: If an input is not fed, or a value that is asked for does not exist.
        UnsupportedOpError: If an operation has no reference implementation.
    """
    return Reference(model).run(feeds, outputs)


@dataclass(frozen=True, slots=True)
class _Step:
    node: NodeProto
    reads: frozenset[str]
    run: Callable[[_Frame, list[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A graph or a function body, ready to run."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[_Step, ...]
    constants: Mapping[str, TensorProto | SparseTensorProto]
    declared: Mapping[str, onnx.TypeProto]


@dataclass(slots=True)
class _Frame:
    """The values of one graph while it runs, inside those of the graph around it."""

    graph: _Compiled
    values: dict[str, Any]
    outer: _Frame | None = None
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    scope: Scope = ()

    def inside(self, graph: _Compiled, values: dict[str, Any], name: str) -> _Frame:
        return _Frame(graph, values, self, self.attributes, (*self.scope, name))


class Reference:
    """A model that was prepared once for any number of float64 runs.

    Attributes:
        model: The model itself; it must not change while this lives.
    """

    def __init__(
        self,
        model: ModelProto,
        *,
        stored: bool = False,
        foreign: Foreign | None = None,
        disturbance: int | None = None,
    ) -> None:
        """Prepare a model.

        Args:
            model: Any ONNX model.
            stored: Round every node's outputs to the types that the model states.
            foreign: Computes nodes of domains that onnx does not define.
            disturbance: Move every weight by its type's round-off, up or down as this seed says: what rounding the
                weights once, which no fold can avoid, may do to the outputs.
        """
        self.model = model
        self._stored, self._foreign, self._disturbance = stored, foreign, disturbance
        self._weights = frozenset(_weights(model)) if disturbance is not None else frozenset()
        self._functions = {(item.domain, item.name, item.overload): item for item in model.functions}
        self._bodies: dict[tuple[str, str, str], _Compiled] = {}
        self._memo: dict[int, Array] = {}
        self._memo_bytes = 0
        self._capture: Mapping[Scope, Collection[str]] = {}
        self._captured: dict[Scope, list[dict[str, Array]]] = {}
        self._main = self._compile(model.graph, _versions(model.opset_import))

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Compute the outputs, or other values of the main graph by name.

        Raises:
            SignatureError: If an input is not fed, or a value that is asked for does not exist.
            UnsupportedOpError: If an operation has no reference implementation.
        """
        wanted = self._main.outputs if outputs is None else tuple(outputs)
        missing = [name for name in self._main.inputs if name not in feeds and name not in self._main.constants]
        if missing:
            raise SignatureError(
                f"no values for {_listed(missing)}", hint=f"Feed every input: {_listed(self._main.inputs)}."
            )
        frame = _Frame(self._main, {name: self._entering(value) for name, value in feeds.items()})
        with np.errstate(all="ignore"):
            self._execute(frame, frozenset(wanted))
            return {name: self._read(frame, name) for name in wanted}

    def capture(
        self, feeds: Mapping[str, npt.NDArray[Any]], wanted: Mapping[Scope, Collection[str]]
    ) -> tuple[dict[str, Array], dict[Scope, list[dict[str, Array]]]]:
        """Compute the outputs, and keep inner values by the scope that they stand in.

        A body that runs several times is kept several times, the first few; one that is not reached leaves nothing.

        Raises:
            SignatureError: If an input is not fed, or a value that is asked for does not exist.
            UnsupportedOpError: If an operation has no reference implementation.
        """
        self._capture, self._captured = {scope: names for scope, names in wanted.items() if scope}, {}
        main = tuple(wanted.get((), ()))
        try:
            values = self.run(feeds, list(dict.fromkeys([*self._main.outputs, *main])))
            captured = {**self._captured, (): [{name: values[name] for name in main}]}
        finally:
            self._capture, self._captured = {}, {}
        return {name: values[name] for name in self._main.outputs}, captured

    def _compile(self, graph: GraphProto | FunctionProto, versions: Mapping[str, int]) -> _Compiled:
        constants: dict[str, TensorProto | SparseTensorProto] = {}
        declared: dict[str, onnx.TypeProto] = {}
        if isinstance(graph, FunctionProto):
            inputs, outputs = tuple(graph.input), tuple(graph.output)
            versions = {**versions, **_versions(graph.opset_import)}
        else:
            inputs, outputs = tuple(value.name for value in graph.input), tuple(value.name for value in graph.output)
            constants.update({tensor.name: tensor for tensor in graph.initializer})
            constants.update({tensor.values.name: tensor for tensor in graph.sparse_initializer})
            declared = {value.name: value.type for value in graph.output}
        steps = tuple(_Step(node, frozenset(_reads(node)), self._prepare(node, versions)) for node in graph.node)
        return _Compiled(inputs, outputs, steps, constants, declared)

    def _execute(self, frame: _Frame, wanted: Collection[str]) -> None:
        """Run the steps that somebody needs, and drop every value after its last reader."""
        graph = frame.graph
        keep = {*wanted, *self._capture.get(frame.scope, ())} if frame.scope else set(wanted)
        # Bodies may hold captured values that nothing reads; outside of captures, unneeded steps are left out.
        needed, last = _order(graph.steps, keep, everything=bool(self._capture))
        for index in needed:
            step = graph.steps[index]
            inputs = [self._read(frame, name) if name else None for name in step.node.input]
            try:
                results = step.run(frame, inputs)
            except (
                ValueError,
                TypeError,
                IndexError,
                AttributeError,
                KeyError,
                ArithmeticError,
                RuntimeError,
            ) as error:
                raise UnsupportedOpError(
                    f"the float64 reference cannot compute {step.node.op_type} {_called(step.node)!r}: {error}",
                    hint="Report the model: an operation that onnxruntime runs should have a reference.",
                ) from error
            for name, value in zip(step.node.output, results, strict=False):
                if name:
                    frame.values[name] = value
            for name in last.get(index, ()):
                frame.values.pop(name, None)
        self._keep_captured(frame)

    def _keep_captured(self, frame: _Frame) -> None:
        names = self._capture.get(frame.scope) if frame.scope else None
        if not names or len(self._captured.setdefault(frame.scope, [])) >= _VISITS:
            return
        found = {}
        for name in names:
            try:
                found[name] = self._read(frame, name)
            except SignatureError:
                return  # the other branch of an If
        self._captured[frame.scope].append(found)

    def _read(self, frame: _Frame, name: str) -> Any:
        inner: _Frame | None = frame
        while inner is not None:
            if name in inner.values:
                return inner.values[name]
            tensor = inner.graph.constants.get(name)
            if tensor is not None:
                return self._constant(tensor)
            inner = inner.outer
        raise SignatureError(
            f"the model has no value {name!r}", hint="Ask for the name of an output, or of a value inside."
        )

    def _entering(self, value: Any) -> Any:
        if value is None or isinstance(value, list):  # an empty optional, a sequence
            return value if value is None else [self._entering(item) for item in value]
        return np.asarray(value) if self._stored else widen(np.asarray(value))

    def _constant(self, tensor: TensorProto | SparseTensorProto) -> Array:
        known = self._memo.get(id(tensor))
        if known is not None:
            return known
        array = np.asarray(numpy_helper.to_array(tensor)) if isinstance(tensor, TensorProto) else _dense(tensor)
        name = tensor.name if isinstance(tensor, TensorProto) else tensor.values.name
        array = array if self._stored else self._disturbed(name, array)
        if self._memo_bytes + array.nbytes <= _MEMO:
            self._memo[id(tensor)] = array  # the compiled graph keeps the tensor, and with it the id
            self._memo_bytes += array.nbytes
        return array

    def _disturbed(self, name: str, array: Array) -> Array:
        wide = widen(array)
        if name not in self._weights or not computes_with(array):
            return wide
        generator = np.random.default_rng([self._disturbance or 0, zlib.crc32(name.encode())])
        signs = 2.0 * generator.integers(0, 2, size=wide.shape) - 1
        return np.asarray(wide * (1 + roundoff(array.dtype) * signs))

    def _prepare(self, node: NodeProto, versions: Mapping[str, int]) -> Callable[[_Frame, list[Any]], Sequence[Any]]:
        if any(attribute.ref_attr_name for attribute in node.attribute):
            # Inside a function: what the attribute is, only the call tells.
            return lambda frame, inputs: self._prepare(_resolved(node, frame.attributes), versions)(frame, inputs)
        if node.domain in STANDARD and node.op_type in {"If", "Loop", "Scan"}:
            return self._control_flow(node, versions)
        function = self._functions.get((node.domain, node.op_type, node.overload))
        if function is not None:
            return self._function(node, function, versions)
        found = computation(node, versions, self._foreign)
        if isinstance(found, FunctionProto):
            return self._function(node, found, versions)
        if isinstance(found, Computation):
            held = attributes_of(node).get("value") if node.op_type == "Constant" and node.domain in STANDARD else None
            if self._weights and isinstance(held, np.ndarray):
                moved = self._disturbed(node.output[0], held)
                return lambda _frame, _inputs: [moved]
            return self._node(node, found)
        # Its definition is a body that depends on the types of its inputs.
        return lambda frame, inputs: self._function(node, found(inputs), versions)(frame, inputs)

    def _node(self, node: NodeProto, found: Computation) -> Callable[[_Frame, list[Any]], Sequence[Any]]:
        if not self._stored:
            return lambda _frame, inputs: found.run(inputs)

        def run(_frame: _Frame, inputs: list[Any]) -> Sequence[Any]:
            wide = [widen(value) if isinstance(value, np.ndarray) else value for value in inputs]
            return round_outputs(node, found, inputs, found.run(wide))

        return run

    def _function(
        self, node: NodeProto, function: FunctionProto, versions: Mapping[str, int]
    ) -> Callable[[_Frame, list[Any]], Sequence[Any]]:
        defaults = {attribute.name: attribute for attribute in function.attribute_proto}
        attributes = {**defaults, **{attribute.name: attribute for attribute in node.attribute}}

        key = (function.domain, function.name, function.overload)
        # What the model defines is prepared once; a definition's body depends on its node.
        bodies = self._bodies if key in self._functions else {}

        def run(frame: _Frame, inputs: list[Any]) -> Sequence[Any]:
            body = bodies.get(key)
            if body is None:
                body = bodies[key] = self._compile(function, versions)
            values = dict(zip(body.inputs, [*inputs, *[None] * (len(body.inputs) - len(inputs))], strict=True))
            inner = _Frame(body, values, None, attributes, (*frame.scope, _called(node)))
            self._execute(inner, body.outputs)
            return [self._read(inner, name) for name in body.outputs]

        return run

    def _control_flow(
        self, node: NodeProto, versions: Mapping[str, int]
    ) -> Callable[[_Frame, list[Any]], Sequence[Any]]:
        graphs = {
            item.name: self._compile(item.g, versions) for item in node.attribute if item.type == AttributeProto.GRAPH
        }
        name, attributes = _called(node), attributes_of(node)

        def body(frame: _Frame, graph: _Compiled, values: dict[str, Any]) -> list[Any]:
            inner = frame.inside(graph, values, name)
            self._execute(inner, graph.outputs)
            return [self._read(inner, output) for output in graph.outputs]

        def branch(frame: _Frame, inputs: list[Any]) -> Sequence[Any]:
            return body(frame, graphs["then_branch" if bool(np.all(inputs[0])) else "else_branch"], {})

        def loop(frame: _Frame, inputs: list[Any]) -> Sequence[Any]:
            graph = graphs["body"]
            trips = None if inputs[0] is None else int(np.asarray(inputs[0]).reshape(()))
            goes_on = True if len(inputs) < 2 or inputs[1] is None else bool(np.all(inputs[1]))
            state, count = list(inputs[2:]), 0
            rows: list[list[Array]] = [[] for _ in graph.outputs[1 + len(state) :]]
            while goes_on and (trips is None or count < trips):
                entering = [np.asarray(count, dtype=np.int64), np.asarray(goes_on), *state]
                goes, *results = body(frame, graph, dict(zip(graph.inputs, entering, strict=True)))
                goes_on, state, count = bool(np.all(goes)), results[: len(state)], count + 1
                for row, value in zip(rows, results[len(state) :], strict=True):
                    row.append(value)
            stacked = [
                np.stack(row) if row else _nothing(graph.declared[output])
                for row, output in zip(rows, graph.outputs[1 + len(state) :], strict=True)
            ]
            return [*state, *stacked]

        def scan(frame: _Frame, inputs: list[Any]) -> Sequence[Any]:
            return _scan(attributes, graphs["body"], inputs, lambda values: body(frame, graphs["body"], values))

        return {"If": branch, "Loop": loop, "Scan": scan}[node.op_type]


def _scan(
    attributes: Mapping[str, Any], graph: _Compiled, inputs: list[Any], body: Callable[[dict[str, Any]], list[Any]]
) -> Sequence[Any]:
    count = int(attributes["num_scan_inputs"])
    if len(inputs) != len(graph.inputs):
        raise ValueError("the batched Scan of opset 8 has no reference")
    state, sequences = list(inputs[:-count]), list(inputs[-count:])
    outputs = len(graph.outputs) - len(state)
    in_axes = attributes.get("scan_input_axes") or [0] * count
    in_turned = attributes.get("scan_input_directions") or [0] * count
    out_axes = attributes.get("scan_output_axes") or [0] * outputs
    out_turned = attributes.get("scan_output_directions") or [0] * outputs
    moved = [np.moveaxis(item, axis, 0) for item, axis in zip(sequences, in_axes, strict=True)]
    moved = [item[::-1] if turned else item for item, turned in zip(moved, in_turned, strict=True)]
    rows: list[list[Array]] = [[] for _ in range(outputs)]
    for step in range(moved[0].shape[0]):
        entering = [*state, *(item[step] for item in moved)]
        results = body(dict(zip(graph.inputs, entering, strict=True)))
        state = results[: len(state)]
        for row, value in zip(rows, results[len(state) :], strict=True):
            row.append(value)
    stacked = []
    for number, row in enumerate(rows):
        name = graph.outputs[len(state) + number]
        turned = row[::-1] if out_turned[number] else row
        stacked.append(np.stack(turned, axis=out_axes[number]) if row else _nothing(graph.declared[name]))
    return [*state, *stacked]


def _nothing(declared: onnx.TypeProto) -> Array:
    """Return what a loop without a turn stacks up: no rows of the declared shape."""
    tensor = declared.tensor_type
    sizes = [dimension.dim_value if dimension.HasField("dim_value") else 0 for dimension in tensor.shape.dim]
    return widen(np.zeros((0, *sizes), dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def _order(
    steps: Sequence[_Step], wanted: Collection[str], *, everything: bool
) -> tuple[list[int], Mapping[int, list[str]]]:
    """Return the steps to run, and which values nobody reads after each of them."""
    live, needed, last = set(wanted), [], {}
    for index in range(len(steps) - 1, -1, -1):
        step = steps[index]
        if not everything and not any(name in live for name in step.node.output):
            continue
        needed.append(index)
        # Going backwards, a name that is not live yet is read here for the last time.
        last[index] = [name for name in {*step.reads, *step.node.output} if name and name not in live]
        live.update(step.reads)
    computed = {name for step in steps for name in step.node.output}
    return needed[::-1], {index: [name for name in names if name in computed] for index, names in last.items()}


def _reads(node: NodeProto) -> Iterator[str]:
    """Yield every name that a node reads, those that its bodies take from around them included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*((attribute.g,) if attribute.type == AttributeProto.GRAPH else ()), *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _reads(inner)


_WEIGHTED = frozenset(
    {
        *("Add", "BatchNormalization", "Conv", "ConvTranspose", "Div", "Gemm", "GroupNormalization", "GRU"),
        *("InstanceNormalization", "LayerNormalization", "LSTM", "MatMul", "Mul", "PRelu", "RNN", "Sub"),
    }
)
"""Operations whose constants are weights; those of others may be sizes, which nobody rounds."""


def _weights(model: ModelProto) -> Iterator[str]:
    pending: list[NodeProto] = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while pending:
        node = pending.pop()
        if node.op_type in _WEIGHTED:
            yield from node.input
        for attribute in node.attribute:
            pending.extend(attribute.g.node)
            pending.extend(inner for graph in attribute.graphs for inner in graph.node)


def _resolved(node: NodeProto, attributes: Mapping[str, AttributeProto]) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for attribute in node.attribute:
        source = attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
        if source is not None:  # an attribute that the call leaves out is left out
            copy.attribute.add().CopyFrom(source)
            copy.attribute[-1].name = attribute.name
    return copy


def _versions(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {"" if entry.domain in STANDARD else entry.domain: entry.version for entry in imports}


def _dense(tensor: SparseTensorProto) -> Array:
    values, indices = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
    dense = np.zeros(tuple(tensor.dims), dtype=values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def _called(node: NodeProto) -> str:
    return node.name or next((name for name in node.output if name), node.op_type)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
