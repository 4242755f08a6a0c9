"""Statistics of the batch that are spelled out are refused; those of a layer or a sample are not."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.errors import InferenceModeError
from bnfold.inference import to_inference_mode
from tests.inference.judge import kept, parsed, run

CONSTANTS = "float e = {0.001}, float two = {2}, float half = {0.5}, float minus = {-0.5}, int64[1] a0 = {0}"


def graph(body: str, shape: str = "N,3,4", *, opset: int = 17) -> str:
    return f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[{shape}] x) => (float[{shape}] y) <{CONSTANTS}, int64[2] a02 = {{0, 2}}> {{ {body} }}"""


def normalised(axes: str, root: str = "s = Sqrt(ve)\n y = Div(d, s)") -> str:
    return f"""m = ReduceMean<axes={axes}>(x)
        d = Sub(x, m)
        q = Mul(d, d)
        [variance] v = ReduceMean<axes={axes}>(q)
        ve = Add(v, e)
        {root}"""


SAMPLE = np.random.default_rng(3).normal(size=(5, 3, 4)).astype(np.float32)


def depends_on_the_batch(text: str, shape: tuple[int, ...] = (5, 3, 4)) -> bool:
    """Ask onnxruntime: does a sample's output change when others are beside it?"""
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    model = parsed(text)
    return not np.allclose(run(model, x=x)[0][:1], run(model, x=x[:1])[0], atol=1e-4)


SPELLINGS = [
    pytest.param(normalised("[0, 2]"), id="moments"),
    pytest.param(normalised("[0]"), id="moments per element"),
    pytest.param(normalised("[0, -1]"), id="a negative axis beside it"),
    pytest.param(normalised("[-3, -1]"), id="the batch as a negative axis"),
    pytest.param(normalised("[0, 2]", "s = Sqrt(ve)\n r = Reciprocal(s)\n y = Mul(d, r)"), id="reciprocal"),
    pytest.param(normalised("[0, 2]", "y0 = Pow(ve, minus)\n y = Mul(d, y0)"), id="power"),
    pytest.param(normalised("[0, 2]", "s = Pow(ve, half)\n y = Div(d, s)"), id="positive power"),
    pytest.param(
        "[mean] m = ReduceMean<axes=[0, 2]>(x)\n mm = Mul(m, m)\n q = Pow(x, two)\n"
        "[variance] sq = ReduceMean<axes=[0, 2]>(q)\n v = Sub(sq, mm)\n ve = Add(v, e)\n"
        "s = Sqrt(ve)\n d = Sub(x, m)\n y = Div(d, s)",
        id="mean of squares",
    ),
    pytest.param(
        "t = Transpose<perm=[1, 0, 2]>(x)\n [variance] v0 = ReduceSumSquare<axes=[0, 2]>(x)\n ve = Add(v0, e)\n"
        "s = Sqrt(ve)\n y = Div(x, s)",
        id="sum of squares",
    ),
    pytest.param("[variance] y = MeanVarianceNormalization(x)", id="the operator, whose default includes the batch"),
    pytest.param("[variance] y = MeanVarianceNormalization<axes=[0, 2]>(x)", id="the operator with axes"),
]


@pytest.mark.parametrize("body", SPELLINGS)
def test_statistics_of_the_batch_are_refused(body: str) -> None:
    shape = "N,3,4,2" if "Normalization(x)" in body else "N,3,4"
    text = graph(body, shape)
    assert depends_on_the_batch(text, (5, 3, 4, 2) if shape.endswith("2") else (5, 3, 4))
    with pytest.raises(InferenceModeError) as caught:
        to_inference_mode(parsed(text))
    nodes = "2 nodes compute" if "[mean]" in body else "a node computes"
    names = "'mean', 'variance'" if "[mean]" in body else "'variance'"
    assert str(caught.value) == f"{nodes} statistics of each batch instead of using running ones: {names}"
    assert caught.value.hint == "Export the model again in evaluation mode, with running statistics."


def test_axes_that_are_an_input_are_read() -> None:
    body = normalised("[0, 2]").replace("<axes=[0, 2]>(x)", "(x, a02)").replace("<axes=[0, 2]>(q)", "(q, a02)")
    text = graph(body, opset=18)
    assert depends_on_the_batch(text)
    with pytest.raises(InferenceModeError, match=r"^a node computes statistics of each batch .*: 'variance'$"):
        to_inference_mode(parsed(text))


def test_no_axes_are_all_axes_unless_they_are_none() -> None:
    body = normalised("[0]").replace("<axes=[0]>", "")
    with pytest.raises(InferenceModeError, match="variance"):
        to_inference_mode(parsed(graph(body, opset=18)))
    kept(graph(body.replace("ReduceMean", "ReduceMean<noop_with_empty_axes=1>"), opset=18))


