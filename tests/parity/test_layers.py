"""The error of every layer: what is measured is what a float64 run says, and a fault begins where it was put."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, reference

from bnfold.graph.region import Region
from bnfold.parity import layers as measuring
from bnfold.parity import verify
from bnfold.parity.layers import measure_layers
from bnfold.parity.layerwise import Layerwise
from bnfold.parity.original_layers import beside
from bnfold.parity.run import Session
from bnfold.parity.shared import shared_values
from bnfold.parity.verdict import Parity, ProbeRecord, Verdict
from tests.parity.nets import build
from tests.report.reports import comparison

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,6] x) => (float[N,4] y)
<float[6,5] W1, float[5] b1, float[5,5] W2, float[5,4] W3>
{
    p1 = MatMul(x, W1)
    a1 = Add(p1, b1)
    r1 = Relu(a1)
    p2 = MatMul(r1, W2)
    s2 = Sigmoid(p2)
    y = MatMul(s2, W3)
}
"""
INNER = ("p1", "a1", "r1", "p2", "s2", "y")


def network(text: str = CHAIN, seed: int = 1, **scaled: float) -> ModelProto:
    """Return a model with random weights, some of them multiplied."""
    model = onnx.parser.parse_model(text)
    draw = np.random.default_rng(seed)
    for value in model.graph.value_info:
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        array = (draw.normal(size=shape) * scaled.get(value.name, 1.0)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    return model


def changed(model: ModelProto, name: str, place: tuple[int | slice, ...], by: float) -> ModelProto:
    """Return a copy in which one weight is off."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            array[place] += np.float32(by)
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return copy


def verified(*shapes: tuple[str, tuple[int, ...]], probe: str = "normal draw 1", fails: str = "") -> Parity:
    """Return what a verification would have said about its probes."""
    probes = (ProbeRecord("normal draw 1", "", shapes), ProbeRecord("ones", "", shapes))
    verdict = Verdict.FAIL if fails else Verdict.PASS
    outcome = comparison(verdict)
    outcome = type(outcome)(**{**{name: getattr(outcome, name) for name in outcome.__slots__}, "probe": fails or probe})
    return Parity(verdict, "full", folding=(outcome,), probes=probes)


ONE_ROW = verified(("x", (1, 6)))


def measured(unfolded: ModelProto, folded: ModelProto, parity: Parity = ONE_ROW, **told: object) -> Layerwise:
    """Return what is measured of two models."""
    return measure_layers(unfolded=unfolded, folded=folded, parity=parity, **told)  # type: ignore[arg-type]


def test_every_value_that_both_compute_is_measured_in_the_order_of_the_graph() -> None:
    found = measured(network(), network())
    assert [item.value for item in found.values] == list(INNER)
    assert [item.op_type for item in found.values] == ["MatMul", "Add", "Relu", "MatMul", "Sigmoid", "MatMul"]
    assert [item.node for item in found.values] == [f"node_{name}" for name in INNER]
    assert (found.probe, found.inside, found.detail, found.first_beyond) == ("normal draw 1", 0, "", None)
    assert all(item.unfolded == item.folded for item in found.values)


def test_the_errors_are_those_of_onnxs_own_float64() -> None:
    model = network()
    x = np.random.default_rng(5).normal(size=(3, 6)).astype(np.float32)
    parity = Parity(Verdict.PASS, "full", probes=(ProbeRecord("given 1", "", (("x", (3, 6)),)),))
    found = measured(model, model, parity, feeds=({"x": x},))
    wide = ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for name in INNER[:-1]:
        wide.graph.output.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, None))
    exact = dict(
        zip(("y", *INNER[:-1]), reference.ReferenceEvaluator(wide).run(None, {"x": x.astype(np.float64)}), strict=True)
    )
    narrow = ModelProto()
    narrow.CopyFrom(model)
    narrow.graph.output.extend(onnx.ValueInfoProto(name=name) for name in INNER[:-1])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(narrow.SerializeToString(), options, providers=["CPUExecutionProvider"])
    stored = dict(zip(("y", *INNER[:-1]), session.run(None, {"x": x}), strict=True))
    for item in found.values:
        truth, value = exact[item.value], stored[item.value]
        whole = float(np.linalg.norm(value - truth) / np.linalg.norm(truth))
        assert whole <= item.unfolded <= 40 * whole  # the largest of three errors, and L2 is one of them
        assert item.elements == truth.size


@pytest.mark.parametrize(
    ("weight", "place", "begins"),
    [("W1", (slice(None), 0), "p1"), ("b1", (1,), "a1"), ("W2", (slice(None), 2), "p2"), ("W3", (0, 0), "y")],
)
def test_a_fault_begins_where_it_was_put(weight: str, place: tuple[int | slice, ...], begins: str) -> None:
    model = network()
    found = measured(model, changed(model, weight, place, 5.0), verified(("x", (1, 6)), fails="ones"))
    assert found.first_beyond is not None
    assert found.first_beyond.value == begins
    assert found.probe == "ones"  # the probe on which an output failed
    assert [item.value for item in found.values if item.unfolded == item.folded] == list(INNER[: INNER.index(begins)])
    assert found.worst is not None
    assert found.worst.value in INNER[INNER.index(begins) :]


def test_a_value_that_stands_for_something_else_is_told_from_a_wrong_one() -> None:
    model = network()
    scaled = network()
    for tensor in scaled.graph.initializer:  # a power of two goes through the rectifier, and rounds nothing
        factor = {"W1": 4.0, "b1": 4.0, "W2": 0.25}.get(tensor.name, 1.0)
        array = (numpy_helper.to_array(tensor) * np.float32(factor)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    found = measured(model, scaled)
    assert [item.value for item in found.values if item.moved] == ["p1", "a1", "r1"]
    assert found.first_beyond is None
    wrong = measured(model, changed(scaled, "W3", (0, 0), 0.5))
    assert wrong.first_beyond is not None
    assert wrong.first_beyond.value == "y"
    known = measured(model, scaled, regions=(Region(("bn",), ("x",), ("p2",), 5),))
    assert [item.value for item in known.values] == ["p2", "s2", "y"]
    assert known.inside == 3


def test_a_fault_that_nothing_behind_it_shows_is_left_out() -> None:
    model = network(b1=0.0, W1=0.0)
    other = changed(model, "b1", (slice(None),), -3.0)  # the rectifier takes it away
    found = measured(model, other)
    assert [item.value for item in found.values if item.moved] == ["a1"]
    assert found.first_beyond is None


def test_what_folding_removed_is_counted() -> None:
    model = network()
    folded = ModelProto()
    folded.CopyFrom(model)
    folded.graph.node[1].input[0] = "other"
    folded.graph.node[0].output[0] = "other"
    found = measured(model, folded)
    assert [item.value for item in found.values] == list(INNER[1:])
    assert found.inside == 1


@pytest.mark.parametrize("budget", [1, 16 * 5, 16 * 11, 1 << 27])
def test_values_that_are_measured_a_few_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    model = network()
    other = changed(model, "W2", (0, 0), 1e-3)
    expected = measured(model, other)
    asked: list[int] = []

    def counting(one: ModelProto, *, also: tuple[str, ...] = ()) -> object:
        asked.append(len(also))
        return Session(one, also=also)

    monkeypatch.setattr(measuring, "_BUDGET", budget)
    monkeypatch.setattr("bnfold.parity.layers.Session", counting)
    found = measured(model, other)
    assert (found.values, found.worst) == (expected.values, expected.worst)
    assert max(asked) <= max(1, budget // (16 * 5))


def test_sizes_that_nobody_knows_are_found_out_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr(measuring, "infer", lambda _model: {})
    assert [item.value for item in measured(model, model).values] == list(INNER)


def test_values_that_are_no_floats_are_left_out() -> None:
    model = network("""
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N,6] x) => (float[N,6] y)
    {
        s = Shape(x)
        i = Cast<to = 7>(x)
        l = SequenceConstruct(x, x)
        f = SequenceAt(l, z)
        z = Constant<value_int = 0>()
        r = Reshape(x, s)
        y = Add(r, f)
    }
    """)
    nodes = {node.output[0]: node for node in model.graph.node}
    del model.graph.node[:]
    model.graph.node.extend(nodes[name] for name in ("s", "i", "z", "l", "f", "r", "y"))
    assert [item.value for item in measured(model, model).values] == ["f", "r", "y"]


def test_values_in_bodies_are_left_out_and_what_leaves_them_is_measured() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N,6] x) => (float[N,6] y)
    {
        m = ReduceMax<keepdims = 0>(x)
        c = Cast<to = 9>(m)
        h = If(c) <
            then_branch = yes () => (float[N,6] t) { t = Relu(x) },
            else_branch = no () => (float[N,6] e) { e = Neg(x) }
        >
        y = Sigmoid(h)
    }
    """)
    assert [item.value for item in measured(model, model).values] == ["m", "h", "y"]


