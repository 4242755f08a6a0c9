"""Carry out a plan: the only place that writes."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bnfold.affine import Field, Linear, Unstorable, round_to
from bnfold.fold.draft import Draft
from bnfold.fold.linear_nodes import changed_attributes, changed_constants, stored_dtype
from bnfold.fold.regions import regions_of
from bnfold.fold.slabs import slabs_of
from bnfold.fold.storable import attribute_in_place, dtype_of, own_dtype
from bnfold.fold.uncollected import uncollected
from bnfold.graph.copying import copied_without_weights
from bnfold.graph.shapes import GraphPath, subgraphs
from bnfold.graph.view import views
from bnfold.rules import RULES, Absorber, Form, Rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnfold.affine.linear import Attribute
    from bnfold.fold.plan import Fold, FoldPlan
    from bnfold.graph.outside import Outside
    from bnfold.graph.region import Region

__all__ = ["Folded", "apply"]


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded model.

    Attributes:
        model: The new model; the one that it was made from is as it was.
        regions: The pieces that folding changed, each to be judged by itself.
    """

    model: ModelProto
    regions: tuple[Region, ...]


@uncollected()
@np.errstate(all="ignore")
def apply(model: ModelProto, plan: FoldPlan, *, rules: Rules = RULES, outside: Outside | None = None) -> Folded:
    """Return a new model in which a plan's folds are carried out.

    Names of inputs and outputs, metadata, doc strings, opsets and everything that no fold touches stay as they are.

    Args:
        model: The model that the plan was made for. It is only read.
        plan: What to fold.
        rules: The tables that the plan was made with.
        outside: Where large new weights are kept out of memory; None holds them in the new model.
    """
    light = copied_without_weights(model) if any(not fold.graph for fold in plan.folds) else None
    folded = ModelProto() if light is None else light
    if light is None:
        folded.CopyFrom(model)
    if not plan.folds:
        return Folded(folded, ())
    by_graph: dict[GraphPath, list[Fold]] = defaultdict(list)
    for fold in plan.folds:
        by_graph[fold.graph].append(fold)
    every = tuple(views(model))
    taken = set[str]().union(*(view.names() for view in every))
    regions: list[Region] = []
    # Bodies before the nodes that hold them: writing a graph copies its nodes, bodies included.
    for view in sorted(every, key=lambda view: len(view.path), reverse=True):
        folds = by_graph.get(view.path)
        if not folds:
            continue
        draft = Draft(view, rules, taken)
        deque(draft.read_sources(plan.keep), maxlen=0)
        for fold in folds:
            draft.take(fold.index, fold.direction, fold.steps, fold.rest)
        writer = _Writer(draft, _graph_at(folded.graph, view.path), model.ir_version, None if view.path else outside)
        writer.write(() if view.path or light is None else model.graph.initializer)
        regions.extend(regions_of(draft, folds))
    for view in every:
        view.release()
    return Folded(folded, tuple(regions))


def _graph_at(graph: GraphProto, path: GraphPath) -> GraphProto:
    for place in path:
        graph = next(body for where, body in subgraphs(graph) if where == place)
    return graph


