"""Networks that choose: correct folds pass wherever rounding chooses otherwise, and mistakes show behind any choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, numpy_helper, parser

from bnfold import fold as folding
from bnfold.parity import Parity, Verdict, run_float64, verify
from bnfold.parity.decisions import decisions_of, opened, within
from bnfold.parity.layers import measure_layers
from bnfold.parity.reference import Reference
from bnfold.parity.run import Session
from tests.parity.choosers import CHOOSERS, chooser, damaged

Array = npt.NDArray[Any]
HEAD = '<ir_version: 8, opset_import: ["": 17]>'


def _verified(model: ModelProto, folded: ModelProto | None = None, seed: int = 0, **told: Any) -> Parity:
    done = folding.apply(model, folding.plan(model))
    assert done.regions
    if folded is not None:
        return verify(unfolded=model, folded=folded, seed=seed, apart=True, **told)
    return verify(unfolded=model, folded=done.model, regions=done.regions, seed=seed, **told)


@pytest.mark.parametrize("kind", CHOOSERS)
def test_a_correct_fold_of_a_network_that_chooses_passes(kind: str) -> None:
    for seed in (0, 1):
        parity = _verified(chooser(kind, seed), seed=seed)
        assert parity.verdict.passed, f"seed {seed}: {parity.summary}"
        assert all(item.compared for item in parity.folding)


@pytest.mark.parametrize("kind", ["ssd", "yolo", "masked"])
def test_a_correct_fold_in_float16_passes_although_half_of_the_scores_are_equal(kind: str) -> None:
    parity = _verified(chooser(kind, 1, np.float16), seed=1)
    assert parity.verdict.passed, parity.summary


@pytest.mark.parametrize("what", ["running_var off by 1 %", "two means swapped", "beta missing", "gamma off by 1 %"])
@pytest.mark.parametrize("kind", CHOOSERS)
def test_a_mistake_shows_behind_any_choice_without_a_look_at_the_fold(kind: str, what: str) -> None:
    model = chooser(kind, 2)
    wrong = damaged(model, 1, what)
    parity = _verified(model, folding.apply(wrong, folding.plan(wrong)).model, level="fast")
    assert parity.verdict is Verdict.FAIL, parity.summary
    assert parity.blames == "folding"


def test_a_mistake_is_found_at_its_own_layer() -> None:
    model = chooser("yolo", 3)
    norms = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    wrong = damaged(model, 2, "two means swapped")
    done = folding.apply(wrong, folding.plan(wrong))
    parity = verify(unfolded=model, folded=done.model, regions=done.regions, seed=0, level="fast")
    assert [check.sources for check in parity.failed_regions] == [(norms[2],)]


def test_where_only_the_choice_leaves_the_model_its_floats_are_compared() -> None:
    model = chooser("spoken", 0)
    wrong = damaged(model, 0)
    parity = _verified(model, folding.apply(wrong, folding.plan(wrong)).model, level="fast")
    detail = parity.folding[0].detail
    assert ", by which it is chosen, is off: error " in detail
    assert parity.suspect is not None


TIE = """g (float[N, 8] x) => (float[N, 4] y, int64[N] k)
    <float[8, 5] w, float[5] c, float[5, 4] table> {
    h = MatMul(x, w)  l = Add(h, c)  k = ArgMax<axis = 1, keepdims = 0>(l)  y = Gather(table, k) }"""


def _tied(shift: float, wrong: float = 0.0) -> ModelProto:
    """Two classes that are as good as equal for every input; what is returned are their rows of a table."""
    generator = np.random.default_rng(0)
    w, c = generator.normal(size=(8, 5)), generator.normal(size=5)
    w[:, 1], c[:2] = w[:, 0], 90.0
    c[1] += shift
    w[:, 2:] *= 1 + wrong
    model = parser.parse_model(f"{HEAD} {TIE}")
    arrays = {"w": w, "c": c, "table": generator.normal(size=(5, 4))}
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    return model


def test_what_lies_behind_a_choice_between_equals_may_be_the_other_one() -> None:
    parity = verify(unfolded=_tied(0.0), folded=_tied(1e-5), seed=0)
    assert parity.verdict.passed, parity.summary
    assert [item.differing > 0 for item in parity.folding if item.kind == "exact"] == [True]
    assert next(item for item in parity.folding if item.output == "y").candidate < 1e-6


def test_a_choice_that_rounding_does_not_explain_fails_with_the_float_that_it_is_made_by() -> None:
    parity = verify(unfolded=_tied(0.0), folded=_tied(1e-2), seed=0)
    assert parity.verdict is Verdict.FAIL
    assert parity.folding[0].detail.startswith("l, by which it is chosen, is off: error ")


def test_a_float_that_never_changes_a_choice_is_compared_all_the_same() -> None:
    parity = verify(unfolded=_tied(-1.0), folded=_tied(-1.0, wrong=1e-3), seed=0)
    assert parity.verdict is Verdict.FAIL


def test_layer_by_layer_what_lies_behind_another_choice_is_not_off() -> None:
    model, other = _tied(0.0), _tied(1e-5)
    layers = measure_layers(unfolded=model, folded=other, parity=verify(unfolded=model, folded=other, seed=0))
    assert [item.value for item in layers.values] == ["h", "l", "y"]
    assert layers.first_beyond is None


def test_an_original_that_hides_a_choice_between_equals_is_inconclusive_and_no_mistake() -> None:
    model, other = _tied(0.0), _tied(1e-5)
    session = Session(other)
    hidden = ModelProto()
    hidden.CopyFrom(model)
    del hidden.graph.output[1:]
    parity = verify(unfolded=hidden, folded=hidden, original=lambda feeds: {"y": session.run(feeds)["y"]}, seed=0)
    assert parity.verdict is Verdict.INCONCLUSIVE
    assert parity.summary == (
        "INCONCLUSIVE: translation, not folding: output y: it stands behind a choice that rounding decides, and what "
        "was chosen cannot be seen"
    )


@pytest.mark.parametrize("kind", ["ssd", "centers"])
def test_an_original_that_hides_its_choices_is_right_or_wrong_by_what_it_returns(kind: str) -> None:
    model = chooser(kind, 0)
    done = Session(folding.apply(model, folding.plan(model)).model)
    assert verify(unfolded=model, folded=model, original=done.run, seed=0).verdict.passed
    wrong = Session(damaged(model, 1, "beta missing"))
    parity = verify(unfolded=model, folded=model, original=wrong.run, seed=0, level="fast")
    assert parity.verdict is Verdict.FAIL
    assert parity.blames == "translation"


def test_a_loop_tells_what_it_chooses_turn_by_turn() -> None:
    model = chooser("beam", 0)
    shown = opened(model, lambda _name: True)
    assert opened(chooser("ssd", 0), lambda _name: True).graph.output == chooser("ssd", 0).graph.output
    decisions = decisions_of(shown, lambda _name: True)
    loop = next(node for node in model.graph.node if node.op_type == "Loop")
    assert [scope for scope, _name in decisions.turns.values()] == [(loop.name,)] * 2
    assert len(decisions.chosen) == len(decisions.floats) == 1
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)}
    names = [*decisions.chosen, "words", "scores"]
    found = Session(shown, also=decisions.chosen).run(feeds)
    truth = Reference(shown).run(feeds, names)
    assert truth[decisions.chosen[0]].shape == found[decisions.chosen[0]].shape == (8, 4)
    other = found[decisions.chosen[0]][:, ::-1].copy()
    forced = Reference(shown).run(feeds, names, forced=decisions.forced({decisions.chosen[0]: other}))
    assert np.array_equal(forced[decisions.chosen[0]], other)
    assert not np.allclose(forced["scores"], truth["scores"])


GROWING = """g (float[N, 4] x) => (float[M, 4] y, int64[K] k) <int64 trips = {3}, bool go = {1}> {
    y, k = Loop(trips, go, x) <body = body (int64 i, bool c, float[A, 4] s) => (bool d, float[B, 4] t, int64[D] m) {
        d = Identity(c)  e = Tanh(s)  t = Concat<axis = 0>(e, s)
        h = ReduceMax<axes = [0], keepdims = 0>(t)  m = ArgMax<axis = 0, keepdims = 1>(h)
        n = ArgMax<axis = 1, keepdims = 0>(t) }> }"""


def test_a_loop_whose_choices_grow_from_turn_to_turn_is_compared_as_it_is() -> None:
    model = parser.parse_model(f"{HEAD} {GROWING}")
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict.passed, parity.summary


def test_the_values_of_a_choice_are_those_at_the_places_that_are_given() -> None:
    model = parser.parse_model(
        f"{HEAD} g (float[N, 6] x) => (float[N, 2] v, int64[N, 2] i) <int64[1] k = {{2}}> {{ v, i = TopK(x, k) }}"
    )
    x = np.arange(6.0, dtype=np.float32).reshape(1, 6)
    given = np.array([[4, 0]], dtype=np.int64)
    found = Reference(model).run({"x": x}, ["v", "i"], forced={(): {"i": given}})
    assert found["v"].tolist() == [[4.0, 0.0]]
    assert found["i"].tolist() == [[4, 0]]


def test_choices_of_another_model_are_its_own_where_they_are_made_of_other_values() -> None:
    model = _tied(0.0)
    other = ModelProto()
    other.CopyFrom(model)
    other.graph.node[2].input[0] = "h"
    decisions = decisions_of(model, lambda _name: True)
    assert (decisions.floats, decisions.chosen) == (("l",), ("k",))
    assert within(decisions, model, model) == ("k", "l")
    assert within(decisions, model, other) == ()


def test_elements_are_gathered_from_a_table_of_any_size() -> None:
    model = parser.parse_model(
        f"{HEAD} g (float[A, B] x, int64[C, D] i) => (float[C, D] y) {{ y = GatherElements<axis = -2>(x, i) }}"
    )
    generator = np.random.default_rng(0)
    x, places = generator.normal(size=(200, 5)).astype(np.float32), generator.integers(-200, 200, size=(90, 3))
    expected = np.stack([x[places[:, column], column] for column in range(3)], axis=1)
    assert np.array_equal(run_float64(model, {"x": x, "i": places})["y"], expected.astype(np.float64))
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


NEARLY = "s = ReduceSum<keepdims = 1>(x, ax)  e = Exp(s)  l = Mul(e, pair)"
"""Two numbers that are as good as equal, on every input."""
BY_PLACE = """k = ArgMax<axis = 1, keepdims = 0>({})  {} = Gather(table, k)"""
IN_A_BRANCH = f"""g (float[N, 4] x, bool c) => (float[N, 3] y) {{ {NEARLY}
    y = If(c) <then_branch = t () => (float[N, 3] a) {{ {BY_PLACE.format("l", "a")} }},
               else_branch = f () => (float[N, 3] b) {{
                   k = ArgMin<axis = 1, keepdims = 0>(l)  b = Gather(table, k) }}> }}"""
IN_A_BRANCH_OF_A_LOOP = f"""g (float[1, 4] x) => (float[1, 3] y) <int64 n = {{2}}, bool go = {{1}}> {{ {NEARLY}
    z = Gather(table, zero)
    y = Loop(n, go, z) <body = body (int64 i, bool c, float[1, 3] o) => (bool d, float[1, 3] p) {{
        d = Identity(c)
        p = If(c) <then_branch = t () => (float[1, 3] a) {{ {BY_PLACE.format("l", "a")} }},
                   else_branch = f () => (float[1, 3] b) {{ b = Identity(o) }}> }}> }}"""
OF_SIZES_THAT_CHANGE = f"""g (float[N, 4] x) => (float[M, 2] z, float[K, 3] y)
    <int64 n = {{2}}, bool go = {{1}}> {{ {NEARLY}
    z, y = Loop(n, go, l) <body = body (int64 i, bool c, float[A, 2] o) => (bool d, float[B, 2] p, float[C, 3] q) {{
        d = Identity(c)  p = Concat<axis = 0>(o, l)  {BY_PLACE.format("p", "r")}
        q = ReduceSum<keepdims = 1>(r, first) }}> }}"""
AS_A_NUMBER = f"""g (float[N, 4] x, bool c) => (int64[N] y) {{ {NEARLY}
    y = If(c) <then_branch = t () => (int64[N] a) {{ a = ArgMax<axis = 1, keepdims = 0>(l) }},
               else_branch = f () => (int64[N] b) {{ b = ArgMin<axis = 1, keepdims = 0>(l) }}> }}"""
AS_MANY = f"""g (float[N, 4] x, bool c) => (float[M] y) {{ {NEARLY}
    y = If(c) <then_branch = t () => (float[A] a) {{ u, v = Split<axis = 1>(l)  g = Greater(v, u)
                   m = Reshape(g, flat)  i = Compress(s, m)  a = Mul(i, big) }},
               else_branch = f () => (float[B] b) {{ j = Reshape(s, flat)  b = Neg(j) }}> }}"""
GOES_ON = f"""g (float[N, 4] x) => (float[N, 4] y) <int64 n = {{6}}, bool go = {{1}}> {{ {NEARLY}
    p = ReduceMax<keepdims = 0>(e)  q = Mul(p, one)  r = Mul(p, near)
    y = Loop(n, go, x) <body = body (int64 i, bool c, float[N, 4] o) => (bool d, float[N, 4] t) {{
        d = Greater(r, q)  t = Mul(o, big) }}> }}"""
TAKEN = f"""g (float[N, 4] x) => (float[N, 4] y) {{ {NEARLY}
    p = ReduceMax<keepdims = 0>(e)  q = Mul(p, one)  r = Mul(p, near)  c = Greater(r, q)
    y = If(c) <then_branch = t () => (float[N, 4] a) {{ a = Mul(x, big) }},
               else_branch = f () => (float[N, 4] b) {{ b = Neg(x) }}> }}"""


def _nearly(text: str, apart: float) -> ModelProto:
    model = parser.parse_model(f"{HEAD} {text}")
    arrays = {
        "ax": np.array([1]),
        "first": np.array([0]),
        "flat": np.array([-1]),
        "zero": np.array([0]),
        "one": np.float32(1),
        "near": np.float32(1 + apart),
        "pair": np.array([1, 1 + apart], np.float32),
        "big": np.float32(4),
        "table": np.array([[1, 2, 3], [40, -50, 60]], np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items())
    return model


LAST_PLACE = 2.0**-23


@pytest.mark.parametrize(
    ("text", "output", "by"),
    [
        (IN_A_BRANCH, "y", "rounding alone changes it by 23"),
        (IN_A_BRANCH_OF_A_LOOP, "y", "rounding alone changes it by 23"),
        (OF_SIZES_THAT_CHANGE, "y", "rounding alone changes it by 23"),
        (AS_A_NUMBER, "y", "rounding alone changes 1 of its 1 values"),
    ],
    ids=["branch", "branch of a loop", "sizes that change", "a number"],
)
def test_a_choice_between_equals_that_nobody_sees_is_inconclusive_with_its_number(
    text: str, output: str, by: str
) -> None:
    assert verify(unfolded=_nearly(text, 0.0), folded=_nearly(text, 0.0), seed=0).verdict.passed
    parity = verify(unfolded=_nearly(text, 0.0), folded=_nearly(text, LAST_PLACE), seed=0)
    assert parity.verdict is Verdict.INCONCLUSIVE, parity.summary
    assert next(item.detail for item in parity.folding if item.output == output) == by


def test_how_many_are_chosen_where_nobody_sees_it_is_inconclusive() -> None:
    parity = verify(unfolded=_nearly(AS_MANY, 0.0), folded=_nearly(AS_MANY, LAST_PLACE), seed=0)
    assert parity.verdict is Verdict.INCONCLUSIVE
    assert parity.folding[0].detail == "rounding alone changes its shape"


@pytest.mark.parametrize("text", [TAKEN, GOES_ON], ids=["which branch", "how many turns"])
def test_which_branch_is_taken_and_how_often_a_loop_turns_is_followed(text: str) -> None:
    assert verify(unfolded=_nearly(text, 0.0), folded=_nearly(text, LAST_PLACE), seed=0).verdict.passed
    parity = verify(unfolded=_nearly(text, 0.0), folded=_nearly(text, 1e-3), seed=0)
    assert parity.verdict is Verdict.FAIL
    assert parity.folding[0].detail.startswith("r, by which it is chosen, is off: error 0.001 against float64")


@pytest.mark.parametrize("text", [IN_A_BRANCH, IN_A_BRANCH_OF_A_LOOP, AS_A_NUMBER, AS_MANY])
def test_a_mistake_in_a_choice_that_nobody_sees_never_passes(text: str) -> None:
    """The two numbers are far apart, and the wrong one is chosen: rounding does not explain it."""
    parity = verify(unfolded=_nearly(text, 0.5), folded=_nearly(text, -0.5), seed=0)
    assert parity.verdict is Verdict.FAIL


AS_MANY_AS_THERE_ARE = """g (float[1, 4] x) => (float[1, 4] y) <int64 n = {2}, bool go = {1}> {
    y = Loop(n, go, x) <body = body (int64 i, bool c, float[1, 4] o) => (bool d, float[1, 4] p) {
        d = Identity(c)  z = NonZero(o)  k = Shape(z)  f = Cast<to = 1>(k)  s = ReduceMax<keepdims = 0>(f)
        q = Floor(o)  r = Sub(o, q)  p = Mul(r, s) }> }"""


def test_no_probe_is_lost_where_a_loop_chooses_more_in_one_turn_than_in_another() -> None:
    """Of ones nothing is left after a turn, and turns of two sizes cannot be returned; of a draw all is left."""
    model = parser.parse_model(f"{HEAD} {AS_MANY_AS_THERE_ARE}")
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict.passed, parity.summary
    assert all(probe.used for probe in parity.probes)
    assert len(parity.probes) == 12
