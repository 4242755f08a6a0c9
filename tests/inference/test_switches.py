"""Inputs that switch training on are found whatever they are called, and what is no mode is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from bnfold.errors import InferenceModeError
from bnfold.inference import Change, to_inference_mode
from tests.inference.judge import input_names, kept, op_types, parsed, run, switched

PARAMETERS = """float[3] g = {1, -2, 3}, float[3] b = {0.5, 0, 1}, float[3] m = {1, 2, 3}, float[3] v = {1, 4, 9},
    float eps = {0.001}, float half = {0.5}, int64 one = {1}"""
X = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
SCALE = np.array([1, -2, 3]) / np.sqrt(np.array([1, 4, 9]) + 1e-5)
EXPECTED = (X - [1, 2, 3]) * SCALE + [0.5, 0, 1]
BATCH_NORM = "BatchNormalization(x, g, b, m, v)"
TRAINS = "BatchNormalization<training_mode=1>(x, g, b, m, v)"


def graph(body: str, mode: str = "bool phase", *, opset: int = 17, outputs: str = "float[N,3] y") -> str:
    return f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[N,3] x, {mode}) => ({outputs}) <{PARAMETERS}> {{ {body} }}"""


def conditional(condition: str, yes: str, no: str) -> str:
    return f"""y = If({condition}) <then_branch = t () => (float[N,3] o) {{ {yes} }},
                                   else_branch = e () => (float[N,3] o) {{ {no} }}>"""


YES, NO = f"[bn] o, o1, o2 = {TRAINS}", f"[bn] o = {BATCH_NORM}"


@pytest.mark.parametrize(
    ("mode", "body", "value"),
    [
        ("bool phase", conditional("phase", YES, NO), "False"),
        ("bool is_test", conditional("is_test", NO, YES), "True"),
        ("bool a", "n = Not(a)\n" + conditional("n", NO, YES), "False"),
        ("bool a", "n = Identity(a)\n m1 = Not(n)\n k = Not(m1)\n" + conditional("k", YES, NO), "False"),
        ("int64 phase", "p = Cast<to=9>(phase)\n" + conditional("p", YES, NO), "0"),
        ("int64 phase", "p = Equal(phase, one)\n" + conditional("p", NO, YES), "1"),
        ("float phase", "p = Greater(phase, half)\n" + conditional("p", YES, NO), "0.0"),
        ("bool[1] phase", "p = Squeeze(phase)\n" + conditional("p", YES, NO), "False"),
    ],
)
def test_a_mode_input_is_pinned_to_the_value_that_leaves_no_training(mode: str, body: str, value: str) -> None:
    result, changes = switched(graph(body, mode))
    kind, name = mode.replace("[1]", "").split()
    other = {"False": "True", "True": "False", "0": "1", "1": "0", "0.0": "1.0"}[value]
    assert changes == (
        Change(
            "switch",
            name,
            f"{kind.replace('float', 'float32')} input",
            value,
            f"{other} leaves 1 node of training, {value} leaves 0 nodes of training",
        ),
    )
    assert input_names(result) == ["x"]
    assert [(node.op_type, node.name) for node in result.graph.node] == [("BatchNormalization", "bn")]
    np.testing.assert_allclose(run(result, x=X)[0], EXPECTED, rtol=1e-5, atol=1e-5)


MOMENTS = """om = ReduceMean<axes=[0], keepdims=0>(x)
    d = Sub(x, om)
    q = Mul(d, d)
    ov = ReduceMean<axes=[0], keepdims=0>(q)"""
BEHIND = """ve = Add(var, eps)
    s = Sqrt(ve)
    c = Sub(x, mean)
    y = Div(c, s)"""


def moments(condition: str) -> str:
    return f"""mean, var = If({condition}) <
        then_branch = t () => (float[3] om, float[3] ov) {{ {MOMENTS} }},
        else_branch = e () => (float[3] om, float[3] ov) {{ om = Identity(m)  ov = Identity(v) }}>
        {BEHIND}"""


