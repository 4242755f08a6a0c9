"""Random nests of functions, bodies and attributes: what stands in place of calls computes what the calls compute.

All functions, and the graph, give their values the same few names, so that every call meets names that are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

from bnfold.graph.functions import inline_functions, key_of

_PLAIN, _PAIRS = ("Relu", "Neg", "Sigmoid", "Tanh"), ("Add", "Sub", "Mul")
_IMPORTS = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
_SHAPE = (2, 3)


@dataclass
class _Writer:
    """Writes the nodes of one function or graph; its values are numbered from 0, as those of every other."""

    draw: np.random.Generator
    callees: list[FunctionProto]
    attributes: list[str]
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def one_of(self, values: list[str]) -> str:
        return values[self.draw.integers(len(values))]

    def nodes(self, values: list[str], depth: int = 0) -> list[NodeProto]:
        written: list[NodeProto] = []
        values = list(values)
        for _ in range(self.draw.integers(1, 5)):
            choice = self.draw.random()
            if self.callees and choice < 0.4:
                written.append(self.call(values))
            elif choice < 0.5 and depth < 2:
                written += self.branches(values, depth)
            elif choice < 0.6 and self.attributes:
                node = helper.make_node("LeakyRelu", [self.one_of(values)], [self.name()])
                node.attribute.append(self.reference("alpha"))
                written.append(node)
            elif choice < 0.8:
                written.append(helper.make_node(self.one_of([*_PLAIN]), [self.one_of(values)], [self.name()]))
            else:
                pair = [self.one_of(values), self.one_of(values)]
                written.append(helper.make_node(self.one_of([*_PAIRS]), pair, [self.name()]))
            values += [name for name in written[-1].output if name]
        return written

    def reference(self, name: str) -> AttributeProto:
        told = self.one_of(self.attributes)
        return AttributeProto(name=name, type=AttributeProto.FLOAT, ref_attr_name=told)

    def call(self, values: list[str]) -> NodeProto:
        function = self.callees[self.draw.integers(len(self.callees))]
        inputs = [self.one_of(values) for _ in function.input]
        outputs = [self.name() for _ in function.output]
        if len(outputs) > 1 and self.draw.random() < 0.3:
            outputs[0] = ""
        node = helper.make_node(function.name, inputs, outputs, domain="my")
        for name in function.attribute:
            given_on = self.attributes and self.draw.random() < 0.5
            value = self.reference(name) if given_on else helper.make_attribute(name, float(self.draw.uniform(0.1, 1)))
            node.attribute.append(value)
        return node

    def branches(self, values: list[str], depth: int) -> list[NodeProto]:
        total, zero, condition, result = (self.name() for _ in range(4))
        bodies = []
        for name in ("then", "else"):
            nodes = self.nodes(values, depth + 1)
            last = _results(nodes)[-1]
            declared = helper.make_tensor_value_info(last, TensorProto.FLOAT, _SHAPE)
            bodies.append(helper.make_graph(nodes, name, [], [declared]))
        return [
            helper.make_node("ReduceSum", [self.one_of(values)], [total], keepdims=0),
            helper.make_node("Sub", [total, total], [zero]),
            helper.make_node("Greater", [total, zero], [condition]),
            helper.make_node("If", [condition], [result], then_branch=bodies[0], else_branch=bodies[1]),
        ]


def _model(seed: int) -> onnx.ModelProto:
    draw = np.random.default_rng(seed)
    functions: list[FunctionProto] = []
    for number in range(draw.integers(1, 5)):
        inputs = [f"v{1000 + position}" for position in range(draw.integers(1, 4))]
        attributes = [f"a{position}" for position in range(draw.integers(0, 3))]
        nodes = _Writer(draw, list(functions), attributes).nodes(inputs)
        outputs = _results(nodes)[-draw.integers(1, 3) :]
        function = helper.make_function("my", f"F{number}", inputs, outputs, nodes, _IMPORTS, attributes=attributes)
        functions.append(function)
    nodes = _Writer(draw, functions, []).nodes(["x"])
    last = _results(nodes)[-1]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, _SHAPE) for name in ("x", last)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=_IMPORTS, functions=functions, ir_version=9)


def _results(nodes: list[NodeProto]) -> list[str]:
    """Return the values that are no steps towards a condition."""
    steps = {name for node in nodes if node.op_type == "Greater" for name in (*node.input, *node.output)}
    return [name for node in nodes for name in node.output if name and name not in steps]


def _run(model: onnx.ModelProto, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@given(seed=st.integers(0, 2**31))
def test_random_functions_compute_the_same_without_their_calls(seed: int) -> None:
    model, every = _model(seed), seed % 2 == 0
    onnx.checker.check_model(model, full_check=True)
    draw = np.random.default_rng(seed)
    x = draw.normal(size=_SHAPE).astype(np.float32)
    expected = _run(model, x)
    only = None if every else [key_of(function) for function in model.functions if draw.random() < 0.5]
    result = inline_functions(model, only)
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_array_equal(_run(result, x), expected)
    kept = {function.name: function.SerializeToString() for function in model.functions}
    assert all(function.SerializeToString() == kept[function.name] for function in result.functions)
    assert not (every and result.functions)
