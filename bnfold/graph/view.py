"""A read-only look at one graph of a model: who produces a value, who uses it, whether it is constant, its shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from bnfold.graph.constants import EVALUABLE, Constant, dequantised, evaluate, plain, tensor_value
from bnfold.graph.extent import Extent, extent
from bnfold.graph.node_constants import attributes_of, constant_node, one_of_several
from bnfold.graph.node_view import NodeView
from bnfold.graph.shapes import BODIES, GraphPath, LazyTypes, Shape, ValueType, bodies_of, subgraphs
from bnfold.graph.small import SmallConstants

__all__ = ["STANDARD_DOMAINS", "GraphView", "NodeView", "outer_names", "views"]

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_MEMO_BYTES = 1 << 16
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_SHAPE_KEEPING = frozenset(
    {"BatchNormalization", "Identity", "Dropout", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip"}
)
_LAYING_OUT = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_DEEPEST = 32
_MOST_AXES = 48  # numpy has arrays of 64, and some steps of the algebra take a few more than the value has
"""No chain of constant nodes longer than this is followed."""


def outer_names(graph: GraphProto) -> set[str]:
    """Return the names that a body takes from the graphs around it."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {tensor.values.name for tensor in graph.sparse_initializer}
    outer: set[str] = set()
    for node in graph.node:
        own.update(node.output)
        outer.update(node.input)
    outer.update(value.name for value in graph.output)
    for _place, body in subgraphs(graph):
        outer |= outer_names(body)
    return outer - own - {""}