def test_statistics_of_the_batch_behind_a_conditional_are_evidence() -> None:
    result, changes = switched(graph(moments("phase")))
    assert [(change.name, change.after) for change in changes] == [("phase", "False")]
    expected = (X - [1, 2, 3]) / np.sqrt(np.array([1, 4, 9]) + 0.001)
    np.testing.assert_allclose(run(result, x=X)[0], expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(run(parsed(graph(moments("phase"))), x=X, phase=True)[0], expected, atol=0.1)


def test_many_conditionals_of_one_mode_vanish_together() -> None:
    text = graph(
        "\n".join(
            [
                *(
                    conditional("phase", YES, NO)
                    .replace("y =", f"y{i} =")
                    .replace("(x,", f"(y{i - 1},")
                    .replace("[bn]", f"[bn{i}]")
                    for i in range(1, 30)
                ),
                "y = Identity(y29)",
            ]
        ).replace("(y0,", "(x,")
    )
    result, changes = switched(text)
    assert changes[0].proof == "True leaves 29 nodes of training, False leaves 0 nodes of training"
    assert op_types(result) == ["BatchNormalization"] * 29 + ["Identity"]
    assert [node.name for node in result.graph.node][:-1] == [f"bn{i}" for i in range(1, 30)]
    np.testing.assert_allclose(run(result, x=X)[0], run(parsed(text), x=X, phase=False)[0])


def test_a_conditional_inside_a_branch_is_resolved_too() -> None:
    inner = (
        conditional("phase", YES, NO)
        .replace("y =", "o =", 1)
        .replace("o,", "z,")
        .replace("(float[N,3] o)", "(float[N,3] z)")
    )
    inner = inner.replace("[bn] o =", "[bn] z =")
    text = graph(conditional("other", inner, "o = Neg(x)"), "bool phase, bool other")
    result, changes = switched(text)
    assert [change.name for change in changes] == ["phase"]
    assert input_names(result) == ["x", "other"]
    np.testing.assert_allclose(run(result, x=X, other=True)[0], EXPECTED, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(run(result, x=X, other=False)[0], -X)


def test_dropout_that_an_input_switches_goes_with_its_mode_and_its_rate() -> None:
    text = graph("h = Neg(x)\n d = Dropout(h, keep, phase)\n y = Abs(d)", "bool phase, float keep")
    result, changes = switched(text)
    assert changes == (
        Change(
            "switch",
            "phase",
            "bool input",
            "False",
            "True leaves 1 node of training, False leaves 0 nodes of training",
        ),
        Change("switch", "keep", "float32 input", "dropped", "nothing reads it in inference mode"),
    )
    assert input_names(result) == ["x"]
    assert list(result.graph.node[1].input) == ["h"]
    np.testing.assert_array_equal(run(result, x=X)[0], np.abs(X))


def test_a_where_that_a_mode_decides_passes_one_side_on() -> None:
    result, changes = switched(graph("r = RandomNormalLike(x)\n n = Add(x, r)\n y = Where(phase, n, x)"))
    assert [(change.name, change.after) for change in changes] == [("phase", "False")]
    assert op_types(result) == ["Identity"]
    np.testing.assert_array_equal(run(result, x=X)[0], X)


def test_two_independent_modes_are_both_pinned() -> None:
    body = "p = And(a, b2)\n d = Dropout(x, half, p)\n" + conditional("c", YES, NO).replace("(x,", "(d,")
    result, changes = switched(graph(body, "bool a, bool b2, bool c"))
    assert {(change.name, change.after) for change in changes} == {("a", "False"), ("b2", "dropped"), ("c", "False")}
    assert input_names(result) == ["x"]
    np.testing.assert_allclose(run(result, x=X)[0], EXPECTED, rtol=1e-5, atol=1e-5)


def test_a_default_that_a_caller_may_override_is_a_mode_too() -> None:
    text = graph("y = Dropout(x, half, phase)").replace("float half", "bool phase = {1}, float half")
    result, changes = switched(text)
    assert [(change.name, change.before, change.after) for change in changes] == [("phase", "bool input", "False")]
    assert input_names(result) == ["x"]
    np.testing.assert_array_equal(run(result, x=X)[0], X)


@pytest.mark.parametrize(
    "body",
    [
        conditional("phase", "o = Neg(x)", "o = Abs(x)"),
        conditional("phase", NO, "o = Abs(x)"),
        "f = Cast<to=1>(phase)\n y = Mul(x, f)",
        "y = Where(phase, g, x)",
        "y = Dropout(x, half)\n unused = Not(phase)",
    ],
)
def test_an_input_that_has_nothing_to_do_with_training_stays(body: str) -> None:
    kept(graph(body))


def test_an_input_that_skips_a_layer_is_no_mode() -> None:
    layer = "w = Constant<value_floats=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]>()\n"
    layer += "s = Constant<value_ints=[3, 3]>()\n k = Reshape(w, s)\n l = MatMul(x, k)\n tr = Cast<to=9>(one)\n"
    text = graph(conditional("skip", f"{layer} o = Dropout(l, half, tr)", "o = Identity(x)"), "bool skip")
    result, changes = switched(text)
    assert [change.kind for change in changes] == ["dropout"]
    assert input_names(result) == ["x", "skip"]
    weights = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    np.testing.assert_allclose(run(result, x=X, skip=True)[0], X @ weights, rtol=1e-5)
    np.testing.assert_array_equal(run(result, x=X, skip=False)[0], X)


def test_a_mode_that_nothing_proves_is_asked_for() -> None:
    with pytest.raises(InferenceModeError) as caught:
        to_inference_mode(parsed(graph("p = Or(a, c)\n [drop] y = Dropout(x, half, p)", "bool a, bool c")))
    assert str(caught.value) == (
        "whether a Dropout drops anything depends on 'p', and nothing proves which value is inference: 'drop'"
    )
    assert caught.value.hint == "Set the mode yourself, for example: --set a=false"


def test_training_on_both_sides_of_a_mode_is_refused() -> None:
    body = conditional("phase", "r = RandomNormalLike(x)\n o = Add(x, r)", "u = RandomUniformLike(x)\n o = Mul(x, u)")
    with pytest.raises(InferenceModeError, match=r"^the outputs depend on 2 nodes that draw at random"):
        to_inference_mode(parsed(graph(body)))


# What inlining does to names.


def test_a_conditional_with_a_constant_condition_is_replaced_by_its_branch() -> None:
    result, changes = switched(
        graph(
            "t = Constant<value_int=1>()\n c = Cast<to=9>(t)\n [pick] " + conditional("c", "o = Neg(x)", "o = Abs(x)"),
            "float unused",
        )
    )
    assert changes == (Change("switch", "pick", "conditional with a constant condition", "then_branch"),)
    assert op_types(result) == ["Neg"]
    assert input_names(result) == ["x", "unused"]
    np.testing.assert_array_equal(run(result, x=X, unused=np.float32(0))[0], -X)


def test_names_that_branches_share_do_not_collide() -> None:
    # Both conditionals use the same inner names, one of which is also the name of a value after it.
    branch = "h = Abs(x)\n k = Sqrt(h)\n o = Add(k, k2)"
    text = graph(
        """k2 = Neg(x)
        y1 = If(phase) <then_branch = t () => (float[N,3] o) { r = RandomNormalLike(x)  o = Add(r, k2) },
                        else_branch = e () => (float[N,3] o) { h = Abs(x)  k = Sqrt(h)  o = Add(k, k2) }>
        h2 = Neg(y1)
        y2 = If(phase) <then_branch = t () => (float[N,3] o) { h = RandomNormalLike(h2)  o = Add(h, h) },
                        else_branch = e () => (float[N,3] o) { h = Abs(h2)  k = Sqrt(h)  o = Add(k, k2) }>
        y = Sub(y2, y1)"""
    )
    assert branch.count("\n") == 2
    result, _changes = switched(text)
    np.testing.assert_array_equal(run(result, x=X)[0], run(parsed(text), x=X, phase=False)[0])
    names = [name for node in result.graph.node for name in node.output]
    assert len(names) == len(set(names))


def test_a_branch_that_gives_what_it_was_given_or_one_value_twice_is_inlined() -> None:
    text = graph(
        """a, c = If(phase) <
            then_branch = t () => (float[N,3] o, float[N,3] o2) { o = RandomNormalLike(x)  o2 = Neg(o) },
            else_branch = e () => (float[N,3] o, float[N,3] o2) { o = Identity(x)  o2 = Identity(o) }>
        z = If(phase) <
            then_branch = t2 () => (float[3] a) { r = RandomNormalLike(m)  a = Add(r, r) },
            else_branch = e2 () => (float[3] p) <float[3] p = {7, 8, 9}> { }>
        s = Add(a, c)
        y = Add(s, z)"""
    )
    model = parser.parse_model(text)  # a branch whose output is its constant is no business of the checker
    model.graph.node[0].attribute[1].g.output[1].name = "o"
    result, _changes = to_inference_mode(model)
    np.testing.assert_array_equal(run(result, x=X)[0], X + X + np.array([7, 8, 9], np.float32))


def test_constants_of_a_branch_become_nodes_where_initializers_would_have_to_be_inputs() -> None:
    text = """<ir_version: 3, opset_import: ["" : 9]> g (float[2,3] x, bool phase) => (float[2,3] y) {
        y = If(phase) <
            then_branch = t () => (float[2,3] o) { r = RandomNormalLike(x)  o = Add(x, r) },
            else_branch = e () => (float[2,3] o) <float[3] w = {1, 2, 3}> { o = Mul(x, w) }> }"""
    result, _changes = to_inference_mode(parser.parse_model(text))
    onnx.checker.check_model(result)
    assert (input_names(result), list(result.graph.initializer)) == (["x"], [])
    np.testing.assert_array_equal(run(result, x=X[:2])[0], X[:2] * np.array([1, 2, 3], np.float32))


def test_a_body_inside_a_branch_keeps_seeing_the_renamed_values() -> None:
    text = graph(
        f"""h = Neg(x)
        one2 = Cast<to=9>(one)
        {
            conditional(
                "phase",
                "r = RandomNormalLike(x)  o = Add(r, h)",
                '''h3 = Abs(x)
            o = If(other) <then_branch = t2 () => (float[N,3] i) { i = Add(h3, h) },
                           else_branch = e2 () => (float[N,3] i) { h4 = Sub(h3, h)  i = Neg(h4) }>''',
            )
        }
        h3 = Add(y, h)
        z = Mul(h3, h3)""",
        "bool phase, bool other",
        outputs="float[N,3] y, float[N,3] z",
    )
    result, _changes = switched(text)
    for other in (True, False):
        for got, expected in zip(
            run(result, x=X, other=other), run(parsed(text), x=X, other=other, phase=False), strict=True
        ):
            np.testing.assert_array_equal(got, expected)