def test_an_infinite_error_is_beyond_every_limit() -> None:
    model = network()
    found = measured(model, changed(model, "b1", (0,), math.inf))
    assert found.first_beyond is not None
    assert (found.first_beyond.value, found.first_beyond.folded) == ("a1", math.inf)
    assert found.worst is not None
    assert math.isfinite(next(item.folded for item in found.values if item.value == found.worst.value))


def test_the_histograms_count_every_element() -> None:
    model = network()
    x = np.random.default_rng(5).normal(size=(40, 6)).astype(np.float32)
    parity = Parity(Verdict.PASS, "full", probes=(ProbeRecord("given 1", "", (("x", (40, 6)),)),))
    worst = measured(model, changed(model, "W2", (0, 0), 1e-5), parity, feeds=({"x": x},)).worst
    assert worst is not None
    elements = {"p2": 200, "s2": 200, "y": 160}[worst.value]
    for counts, exact in ((worst.errors.unfolded, worst.errors.exact[0]), (worst.errors.folded, worst.errors.exact[1])):
        assert sum(counts) + exact == elements
    for counts in (worst.values.unfolded, worst.values.folded, worst.values.reference):
        assert sum(counts) == elements
    assert list(worst.errors.edges) == sorted(worst.errors.edges)
    assert len(worst.errors.edges) == len(worst.errors.unfolded) + 1