class _Writer:
    """Writes a draft into a copy of the graph that the draft is of."""

    def __init__(self, draft: Draft, graph: GraphProto, ir_version: int, outside: Outside | None) -> None:
        self.draft, self.graph, self.wiring = draft, graph, draft.wiring
        self.ir_version, self.outside = ir_version, outside
        self.made: set[str] = set()
        self.attributes: dict[int, dict[str, Attribute | None]] = {}
        self.loose: list[str] = []
        self._same: dict[tuple[str, str], str] = {}

    def write(self, weights: Iterable[TensorProto]) -> None:
        """Write it all.

        Args:
            weights: The initializers that the copy still lacks.
        """
        for index, taken in sorted(self.draft.taken_in.items()):
            if index not in self.draft.gone and taken:
                self._write_linear(index, taken[0].absorber)
        for index, field in sorted(self.draft.own.items()):
            self._write_own(index, field)
        for index, constants in sorted(self.draft.constants.items()):
            for position, array in sorted(constants.items()):
                self._write_constant(index, position, array)
        for index in sorted(self.draft.becomes):
            self.loose += [name for name in self.draft.view.graph.node[index].input if name]
        for index in sorted(self.draft.gone):
            if index < len(self.draft.view):
                self.loose += [name for name in self.draft.view.graph.node[index].input if name]
        self._drop_unused()
        self._write_nodes(weights)

    # New constants.

    def _write_linear(self, index: int, absorber: Absorber) -> None:
        form = absorber.form(self.draft.view.node(index))
        assert isinstance(form, Form)
        node = self.draft.view.node(index)
        dtype, names = stored_dtype(node, form), node.reads
        slabs = slabs_of(self.draft, index, form, self.draft.taken_in[index])
        if slabs is not None:
            raw, linear = slabs.written()
            bare = TensorProto(data_type=slabs.tensor.data_type, dims=slabs.tensor.dims)
            self._put(index, form.weight, bare, raw, names[form.weight])
            del raw
        else:
            whole = self.draft.linear(index, form, quantised=True)
            assert isinstance(whole, Linear)
            linear = whole
            for position, array in changed_constants(node, linear).items():
                self._replace(index, position, array, names[position])
            if not self.draft.view.dequantising(names[form.weight]):  # else its scales have taken in their part
                self._replace(index, form.weight, _rounded(linear.weight, dtype, form.output_axis), names[form.weight])
        self.attributes[index] = dict(changed_attributes(node, linear))
        had_bias = form.bias is not None and form.bias < len(names) and bool(names[form.bias])
        if form.bias is None or not (had_bias or np.any(linear.bias)):
            return
        bias = linear.bias
        if self.draft.op_type(index) == "Gemm":
            if bias.shape[0] == 1:  # ONNX broadcasts a vector along the rows
                bias = bias.reshape(-1)
            if self.draft.view.opset < 7:  # there, C is taken for a whole matrix where nothing else is said
                self.attributes[index]["broadcast"] = 1
        wanted = names[form.bias] if had_bias else f"{names[form.weight]}_bias"
        self._replace(index, form.bias, _rounded(bias, dtype, -1), wanted)

    def _write_own(self, index: int, field: Field) -> None:
        """Write the constant of an Add, Sub or Mul."""
        op_type = self.draft.op_type(index)
        constant = field.scale if op_type == "Mul" else -field.shift if op_type == "Sub" else field.shift
        shape = constant.shape
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
        fresh = index >= len(self.draft.view) or index in self.draft.becomes
        if self.draft.view.opset < 7 and fresh:  # there, the axis is said
            axes = field.axes()
            shape = tuple(constant.shape[axis] for axis in axes)
            self.attributes[index] = {"broadcast": 1, **({"axis": axes[0]} if axes else {})}
        dtype = own_dtype(self.draft, index)
        assert dtype is not None
        if fresh:
            position, wanted = 1, f"{self.wiring.outputs[index][0]}_shift"
        else:
            position = 1 - self.draft.affines[index].data_input
            wanted = self.draft.view.graph.node[index].input[position]
        self._replace(index, position, _rounded(constant.reshape(shape), dtype, -1), wanted)

    def _write_constant(self, index: int, position: int, array: npt.NDArray[np.float64]) -> None:
        names = self.draft.node(index).reads
        dtype = dtype_of(self.draft, index, position)
        assert dtype is not None
        rounded = _rounded(array, dtype, -1)
        attribute = attribute_in_place(self.draft, index, position)
        if attribute:
            self.attributes.setdefault(index, {})[attribute] = float(rounded.reshape(()))
            return
        given = position < len(names) and bool(names[position])
        wanted = names[position] if given else f"{self.wiring.outputs[index][0]}_constant"
        self._replace(index, position, rounded, wanted)

    def _replace(self, index: int, position: int, array: npt.NDArray[np.generic], wanted: str) -> None:
        """Let a node read a new constant."""
        tensor = numpy_helper.from_array(array)
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        self._put(index, position, tensor, raw, wanted)

    def _put(self, index: int, position: int, bare: TensorProto, raw: bytes | bytearray, wanted: str) -> None:
        """Let a node read a new constant; layers that shared one and fold alike go on sharing.

        Args:
            index: The node.
            position: Which of its inputs the constant is.
            bare: The constant without its content and its name.
            raw: The content.
            wanted: What its name begins with.
        """
        names = self.wiring.reads(index)
        if position < len(names) and names[position]:
            self.loose.append(names[position])
        shared = len(self.draft.view.consumers.get(wanted, ())) > 1
        key = (wanted, hashlib.sha256(raw).hexdigest()) if shared else ("", "")
        name = self._same.get(key)
        if name is None:
            name = self.wiring.fresh(f"{wanted}_folded")
            tensor = self.graph.initializer.add(name=name, data_type=bare.data_type, dims=bare.dims)
            if self.outside is not None and self.outside.takes(len(raw)):
                self.outside.put_content(tensor, raw)
            else:
                tensor.raw_data = bytes(raw)  # bytes are not copied for that
            self.made.add(name)
            if shared:
                self._same[key] = name
        self.wiring.set_input(index, position, name)

    # What nothing reads any more.

    def _drop_unused(self) -> None:
        """Remove constants that only the folded nodes read, and the nodes that computed such constants."""
        pending = list(dict.fromkeys(self.loose))
        while pending:
            name = pending.pop()
            if self.wiring.uses.get(name) or self.wiring.is_fixed(name):
                continue
            producer = self.wiring.producers.get(name)
            if producer is None or producer >= len(self.draft.view):
                continue
            if not (self.draft.view.is_constant(name) or self.draft.view.dequantising(name)):
                continue
            outputs = self.wiring.outputs[producer]
            if any(self.wiring.uses.get(output) or self.wiring.is_fixed(output) for output in outputs):
                continue
            inputs = [other for other in self.wiring.reads(producer) if other]
            self.wiring.remove(producer)
            self.loose += inputs
            pending += inputs

    # The graph.

    def _write_nodes(self, weights: Iterable[TensorProto]) -> None:
        nodes: list[NodeProto] = []
        for index, node in enumerate(self.graph.node):
            reads = self.wiring.inputs[index]
            if reads is not None:
                copy = NodeProto()
                copy.CopyFrom(node)
                _set_names(copy, reads, self.wiring.outputs[index])
                if index in self.draft.becomes:
                    copy.op_type = self.draft.becomes[index]
                    copy.domain = ""
                    del copy.attribute[:]
                _set_attributes(copy, self.attributes.get(index, {}))
                nodes.append(copy)
                if self.draft.becomes.get(index) == "Clip":
                    nodes.append(self._upper_bound(copy))
            nodes.extend(
                self._inserted(number)
                for number in reversed(self.wiring.inserted.get(index, []))
                if self.wiring.inputs[number] is not None
            )
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        unused = {name for name in self.loose if not self.wiring.uses.get(name) and not self.wiring.is_fixed(name)}
        _keep_only(self.graph.initializer, unused)
        self.graph.initializer.extend(tensor for tensor in weights if tensor.name not in unused)
        self.graph.initializer.sort(key=lambda tensor: tensor.name in self.made)  # the new ones are the last
        if self.ir_version < 4:  # initializers must be inputs too
            _keep_only(self.graph.input, unused)
            self.graph.input.extend(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                for tensor in self.graph.initializer
                if tensor.name in self.made
            )
        vanished = {name for node in self.draft.view.graph.node for name in node.output} - set(self.wiring.producers)
        _keep_only(self.graph.value_info, vanished)

    def _upper_bound(self, clip: NodeProto) -> NodeProto:
        """Leave a Clip its lower bound, as a Max, and return a Min behind it with the upper one: these may vary."""
        (value,) = clip.output
        inner = self.wiring.fresh(f"{value}_below")
        node = helper.make_node("Min", [inner, clip.input[2]], [value], name=f"{value}_min")
        clip.op_type = "Max"
        del clip.input[2:]
        clip.output[0] = inner
        return node

    def _inserted(self, number: int) -> NodeProto:
        reads, (value,) = self.wiring.reads(number), self.wiring.outputs[number]
        node = helper.make_node("Add", reads, [value], name=f"{value}_add_shift")
        _set_attributes(node, self.attributes.get(number, {}))
        return node


def _rounded(array: npt.NDArray[np.float64], dtype: npt.DTypeLike, axis: int) -> npt.NDArray[np.generic]:
    rounded = round_to(array, dtype, axis)
    assert not isinstance(rounded, Unstorable), "the plan has tried this rounding"
    return rounded


def _set_names(node: NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    if list(node.input) != list(inputs):
        del node.input[:]
        node.input.extend(inputs)
    if list(node.output) != list(outputs):
        del node.output[:]
        node.output.extend(outputs)


def _set_attributes(node: NodeProto, changed: Mapping[str, Attribute | None]) -> None:
    for position in range(len(node.attribute) - 1, -1, -1):
        if node.attribute[position].name in changed:
            del node.attribute[position]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in changed.items() if value is not None)


def _keep_only(entries: object, unused: set[str]) -> None:
    for position in range(len(entries) - 1, -1, -1):  # type: ignore[arg-type]
        if entries[position].name in unused:  # type: ignore[index]
            del entries[position]  # type: ignore[attr-defined]
