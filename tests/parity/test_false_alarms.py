"""Correct folds that verification once accused, each with the reason why it was wrong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, numpy_helper, parser

from bnfold import fold as folding
from bnfold.parity import Parity, verify

Array = npt.NDArray[Any]


def _of(text: str, **arrays: Array) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": 23]> {text}')
    del model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def _norm(generator: np.random.Generator, size: int, dtype: npt.DTypeLike) -> dict[str, Array]:
    arrays = {
        "gamma": generator.normal(size=size),
        "beta": generator.normal(size=size),
        "mean": generator.normal(size=size),
        "var": generator.uniform(0.5, 2, size=size),
    }
    return {name: array.astype(dtype) for name, array in arrays.items()}


def _folded(model: ModelProto, *, wrong: float = 0.0, seed: int = 0) -> Parity:
    done = folding.apply(model, folding.plan(model))
    assert done.regions
    known = {tensor.name for tensor in model.graph.initializer}
    for tensor in done.model.graph.initializer:
        if wrong and tensor.name not in known:
            array = np.array(numpy_helper.to_array(tensor))
            array.reshape(-1)[-1] *= 1 + wrong
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return verify(unfolded=model, folded=done.model, regions=done.regions, seed=seed)


@pytest.mark.parametrize("wrong", [0.0, 1e-3])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_normalization_that_computes_in_float32_inside_a_float64_model_rounds_like_float32(
    groups: int, wrong: float
) -> None:
    generator = np.random.default_rng(groups)
    model = _of(
        f"""g (double[N,4,3,2] x) => (double[N,4,3,2] y) {{
            h = GroupNormalization<num_groups = {groups}>(x, scale, bias)
            y = BatchNormalization(h, gamma, beta, mean, var) }}""",
        scale=generator.normal(size=4), bias=generator.normal(size=4), **_norm(generator, 4, np.float64),
    )  # fmt: skip
    parity = _folded(model, wrong=wrong)
    assert parity.verdict.passed is not bool(wrong), parity.summary


def test_a_table_that_is_computed_from_constants_says_which_indices_it_takes() -> None:
    generator = np.random.default_rng(0)
    model = _of(
        """g (int64[N,T] ids) => (float[N,T,2] y) {
            table = Transpose<perm = [1, 0]>(columns)  y = Gather(table, ids) }""",
        columns=generator.normal(size=(2, 3)).astype(np.float32),
    )  # fmt: skip
    parity = verify(unfolded=model, folded=model, seed=0)
    assert parity.verdict.passed, parity.summary
    assert {probe.origin for probe in parity.probes} == {"ids: an embedding of 3 rows"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("wrong", [0.0, 1e-2])
def test_tokens_that_cannot_be_moved_still_get_their_rounding_errors_drawn_again(
    dtype: type[np.floating[Any]], wrong: float
) -> None:
    """Norms behind norms blow up the rounding of what they divide by: one draw of it says nothing."""
    element = {np.float32: "float", np.float64: "double"}[dtype]
    for seed in range(3):
        generator = np.random.default_rng(seed)
        arrays = {
            "table": generator.normal(size=(2, 2, 2)),
            "scale": generator.normal(size=(3, 2, 2)),
            "last": generator.normal(size=3),
            "shift": generator.normal(size=3),
        }
        model = _of(
            f"""g (int64[2,3] ids) => ({element}[2,3,2,2] y) {{
                e = Gather<axis = 0>(table, ids)
                m = Neg(e)
                r = RMSNormalization<axis = -3, epsilon = 0.5>(m, scale)
                n = BatchNormalization(r, gamma, beta, mean, var)
                i = InstanceNormalization<epsilon = 0.5>(n, last, shift)
                y = Identity(i) }}""",
            **{name: array.astype(dtype) for name, array in arrays.items()}, **_norm(generator, 3, dtype),
        )  # fmt: skip
        parity = _folded(model, wrong=wrong, seed=seed)
        assert parity.verdict.passed is not bool(wrong), parity.summary
