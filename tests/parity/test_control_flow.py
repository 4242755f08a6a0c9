"""Folds in the bodies of conditionals and loops: every one is checked, whatever the probes decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, numpy_helper, parser

from bnfold import fold as folding
from bnfold.parity import Parity, Verdict, verify

Array = npt.NDArray[Any]
NORM = "BatchNormalization({}, gamma, beta, mean, var)"
WEIGHTS = "<float[4,4] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>"


def _of(text: str) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    del model.graph.value_info[:]
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"w": (4, 4), "gamma": (4,), "beta": (4,), "mean": (4,)}
    arrays: dict[str, Array] = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    arrays["var"] = generator.uniform(0.5, 2, size=4)
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    return model


def _written(model: ModelProto, folded: ModelProto) -> list[TensorProto]:
    """Return the constants that folding wrote, in whatever graph."""
    known = {tensor.name for tensor in model.graph.initializer}
    pending, found = [folded.graph], []
    while pending:
        graph = pending.pop()
        found += [tensor for tensor in graph.initializer if tensor.name not in known]
        pending += [item.g for node in graph.node for item in node.attribute if item.HasField("g")]
    return found


def _spoil(tensor: TensorProto) -> None:
    array = np.array(numpy_helper.to_array(tensor))
    array.reshape(-1)[1] += 0.1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _folded(model: ModelProto, *, wrong: bool = False, level: str = "full") -> Parity:
    """Fold a model with bnfold itself, and make wrong what folding wrote, if that is asked for."""
    done = folding.apply(model, folding.plan(model))
    assert done.regions
    for tensor in _written(model, done.model) if wrong else ():
        _spoil(tensor)
    return verify(unfolded=model, folded=done.model, regions=done.regions, seed=0, level=level)


NESTED = f"""g (bool c, float[N,4] x) => (float[N,4] y) {WEIGHTS} {{{{
    y = If (c) <then_branch = t () => (float[N,4] a) {{{{
            a = If ({{inner}}) <
                then_branch = tt () => (float[N,4] p) {{{{ h = MatMul(x, w)  p = {NORM.format("h")} }}}},
                else_branch = te () => (float[N,4] q) {{{{ k = MatMul(x, w)  q = {NORM.format("k")} }}}}> }}}},
        else_branch = e () => (float[N,4] b) {{{{ b = Identity(x) }}}}> }}}}"""


@pytest.mark.parametrize("level", ["full", "fast"])
def test_folds_in_a_conditional_on_the_same_condition_are_checked_although_one_is_never_reached(level: str) -> None:
    parity = _folded(_of(NESTED.format(inner="c")), level=level)
    assert len(parity.regions) == 2
    assert parity.verdict.passed, parity.summary


NEVER = f"""g (float[N,4] x) => (float[N,4] y) {WEIGHTS} {{
    s = ReduceSum<keepdims = 0>(x)  i = Sub(s, s)  z = Abs(i)  zero = Sub(z, z)  c = Less(z, zero)
    r = Relu(x)
    y = If (c) <then_branch = t () => (float[N,4] a) {{ h = MatMul(r, w)  a = {NORM.format("h")} }},
        else_branch = e () => (float[N,4] b) {{ b = Identity(r) }}> }}"""


def test_a_branch_that_no_probe_takes_is_checked_on_the_values_around_it() -> None:
    parity = _folded(_of(NEVER))
    assert parity.verdict.passed, parity.summary
    assert parity.regions[0].compared > 0


@pytest.mark.parametrize("text", [NESTED.format(inner="c"), NEVER], ids=["nested", "never taken"])
def test_wrong_folds_in_branches_that_no_run_reaches_are_caught(text: str) -> None:
    parity = _folded(_of(text), wrong=True)
    assert parity.verdict is Verdict.FAIL
    assert len(parity.failed_regions) == len(parity.regions)


OWN = f"""g (bool c, float[N,4] x) => (float[N,4] y) {WEIGHTS} {{
    y = If (c) <then_branch = t () => (float[N,4] a) {{
            one = Sigmoid(x)  h = MatMul(one, w)  a = {NORM.format("h")} }},
        else_branch = e () => (float[N,4] b) {{
            two = Tanh(x)  k = MatMul(two, w)  b = {NORM.format("k")} }}> }}"""


def test_branches_that_each_start_from_a_value_of_their_own_are_both_checked() -> None:
    parity = _folded(_of(OWN))
    assert len(parity.regions) == 2
    assert parity.verdict.passed, parity.summary


@pytest.mark.parametrize("number", range(4))
def test_conditions_are_fed_both_ways_so_that_the_whole_shows_what_is_wrong_in_either_branch(number: int) -> None:
    model = _of(OWN)
    done = folding.apply(model, folding.plan(model))
    written = _written(model, done.model)
    assert len(written) == 4
    _spoil(written[number])
    assert verify(unfolded=model, folded=done.model, seed=0, level="fast").verdict is Verdict.FAIL


ENDLESS = f"""g (bool c, float[N,4] x) => (float[N,4] y) {WEIGHTS} {{
    y = If (c) <then_branch = t () => (float[N,4] a) {{ h = MatMul(x, w)  a = {NORM.format("h")} }},
        else_branch = e () => (float[N,4] b) {{
            yes = Constant<value = bool {{1}}>()
            f = Loop ("", yes, x) <body = l (int64 i, bool go, float[N,4] s) => (bool on, float[N,4] n) {{
                n = Identity(s)  on = Not(c) }}>
            b = Relu(f) }}> }}"""


def test_a_loop_that_ends_only_where_its_branch_is_taken_keeps_nobody_waiting() -> None:
    model = _of(ENDLESS.replace("Not(c)", "Identity(c)"))  # not taken: it would go on for ever
    parity = _folded(model, level="fast")
    assert parity.regions[0].verdict.passed


LOOP = f"""g (float[N,4] x) => (float[N,4] y) {WEIGHTS} {{
    n = Constant<value = int64 {{3}}>()  yes = Constant<value = bool {{1}}>()
    y = Loop (n, yes, x) <body = l (int64 i, bool go, float[N,4] s) => (bool on, float[N,4] r) {{
        on = Identity(go)  h = MatMul(s, w)  b = {NORM.format("h")}  r = Sigmoid(b) }}> }}"""


@pytest.mark.parametrize("wrong", [False, True])
def test_a_fold_in_a_loop_is_checked_on_what_it_meets_there(wrong: bool) -> None:  # noqa: FBT001
    parity = _folded(_of(LOOP), wrong=wrong)
    assert parity.verdict.passed is not wrong, parity.summary
    assert bool(parity.failed_regions) is wrong
