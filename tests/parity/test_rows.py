"""Probes that run as the rows of one batch are judged one by one, and alone where the batch is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from bnfold.errors import UnsupportedOpError
from bnfold.parity import Verdict, verify
from bnfold.parity.corners import smaller
from bnfold.parity.feeds import Probe, draw_probes
from bnfold.parity.inputs import Input
from bnfold.parity.rows import bundles
from bnfold.parity.run import Session
from tests.parity.nets import build


def _model(text: str, **arrays: Any) -> ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items())
    return model


def _probes(*groups: int) -> list[tuple[int, Probe]]:
    return [
        (number, Probe(f"p{number}", "", {"x": np.full((1, 2), float(number), np.float32)}, group=group))
        for number, group in enumerate(groups)
    ]


def test_probes_of_a_group_stand_in_one_batch_and_six_are_filled_up_to_seven() -> None:
    found = bundles(_probes(0, 1, 2, 3, 1, 2, 2, 3, 3, 3, 3, 3), 1000)
    assert [(bundle.numbers, bundle.count) for bundle in found] == [
        ((0,), 0),
        ((1, 4), 2),
        ((2, 5, 6), 3),
        ((3, 7, 8, 9, 10, 11), 7),
    ]
    assert [row[0] for row in found[3].feeds["x"].tolist()] == [3, 7, 8, 9, 10, 11, 3]


def test_no_more_than_three_stand_together_where_a_value_is_large() -> None:
    found = bundles(_probes(3, 3, 3, 3, 3, 3), 1 << 27)
    assert [bundle.numbers for bundle in found] == [(0, 1, 2), (3, 4, 5)]


def test_a_mistake_on_one_row_is_told_of_its_probe() -> None:
    """Only inputs beyond 5 are wrong: the noise that is ten times as large as what the model is meant for."""
    text = "g (float[N, 8] x) => (float[N, 8] y) {{ h = Clip(x, low, {high}) y = Mul(h, s) }}"
    bounds = {"low": np.float32(-9), "high": np.float32(9), "lower": np.float32(5), "s": np.full(8, 2, np.float32)}
    right, wrong = (_model(text.format(high=high), **bounds) for high in ("high", "lower"))
    parity = verify(unfolded=right, folded=wrong, regions=(), seed=0)
    assert parity.verdict is Verdict.FAIL
    assert parity.folding[0].probe == "noise × 10"
    assert {(probe.name, probe.rows) for probe in parity.probes} >= {("noise × 10", 7), ("zeros", 2), ("ones", 3)}


def test_a_model_that_takes_no_batch_of_seven_is_fed_the_rows_alone() -> None:
    """The batch is declared free, but a constant of two rows is added: 1 and 2 pass, 3 and 7 do not."""
    text = "g (float[N, 8] x) => (float[M, 8] y) { h = Add(x, two) y = Mul(h, s) }"
    model = _model(text, two=np.ones((2, 8), np.float32), s=np.full(8, 2, np.float32))
    parity = verify(unfolded=model, folded=model, regions=(), seed=0)
    assert parity.verdict.passed, parity.summary
    assert all(probe.used for probe in parity.probes)
    assert {probe.rows for probe in parity.probes} == {0, 2}


def test_outputs_without_a_row_a_sample_are_compared_of_every_probe_alone() -> None:
    text = "g (float[N, 8] x) => (float[8] y) { h = Mul(x, s) y = ReduceMean<axes=[0], keepdims=0>(h) }"
    model = _model(text, s=np.full(8, 2, np.float32))
    parity = verify(unfolded=model, folded=model, regions=(), seed=0)
    assert parity.folding[0].verdict.passed, parity.summary
    assert [probe.rows for probe in parity.probes] == [0] * 12


@pytest.mark.parametrize("most", [1, 7])
def test_an_original_that_takes_one_sample_at_a_time_is_compared_on_every_probe(most: int) -> None:
    net = build(["Conv"] * 2, seed=1, free=True)
    session = Session(net.unfolded)

    def original(feeds: Mapping[str, Any]) -> dict[str, Any]:
        if len(next(iter(feeds.values()))) > most:
            raise UnsupportedOpError("one at a time", hint="")
        return session.run(feeds)

    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, original=original, seed=0)
    assert parity.verdict.passed, parity.summary
    assert parity.translation[0].probes == 12


def test_corners_are_cut_where_an_operation_does_at_every_place_the_same() -> None:
    weight = np.ones((4, 3, 3, 3), np.float32)
    conv = "g (float[1, 3, 56, 60] x) => (float[1, 4, a, b] y) { y = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(x, w) }"
    values = {"x": np.zeros((1, 3, 56, 60), np.float32)}
    found = smaller(values, [_model(conv, w=weight)])
    assert found is not None
    assert found["x"].shape == (1, 3, 16, 20)
    pooled = "g (float[1, 3, 56, 60] x) => (float[1, 3, 1, 1] y) { y = GlobalAveragePool(x) }"
    assert smaller(values, [_model(pooled)]) is None
    assert smaller({"x": np.zeros((1, 3, 14, 14), np.float32)}, [_model(conv, w=weight)]) is None
    far = "g (float[1, 3, 56, 60] x) => (float[1, 4, a, b] y) { y = Conv<dilations=[9, 9]>(x, w) }"
    wide = smaller(values, [_model(far, w=weight)])
    assert wide is not None
    assert wide["x"].shape == (1, 3, 48, 52)


def test_whole_numbers_are_fed_in_twelve_ways_and_every_batch_too() -> None:
    text = """g (uint8[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { f = Cast<to = 1>(x)  d = Div(f, q)  y = Relu(d) }"""
    parity = verify(unfolded=_model(text, q=np.float32(255)), folded=_model(text, q=np.float32(255)), seed=0)
    assert parity.verdict.passed, parity.summary
    assert len({probe.name for probe in parity.probes}) == 12
    assert {probe.rows for probe in parity.probes} == {0, 2, 3, 7}
    half = _model(text.replace("d = Div(f, q)", "e = Min(f, h)  d = Div(e, q)"), q=np.float32(255), h=np.float32(254))
    wrong = verify(unfolded=_model(text, q=np.float32(255)), folded=half, seed=0)
    assert wrong.verdict is Verdict.FAIL  # only the largest number shows it


def test_patterns_of_whole_numbers_stay_in_their_range_and_reach_both_ends() -> None:
    inputs = (
        Input("x", np.dtype(np.uint8), ("N", 2, 3), "", 0, 255),
        Input("ids", np.dtype(np.int64), ("N", 5), "", 1, 49),
        Input("w", np.dtype(object), ("N", 4), "", words=("a", "b", "c")),
    )
    probes = draw_probes(inputs, {"N": 1}, level="full", seed=0, together=True)
    assert len(probes) == 12
    for name, ends in (("x", {0, 255}), ("ids", {1, 49}), ("w", {"a", "c"})):
        found = {value for probe in probes for value in probe.feeds[name].reshape(-1).tolist()}
        assert ends == {min(found), max(found)}
