"""A network that grows at its end, written the way exporters write it: their names, their order, their constants.

Weights come from a seed and have the magnitudes of trained ones, so that values keep their size through any depth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph: its name, and its shape for a batch of ``Style.batch``."""

    name: str
    shape: Shape

    @property
    def channels(self) -> int:
        """Its size along axis 1."""
        return self.shape[1]


@dataclass(frozen=True, slots=True)
class Style:
    """How a file looks.

    Attributes:
        dtype: Of all weights and values.
        names: ``torch`` has a path for every module, ``tensorflow`` has slashes and ``:0``, ``dynamo`` has the type
            and shape of every value and metadata on every node; with ``none`` nodes have no names and values have
            numbers.
        weights: Whether weights are initializers, or the values of Constant nodes.
        gammas: Whether every gamma is positive, or some are negative; or some channels are dead, as weight decay leaves
            them: gamma is zero, or nearly, and so is the variance.
        free_image: Whether height and width are free, as the batch always is.
        computed_shapes: Whether shapes to reshape or resize to are read from values, as tracers write it.
        opset: Version of the standard operator set.
        seed: Of all weights.
        batch: The batch that shapes are computed for; it is written nowhere.
    """

    dtype: Literal["float16", "float32", "float64"] = "float32"
    names: Literal["torch", "tensorflow", "dynamo", "none"] = "torch"
    weights: Literal["initializer", "constant"] = "initializer"
    gammas: Literal["positive", "mixed", "dead"] = "positive"
    free_image: bool = False
    computed_shapes: bool = False
    opset: int = 17
    seed: int = 0
    batch: int = 2


def _pair(size: int | Sequence[int], rank: int) -> list[int]:
    return [size] * rank if isinstance(size, int) else list(size)


