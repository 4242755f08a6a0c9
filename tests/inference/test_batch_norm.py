"""Batch norms come onto their running statistics: judged by the formula in numpy and by onnxruntime."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bnfold.errors import InferenceModeError
from bnfold.inference import Change, to_inference_mode
from tests.inference.judge import input_names, kept, parsed, run, switched

PARAMETERS = "float[3] g = {1, -2, 3}, float[3] b = {0.5, 0, 1}, float[3] m = {1, 2, 3}, float[3] v = {1, 4, 9}"
X = np.random.default_rng(1).normal(size=(5, 3, 2)).astype(np.float32)
GAMMA, BETA = np.array([1, -2, 3.0]), np.array([0.5, 0, 1])
MEAN, VAR = np.array([1, 2, 3.0]), np.array([1, 4, 9.0])
ALONG = (slice(None), None)
EXPECTED = (X - MEAN[ALONG]) / np.sqrt(VAR + 1e-5)[ALONG] * GAMMA[ALONG] + BETA[ALONG]
IN_FILE = "its running mean and variance are in the file"


def graph(body: str, *, opset: int = 17, ir: int = 8, more: str = "", parameters: str = PARAMETERS) -> str:
    return f"""<ir_version: {ir}, opset_import: ["" : {opset}]>
        g (float[N,3,2] x{more}) => (float[N,3,2] y) <{parameters}> {{ {body} }}"""


@pytest.mark.parametrize("outputs", ["y", "y, m2, v2"])
@pytest.mark.parametrize("opset", [14, 15, 17, 20])
def test_a_flag_is_flipped_where_the_statistics_are_in_the_file(opset: int, outputs: str) -> None:
    text = graph(f"[bn] {outputs} = BatchNormalization<training_mode=1>(x, g, b, m, v)", opset=opset)
    result, changes = switched(text)
    assert changes == (Change("training-mode", "bn", "training_mode=1", "training_mode=0", IN_FILE),)
    np.testing.assert_allclose(run(result, x=X)[0], EXPECTED, rtol=1e-5, atol=1e-5)
    if outputs != "y":
        assert not np.allclose(run(parsed(text), x=X)[0], EXPECTED, atol=0.1)  # it did compute something else


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_the_training_form_of_older_opsets_loses_its_outputs(opset: int) -> None:
    text = graph("y, m2, v2, sm, sv = BatchNormalization(x, g, b, m, v)", opset=opset)
    result, changes = switched(text)
    assert changes == (Change("training-mode", "y", "5 outputs (training form)", "1 output", IN_FILE),)
    assert list(result.graph.node[0].output) == ["y"]
    np.testing.assert_allclose(run(result, x=X)[0], EXPECTED, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("flag", ["", "<is_test=0>"])
def test_the_flag_of_the_first_opsets_is_set(flag: str) -> None:
    listed = ", float[3] g, float[3] b, float[3] m, float[3] v"
    text = graph(f"h = BatchNormalization{flag}(x, g, b, m, v)\n y = Dropout{flag}(h)", opset=6, ir=3, more=listed)
    result, changes = switched(text)
    assert changes == (
        Change("training-mode", "h", "is_test=0", "is_test=1", IN_FILE),
        Change("dropout", "y", "is_test=0", "is_test=1"),
    )
    assert [[(item.name, item.i) for item in node.attribute] for node in result.graph.node] == [[("is_test", 1)]] * 2


@pytest.mark.parametrize(
    ("opset", "line"),
    [
        (17, "y = BatchNormalization(x, g, b, m, v)"),
        (17, "y = BatchNormalization<training_mode=0>(x, g, b, m, v)"),
        (9, "y = BatchNormalization(x, g, b, m, v)"),
        (6, "y = BatchNormalization<is_test=1>(x, g, b, m, v)"),
    ],
)
def test_what_is_in_inference_mode_stays_the_same_object(opset: int, line: str) -> None:
    kept(graph(line, opset=opset))


def test_statistics_at_their_first_values_are_said_to_be() -> None:
    fresh = "float[3] g = {1, 1, 1}, float[3] b = {0, 0, 0}, float[3] m = {0, 0, 0}, float[3] v = {1, 1, 1}"
    _result, changes = switched(graph("y, p, q = BatchNormalization<training_mode=1>(x, g, b, m, v)", parameters=fresh))
    assert changes[0].proof == f"{IN_FILE}, at their first values 0 and 1"


def test_statistics_that_a_constant_expression_gives_are_in_the_file() -> None:
    text = graph("""m1 = Constant<value_floats=[0.0, 1.0, 2.0]>()
        one = Constant<value_floats=[1.0]>()
        mm = Add(m1, one)
        y, p, q = BatchNormalization<training_mode=1>(x, g, b, mm, v)""")
    np.testing.assert_allclose(run(switched(text)[0], x=X)[0], EXPECTED, rtol=1e-5, atol=1e-5)


def test_statistics_that_a_caller_may_override_are_in_the_file_too() -> None:
    text = graph("y, p, q = BatchNormalization<training_mode=1>(x, g, b, m, v)", more=", float[3] m, float[3] v")
    result, _changes = switched(text)
    assert input_names(result) == ["x", "m", "v"]
    np.testing.assert_allclose(run(result, x=X)[0], EXPECTED, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "extra"),
    [(", float[3] m, float[3] v", ""), ("", "mm = ReduceMean<axes=[0, 2], keepdims=0>(x)"), (", float[3] v", "")],
)
def test_a_batch_norm_without_running_statistics_is_refused(more: str, extra: str) -> None:
    parameters = "float[3] g = {1, 1, 1}, float[3] b = {0, 0, 0}"
    if "float[3] m" not in more:
        parameters += ", float[3] m = {0, 0, 0}"
    if "float[3] v" not in more:
        parameters += ", float[3] v = {1, 1, 1}"
    mean = "mm" if extra else "m"
    text = graph(
        f"{extra}\n [bn] y, p, q = BatchNormalization<training_mode=1>(x, g, b, {mean}, v)",
        more=more,
        parameters=parameters,
    )
    with pytest.raises(InferenceModeError) as caught:
        to_inference_mode(parsed(text))
    assert str(caught.value) == (
        "a batch norm normalises with the statistics of each batch, and the file holds no running mean and variance "
        "for it: 'bn'"
    )
    assert caught.value.hint == "Export the model again in evaluation mode, with running statistics."


def test_many_batch_norms_without_statistics_are_counted_and_some_are_named() -> None:
    lines = ["h0 = Identity(x)"]
    lines += [f"[bn{i}] h{i + 1}, p{i}, q{i} = BatchNormalization<training_mode=1>(h{i}, g, b, m, v)" for i in range(7)]
    text = graph(
        "\n".join([*lines, "y = Identity(h7)"]),
        more=", float[3] m, float[3] v",
        parameters="float[3] g = {1, 1, 1}, float[3] b = {0, 0, 0}",
    )
    with pytest.raises(InferenceModeError) as caught:
        to_inference_mode(parsed(text))
    assert str(caught.value) == (
        "7 batch norms normalise with the statistics of each batch, and the file holds no running mean and variance "
        "for them: 'bn0', 'bn1', 'bn2', 'bn3', 'bn4' and 2 more"
    )


def test_statistics_of_the_batch_that_something_uses_are_refused() -> None:
    used = graph(
        "[bn] h, m2, v2 = BatchNormalization<training_mode=1>(x, g, b, m, v)\ns = Unsqueeze(m2, a)\n y = Add(h, s)",
        parameters=PARAMETERS + ", int64[1] a = {1}",
    )
    with pytest.raises(
        InferenceModeError,
        match=r"^'m2', which the batch norm 'bn' computes from each batch, influences an output$",
    ):
        to_inference_mode(parsed(used))
    given = graph("[bn] y, m2, v2 = BatchNormalization<training_mode=1>(x, g, b, m, v)").replace(
        "(float[N,3,2] y)", "(float[N,3,2] y, float[3] m2)"
    )
    with pytest.raises(
        InferenceModeError, match=r"^'m2', which the batch norm 'bn' computes from each batch, is an output$"
    ) as caught:
        to_inference_mode(parsed(given))
    assert caught.value.hint == ("Name the outputs that inference needs with --outputs, or export in evaluation mode.")


def test_statistics_that_only_a_dead_node_uses_go_with_it() -> None:
    text = graph("[bn] y, m2, v2 = BatchNormalization<training_mode=1>(x, g, b, m, v)\n moved = Mul(m2, m2)")
    result, _changes = switched(text)
    assert [node.op_type for node in result.graph.node] == ["BatchNormalization"]
    np.testing.assert_allclose(run(result, x=X)[0], EXPECTED, rtol=1e-5, atol=1e-5)


def test_a_batch_norm_inside_a_branch_is_found() -> None:
    text = graph(
        """y = If(c) <
            then_branch = t () => (float[N,3,2] p) {
                [inner] p, p1, p2 = BatchNormalization<training_mode=1>(x, g, b, m, v) },
            else_branch = e () => (float[N,3,2] q) { q = Neg(x) }>""",
        more=", bool c",
    )
    result, changes = switched(text)
    # The condition is no mode: one branch without the batch norm is another network.
    assert [(change.kind, change.name) for change in changes] == [("training-mode", "inner")]
    np.testing.assert_array_equal(run(result, x=X, c=False)[0], -X)
    np.testing.assert_allclose(run(result, x=X, c=True)[0], EXPECTED, rtol=1e-5, atol=1e-5)


def test_a_batch_norm_inside_a_function_is_found() -> None:
    function = (
        graph("y = my.Block(x, g, b, m, v)").replace('["" : 17]', '["" : 17, "my" : 1]')
        + """<domain: "my", opset_import: ["" : 17]> Block (x, g, b, m, v) => (y) {
            y, p, q = BatchNormalization<training_mode=1>(x, g, b, m, v) }"""
    )
    result, changes = switched(function)
    assert [change.kind for change in changes] == ["training-mode"]
    np.testing.assert_allclose(run(result, x=X)[0], EXPECTED, rtol=1e-5, atol=1e-5)
    kept(function.replace("y, p, q", "y").replace("training_mode=1", "training_mode=0"))


def test_functions_that_stand_for_too_much_are_refused_at_once() -> None:
    levels = "".join(
        f"""<domain: "my", opset_import: ["" : 17, "my" : 1]> F{i} (x) => (y) {{
            a = my.F{i + 1}(x)\n b = my.F{i + 1}(a)\n y = my.F{i + 1}(b) }}"""
        for i in range(30)
    )
    text = (
        graph("y = my.F0(x)").replace('["" : 17]', '["" : 17, "my" : 1]')
        + levels
        + ("""<domain: "my", opset_import: ["" : 17]> F30 (x) => (y) { y = Relu(x) }""")
    )
    from onnx import parser

    from bnfold.errors import CorruptModelError

    with pytest.raises(CorruptModelError, match=re.escape(f"the model's functions stand for {3**30} nodes")):
        to_inference_mode(parser.parse_model(text))
