"""A copy without weights has all the rest to the byte, and a folded model is held once."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from bnfold.fold import apply, plan
from bnfold.graph.copying import copied_without_weights
from tests.fold.one_fold import CONV_BN
from tests.rules.example_models import build

UNKNOWN = b"\xfa\x07\x01A"
"""Field 127 of whatever message it stands in: one that no version of the format has."""


def rich() -> ModelProto:
    """Return a model in which everything is said that a model can say, a body with weights among it."""
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 20, "own" : 1], producer_name: "somebody", model_version: 3,
            doc_string: "of the model", metadata_props: ["classes": "cat"]>
           g (float[2] x, bool c) => (float[2] y) <float[2] w = {1.0, 2.0}, float[2] v = {3.0, 4.0}> {
             s = Add(x, w)
             y = If (c) <then_branch = one () => (float[2] t) <float[2] k = {5.0, 6.0}> { t = Mul(s, k) },
                         else_branch = two () => (float[2] e) { e = own.twice(v) }>
           }
           <domain: "own", opset_import: ["" : 20]> twice (a) => (b) { b = Add(a, a) }"""
    )
    model.graph.doc_string, model.graph.node[0].doc_string = "of the graph", "of the node"
    model.graph.sparse_initializer.add().values.name = "sparse"
    model.graph.quantization_annotation.add().tensor_name = "s"
    model.graph.metadata_props.add(key="a", value="b")
    model.graph.value_info.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [2]))
    model.training_info.add().initialization.name = "start"
    return model


@pytest.mark.parametrize("model", [rich(), ModelProto(), build(CONV_BN, seed=1)], ids=["rich", "empty", "a layer"])
def test_a_copy_lacks_the_weights_of_the_main_graph_and_nothing_else(model: ModelProto) -> None:
    if not model.graph.node:
        model.graph.SetInParent()
    before = model.SerializeToString(deterministic=True)
    copy = copied_without_weights(model)
    assert copy is not None
    assert len(copy.graph.initializer) == 0
    copy.graph.initializer.extend(model.graph.initializer)
    assert copy.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("place", ["model", "graph"])
def test_fields_of_a_younger_format_stay_in_a_folded_model(place: str) -> None:
    model = build(CONV_BN, seed=1)
    if place == "model":
        model = onnx.load_from_string(model.SerializeToString() + UNKNOWN)
    else:
        model.graph.MergeFromString(UNKNOWN)
    assert copied_without_weights(model) is None
    folded = apply(model, plan(model)).model
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert UNKNOWN in (folded if place == "model" else folded.graph).SerializeToString()


SCRIPT = """
import resource

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from bnfold.fold import apply, plan

CHANNELS, LAYERS = 256, 32
weights, nodes, value = [], [], "x"
for number in range(LAYERS):
    made = np.full((CHANNELS, CHANNELS, 3, 3), 0.01, dtype=np.float32)
    weights.append(numpy_helper.from_array(made, f"w{number}"))
    weights += [numpy_helper.from_array(np.ones(CHANNELS, np.float32), f"{name}{number}") for name in "abmv"]
    nodes.append(helper.make_node("Conv", [value, f"w{number}"], [f"c{number}"]))
    names = [f"c{number}", *(f"{name}{number}" for name in "abmv")]
    nodes.append(helper.make_node("BatchNormalization", names, [f"n{number}"]))
    nodes.append(helper.make_node("Relu", [f"n{number}"], [f"r{number}"]))
    value = f"r{number}"
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", CHANNELS, None, None]) for name in ("x", value)]
graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
size = model.ByteSize()
del weights, graph

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

fold_plan = plan(model)
before = held()
folded = apply(model, fold_plan).model
assert len(folded.graph.node) == 2 * LAYERS
print((held() - before) / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel how much memory the program has")
def test_a_folded_model_is_held_once_beside_the_one_that_it_was_made_from() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) < 1.6