def test_computed_statistics_that_feed_a_batch_norm_are_refused() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,4] x) => (float[N,3,4] y)
        <float[3] g = {1, 1, 1}, float[3] b = {0, 0, 0}> {
            m = ReduceMean<axes=[0, 2], keepdims=0>(x)
            q = Mul(x, x)
            v = ReduceMean<axes=[0, 2], keepdims=0>(q)
            y = BatchNormalization(x, g, b, m, v) }"""
    assert depends_on_the_batch(text)
    with pytest.raises(InferenceModeError) as caught:
        to_inference_mode(parsed(text))
    assert str(caught.value) == "2 nodes compute statistics of each batch instead of using running ones: 'm', 'v'"


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        pytest.param(normalised("[-1]"), "N,3,4", id="layer normalisation"),
        pytest.param(normalised("[1, 2]"), "N,3,4", id="layer normalisation over two axes"),
        pytest.param(normalised("[2]"), "N,3,4", id="instance normalisation"),
        pytest.param(normalised("[0, 2]"), "1,3,4", id="a batch of one"),
        pytest.param("m = ReduceMean<axes=[0, 2]>(x)\n y = Sub(x, m)", "N,3,4", id="a mean without a root"),
        pytest.param("[m] y = MeanVarianceNormalization<axes=[1, 2]>(x)", "N,3,4", id="the operator over a sample"),
        pytest.param(
            "c = Constant<value_floats=[1.0, 2.0]>()\n m = ReduceMean<axes=[0]>(c)\n s = Sqrt(m)\n y = Div(x, s)",
            "N,3,4",
            id="statistics of a constant",
        ),
    ],
)
def test_statistics_of_a_sample_are_no_training(body: str, shape: str) -> None:
    text = graph(body, shape)
    if "N" in shape and "without a root" not in body and "Sub(x, m)" not in body.splitlines()[-1]:
        assert not depends_on_the_batch(text)
    kept(text)


def test_weights_that_are_normalised_in_the_graph_have_no_batch() -> None:
    kept(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,2] y)
        <float[3,2] w = {1, 2, 3, 4, 5, 6}, float e = {0.001}> {
            m = ReduceMean<axes=[0]>(w)  d = Sub(w, m)  q = Mul(d, d)  v = ReduceMean<axes=[0]>(q)  ve = Add(v, e)
            s = Sqrt(ve)  n = Div(d, s)  y = MatMul(x, n) }"""
    )


def test_an_axis_that_cannot_be_the_batch_is_not_taken_for_it() -> None:
    # With a fixed batch of 5, an axis of 3 in front is something else; one of 15 may be the batch, folded in.
    other = """t = Transpose<perm=[1, 0, 2]>(x)
        m = ReduceMean<axes=[0]>(t)  d = Sub(t, m)  q = Mul(d, d)  v = ReduceMean<axes=[0]>(q)  ve = Add(v, e)
        s = Sqrt(ve)  n = Div(d, s)  y = Transpose<perm=[1, 0, 2]>(n)"""
    kept(graph(other, "5,3,4"))
    folded = """h = Constant<value_ints=[15, 4]>()  back = Constant<value_ints=[5, 3, 4]>()
        t = Reshape(x, h)
        m = ReduceMean<axes=[0]>(t)  d = Sub(t, m)  q = Mul(d, d)  v = ReduceMean<axes=[0]>(q)  ve = Add(v, e)
        s = Sqrt(ve)  n = Div(d, s)  y = Reshape(n, back)"""
    with pytest.raises(InferenceModeError, match=r": 'v'$"):
        to_inference_mode(parsed(graph(folded, "5,3,4")))


def test_statistics_that_influence_nothing_are_removed() -> None:
    result, changes = to_inference_mode(parsed(graph(normalised("[0, 2]", "s = Sqrt(ve)\n y = Neg(x)"))))
    assert ([node.op_type for node in result.graph.node], changes) == (["Neg"], ())


def _looped(before: str) -> str:
    """A loop that standardises what it takes along the first axis of a value, one element after the other."""
    return f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,4] x) => (float[K,L,4] y)
        <float e = {{0.001}}, int64 zero = {{0}}, bool yes = {{1}}, int64[1] a0 = {{0}}> {{
            {before}
            sizes = Shape(t)
            count = Gather(sizes, zero)
            y = Loop(count, yes) <body = b (int64 i, bool c) => (bool more, float[L,4] n) {{
                more = Identity(c)
                one = Gather(t, i)
                m = ReduceMean<axes=[0, 1]>(one)
                d = Sub(one, m)
                q = Mul(d, d)
                [variance] v = ReduceMean<axes=[0, 1]>(q)
                ve = Add(v, e)
                s = Sqrt(ve)
                n = Div(d, s) }}> }}"""


@pytest.mark.parametrize(
    "one", ["one = Gather(t, i)", "at = Unsqueeze(i, a0)  row = Gather(t, at)  one = Squeeze(row, a0)"]
)
def test_a_loop_over_samples_may_standardise_each(one: str) -> None:
    text = _looped("t = Cast<to=1>(x)").replace("one = Gather(t, i)", one)
    assert not depends_on_the_batch(text)
    kept(text)


def test_a_loop_over_another_axis_has_the_batch_in_each_turn() -> None:
    text = _looped("t = Transpose<perm=[1, 0, 2]>(x)")
    x = np.random.default_rng(3).normal(size=(5, 3, 4)).astype(np.float32)
    assert not np.allclose(run(parsed(text), x=x)[0][:, :1], run(parsed(text), x=x[:1])[0], atol=1e-4)
    with pytest.raises(InferenceModeError, match=r": 'variance'$"):
        to_inference_mode(parsed(text))
