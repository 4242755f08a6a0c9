"""The parts of verification, each by itself: errors, laws, gate 0, sessions, inputs and probes, extraction, margins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from bnfold.errors import CorruptModelError, SignatureError, UnsupportedOpError
from bnfold.graph.extract import OpenPiece, extract
from bnfold.graph.region import Region
from bnfold.parity import Verdict
from bnfold.parity.compare import match
from bnfold.parity.feeds import draw_probes, jittered, sizes_to_try
from bnfold.parity.inputs import Input, inputs_of
from bnfold.parity.kernels import roundoff
from bnfold.parity.laws import determinism
from bnfold.parity.local import check_region, eta_limit
from bnfold.parity.magnitude import Magnitude, Unbounded, longest_sum, magnitudes
from bnfold.parity.reference import run_float64
from bnfold.parity.run import Session
from bnfold.parity.static import check_static

Array = npt.NDArray[Any]


def _model(text: str, **arrays: Array) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    del model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def test_roundoffs_are_those_of_the_standard() -> None:
    import ml_dtypes

    kinds = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int32]
    assert [roundoff(np.dtype(kind)) for kind in kinds] == [2.0**-53, 2.0**-24, 2.0**-11, 2.0**-8, 0.0]


def test_the_three_errors_are_those_of_the_definition() -> None:
    reference = np.random.default_rng(0).normal(size=(3, 2, 4, 4))
    value = reference.copy()
    value[1, 1, 2, 2] += 0.5
    got = match(value, reference).errors
    assert got.whole == pytest.approx(0.5 / np.linalg.norm(reference))
    assert got.sample == pytest.approx(0.5 / np.linalg.norm(reference[1]))
    assert got.channel == pytest.approx(0.5 / np.sqrt((reference[:, 1] ** 2).mean()))
    assert got.worst == got.channel


def test_errors_do_not_depend_on_the_scale() -> None:
    reference = np.random.default_rng(0).normal(size=(2, 3, 5))
    value = reference * (1 + 1e-5)
    small, large = match(value * 1e-200, reference * 1e-200), match(value * 1e200, reference * 1e200)
    assert small.errors.worst == pytest.approx(large.errors.worst)


def test_what_leaves_the_types_range_is_expected_to_be_infinite() -> None:
    reference = np.array([1.0, 1e39, -1e39, np.nan, np.inf])
    right = np.array([1.0, np.inf, -np.inf, np.nan, np.inf], dtype=np.float32)
    assert (match(right, reference).misplaced, match(right, reference).compared) == (0, 1)
    wrong = np.array([np.nan, np.inf, np.inf, 0.0, -np.inf], dtype=np.float32)
    assert match(wrong, reference).misplaced == 4
    assert match(np.zeros(2), np.zeros(2)).errors.worst == 0
    assert match(np.array([1e-9]), np.zeros(1)).errors.worst == math.inf


def test_two_runs_that_differ_break_the_law() -> None:
    generator = np.random.default_rng(0)
    law = determinism(lambda _feeds: {"y": generator.normal(size=3)}, {}, {"y": generator.normal(size=3)})
    assert law.verdict is Verdict.FAIL
    assert law.detail.startswith("two runs differ in y by ")


NORMED = "g (float[N, 2] x) => (float[N, 2] y) { y = BatchNormalization(x, s, b, m, v) }"
FOUR = {name: np.ones(2, dtype=np.float32) for name in "sbmv"}


def test_gate_0_passes_a_model_against_itself() -> None:
    assert check_static(_model(NORMED, **FOUR), _model(NORMED, **FOUR)) == ()


@pytest.mark.parametrize(
    ("text", "check", "detail"),
    [
        (NORMED.replace("y)", "z)").replace("y =", "z ="), "outputs", "y became z"),
        (NORMED.replace("[N, 2] x", "[1, 2] x"), "inputs", "x was float[N, 2] and is float[1, 2]"),
        (NORMED.replace("float[N, 2] y", "float16[N, 2] y"), "outputs", "y was float[N, 2] and is float16[N, 2]"),
        (
            NORMED.replace("Normalization(", "Normalization<training_mode = 1>(").replace("{ y =", "{ y, p, q ="),
            "training mode",
            "batch norm y computes with its batch's statistics",
        ),
        (NORMED.replace("{ y", "{ r = RandomNormalLike(x)  y"), "random", "RandomNormalLike r draws random numbers"),
        (NORMED.replace("b, m", "b, nothing"), "onnx.checker", "Nodes in a graph must be topologically sorted"),
    ],
)
def test_gate_0_finds(text: str, check: str, detail: str) -> None:
    found = check_static(_model(NORMED, **FOUR), _model(text, **FOUR))
    assert [(item.check, item.verdict) for item in found] == [(check, Verdict.FAIL)]
    assert found[0].detail.startswith(detail)


def test_gate_0_finds_numbers_that_a_fold_made_infinite_and_keeps_masks() -> None:
    mask = np.array([0, -np.inf], dtype=np.float32)
    text = "g (float[N, 2] x) => (float[N, 2] y) { h = Mul(x, w)  y = Add(h, mask) }"
    before = _model(text, w=np.ones(2, dtype=np.float32), mask=mask)
    after = _model(text, w=np.array([1, np.inf], dtype=np.float32), mask=mask)
    assert check_static(before, before) == ()
    assert [item.detail for item in check_static(before, after)] == [
        "initializer w holds 1 numbers that are not finite"
    ]


def test_a_mode_input_that_is_left_over_is_found() -> None:
    model = _model("g (float[2] x, bool is_training) => (float[2] y) { y = Where(is_training, x, x) }")
    assert [item.detail for item in check_static(model, model)] == [
        "is_training still switches between training and inference"
    ]


def test_a_session_refuses_feeds_that_do_not_fit_in_words() -> None:
    session = Session(_model("g (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }"))
    cases: list[tuple[dict[str, Array], str]] = [
        ({}, "no values for x"),
        ({"x": np.ones((1, 2), np.float32), "z": np.ones(1)}, "the model has no input z"),
        ({"x": np.ones((1, 2))}, "input x takes float32, not float64"),
        ({"x": np.ones((1, 3), np.float32)}, "input x takes the shape (?, 2), not (1, 3)"),
    ]
    for feeds, message in cases:
        with pytest.raises(SignatureError) as caught:
            session.run(feeds)
        assert str(caught.value) == message


def test_a_session_returns_inner_values_and_leaves_the_model_alone() -> None:
    model = _model("g (float[N, 2] x) => (float[N, 2] y) { h = Relu(x)  y = Neg(h) }")
    before = model.SerializeToString()
    got = Session(model, also=("h",)).run({"x": np.array([[-1.0, 2.0]], dtype=np.float32)})
    assert list(got) == ["y", "h"]
    np.testing.assert_array_equal(got["h"], [[0, 2]])
    assert model.SerializeToString() == before


def test_float64_convolutions_run_on_stand_in_kernels_and_say_so() -> None:
    model = _model("g (double[1, 1, 4] x) => (double[1, 1, 3] y) { y = Conv(x, w) }", w=np.ones((1, 1, 2)))
    session = Session(model)
    assert not session.native
    assert session.engine.startswith("float64 kernels, rounded after every node (onnxruntime has no kernel: ")
    np.testing.assert_array_equal(session.run({"x": np.arange(4.0).reshape(1, 1, 4)})["y"], [[[1, 3, 5]]])


def test_a_graph_that_is_wrong_is_no_missing_kernel() -> None:
    with pytest.raises(CorruptModelError, match="onnxruntime rejects the model: "):
        Session(_model("g (float[2] x) => (float[2] y) { y = Relu(nothing) }"))


@pytest.mark.parametrize(
    ("text", "arrays", "origin", "low", "high"),
    [
        ("(uint8[N, 4] x) => (float[N, 4] y) { y = Cast<to = 1>(x) }", {}, "the range of uint8", 0, 255),
        (
            "(float[N, 4] x) => (float[N, 4] y) { y = Div(x, c) }",
            {"c": np.float32(255)},
            "pixels, because its first Div is by 255",
            0,
            255,
        ),
        (
            "(float[N, 4] x) => (uint8[N, 4] y) { y = QuantizeLinear(x, s, z) }",
            {"s": np.float32(0.5), "z": np.uint8(10)},
            "a recorded quantization scale",
            -5,
            122.5,
        ),
        (
            "(int64[N, T] x) => (float[N, T, 3] y) { y = Gather(t, x) }",
            {"t": np.ones((9, 3), np.float32)},
            "an embedding of 9 rows",
            0,
            8,
        ),
        (
            "(int64[N, T] x) => (float[N] y) { t = Constant<value = float[2,1] {1, 2}>() y = Gather<axis=-2>(t, x) }",
            {},
            "an embedding of 2 rows",
            0,
            1,
        ),
        (
            "(int64[N, 2] x) => (float[N, 3] y) { y = GatherND(t, x) }",
            {"t": np.ones((9, 5, 3), np.float32)},
            "an embedding of 3 rows",
            0,
            2,
        ),
        (NORMED[2:], FOUR, "the statistics of the batch norm on it", -1, 3),
        ("(float[N] x) => (float[N] y) { y = Relu(x) }", {}, "N(0,1) and U[0,1]", 0, 1),
    ],
)
def test_ranges_come_from_what_the_model_says(
    text: str, arrays: dict[str, Array], origin: str, low: float, high: float
) -> None:
    (item,) = inputs_of(_model(f"g {text}", **{name: np.asarray(array) for name, array in arrays.items()}))
    assert (item.origin, item.low, item.high) == (origin, low, high)


def test_probes_are_a_function_of_the_seed() -> None:
    inputs = (Input("x", np.dtype(np.float32), ("N", 3, "H", "W"), "here", mean=np.zeros(()), deviation=np.ones(())),)
    sizes = next(iter(sizes_to_try(inputs)))
    assert sizes == {"N": 1, "H": 32, "W": 32}
    first, second, other = (draw_probes(inputs, sizes, level="full", seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.feeds["x"], b.feeds["x"]) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].feeds["x"], other[0].feeds["x"])
    assert {probe.feeds["x"].shape[0] for probe in first} == {1, 2, 3}


def test_jitter_moves_floats_by_their_roundoff_and_nothing_else() -> None:
    feeds: dict[str, Array] = {"x": np.linspace(-3, 3, 1001).astype(np.float32), "k": np.arange(5)}
    moved = jittered(feeds, 4)
    assert np.array_equal(moved["k"], feeds["k"])
    assert 0 < np.abs(moved["x"] - feeds["x"]).max() <= 3 * 2.0**-22


def test_sequences_cannot_be_probed() -> None:
    graph = helper.make_graph([], "g", [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1])], [])
    with pytest.raises(UnsupportedOpError, match="input s is a sequence, and probes are tensors"):
        inputs_of(helper.make_model(graph))


CHAIN = "g (float[N, 2] x) => (float[N, 2] y) { a = Mul(x, w)  b = Add(a, c)  d = Relu(b)  y = Mul(d, x) }"
PAIR = {"w": np.array([2, -3], np.float32), "c": np.array([1, 1], np.float32)}


def test_a_piece_is_cut_between_its_values_constants_included() -> None:
    model = _model(CHAIN, **PAIR)
    pieces = extract(model, inputs=["a"], outputs=["d"], elements={"a": TensorProto.FLOAT})
    assert isinstance(pieces, tuple)
    (piece,) = pieces
    assert [node.op_type for node in piece.graph.node] == ["Add", "Relu"]
    assert [tensor.name for tensor in piece.graph.initializer] == ["c"]
    np.testing.assert_array_equal(run_float64(piece, {"a": np.array([[1.0, -5.0]])})["d"], [[2, 0]])


def test_a_piece_that_depends_on_more_than_its_inputs_is_open() -> None:
    open_piece = extract(_model(CHAIN, **PAIR), inputs=["a"], outputs=["y"], elements={})
    assert open_piece == OpenPiece("y also depends on x, which is no constant")
    assert extract(_model(CHAIN, **PAIR), inputs=[], outputs=["q"], elements={}) == OpenPiece("nothing computes q")


def test_magnitudes_bound_what_signs_cancel() -> None:
    piece = _model("g (float[N, 2] x) => (float[N, 2] y) { a = Mul(x, w)  n = Neg(a)  y = Sub(n, c) }", **PAIR)
    bound = magnitudes(piece)
    assert isinstance(bound, Magnitude)
    got = run_float64(bound.model, {"x": np.array([[-1.0, 2.0]])})
    np.testing.assert_array_equal(got[bound.outputs["y"]], [[3, 7]])


def test_magnitudes_of_a_batch_norm_take_the_mean_in_too() -> None:
    arrays = {"s": [-2.0, 1], "b": [-1.0, 0], "m": [3.0, -4], "v": [4.0, 1]}
    piece = _model(
        "g (float[N, 2] x) => (float[N, 2] y) { y = BatchNormalization<epsilon = 0.0>(x, s, b, m, v) }",
        **{name: np.array(values, dtype=np.float32) for name, values in arrays.items()},
    )
    bound = magnitudes(piece)
    assert isinstance(bound, Magnitude)
    got = run_float64(bound.model, {"x": np.array([[1.0, -2.0]])})
    np.testing.assert_array_equal(got[bound.outputs["y"]], [[5, 6]])


def test_what_jumps_has_no_bound_and_is_compared_with_the_original_s_own_error() -> None:
    piece = _model("g (float[N, 2] x) => (float[N, 2] y) { h = Round(x)  y = Mul(h, x) }")
    assert magnitudes(piece) == Unbounded("Round")
    wrong = _model("g (float[N, 2] x) => (float[N, 2] y) { h = Round(x)  g = Mul(h, x)  y = Mul(g, w) }",
                   w=np.array([1, 1.00001], np.float32))  # fmt: skip
    region, values = Region(("bn",), ("x",), ("y",), 1), [{"x": np.array([[1.3, 1.8]], np.float32)}]
    check = check_region(region, piece, piece, values, seed=0)
    assert (check.verdict, check.detail, check.probes) == (Verdict.PASS, "", 6)
    assert check.compared == 12
    check = check_region(region, piece, wrong, values, seed=0)
    assert check.verdict is Verdict.FAIL
    assert check.detail == "y: error 1.3e-05 against float64, 4.8e-07 allowed, on the probe 'captured 1'"
    assert check.eta > check.limit


def test_roundings_are_counted_along_the_longest_way() -> None:
    weights = {"v": np.ones((6, 4, 3, 3), np.float32), "w": np.ones((5, 6, 1, 1), np.float32)}
    text = """g (float[N, 4, 8, 8] x) => (float[N, 5, 1, 1] y) {
        a = Conv(x, v)  b = Relu(a)  c = Conv(b, w)  d = Add(c, c)  y = GlobalAveragePool(d) }"""
    assert longest_sum(_model(text, **weights), {"x": (1, 4, 8, 8)}) == 36 + 6 + 1 + 36


def test_a_region_that_no_run_reached_is_not_passed() -> None:
    model = _model(CHAIN, **PAIR)
    check = check_region(Region(("bn",), ("x",), ("b",), 1), model, model, [], seed=0)
    assert check.verdict is Verdict.INCONCLUSIVE
    assert check.detail == "no run reached it, so no values were captured at its inputs"


def test_a_region_that_is_not_whole_fails() -> None:
    model = _model(CHAIN, **PAIR)
    check = check_region(Region(("bn",), ("a",), ("y",), 1), model, model, [{"a": np.ones((1, 2), np.float32)}], seed=0)
    assert check.verdict is Verdict.FAIL
    assert check.detail == "the region is not whole before folding: y also depends on x, which is no constant"


def test_an_exact_zero_has_to_stay_one() -> None:
    before = _model("g (float[N, 2] x) => (float[N, 2] b) { b = Mul(x, w) }", w=np.ones(2, np.float32))
    after = _model(
        "g (float[N, 2] x) => (float[N, 2] b) { a = Mul(x, w)  b = Add(a, c) }",
        w=np.ones(2, np.float32),
        c=np.array([0, 1e-12], np.float32),
    )
    check = check_region(
        Region(("bn",), ("x",), ("b",), 1), before, after, [{"x": np.ones((1, 2), np.float32)}], seed=0
    )
    assert check.verdict is Verdict.FAIL
    assert check.probe == "zeros"
    assert check.eta > 1e6
    assert eta_limit(9) == 10