class GraphView:
    """An index over one graph. It never changes the graph, and is out of date as soon as somebody else does.

    Attributes:
        graph: The graph itself.
        path: Where it stands in the model; ``()`` is the main graph.
        outer: The graph around it, or None.
        producers: The index of the node that computes a value.
        consumers: The nodes that read a value, as ``(node index, input index)``, in order.
        bodies: The graphs that stand in its nodes, each with its place.
        captured: Values that bodies of this graph's nodes read.
        outputs: The graph's outputs.
        op_types: The operation of every node; with its domain in front where that is not the standard one.
        reads: The names that every node reads.
        writes: The names that every node writes.
        small: Its small constants, once they have been read ahead.
    """

    def __init__(
        self,
        model: ModelProto,
        graph: GraphProto,
        path: GraphPath,
        types: Mapping[GraphPath, Mapping[str, ValueType]] | LazyTypes,
        outer: GraphView | None = None,
    ) -> None:
        self.graph, self.path, self.outer = graph, path, outer
        self._types = types
        self.versions = {entry.domain: entry.version for entry in model.opset_import}
        self.producers: dict[str, int] = {}
        self.consumers: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.op_types: list[str] = []
        self.reads: list[list[str]] = []
        self.writes: list[list[str]] = []
        bodies: list[tuple[tuple[int, str], GraphProto]] = []
        for index, node in enumerate(graph.node):
            # Every look at a message of protobuf costs as much as many at an object of Python: one look has to do.
            op_type, domain, reads, writes = node.op_type, node.domain, list(node.input), list(node.output)
            self.op_types.append(op_type if domain in STANDARD_DOMAINS else f"{domain}::{op_type}")
            self.reads.append(reads)
            self.writes.append(writes)
            for attribute in node.attribute:
                if attribute.type in BODIES:
                    bodies += bodies_of(index, attribute)
            for output in writes:
                if output:
                    self.producers[output] = index
            for position, name in enumerate(reads):
                if name:
                    self.consumers[name].append((index, position))
        self.bodies = tuple(bodies)
        self.captured = {name for _place, body in self.bodies for name in outer_names(body)}
        self.outputs = {value.name for value in graph.output}
        self.inputs = {value.name for value in graph.input}
        self._initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        # From IR 4 on, an initializer that is also an input is a default that a caller may override.
        self._overridable = self.inputs if model.ir_version >= 4 else set()
        self._nodes: list[NodeView | None] = [None] * len(self.op_types)
        self.small = SmallConstants(())
        self._memo: dict[str, Constant | None] = {}
        self._attributes: dict[int, Mapping[str, object]] = {}
        self._known: dict[str, ValueType] = {}
        self._extents: dict[str, Extent | None] = {}
        self._dequantises = "DequantizeLinear" in self.op_types

    def __len__(self) -> int:
        return len(self.op_types)

    @property
    def opset(self) -> int:
        """The version of the standard operator set."""
        return int(self.versions.get("", self.versions.get("ai.onnx", 1)))

    def attributes(self, index: int) -> Mapping[str, object]:
        """Return the attributes of a node as Python values; lists are tuples, bytes are text."""
        known = self._attributes.get(index)
        if known is None:
            known = self._attributes[index] = attributes_of(self.graph.node[index])
        return known

    def node(self, index: int) -> NodeView:
        """Return the view of one node."""
        known = self._nodes[index]
        if known is None:
            known = self._nodes[index] = NodeView(self, index, self.graph.node[index], self.reads[index])
        return known

    def names(self) -> set[str]:
        """Return every name of a value in the graph; those in its bodies are theirs."""
        graph = self.graph
        names = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
        names.update(self._initializers, (tensor.values.name for tensor in graph.sparse_initializer))
        names.update(*self.reads, *self.writes)
        return names

    def release(self) -> None:
        """Forget the views of the nodes, which hold this one: now it goes with its last user, not some time later."""
        self._nodes = [None] * len(self._nodes)

    def scope(self) -> list[str]:
        """Return the names of the control-flow nodes around the graph, outermost first."""
        if self.outer is None:
            return []
        return [*self.outer.scope(), self.outer.node(self.path[-1][0]).name]

    def tensor(self, name: str) -> TensorProto | None:
        """Return a constant initializer of this graph or of one around it; None for anything a caller may override."""
        if name in self._initializers and name not in self._overridable:
            return self._initializers[name]
        if self.outer is not None and name not in self.inputs and name not in self.producers:
            return self.outer.tensor(name)
        return None

    def constant(self, name: str) -> Constant | None:
        """Return a value that is the same in every run, floats as float64; None if it is not, or not known to be."""
        return self._constant(name, 0)

    def is_constant(self, name: str) -> bool:
        """Whether a value is the same in every run, without a copy of it where it is an initializer."""
        return self.tensor(name) is not None or self.constant(name) is not None

    def read_ahead(self) -> None:
        """Read all small constants at once: what asks for most of them one by one then finds them read."""
        overridable = self._overridable
        self.small = SmallConstants(entry for entry in self._initializers.items() if entry[0] not in overridable)

    def extent(self, name: str) -> Extent | None:
        """Return between which magnitudes the numbers of a constant lie; None if it is none, or of no floating type.

        An initializer is not copied for it.
        """
        known = self._extents.get(name)
        if known is None and name not in self._extents:
            known = self._extents[name] = self._extent(name)
        return known

    def _extent(self, name: str) -> Extent | None:
        place = self.small.places.get(name)
        if place is not None:
            return self.small.extent(place)
        tensor = self.tensor(name)
        value: Constant | None = None if tensor is None else plain(tensor)
        value = self.constant(name) if value is None else value
        return None if value is None or value.dtype.kind != "f" else extent(value)

    def dequantising(self, name: str) -> tuple[int, ...]:
        """Return the nodes of this graph that dequantise constants into a value; none for any other value.

        The ``DequantizeLinear`` is the last of them; in front of it are those that lay its output out otherwise, the
        one that computes the value first.
        """
        if not self._dequantises:
            return ()
        nodes: list[int] = []
        while len(nodes) < _DEEPEST:
            index = self.producers.get(name)
            if index is None or index in nodes:
                return ()
            nodes.append(index)
            op_type, reads = self.op_types[index], self.reads[index]
            if not reads:
                return ()
            if op_type == "DequantizeLinear":
                fits = len(reads) > 1 and all(self.is_constant(read) for read in reads if read)
                return tuple(nodes) if fits else ()
            if op_type not in _LAYING_OUT or not all(self.is_constant(read) for read in reads[1:] if read):
                return ()
            name = reads[0]
        return ()

    def weight(self, name: str) -> Constant | None:
        """Return a value that is the same in every run, dequantised in the model itself or not, floats as float64."""
        nodes = self.dequantising(name)
        if not nodes:
            return self.constant(name)
        value: Constant | None = None
        for index in reversed(nodes):
            node = self.graph.node[index]
            others = [self.constant(read) if read else None for read in node.input[int(value is not None) :]]
            if value is None:
                value = dequantised(others, self.attributes(index))
            else:
                value = evaluate(node.op_type, [value, *others], self.attributes(index))
            if value is None:
                return None
        return value

    def _constant(self, name: str, depth: int) -> Constant | None:
        value = self._memo.get(name)
        if value is not None or name in self._memo:
            return value
        tensor, place = self.tensor(name), self.small.places.get(name)
        if place is not None:
            value = self.small.array(place)
        elif tensor is not None:
            value = None if tensor.data_type == TensorProto.STRING else tensor_value(tensor)
        elif name in self.producers and depth < _DEEPEST:
            value = self._computed(self.graph.node[self.producers[name]], name, depth)
        elif self.outer is not None and name not in self.inputs and name not in self.producers:
            value = self.outer.constant(name)
        if value is None or value.nbytes <= _MEMO_BYTES:
            self._memo[name] = value
        return value

    def _computed(self, node: NodeProto, output: str, depth: int) -> Constant | None:
        if node.domain not in STANDARD_DOMAINS:
            return None
        if node.op_type == "Constant":
            return constant_node(node)
        if node.op_type not in EVALUABLE and node.op_type not in {"ConstantOfShape", "Split"}:
            return None
        inputs = []
        for name in node.input:
            value = self._constant(name, depth + 1) if name else None
            if name and value is None:
                return None
            inputs.append(value)
        if node.op_type in {"ConstantOfShape", "Split"}:
            return one_of_several(node, list(node.output).index(output), inputs)
        return evaluate(node.op_type, inputs, attributes_of(node))

    def type(self, name: str) -> ValueType:
        """Return what is known about a value's type."""
        known = self._known.get(name)
        if known is None:
            known = self._type(name)
            if known.shape is not None and len(known.shape) > _MOST_AXES:
                known = ValueType(known.element)
            self._known[name] = known
        return known

    def _type(self, name: str) -> ValueType:
        tensor = self._initializers.get(name)
        if tensor is not None:
            return ValueType(tensor.data_type, tuple(tensor.dims))
        known = self._types.get(self.path, {}).get(name)
        if known is not None:
            return known
        if self.outer is not None and name not in self.inputs and name not in self.producers:
            return self.outer.type(name)
        return ValueType()

    def rank(self, name: str) -> int | None:
        """Return how many axes a value has; a layer at either end of it tells without any inference."""
        shape = self._shape_by_layers(name)
        shape = self.type(name).shape if shape is None else shape
        return None if shape is None else len(shape)

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a value, with symbols and None where a dimension is not known; None without a rank.

        Where inference knows nothing, a layer at either end of the value tells its rank and its channels.
        """
        known = self.type(name).shape
        return self._shape_by_layers(name) if known is None else known

    def _shape_by_layers(self, name: str) -> Shape | None:
        for _step in range(_DEEPEST):
            if name not in self.producers:
                break
            index = self.producers[name]
            op_type, reads = self.op_types[index], self.reads[index]
            if op_type in _CONVOLUTIONS and len(reads) > 1:
                weight = self.type(reads[1]).shape
                return None if weight is None else (None,) * len(weight)
            if op_type == "Gemm":
                return (None, None)
            if op_type not in _SHAPE_KEEPING or not reads:
                break
            name = reads[0]
        for _step in range(_DEEPEST):
            onward = ""
            for index, position in self.consumers.get(name, ()):
                op_type, reads = self.op_types[index], self.reads[index]
                if op_type in _CONVOLUTIONS and len(reads) > 1 and position == 0:
                    weight = self.type(reads[1]).shape
                    return None if weight is None else (None,) * len(weight)
                if op_type == "Gemm" and position < 2:
                    return (None, None)
                if op_type in _SHAPE_KEEPING and position == 0:
                    onward = onward or self.graph.node[index].output[0]
            name = onward
            if not name:
                break
        return None


def views(model: ModelProto) -> Iterator[GraphView]:
    """Yield a view of the main graph and of every body in it, outer ones first."""
    types = LazyTypes(model)
    pending = [GraphView(model, model.graph, (), types)]
    while pending:
        view = pending.pop(0)
        yield view
        for place, body in view.bodies:
            pending.append(GraphView(model, body, (*view.path, place), types, view))
