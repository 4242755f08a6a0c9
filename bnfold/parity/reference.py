"""The float64 reference: what a model computes when nothing on the way is rounded to a narrower type.

Floating tensors of every width are widened once, and stay float64: a Cast to a float is the identity. Attributes keep
the exact value that the file holds, so an epsilon is a float32. Integers, booleans and text are computed as they are,
and eight-bit floats keep their grid, because quantization is part of the program.

The usual operations have kernels of our own (``parity/kernels``); the others run one by one through onnx's reference
implementation, or through the body that their definition gives. With ``stored`` the same kernels stand in for a
runtime that lacks them: every node computes in float64 and rounds its outputs to the types that the model states.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
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
)

from bnfold.errors import BnfoldError, SignatureError, UnsupportedOpError
from bnfold.parity.constants import Constants
from bnfold.parity.decisions import results_given
from bnfold.parity.kernels import Array, widen
from bnfold.parity.loops import nothing, scan_over
from bnfold.parity.nodes import STANDARD, Computation, Foreign, attributes_of, computation, round_outputs
from bnfold.parity.program import (
    Compiled,
    Frame,
    Scope,
    Step,
    called,
    order,
    reads_of,
    resolved,
    versions_of,
)

__all__ = ["Reference", "Scope", "run_float64"]

_VISITS = 4
"""How many runs of one body are captured."""
_TRIPS = 100
"""How often a loop turns in a branch that is not taken: there it may never end."""


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


class Reference:
    """A model that was prepared once for any number of float64 runs.

    Attributes:
        model: The model itself; it must not change while this lives.
        largest: Bytes of the largest value that a node has computed so far.
        constants: What it computes with.
    """

    def __init__(
        self,
        model: ModelProto,
        *,
        stored: bool = False,
        foreign: Foreign | None = None,
        disturbance: int | None = None,
        strength: float = 1.0,
        beside: Reference | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        """Prepare a model.

        Args:
            model: Any ONNX model.
            stored: Round every node's outputs to the types that the model states.
            foreign: Computes nodes of domains that onnx does not define.
            disturbance: Move every weight by its type's round-off, up or down as this seed says: what rounding the
                weights once, which no fold can avoid, may do to the outputs.
            strength: By how many times that.
            beside: A reference of the model that this one was cut from: constants of the same name are shared.
            arrays: Constants of the main graph as they are stored, of those that somebody has read already.
        """
        self.model = model
        self.largest = 0
        self._stored, self._foreign = stored, foreign
        self.constants: Constants = Constants(
            model,
            stored=stored,
            disturbance=disturbance,
            strength=strength,
            beside=None if beside is None else beside.constants,
            arrays=arrays,
        )
        self._functions = {(item.domain, item.name, item.overload): item for item in model.functions}
        self._bodies: dict[tuple[str, str, str], Compiled] = {}
        self._capture: Mapping[Scope, Collection[str]] = {}
        self._captured: dict[Scope, list[dict[str, Array]]] = {}
        self._trying = 0
        self._forced: Mapping[Scope, Mapping[str, Array]] = {}
        self._turns: dict[Scope, int] = {}
        self._main = self._compile(model.graph, versions_of(model.opset_import))
        self.constants.main = self._main.constants

    def run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        outputs: Sequence[str] | None = None,
        *,
        forced: Mapping[Scope, Mapping[str, Array]] | None = None,
    ) -> dict[str, Array]:
        """Compute the outputs, or other values of the main graph by name.

        Args:
            feeds: Arrays by input name.
            outputs: What to return; None means the model's outputs.
            forced: Values that are taken as given instead of what is computed for them, by the scope that they stand
                in; those of a loop's body have one row a turn.

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
        frame = Frame(self._main, {name: self._entering(value) for name, value in feeds.items()})
        self._forced, self._turns = forced or {}, {}
        try:
            with np.errstate(all="ignore"):
                self._execute(frame, frozenset(wanted))
                return {name: self._read(frame, name) for name in wanted}
        finally:
            self._forced, self._turns = {}, {}

    def capture(
        self, feeds: Mapping[str, npt.NDArray[Any]], wanted: Mapping[Scope, Collection[str]]
    ) -> tuple[dict[str, Array], dict[Scope, list[dict[str, Array]]]]:
        """Compute the outputs, and keep inner values by the scope that they stand in.

        A body that runs several times is kept several times, the first few; one that is not reached leaves nothing. Of
        an If the branch that is not taken is tried, too.

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

    def _compile(self, graph: GraphProto | FunctionProto, versions: Mapping[str, int]) -> Compiled:
        constants: dict[str, TensorProto | SparseTensorProto] = {}
        declared: dict[str, onnx.TypeProto] = {}
        if isinstance(graph, FunctionProto):
            inputs, outputs = tuple(graph.input), tuple(graph.output)
            versions = {**versions, **versions_of(graph.opset_import)}
        else:
            inputs, outputs = tuple(value.name for value in graph.input), tuple(value.name for value in graph.output)
            constants.update({tensor.name: tensor for tensor in graph.initializer})
            constants.update({tensor.values.name: tensor for tensor in graph.sparse_initializer})
            declared = {value.name: value.type for value in graph.output}
        steps = tuple(
            Step(node, frozenset(reads_of(node)), self._prepare(node, versions), not _holds_graphs(node))
            for node in graph.node
        )
        return Compiled(inputs, outputs, steps, constants, declared)

    def _execute(self, frame: Frame, wanted: Collection[str]) -> None:
        """Run the steps that somebody needs, and drop every value after its last reader."""
        graph = frame.graph
        keep = {*wanted, *self._capture.get(frame.scope, ())} if frame.scope else set(wanted)
        # Bodies may hold captured values that nothing reads; outside of captures, unneeded steps are left out.
        needed, last = order(graph.steps, keep, everything=bool(self._capture))
        forced = self._forced_here(frame.scope)
        for index in needed:
            step = graph.steps[index]
            inputs = [self._read(frame, name) if name else None for name in step.node.input]
            given = bool(forced) and not forced.keys().isdisjoint(step.node.output)
            if step.plain and not given:  # what nobody reads any more is the node's alone, and may become its output
                for name in last.get(index, ()):
                    frame.values.pop(name, None)
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
                    f"the float64 reference cannot compute {step.node.op_type} {called(step.node)!r}: {error}",
                    hint="Report the model: an operation that onnxruntime runs should have a reference.",
                ) from error
            if given:
                results = results_given(step.node, inputs, results, forced)
            self._keep(frame, step.node, results)
            del results  # the frame alone holds what came
            for name in last.get(index, ()):
                frame.values.pop(name, None)
        self._keep_captured(frame)

    def _keep(self, frame: Frame, node: NodeProto, results: Sequence[Any]) -> None:
        for name, value in zip(node.output, results, strict=False):
            if name:  # numpy makes a number of an array without axes
                frame.values[name] = np.asarray(value) if isinstance(value, np.generic) else value
                self.largest = max(self.largest, getattr(value, "nbytes", 0))

    def _forced_here(self, scope: Scope) -> Mapping[str, Array]:
        """Return what is given in a graph, of a body in this turn of it."""
        known = self._forced.get(scope)
        if not known or not scope:
            return known or {}
        turn = self._turns.get(scope, 0)
        self._turns[scope] = turn + 1
        return {name: rows[turn] for name, rows in known.items() if turn < len(rows)}

    def _keep_captured(self, frame: Frame) -> None:
        names = self._capture.get(frame.scope) if frame.scope else None
        if names is None:
            return
        found = {}
        for name in names:
            try:
                found[name] = self._read(frame, name)
            except SignatureError:
                continue  # it stands in the other branch of an If
        # Both branches of an If are one scope: each has its own visits.
        visits = self._captured.setdefault(frame.scope, [])
        if sum(visit.keys() == found.keys() for visit in visits) < _VISITS:
            visits.append(found)

    def _read(self, frame: Frame, name: str) -> Any:
        inner: Frame | None = frame
        while inner is not None:
            if name in inner.values:
                return inner.values[name]
            tensor = inner.graph.constants.get(name)
            if tensor is not None:
                return self.constants.of(tensor)
            inner = inner.outer
        raise SignatureError(
            f"the model has no value {name!r}", hint="Ask for the name of an output, or of a value inside."
        )

    def _entering(self, value: Any) -> Any:
        if value is None or isinstance(value, list):  # an empty optional, a sequence
            return value if value is None else [self._entering(item) for item in value]
        return np.asarray(value) if self._stored else widen(np.asarray(value))

    def _prepare(self, node: NodeProto, versions: Mapping[str, int]) -> Callable[[Frame, list[Any]], Sequence[Any]]:
        if any(attribute.ref_attr_name for attribute in node.attribute):
            # Inside a function: what the attribute is, only the call tells.
            return lambda frame, inputs: self._prepare(resolved(node, frame.attributes), versions)(frame, inputs)
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
            if self.constants.moves_weights and isinstance(held, np.ndarray):
                moved = self.constants.disturbed(node.output[0], held)
                return lambda _frame, _inputs: [moved]
            return self._node(node, found)
        # Its definition is a body that depends on the types of its inputs.
        return lambda frame, inputs: self._function(node, found(inputs), versions)(frame, inputs)

    def _node(self, node: NodeProto, found: Computation) -> Callable[[Frame, list[Any]], Sequence[Any]]:
        if not self._stored:
            return lambda _frame, inputs: found.run(inputs)

        def run(_frame: Frame, inputs: list[Any]) -> Sequence[Any]:
            wide = [widen(value) if isinstance(value, np.ndarray) else value for value in inputs]
            return round_outputs(node, found, inputs, found.run(wide))

        return run

    def _function(
        self, node: NodeProto, function: FunctionProto, versions: Mapping[str, int]
    ) -> Callable[[Frame, list[Any]], Sequence[Any]]:
        defaults = {attribute.name: attribute for attribute in function.attribute_proto}
        attributes = {**defaults, **{attribute.name: attribute for attribute in node.attribute}}

        key = (function.domain, function.name, function.overload)
        # What the model defines is prepared once; a definition's body depends on its node.
        bodies = self._bodies if key in self._functions else {}

        def run(frame: Frame, inputs: list[Any]) -> Sequence[Any]:
            body = bodies.get(key)
            if body is None:
                body = bodies[key] = self._compile(function, versions)
            values = dict(zip(body.inputs, [*inputs, *[None] * (len(body.inputs) - len(inputs))], strict=True))
            inner = Frame(body, values, None, attributes, (*frame.scope, called(node)))
            self._execute(inner, body.outputs)
            return [self._read(inner, name) for name in body.outputs]

        return run

    def _control_flow(
        self, node: NodeProto, versions: Mapping[str, int]
    ) -> Callable[[Frame, list[Any]], Sequence[Any]]:
        graphs = {
            item.name: self._compile(item.g, versions) for item in node.attribute if item.type == AttributeProto.GRAPH
        }
        name, attributes = called(node), attributes_of(node)

        def body(frame: Frame, graph: Compiled, values: dict[str, Any]) -> list[Any]:
            inner = frame.inside(graph, values, name)
            self._execute(inner, graph.outputs)
            return [self._read(inner, output) for output in graph.outputs]

        def branch(frame: Frame, inputs: list[Any]) -> Sequence[Any]:
            taken = "then_branch" if bool(np.all(inputs[0])) else "else_branch"
            results = body(frame, graphs[taken], {})
            inside = (*frame.scope, name)
            if any(scope[: len(inside)] == inside for scope in self._capture):
                # What is captured is wanted of the other branch, too, as far as it computes on these values.
                self._trying += 1
                with suppress(BnfoldError):
                    body(frame, graphs["else_branch" if taken == "then_branch" else "then_branch"], {})
                self._trying -= 1
            return results

        def loop(frame: Frame, inputs: list[Any]) -> Sequence[Any]:
            graph = graphs["body"]
            trips = None if inputs[0] is None else int(np.asarray(inputs[0]).reshape(()))
            goes_on = True if len(inputs) < 2 or inputs[1] is None else bool(np.all(inputs[1]))
            state, count = list(inputs[2:]), 0
            rows: list[list[Array]] = [[] for _ in graph.outputs[1 + len(state) :]]
            while goes_on and (trips is None or count < trips):
                if self._trying and count == _TRIPS:
                    raise UnsupportedOpError("a loop in a branch that is not taken goes on and on", hint="")
                entering = [np.asarray(count, dtype=np.int64), np.asarray(goes_on), *state]
                goes, *results = body(frame, graph, dict(zip(graph.inputs, entering, strict=True)))
                goes_on, state, count = bool(np.all(goes)), results[: len(state)], count + 1
                for row, value in zip(rows, results[len(state) :], strict=True):
                    row.append(value)
            stacked = [
                np.stack(row) if row else nothing(graph.declared[output])
                for row, output in zip(rows, graph.outputs[1 + len(state) :], strict=True)
            ]
            return [*state, *stacked]

        def scan(frame: Frame, inputs: list[Any]) -> Sequence[Any]:
            return scan_over(attributes, graphs["body"], inputs, lambda values: body(frame, graphs["body"], values))

        return {"If": branch, "Loop": loop, "Scan": scan}[node.op_type]


def _holds_graphs(node: NodeProto) -> bool:
    return any(item.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS} for item in node.attribute)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
