"""A fault that no fold's own check sees is found from the wrong output backwards, and nothing innocent is accused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, numpy_helper, parser

from bnfold.graph.region import Region
from bnfold.parity import Parity, Verdict, verify
from bnfold.parity.run import Session
from tests.parity.nets import BUGS, Kind, build

Array = npt.NDArray[Any]
DEPTH = 6


def _moved(model: ModelProto, name: str, by: float) -> ModelProto:
    """Return a copy with one element of a constant moved."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            array = np.array(numpy_helper.to_array(tensor))
            array.reshape(-1)[1] += by
            tensor.CopyFrom(numpy_helper.from_array(array, name))
            return copy
    raise AssertionError(name)


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "Depthwise", "ConvTranspose"])
@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_fold_that_nobody_checked_is_named_as_the_suspect(kind: Kind, at: int) -> None:
    net = build([kind] * DEPTH, seed=20 + at, bug="permuted means", at=at)
    # Gate A knows nothing of the wrong one: only the whole model shows it.
    known = tuple(region for region in net.regions if region.sources != (f"bn{at}",))
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=known, seed=1)
    assert parity.verdict is Verdict.FAIL
    assert not parity.failed_regions
    assert parity.suspect is not None
    assert (parity.suspect.value, parity.suspect.node) == (f"b{at}", f"bn{at}")
    assert parity.suspect.between == ("x" if at == 0 else f"r{at - 1}",)
    assert parity.suspect.candidate > 10 * parity.suspect.limit
    assert parity.suspect.sources == ()
    assert parity.summary.endswith(f"; the first value that is off is b{at} (BatchNormalization bn{at})")


@pytest.mark.parametrize("bug", BUGS)
def test_a_suspect_names_what_was_folded_there(bug: str) -> None:
    net = build(["Conv"] * DEPTH, seed=7, bug=bug, at=2)
    # What gate A is told about the wrong region is another region's, which is right.
    swapped = tuple(
        Region(("bn2",), net.regions[3].inputs, net.regions[3].outputs, 36) if region.sources == ("bn2",) else region
        for region in net.regions
    )
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=swapped, seed=1, level="fast")
    assert parity.suspect is not None
    assert parity.suspect.value == "b2"


def test_a_model_that_is_right_has_no_suspect() -> None:
    net = build(["Conv"] * 3, seed=2)
    assert verify(unfolded=net.unfolded, folded=net.folded, regions=(), seed=1).suspect is None


def test_what_gate_a_rejects_needs_no_suspect() -> None:
    net = build(["Conv"] * 3, seed=2, bug="wrong epsilon", at=1)
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, seed=1)
    assert parity.failed_regions
    assert parity.suspect is None


def _of(text: str, **arrays: Array) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    del model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def test_a_name_that_means_something_else_is_not_accused() -> None:
    """The first value is off on purpose, and right again behind; the fault comes later, on another branch."""
    text = """g (float[N, 4] x) => (float[N, 4] y) <float[4] two, float[4] c, float[4] d> {{
        h = Mul(x, {first})  i = {back}(h, two)  j = Add(i, c)  k = Sigmoid(j)  y = Mul(k, d) }}"""
    two, c, d = np.full(4, 2, np.float32), np.linspace(-1, 1, 4, dtype=np.float32), np.ones(4, np.float32)
    one = np.ones(4, np.float32)
    before = _of(text.format(first="two", back="Mul"), two=two, c=c, d=d)
    after = _of(text.format(first="one", back="Mul").replace("<", "<float[4] one, ", 1), one=one, two=4 * one,
                c=c + np.float32(1e-3), d=d)  # fmt: skip
    parity = verify(unfolded=before, folded=after, seed=0)
    assert parity.suspect is not None
    assert (parity.suspect.value, parity.suspect.between) == ("j", ("i",))


def test_a_fault_behind_an_exact_output_is_found_among_the_floats_that_decide() -> None:
    text = """g (float[N, 8] x) => (int64[N] k) <float[8, 5] w, float[5] c, float[5] e> {
        h = MatMul(x, w)  i = Add(h, c)  j = Relu(i)  l = Add(j, e)  k = ArgMax<axis = 1, keepdims = 0>(l) }"""
    generator = np.random.default_rng(3)
    w, c, e = (generator.normal(size=size).astype(np.float32) for size in ((8, 5), 5, 5))
    model = _of(text, w=w, c=c, e=e)
    parity = verify(unfolded=model, folded=_moved(model, "c", 3.0), seed=0)
    assert parity.verdict is Verdict.FAIL
    assert parity.suspect is not None
    assert (parity.suspect.value, parity.suspect.between) == ("i", ("h",))


def _original(model: ModelProto) -> tuple[Any, Any]:
    """An original program with inner values, as a framework's graph has them."""

    def inside(names: Sequence[str]) -> Any:
        return Session(model, also=list(names)).run

    return Session(model).run, inside


@pytest.mark.parametrize("at", [1, 4])
def test_a_wrong_translation_is_localised_by_the_names_of_the_original(at: int) -> None:
    net = build(["Conv"] * DEPTH, seed=5)
    run, inside = _original(_moved(net.unfolded, f"beta{at}", 0.01))
    parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, original=run, inside=inside, seed=1)
    assert parity.blames == "translation"
    assert parity.suspect is not None
    assert parity.suspect.value == f"b{at}"
    assert parity.summary.startswith(f"FAIL: translation, not folding: output r{DEPTH - 1}: error ")
    assert parity.summary.endswith(f"; the first value that is off is b{at} (BatchNormalization bn{at})")


def test_of_a_translation_whose_original_shows_nothing_only_the_output_is_known() -> None:
    net = build(["Conv"] * 2, seed=5)
    wrong = Session(_moved(net.unfolded, "beta0", 0.01))

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return wrong.run(feeds)

    parity: Parity = verify(unfolded=net.unfolded, folded=net.folded, regions=net.regions, original=run, seed=1)
    assert parity.blames == "translation"
    assert parity.suspect is None


def test_a_fault_in_a_branch_is_localised_at_the_conditional() -> None:
    text = """g (bool c, float[N, 4] x) => (float[N, 4] y) <float[4] one, float[4] two> {
        h = Add(x, one)
        i = If (c) <then_branch = t () => (float[N, 4] a) { p = Mul(h, two)  a = Add(p, one) },
            else_branch = e () => (float[N, 4] b) { q = Mul(h, two)  b = Sub(q, one) }>
        y = Relu(i) }"""
    model = _of(text, one=np.ones(4, np.float32), two=np.full(4, 2, np.float32))
    parity = verify(unfolded=model, folded=_moved(model, "two", 0.01), seed=0)
    assert parity.suspect is not None
    assert (parity.suspect.value, parity.suspect.op_type, parity.suspect.between) == ("i", "If", ("c", "h"))
