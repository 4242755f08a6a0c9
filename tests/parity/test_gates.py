"""Verification end to end: every classic mistake is caught where it was made, and no correct fold is accused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from bnfold.graph.region import Region
from bnfold.parity import Parity, Verdict, run_float64, verify
from tests.parity.nets import BUGS, Kind, Net, Statistics, build

Array = npt.NDArray[Any]
KINDS: tuple[Kind, ...] = ("Conv", "Gemm", "Depthwise", "ConvTranspose")


def _verify(net: Net, **options: Any) -> Parity:
    return verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=3, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_every_mistake_is_caught_at_its_own_layer(kind: Kind, bug: str, depth: int) -> None:
    for at in range(0, depth, 2):
        net = build([kind] * depth, seed=10 * depth + at, bug=bug, at=at)
        parity = _verify(net, level="full" if depth == 3 else "fast")
        assert parity.verdict is Verdict.FAIL
        assert [check.sources for check in parity.failed_regions] == [(f"bn{at}",)]
        assert parity.failed_regions[0].eta > 20 * parity.failed_regions[0].limit
        assert parity.blames == "folding"


@pytest.mark.parametrize("kind", ["Forward", "ForwardDepthwise", "ForwardTranspose"])
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_a_forward_shift_over_padding_is_caught_at_its_own_layer(kind: Kind, depth: int) -> None:
    for at in range(0, depth, 2):
        kinds: list[Kind] = ["ConvTranspose" if kind == "ForwardTranspose" else "Conv"] * depth
        kinds[at] = kind
        parity = _verify(build(kinds, seed=depth + at, bug="forward shift over padding", at=at))
        assert parity.verdict is Verdict.FAIL
        assert [check.sources for check in parity.failed_regions] == [(f"bn{at}",)]


@pytest.mark.parametrize("bug", ["permuted means", "sqrt(var)+eps"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_in_the_middle_of_twenty_layers_is_caught_there(kind: Kind, bug: str) -> None:
    for at in (7, 19):
        parity = _verify(build([kind] * 20, seed=at, bug=bug, at=at), level="fast")
        assert [check.sources for check in parity.failed_regions] == [(f"bn{at}",)]


@pytest.mark.parametrize("bug", BUGS)
def test_the_whole_model_alone_shows_the_mistake_too(bug: str) -> None:
    net = build(["Conv"] * 5, seed=4, bug=bug, at=2)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=(), seed=3)
    assert parity.verdict is Verdict.FAIL
    assert parity.folding[0].closest > 10


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64], ids=["float32", "float16", "float64"])
@pytest.mark.parametrize("statistics", ["healthy", "large mean", "tiny variance"])
@pytest.mark.parametrize(("kind", "depth"), [*((kind, 5) for kind in KINDS), ("Conv", 20), ("Gemm", 20)])
def test_correct_folds_pass(kind: Kind, depth: int, statistics: Statistics, dtype: type[np.floating[Any]]) -> None:
    parity = _verify(build([kind] * depth, seed=depth, statistics=statistics, dtype=dtype))
    assert parity.verdict.passed, parity.summary
    assert all(item.candidate <= item.limit and item.closest <= 1 for item in parity.folding)
    assert len(parity.regions) == depth
    assert max(check.eta / check.limit for check in parity.regions) < 0.7


def test_a_more_accurate_fold_is_called_so() -> None:
    parity = _verify(build(["Conv"] * 5, seed=1, statistics="large mean"))
    assert parity.verdict is Verdict.PASS_MORE_ACCURATE
    assert parity.rho < 0.2
    assert parity.summary.startswith(
        "PASS (more accurate than the original): 5 folded regions within their error bounds, error 0."
    )


def test_twelve_probes_are_fed_and_named() -> None:
    parity = _verify(build(["Conv"] * 2, seed=1, free=True))
    assert parity.verdict.passed
    assert [probe.name for probe in parity.probes] == [
        "normal draw 1",
        "uniform draw 2",
        "normal draw 3",
        "uniform draw 4",
        "zeros",
        "ones",
        "constant maximum",
        "±1 checkerboard",
        "hot pixel",
        "noise × 10",
        "smooth gradient",
        "1e-30",
    ]
    assert all(probe.used for probe in parity.probes)
    assert {(probe.shapes[0][1], probe.rows) for probe in parity.probes} == {
        ((1, 8, 32, 32), 0),
        ((1, 8, 32, 32), 2),
        ((1, 8, 35, 33), 3),
        ((1, 8, 32, 32), 7),
    }


def test_the_fast_level_still_catches_every_mistake() -> None:
    for bug in BUGS:
        parity = _verify(build(["Conv"] * 4, seed=8, bug=bug, at=1), level="fast")
        assert [check.sources for check in parity.failed_regions] == [("bn1",)]
        assert len(parity.probes) == 2
        assert all(check.probes == 2 for check in parity.regions)


def test_the_same_seed_gives_the_same_figures() -> None:
    net = build(["Conv"] * 2, seed=5)
    first, second = _verify(net), _verify(net)
    assert first.folding == second.folding
    assert first.regions == second.regions
    assert first.laws == second.laws


def test_bfloat16_is_judged_on_stand_in_kernels_and_says_so() -> None:
    net = build(["Conv", "Conv"], seed=3)

    def narrowed(model: ModelProto) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(model)
        for tensor in copy.graph.initializer:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16), tensor.name)
            )
        for value in (*copy.graph.input, *copy.graph.output):
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
        copy.opset_import[0].version = 22
        return copy

    unfolded = narrowed(net.unfolded)
    # Folded from the narrowed statistics, by hand.
    values = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in unfolded.graph.initializer}
    folded = narrowed(net.folded)
    for number in (0, 1):
        scale = values[f"gamma{number}"] / np.sqrt(values[f"var{number}"] + float(np.float32(1e-3)))
        weight = values[f"W{number}"] * scale[:, None, None, None]
        bias = (values[f"B{number}"] - values[f"mean{number}"]) * scale + values[f"beta{number}"]
        for tensor in folded.graph.initializer:
            for name, array in ((f"folded_W{number}", weight), (f"folded_B{number}", bias)):
                if tensor.name == name:
                    tensor.CopyFrom(numpy_helper.from_array(array.astype(ml_dtypes.bfloat16), name))
    parity = verify(unfolded=unfolded, folded=folded, regions=net.regions, seed=0)
    assert parity.verdict.passed, parity.summary
    assert parity.engines[0].startswith("float64 kernels, rounded after every node (onnxruntime has no kernel: ")


def _original(model: ModelProto, wrong: float = 0.0) -> Any:
    """An original program: the model in float64, rounded at the end, with an error if asked for."""

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        values = run_float64(model, feeds)
        return {name: (value * (1 + wrong)).astype(np.float32) for name, value in values.items()}

    return run


def test_a_translation_that_agrees_passes() -> None:
    net = build(["Conv"] * 3, seed=6)
    parity = _verify(net, original=_original(net.unfolded))
    assert parity.verdict.passed
    assert [item.verdict.passed for item in parity.translation] == [True]
    assert "agrees with the original program" in parity.summary


def test_a_translation_that_differs_is_blamed_and_folding_is_not() -> None:
    net = build(["Conv"] * 3, seed=6)
    parity = _verify(net, original=_original(net.unfolded, wrong=1e-3))
    assert parity.verdict is Verdict.FAIL
    assert parity.blames == "translation"
    assert parity.summary.startswith("FAIL: translation, not folding: output r2: error 0.00")
    assert all(item.verdict.passed for item in parity.folding)


def test_an_original_that_refuses_every_probe_proves_nothing() -> None:
    net = build(["Conv"], seed=6)

    def refuse(_feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise ValueError("no")

    parity = _verify(net, original=refuse)
    assert parity.verdict is Verdict.INCONCLUSIVE
    assert parity.summary == (
        "INCONCLUSIVE: translation, not folding: output r0: the original program refuses every probe: ValueError: no"
    )


def _of(text: str, **arrays: Array) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    del model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def test_all_nan_outputs_prove_nothing() -> None:
    model = _of("g (float[N, 2] x) => (float[N, 2] y) { h = Sub(x, x)  y = Div(h, h) }")
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict is Verdict.INCONCLUSIVE
    assert parity.folding[0].detail == "nothing was compared: no probe has a finite value"


def test_a_nan_that_the_original_does_not_have_fails() -> None:
    text = "g (float[N, 2] x) => (float[N, 2] y) <float[1] c> {{ h = Add(x, c)  y = {op}(h) }}"
    five = np.array([50.0], dtype=np.float32)
    before = _of(text.format(op="Abs"), c=five)
    after = _of(text.format(op="Sqrt"), c=five)
    parity = verify(unfolded=before, folded=after, seed=0)
    assert parity.verdict is Verdict.FAIL


def test_infinities_where_float32_overflows_are_expected() -> None:
    model = _of("g (float[N, 40] x) => (float[N, 40] y) <float[1] c> { h = Mul(x, c)  y = Exp(h) }",
                c=np.array([40.0], dtype=np.float32))  # fmt: skip
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict is Verdict.PASS, parity.summary


CHAOS = "g (float[N, 4] x) => (float[N, 4] y) <float[1] a, float[1] one> {{ {steps} }}"


def _logistic(turns: int) -> ModelProto:
    """The logistic map, which doubles every error at every turn."""
    steps = ["h0 = Sigmoid(x)"]
    for turn in range(turns):
        steps += [f"n{turn} = Sub(one, h{turn})", f"m{turn} = Mul(h{turn}, n{turn})", f"h{turn + 1} = Mul(m{turn}, a)"]
    text = CHAOS.format(steps="  ".join([*steps, f"y = Identity(h{turns})"]))
    return _of(text, a=np.array([4.0], dtype=np.float32), one=np.ones(1, dtype=np.float32))


def test_a_model_that_amplifies_rounding_without_bound_is_inconclusive_with_the_number() -> None:
    model = _logistic(40)
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict is Verdict.INCONCLUSIVE
    assert parity.amplification > 1e5
    assert verify(unfolded=_logistic(3), folded=_logistic(3), seed=0).verdict.passed


CLASSIFIER = """g (float[N, 8] x) => (int64[N] k, bool[N, 5] b, float[N, 5] p)
    <float[8, 5] w, float[5] c, float half = {0.5}> {
    h = MatMul(x, w)  l = Add(h, c)  k = ArgMax<axis = 1, keepdims = 0>(l)  p = Softmax(l)  b = Greater(p, half) }"""


def _classifier(shift: float = 0.0, tie: bool = False) -> ModelProto:  # noqa: FBT001, FBT002
    generator = np.random.default_rng(0)
    w, c = generator.normal(size=(8, 5)).astype(np.float32), generator.normal(size=5).astype(np.float32)
    if tie:
        w[:, 1], c[:2] = w[:, 0], 90.0
    c[1] += np.float32(shift)
    return _of(CLASSIFIER, w=w, c=c)


def test_exact_outputs_have_to_be_equal() -> None:
    parity = verify(unfolded=_classifier(), folded=_classifier(), seed=0)
    assert parity.verdict is Verdict.PASS
    assert [item.kind for item in parity.folding] == ["exact", "exact", "float"]
    worse = verify(unfolded=_classifier(), folded=_classifier(shift=3.0), seed=0)
    details = [item.detail for item in worse.folding]
    assert details[0].startswith("l, by which it is chosen, is off: error 1.")
    assert worse.verdict is Verdict.FAIL


def test_a_decision_may_flip_where_its_margin_is_nothing() -> None:
    parity = verify(unfolded=_classifier(tie=True), folded=_classifier(tie=True, shift=1e-5), seed=0)
    assert parity.folding[0].differing > 0
    assert parity.folding[0].verdict is Verdict.PASS


TRAINING = """g (float[N, 3] x) => (float[N, 3] y) {
    m = ReduceMean<axes = [0]>(x)  d = Sub(x, m)  q = Mul(d, d)  v = ReduceMean<axes = [0]>(q)
    e = Constant<value = float {0.001}>()  w = Add(v, e)  r = Sqrt(w)  y = Div(d, r) }"""


def test_a_graph_that_normalizes_with_its_batch_breaks_the_law() -> None:
    model = _of(TRAINING)
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict is Verdict.FAIL
    assert parity.blames == "the model"
    law = parity.laws[0]
    assert law.name == "batch independence"
    assert law.figure > 0.03
    assert law.detail.endswith("with what else is in the batch; the model is not in inference mode")


def test_the_users_own_arrays_come_first() -> None:
    net = build(["Gemm"] * 2, seed=6)
    mine = [{"x": np.full((2, 8), 0.25, dtype=np.float32)}]
    parity = _verify(net, feeds=mine)
    assert (parity.probes[0].name, parity.probes[0].origin) == ("given 1", "the user's arrays")
    assert parity.probes[0].shapes == (("x", (2, 8)),)
    assert parity.verdict.passed


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    net = build(["Gemm"] * 2, seed=6)
    _verify(net, progress=lambda what, done, of: told.append((what, done, of)))
    assert ("checking folds", 2, 2) in told
    assert told[-1] == ("running probes", 12, 12)


BRANCHES = """g (bool c, float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> {{
    y = If (c) <then_branch = t () => (float[N, 4] a) {{ {fold} }},
        else_branch = e () => (float[N, 4] o) {{ o = Identity(x) }}> }}"""


@pytest.mark.parametrize("wrong", [0.0, 1e-3])
def test_a_fold_inside_a_branch_is_checked_there(wrong: float) -> None:
    generator = np.random.default_rng(2)
    w = generator.normal(size=(4, 4)).astype(np.float32)
    gamma, beta, mean = (generator.normal(size=4).astype(np.float32) for _ in range(3))
    var = generator.uniform(0.5, 2, size=4).astype(np.float32)
    norm = "h = MatMul(x, w)  a = BatchNormalization(h, gamma, beta, mean, var)"
    before = _of(BRANCHES.format(fold=norm).replace(
        "<float[4, 4] w>", "<float[4, 4] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>"
    ), w=w, gamma=gamma, beta=beta, mean=mean, var=var)  # fmt: skip
    scale = gamma / np.sqrt(var.astype(np.float64) + float(np.float32(1e-5)))
    after = _of(BRANCHES.format(fold="a = Gemm(x, w2, b2)").replace("<float[4, 4] w>", "<float[4, 4] w2, float[4] b2>"),
                w2=(w * scale).astype(np.float32),
                b2=((beta - mean * scale) * (1 + wrong)).astype(np.float32))  # fmt: skip
    for model in (before, after):
        model.graph.node[0].name = "choice"
    region = Region(("bn",), ("x",), ("a",), 4, ("choice",))
    parity = verify(unfolded=before, folded=after, regions=[region], seed=1)
    reached = parity.regions[0].verdict is not Verdict.INCONCLUSIVE
    assert reached, parity.summary
    assert parity.regions[0].verdict is (Verdict.FAIL if wrong else Verdict.PASS)


def test_a_token_model_gets_tokens_of_its_vocabulary() -> None:
    table = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    model = _of("""g (int64[N, T] ids) => (float[N, T, 6] y) <float[50, 6] table> {
        h = Gather(table, ids)  y = Tanh(h) }""", table=table)  # fmt: skip
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict is Verdict.PASS
    assert {probe.origin for probe in parity.probes} == {"ids: an embedding of 50 rows"}
    assert [probe.name for probe in parity.probes][-2:] == ["lowest integers", "highest integers"]


def test_a_model_without_any_input_is_compared_once_and_passes() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["w"], ["y"])],
            "g",
            [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
            [numpy_helper.from_array(np.ones(2, dtype=np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    assert verify(unfolded=model, folded=model, seed=0).verdict is Verdict.PASS


def test_a_random_model_is_never_passed() -> None:
    model = _of("g (float[2] x) => (float[2] y) { r = RandomNormalLike(x)  y = Add(x, r) }")
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict is Verdict.FAIL
    assert parity.static[0].detail == "RandomNormalLike r draws random numbers"


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("kind", ["Conv", "Gemm", "Depthwise"])
def test_a_region_of_many_layers_passes(kind: Kind, dtype: type[np.floating[Any]]) -> None:
    net = build([kind] * 8, seed=2, dtype=dtype)
    whole = Region(net.names, ("x",), ("b7",), net.regions[0].fan_in)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=[whole], seed=3)
    assert parity.verdict.passed, parity.summary
    assert parity.regions[0].verdict is Verdict.PASS


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "Depthwise"])
@pytest.mark.parametrize("bug", BUGS)
def test_a_region_of_many_layers_does_not_hide_a_mistake(kind: Kind, bug: str) -> None:
    """Its error bound is that of eight layers in a row, which allows nearly everything."""
    for at in (0, 4, 7):
        net = build([kind] * 8, seed=at, bug=bug, at=at)
        whole = Region(net.names, ("x",), ("b7",), net.regions[0].fan_in)
        parity = verify(unfolded=net.unfolded, folded=net.folded, regions=[whole], seed=3)
        assert [check.sources for check in parity.failed_regions] == [net.names]
        assert parity.failed_regions[0].eta > 10 * parity.failed_regions[0].limit


@pytest.mark.parametrize("bug", ["missing bias on one channel", "permuted means", "swapped gamma and beta"])
def test_a_float16_layer_does_not_hide_a_mistake(bug: str) -> None:
    """The other mistakes move a weight by less than float16 rounds it."""
    parity = _verify(build(["Conv"] * 3, seed=3, bug=bug, at=1, dtype=np.float16))
    assert [check.sources for check in parity.failed_regions] == [("bn1",)]
    assert parity.failed_regions[0].eta > 10 * parity.failed_regions[0].limit


BEYOND = "g (float[N, 40] x) => (float[N, 40] y) <float[1] up, float[1] down> {{ {steps} }}"
THERE = "h = Mul(x, up)  i = Mul(h, up)  j = Mul(i, down)  y = Mul(j, down)"
EXTREMES = {"up": np.array([3e37], np.float32), "down": np.array([3e-37], np.float32)}


@pytest.mark.parametrize("level", ["full", "fast"])
@pytest.mark.parametrize("wrong", [0.0, 1e-4])
def test_a_fold_may_hold_what_the_original_cannot(level: str, wrong: float) -> None:
    before = _of(BEYOND.format(steps=THERE), **EXTREMES)
    product = np.float32((float(EXTREMES["up"][0]) * float(EXTREMES["down"][0])) ** 2 * (1 + wrong))
    after = _of(BEYOND.format(steps="y = Mul(x, up)").replace(", float[1] down", ""), up=np.array([product]))
    parity = verify(unfolded=before, folded=after, regions=[Region(("bn",), ("x",), ("y",), 1)], level=level, seed=0)
    assert parity.verdict is (Verdict.FAIL if wrong else Verdict.PASS), parity.summary
    assert parity.folding[0].compared > 0


def test_where_both_leave_the_range_on_every_probe_nothing_is_proven() -> None:
    model = _of(BEYOND.format(steps=THERE), **EXTREMES)
    parity = verify(unfolded=model, folded=model, seed=0, level="fast")
    assert parity.verdict is Verdict.INCONCLUSIVE
    assert parity.folding[0].detail == "the unfolded model leaves the range of float32, so nothing can be compared"


def test_a_fold_that_overflows_where_the_original_does_not_fails() -> None:
    before = _of(BEYOND.format(steps="y = Mul(x, up)").replace(", float[1] down", ""), up=np.array([1e-3], np.float32))
    after = _of(BEYOND.format(steps="h = Mul(x, up)  y = Mul(h, down)"), up=np.array([3e38], np.float32),
                down=np.array([1e-3 / 3e38], np.float32))  # fmt: skip
    parity = verify(unfolded=before, folded=after, seed=0)
    assert parity.verdict is Verdict.FAIL
    assert "places where float64 has none" in parity.folding[0].detail


@pytest.mark.parametrize("wrong", [1.0, 1.01])
def test_which_of_the_values_at_the_edge_overflow_is_a_matter_of_rounding(wrong: float) -> None:
    generator = np.random.default_rng(0)
    w, v = generator.normal(size=(4, 3, 3, 3)), generator.normal(size=(4, 4, 3, 3)) / 6
    text = "g (float[N, 3, H, W] x) => (float[N, 4, P, Q] y) {{ {steps} }}"
    gamma, one = np.full(4, 3e37, np.float32), np.ones(4, np.float32)
    parameters = {"gamma": gamma, "beta": 0 * one, "mean": 0 * one, "var": one}
    down, rest = np.array(1e-30, np.float32), "r = Relu(d)  e = Conv(r, v)  y = Mul(e, down)"
    before = _of(
        text.format(steps=f"c = Conv(x, w)  d = BatchNormalization(c, gamma, beta, mean, var)  {rest}"),
        w=w.astype(np.float32), v=v.astype(np.float32), down=down, **parameters,
    )  # fmt: skip
    scale = gamma[0].astype(np.float64) / np.sqrt(1 + float(np.float32(1e-5)))
    after = _of(
        text.format(steps=f"d = Conv(x, w)  {rest}"),
        w=(w.astype(np.float32) * scale * wrong).astype(np.float32), v=v.astype(np.float32), down=down,
    )  # fmt: skip
    parity = verify(unfolded=before, folded=after, regions=[Region(("bn",), ("x",), ("d",), 27)], seed=0)
    assert parity.verdict.passed is (wrong == 1.0), parity.summary


def test_an_empty_batch_among_the_inputs_is_run_and_proves_nothing() -> None:
    empty = {"x": np.zeros((0, 8, 9, 9), np.float32)}
    net = build(["Conv"] * 2, seed=3)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=1, feeds=[empty])
    assert parity.verdict.passed, parity.summary
    assert parity.probes[0].used
    assert all(check.compared for check in parity.regions)
    net = build(["Conv"] * 2, seed=3, bug="permuted means", at=1)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=1, feeds=[empty])
    assert [check.sources for check in parity.failed_regions] == [("bn1",)]