@dataclass(slots=True)
class Net:
    """A graph under construction: each method adds what its name says behind a value, and returns the new value."""

    style: Style = field(default_factory=Style)
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    _path: list[str] = field(default_factory=list)
    _integers: set[str] = field(default_factory=set)
    _seen: Counter[str] = field(default_factory=Counter)
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.style.seed)

    # Names.

    @contextmanager
    def scope(self, name: object) -> Iterator[None]:
        """Let what is added inside belong to a module of this name."""
        self._path.append(str(name))
        try:
            yield
        finally:
            self._path.pop()

    def _unique(self, name: str) -> str:
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}_{self._seen[name] - 1}"

    def _node_name(self, op_type: str, module: str) -> str:
        parts = [*self._path, module] if module else self._path
        if self.style.names == "tensorflow":
            kinds = {"Conv": "Conv2D", "BatchNormalization": "FusedBatchNormV3", "Add": "add", "Gemm": "MatMul"}
            return self._unique("/".join(["model", *parts, kinds.get(op_type, op_type)]))
        if self.style.names == "dynamo":
            return self._unique(f"node_{op_type}")
        paths = [".".join(parts[: end + 1]) for end in range(len(parts))]
        return self._unique("/" + "/".join([*paths, op_type]))

    def _parameter_name(self, module: str, kind: str) -> str:
        parts = [*self._path, module] if module else self._path
        if self.style.names == "tensorflow":
            return self._unique("/".join(["model", *parts, kind, "ReadVariableOp"])) + ":0"
        return self._unique(".".join([*parts, kind]))

    # Nodes and constants.

    def node(
        self, op_type: str, inputs: Sequence[Value | str], shape: Shape, *, module: str = "", **attributes: Any
    ) -> Value:
        """Add any node with one output."""
        return self.node_of_several(op_type, inputs, [shape], module=module, **attributes)[0]

    def node_of_several(
        self,
        op_type: str,
        inputs: Sequence[Value | str],
        shapes: Sequence[Shape],
        *,
        module: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """Add any node; an output whose shape is empty is left out."""
        name = self._node_name(op_type, module)
        names = [value if isinstance(value, str) else value.name for value in inputs]
        outputs = []
        for position, shape in enumerate(shapes):
            styles = {"torch": f"{name}_output_{position}", "tensorflow": f"{name}:{position}"}
            styles["dynamo"] = f"{name.removeprefix('node_').lower()}_{position}"
            outputs.append(Value(styles.get(self.style.names) or self._unique("v"), shape) if shape else Value("", ()))
        node = helper.make_node(op_type, names, [value.name for value in outputs], **attributes)
        if self.style.names != "none":
            node.name = name
        if self.style.names == "dynamo":
            node.metadata_props.add(key="namespace", value=".".join([*self._path, module]))
            if op_type == "Shape" or self._integers.issuperset(names):
                self._integers.update(value.name for value in outputs)
            self.values += [value for value in outputs if value.name not in self._integers]
        self.nodes.append(node)
        return outputs

    def constant(self, array: Array, kind: str, *, module: str = "", inline: bool | None = None) -> Value:
        """Add a constant as it is; ``inline`` asks for a Constant node whatever the style says."""
        name = self._parameter_name(module, kind)
        tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
        if array.dtype.kind == "i":
            self._integers.add(name)
        if inline is None:
            inline = self.style.weights == "constant"
        if inline:
            tensor.name = ""
            node_name = "" if self.style.names == "none" else f"{name}/Const"
            self.nodes.append(helper.make_node("Constant", [], [name], name=node_name, value=tensor))
        else:
            self.tensors.append(tensor)
        return Value(name, array.shape)

    def weight(self, shape: Shape, fan_in: int, kind: str = "weight", *, module: str = "", gain: float = 2.0) -> Value:
        """Add normally distributed weights of variance ``gain / fan_in``."""
        array = self._rng.normal(0.0, (gain / fan_in) ** 0.5, shape)
        return self.constant(array.astype(self.style.dtype), kind, module=module)

    def vector(self, size: int, kind: str, *, module: str = "", spread: float = 0.3, center: float = 0.0) -> Value:
        """Add a normally distributed vector."""
        array = self._rng.normal(center, spread, size)
        return self.constant(array.astype(self.style.dtype), kind, module=module)

    def scalar(self, number: float, kind: str = "value") -> Value:
        """Add a number, as a Constant node."""
        return self.constant(np.asarray(number, self.style.dtype), kind, inline=True)

    def integers(self, numbers: Sequence[int], kind: str = "shape") -> Value:
        """Add a list of integers, as a Constant node."""
        return self.constant(np.asarray(numbers, np.int64), kind, inline=True)

    def statistics(self, channels: int) -> dict[str, Array]:
        """Draw gamma, beta, mean and var as training leaves them."""
        gamma = self._rng.uniform(0.5, 1.5, channels)
        if self.style.gammas == "mixed":
            gamma[self._rng.permutation(channels)[: max(1, channels // 4)]] *= -1.0
        var = self._rng.uniform(0.5, 2.0, channels)
        if self.style.gammas == "dead":
            dead = self._rng.permutation(channels)[: max(2, channels // 4)]
            gamma[dead] = np.where(np.arange(len(dead)) % 2, 1e-9, 0.0)
            var[dead] = 1e-12
        arrays = {
            "weight": gamma,
            "bias": self._rng.normal(0.0, 0.3, channels),
            "running_mean": self._rng.normal(0.0, 0.3, channels),
            "running_var": var,
        }
        return {kind: array.astype(self.style.dtype) for kind, array in arrays.items()}

    # Layers.

    def input(self, shape: Shape, name: str = "x") -> Value:
        """Add an input; the shape is that of one element of the batch."""
        value = Value(name, (self.style.batch, *shape))
        self.inputs.append(value)
        return value

    def output(self, value: Value) -> None:
        """Make a value an output of the model."""
        self.outputs.append(value)

    def conv(
        self,
        x: Value,
        out: int,
        size: int | Sequence[int] = 3,
        *,
        stride: int = 1,
        pad: int | Sequence[int] | None = None,
        group: int = 1,
        dilation: int = 1,
        bias: bool = False,
        weight: Value | None = None,
        module: str = "conv",
    ) -> Value:
        """Add a convolution of any rank; unless ``pad`` says otherwise it keeps the image's size at stride 1.

        A ``weight`` that is given is shared with another layer.
        """
        rank = len(x.shape) - 2
        kernel, columns = _pair(size, rank), x.channels // group
        pads = [dilation * (k // 2) for k in kernel] if pad is None else _pair(pad, rank)
        shape = (out, columns, *kernel)
        if weight is None:
            weight = self.weight(shape, columns * int(np.prod(kernel)), module=module)
        inputs = [x, weight]
        if bias:
            inputs.append(self.vector(out, "bias", module=module, spread=0.1))
        spatial = [
            (n + 2 * p - dilation * (k - 1) - 1) // stride + 1
            for n, p, k in zip(x.shape[2:], pads, kernel, strict=True)
        ]
        return self.node(
            "Conv",
            inputs,
            (x.shape[0], out, *spatial),
            module=module,
            dilations=[dilation] * rank,
            group=group,
            kernel_shape=kernel,
            pads=[*pads, *pads],
            strides=[stride] * rank,
        )

    def conv_transpose(
        self, x: Value, out: int, size: int, *, stride: int = 2, pad: int = 0, group: int = 1, module: str = "up"
    ) -> Value:
        """Add a transposed convolution of an image, without bias."""
        fan_in = max(1, x.channels // group * size**2 // stride**2)
        weight = self.weight((x.channels, out // group, size, size), fan_in, module=module)
        spatial = [stride * (n - 1) + size - 2 * pad for n in x.shape[2:]]
        return self.node(
            "ConvTranspose",
            [x, weight],
            (x.shape[0], out, *spatial),
            module=module,
            group=group,
            kernel_shape=[size, size],
            pads=[pad] * 4,
            strides=[stride, stride],
        )

    def batch_norm(self, x: Value, *, module: str = "bn") -> Value:
        """Add a batch norm on axis 1, in inference mode."""
        kinds = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        rename = kinds if self.style.names == "tensorflow" else {}
        parameters = [
            self.constant(array, rename.get(kind, kind), module=module)
            for kind, array in self.statistics(x.channels).items()
        ]
        epsilon = 1e-3 if self.style.names == "tensorflow" else 1e-5
        return self.node("BatchNormalization", [x, *parameters], x.shape, module=module, epsilon=epsilon, momentum=0.9)

    def linear(self, x: Value, units: int, *, bias: bool = True, gain: float = 1.0, module: str = "fc") -> Value:
        """Add a dense layer: Gemm for a matrix, else MatMul, and Add for its bias."""
        columns = x.shape[-1]
        if len(x.shape) == 2:
            inputs = [x, self.weight((units, columns), columns, module=module, gain=gain)]
            if bias:
                inputs.append(self.vector(units, "bias", module=module, spread=0.1))
            return self.node("Gemm", inputs, (x.shape[0], units), module=module, alpha=1.0, beta=1.0, transB=1)
        weight = self.weight((columns, units), columns, module=module, gain=gain)
        y = self.node("MatMul", [x, weight], (*x.shape[:-1], units), module=module)
        if not bias:
            return y
        return self.node("Add", [self.vector(units, "bias", module=module, spread=0.1), y], y.shape, module=module)

    # The file.

    def model(self, name: str) -> ModelProto:
        """Return the model: its batch is free, and it says who wrote it, as files do."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.style.dtype))
        free = {value.shape[0] for value in self.inputs}
        stated = [value for value in self.values if value not in self.outputs]
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(value.name, element, self._declared(value)) for value in self.inputs],
            [helper.make_tensor_value_info(value.name, element, self._declared(value)) for value in self.outputs],
            self.tensors,
            doc_string=f"The graph of {name}.",
            value_info=[helper.make_tensor_value_info(value.name, element, self._known(value)) for value in stated],
        )
        assert free == {self.style.batch}
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.style.opset)], ir_version=10, producer_name="exporter"
        )
        model.doc_string = f"{name}, for the tests."
        helper.set_model_props(model, {"classes": "cat,dog", "revision": "7"})
        return model

    def _known(self, value: Value) -> list[int | None]:
        """Leave out what may be the batch."""
        return [None if size == self.style.batch else size for size in value.shape]

    def _declared(self, value: Value) -> list[str | int | None]:
        declared: list[str | int | None] = list(value.shape)
        declared[0] = "batch"
        if self.style.free_image and len(declared) == 4:
            declared[2:] = ["height", "width"] if value in self.inputs else [None, None]
        return declared