def test_two_models_without_a_common_name_have_nothing_to_show() -> None:
    model, other = network(), network(CHAIN.replace("p1", "q1").replace("a1", "c1").replace("r1", "d1"))
    assert shared_values(model, other)[0] == ("p2", "s2", "y")
    alone = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,6] x) => (float[N,6] z) { z = Relu(x) }'
    )
    found = measured(model, alone)
    assert (found.values, found.worst, found.detail) == ((), None, "the two models share no value by name")


def test_without_a_probe_that_ran_there_is_nothing_to_show() -> None:
    found = measured(network(), network(), Parity(Verdict.FAIL, "full"))
    assert (found.values, found.detail) == ((), "no probe ran on both models")


def test_a_model_that_does_not_run_is_a_reason_and_no_crash() -> None:
    model, other = network(), network()
    other.graph.node[3].op_type = "Concat"
    found = measured(model, other)
    assert found.values == ()
    assert found.detail.startswith("onnxruntime")


@dataclass(frozen=True)
class _Layer:
    name: str
    kind: str
    value: Any
    reads: tuple[str, ...] = ()


def test_layers_of_an_original_stand_beside_the_values_that_are_most_like_them() -> None:
    """Channels stand last in the original: its axes are moved to find the value."""
    values = np.random.default_rng(0).normal(size=(1, 3, 4, 5))
    model = [("other", values + 1), ("near", values * (1 + 1e-6)), ("flat", np.arange(7.0)), ("number", np.arange(60))]
    layers = [
        _Layer("conv", "Conv2D", values.transpose(0, 2, 3, 1)),
        _Layer("counted", "Lambda", np.arange(3)),
        _Layer("alone", "Dense", np.ones((1, 11), np.float32)),
    ]
    found = beside(layers, model)
    assert [(item.layer, item.kind, item.value) for item in found] == [
        ("conv", "Conv2D", "near"),
        ("alone", "Dense", ""),
    ]
    assert found[0].error == pytest.approx(1e-6, rel=1e-3)
    assert math.isnan(found[1].error)


def test_an_original_that_cannot_be_opened_leaves_the_list_of_its_layers_empty() -> None:
    net = build(["Conv"] * 2, seed=1)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=0, level="fast")

    def broken(_feeds: object) -> Any:
        raise RuntimeError("no")

    sides = {"unfolded": net.unfolded, "folded": net.folded, "parity": parity, "regions": net.regions}
    assert measure_layers(**sides, original=broken).original == ()  # type: ignore[arg-type]
    seen = measure_layers(**sides, original=lambda feeds: [_Layer("x", "Input", feeds["x"])])  # type: ignore[arg-type]
    assert [item.layer for item in seen.original] == ["x"]


SHRINKING = """g (float[N, 4, 8, 8] x) => (float[N, 4, 1, 1] y) {
    a = Mul(x, s)  b = Relu(a)  c = Add(b, o)  y = GlobalAveragePool(c) }"""


def test_a_mistake_that_shrinks_on_its_way_is_no_value_that_stands_for_something_else() -> None:
    def model(wrong: float) -> ModelProto:
        built = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {SHRINKING}')
        scale = np.ones((4, 1, 1), np.float32)
        scale[2] += wrong
        arrays = {"s": scale, "o": np.float32(500)}
        built.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items())
        return built

    parity = verify(unfolded=model(0.0), folded=model(0.1), seed=0)
    assert parity.verdict is Verdict.FAIL
    found = measure_layers(unfolded=model(0.0), folded=model(0.1), parity=parity)
    assert [item.value for item in found.values if item.beyond] == ["a", "b", "c", "y"]
    assert found.first_beyond is not None
    assert found.first_beyond.folded > 1 / 16
    assert found.values[-1].folded < 1 / 64  # what is left of it at the end
