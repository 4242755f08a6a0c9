"""Outputs and inputs of every kind: the same model passes against itself, and a changed one does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, numpy_helper, parser

from bnfold.parity import Verdict, verify

Array = npt.NDArray[Any]
HEAD = '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>'

KINDS = {
    "a sequence": """g (float[N,4] x) => (seq(float[N,4]) s) <float[4] c> {
        a = Add(x, c)  b = Tanh(a)  s = SequenceConstruct(a, b) }""",
    "a sequence of integers": """g (int64[N,4] x) => (seq(int64[N,4]) s) <float[4] c> {
        f = Cast<to = 1>(x)  g = Mul(f, c)  i = Cast<to = 7>(g)  s = SequenceConstruct(x, i) }""",
    "an optional": "g (float[N,4] x) => (optional(float[N,4]) s) <float[4] c> { a = Add(x, c)  s = Optional(a) }",
    "an optional input": """g (optional(float[2,4]) s) => (float[2,4] y) <float[4] c> {
        t = OptionalGetElement(s)  y = Add(t, c) }""",
    "text that chooses numbers": """g (string[N,4] s) => (float[N,4] y) <float[4] c> {
        t = ai.onnx.ml.LabelEncoder<keys_strings = ["p", "q"], values_floats = [1.0, 2.0]>(s)  y = Add(t, c) }""",
    "text that is chosen": """g (float[N,4] x) => (string[N,4] y) <float[4] c> {
        a = Mul(x, c)  t = Cast<to = 7>(a)
        y = ai.onnx.ml.LabelEncoder<keys_int64s = [-1, 0, 1], values_strings = ["-", "o", "+"],
            default_string = "?">(t) }""",
    "a condition": "g (float[N,4] x) => (bool[N,4] y) <float[4] c> { a = Add(x, c)  z = Abs(x)  y = Greater(a, z) }",
    "integers": "g (float[N,4] x) => (int64[N,4] y) <float[4] c> { a = Mul(x, c)  y = Cast<to = 7>(a) }",
    "places of the largest": """g (float[N,4] x) => (float[N,2] v, int64[N,2] i) <float[4] c> {
        k = Constant<value = int64[1] {2}>()  a = Add(x, c)  v, i = TopK(a, k) }""",
    "a place behind casts": """g (float[N,4] x) => (int32[N] i) <float[4] c> {
        a = Add(x, c)  p = Softmax(a)  m = ArgMax<axis = 1, keepdims = 0>(p)  i = Cast<to = 6>(m) }""",
    "boxes that are left": """g (float[1,6,4] boxes, float[1,2,6] scores) => (int64[K,3] y) <float[4] c> {
        m = Constant<value = int64[1] {3}>()  t = Constant<value = float[1] {0.5}>()
        b = Add(boxes, c)  y = NonMaxSuppression(b, scores, m, t) }""",
    "one number": """g (float x) => (float y) <float[4] c> {
        t = Tanh(x)  m = ReduceMean<keepdims = 0>(c)  y = Add(t, m) }""",
    "tiny numbers": """g (float[N,4] x) => (float[N,4] y) <float[4] c> {
        e = Constant<value = float {1e-30}>()  a = Add(x, c)  t = Tanh(a)  y = Mul(t, e) }""",
    "a constant": "g (float[N,4] x) => (float[N,4] y) <float[4] c> { z = Sub(x, x)  y = Add(z, c) }",
    "infinity by design": """g (float[N,4] x) => (float[N,4] y) <float[4] c> {
        z = Relu(x)  l = Log(z)  y = Add(l, c) }""",
    "no number by design": "g (float[N,4] x) => (float[N,4] y) <float[4] c> { q = Sqrt(x)  y = Add(q, c) }",
    "two inputs": "g (float[N,4] x, float[N,4] z) => (float[N,4] y) <float[4] c> { a = Add(x, z)  y = Add(a, c) }",
    "two outputs": """g (float[N,4] x) => (float[N,4] y, int64[N] k) <float[4] c> {
        y = Add(x, c)  k = ArgMax<axis = 1, keepdims = 0>(y) }""",
}


def _of(text: str, moved: float = 0.0) -> ModelProto:
    model = parser.parse_model(f"{HEAD} {text}")
    del model.graph.value_info[:]
    constant = np.array([0.5, 2.0, 1.5, 3.0 + moved], dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(constant, "c"))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_any_kind_passes_against_itself(kind: str) -> None:
    model = _of(KINDS[kind])
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict is Verdict.PASS, parity.summary
    assert all(item.compared for item in parity.folding)
    assert all(law.verdict is Verdict.PASS for law in parity.laws)


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_a_constant_shows_whatever_the_kind(kind: str) -> None:
    parity = verify(unfolded=_of(KINDS[kind]), folded=_of(KINDS[kind], moved=2.0), seed=0)
    assert parity.verdict is Verdict.FAIL, parity.summary
    assert parity.blames == "folding"


def test_a_change_of_less_than_rounding_moves_is_none() -> None:
    for kind in ("integers", "a condition", "places of the largest", "a place behind casts", "text that is chosen"):
        parity = verify(unfolded=_of(KINDS[kind]), folded=_of(KINDS[kind], moved=2e-7), seed=0)
        assert parity.verdict is Verdict.PASS, f"{kind}: {parity.summary}"


def test_a_sequence_of_another_length_is_not_the_same() -> None:
    longer = KINDS["a sequence"].replace("SequenceConstruct(a, b)", "SequenceConstruct(a, b, b)")
    parity = verify(unfolded=_of(KINDS["a sequence"]), folded=_of(longer), seed=0)
    assert parity.verdict is Verdict.FAIL
    assert "shape [(1, 4), (1, 4), (1, 4)] is not the reference's [(1, 4), (1, 4)]" in parity.folding[0].detail


def test_an_input_that_is_a_sequence_is_said_to_be_beyond_probes() -> None:
    model = _of("g (seq(float[N,4]) s) => (float[M,4] y) <float[4] c> { y = ConcatFromSequence<axis = 0>(s) }")
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict is Verdict.INCONCLUSIVE
    assert parity.summary == "INCONCLUSIVE: input s is a sequence, and probes are tensors"


CLASSES = """g (float[N, 8] x) => (float[N, 12] p) <float[8, 12] w, float[12] b> {
    h = MatMul(x, w)  l = Add(h, b)  p = Softmax(l) }"""


def _classes(shift: float = 0.0, *, tie: bool = False) -> ModelProto:
    generator = np.random.default_rng(0)
    w, b = generator.normal(size=(8, 12)).astype(np.float32), generator.normal(size=12).astype(np.float32)
    if tie:
        w[:, 1], b[:2] = w[:, 0], 4.0
    b[1] += np.float32(shift)
    model = parser.parse_model(f"{HEAD} {CLASSES}")
    model.graph.initializer.extend([numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")])
    return model


def test_classes_are_counted_alone_and_several_together() -> None:
    parity = verify(unfolded=_classes(), folded=_classes(), seed=0)
    assert [(row.output, row.metric, row.candidate) for row in parity.behaviour] == [
        ("p", "top-1", "folded"),
        ("p", "top-5", "folded"),
    ]
    assert all(row.agreed + row.explained == row.rows == 12 for row in parity.behaviour)


def test_a_choice_between_equals_may_go_either_way_and_is_counted() -> None:
    parity = verify(unfolded=_classes(tie=True), folded=_classes(3e-7, tie=True), seed=0)
    assert parity.verdict.passed, parity.summary
    assert parity.behaviour[0].explained > 0


def test_a_choice_that_rounding_does_not_explain_fails() -> None:
    parity = verify(unfolded=_classes(), folded=_classes(3.0), seed=0)
    assert parity.verdict is Verdict.FAIL
    first = parity.behaviour[0]
    assert first.verdict is Verdict.FAIL
    assert "rows are decided otherwise than in float64, by margins up to" in first.detail
    assert parity.summary.count("top-1") == 0  # the error itself is told


def test_a_figure_of_the_users_own_is_measured_on_all_sides_and_a_lost_condition_fails() -> None:
    def metric(outputs: Any, feeds: Any, place: int) -> dict[str, float]:
        assert feeds["x"].shape == (3, 8)
        assert place == 0
        first = int(np.argmax(outputs["p"][0]))
        return {"mean": float(outputs["p"].mean()), "is one": bool(first == 1), "largest": float(outputs["p"].max())}

    feeds = [{"x": np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)}]
    same = verify(unfolded=_classes(9.0), folded=_classes(9.0), seed=0, feeds=feeds, metric=metric)
    figures = {row.name: row for row in same.measured}
    assert same.verdict.passed, same.summary
    assert figures["mean"].reference == pytest.approx(1 / 12)
    assert figures["is one"].candidate == 1.0
    assert np.isnan(figures["mean"].original)
    lost = verify(unfolded=_classes(9.0), folded=_classes(-9.0), seed=0, feeds=feeds, metric=metric)
    figures = {row.name: row for row in lost.measured}
    assert figures["is one"].verdict is Verdict.FAIL
    assert figures["is one"].detail == "it holds before and no longer after, on 1 of 1 sets of inputs"
    assert figures["mean"].verdict is Verdict.PASS
