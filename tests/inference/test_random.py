"""Dropout drops nothing any more, and what draws at random is refused where it matters."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bnfold.errors import InferenceModeError
from bnfold.inference import Change, to_inference_mode
from tests.inference.judge import input_names, kept, op_types, parsed, run, switched

X = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
ON = "bool on = {1}, bool off = {0}, float half = {0.5}, float[3] w = {1, 2, 3}"


def graph(body: str, *, opset: int = 17, more: str = "", ir: int = 8) -> str:
    return f"""<ir_version: {ir}, opset_import: ["" : {opset}]>
        g (float[N,3] x{more}) => (float[N,3] y) <{ON}> {{ {body} }}"""


@pytest.mark.parametrize("opset", [12, 13, 22])
@pytest.mark.parametrize("rate", ["half", ""])
def test_a_dropout_in_training_mode_drops_nothing_any_more(opset: int, rate: str) -> None:
    text = graph(f"h = Mul(x, w)\n [drop] y = Dropout(h, {rate}, on)", opset=opset)
    assert not np.array_equal(run(parsed(text), x=X)[0], X * np.array([1, 2, 3], np.float32))
    result, changes = switched(text)
    assert changes == (Change("dropout", "drop", "training_mode=true", "training_mode=false"),)
    np.testing.assert_array_equal(run(result, x=X)[0], X * np.array([1, 2, 3], np.float32))


def test_the_mask_of_a_dropout_that_drops_nothing_is_all_true() -> None:
    text = graph("h, mask = Dropout(x, half, on)\n k = Cast<to=1>(mask)\n y = Mul(h, k)")
    result, _changes = switched(text)
    np.testing.assert_array_equal(run(result, x=X)[0], X)


@pytest.mark.parametrize(
    ("opset", "line"),
    [
        (17, "y = Dropout(x)"),
        (17, "y = Dropout(x, half)"),
        (17, "y = Dropout(x, half, off)"),
        (10, "y = Dropout<ratio=0.5>(x)"),
        (7, "y, mask = Dropout(x)"),
        (17, "r = RandomNormalLike<scale=0.0>(x)\n y = Add(x, r)"),
    ],
)
def test_what_draws_nothing_stays_the_same_object(opset: int, line: str) -> None:
    kept(graph(line, opset=opset))


def test_a_rate_that_only_training_reads_is_no_input_any_more() -> None:
    result, changes = switched(graph("y = Dropout(x, rate, on)", more=", float rate"))
    assert [change.name for change in changes] == ["y", "rate"]
    assert input_names(result) == ["x"]
    np.testing.assert_array_equal(run(result, x=X)[0], X)


def test_dropout_in_the_body_of_a_loop_is_found() -> None:
    text = graph("""n = Constant<value_int=3>()
        y = Loop(n, , x) <body = b (int64 i, bool c, float[N,3] a) => (bool d, float[N,3] o) {
            d = Identity(c)
            s = Mul(a, w)
            [inner] o = Dropout(s, half, on) }>""")
    result, changes = switched(text)
    assert changes == (Change("dropout", "inner", "training_mode=true", "training_mode=false"),)
    np.testing.assert_allclose(run(result, x=X)[0], X * np.array([1, 8, 27]), rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("r = RandomNormalLike(x)", "RandomNormalLike"),
        ("r = RandomUniformLike(x)", "RandomUniformLike"),
        ("r = RandomNormal<shape=[3]>()", "RandomNormal"),
        ("r = RandomUniform<shape=[3]>()", "RandomUniform"),
        ("p = Sigmoid(x)\n r = Bernoulli(p)", "Bernoulli"),
        ("p = Sigmoid(x)\n s = Multinomial<sample_size=1>(p)\n r = Cast<to=1>(s)", "Multinomial"),
    ],
)
def test_an_operator_that_draws_at_random_is_refused_if_an_output_depends_on_it(line: str, kind: str) -> None:
    with pytest.raises(
        InferenceModeError, match=rf"^the outputs depend on 1 node that draws at random \({kind}\): '[rs]'$"
    ) as caught:
        to_inference_mode(parsed(graph(f"{line}\n y = Add(x, r)")))
    assert caught.value.hint == (
        "Export the model again in evaluation mode, or name outputs that do not depend on them."
    )
    result, changes = to_inference_mode(parsed(graph(f"{line}\n unused = Add(x, r)\n y = Neg(x)")))
    assert (op_types(result), changes) == (["Neg"], ())


def test_a_random_operator_inside_a_body_is_found() -> None:
    text = graph(
        """y = If(c) <then_branch = t () => (float[N,3] o) { [noise] r = RandomNormalLike(x)  o = Add(r, x) },
                   else_branch = e () => (float[N,3] o) { [more] s = RandomUniformLike(x)  o = Add(s, x) }>""",
        more=", bool c",
    )
    with pytest.raises(InferenceModeError, match=re.escape("2 nodes that draw at random (RandomNormalLike, Random")):
        to_inference_mode(parsed(text))
