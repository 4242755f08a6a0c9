"""Whatever the graph, folding computes the same in float64, accounts for every batch norm, and is done in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings

from bnfold.fold import apply, plan
from bnfold.graph.extract import OpenPiece, extract
from bnfold.graph.view import views
from bnfold.parity.reference import run_float64
from tests.fold.random_graphs import models
from tests.fold.random_joins import nets
from tests.fold.small_graphs.judge import compute
from tests.rules.example_models import Array, feeds_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.graph.region import Region


def batch_norms(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def assert_region_computes_the_same(
    region: Region, model: onnx.ModelProto, folded: onnx.ModelProto, feeds: Mapping[str, Array]
) -> None:
    rng = np.random.default_rng(2)
    real = run_float64(model, feeds, list(region.inputs))
    inside = {
        name: value + rng.normal(size=value.shape) if value.dtype.kind == "f" else value for name, value in real.items()
    }
    elements = {name: onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in inside.items()}
    pieces = [
        extract(each, inputs=region.inputs, outputs=region.outputs, elements=elements) for each in (model, folded)
    ]
    results = []
    for piece in pieces:
        assert not isinstance(piece, OpenPiece), piece
        (alone,) = piece
        wanted = {value.name for value in alone.graph.input}
        results.append(run_float64(alone, {name: value for name, value in inside.items() if name in wanted}))
    for name in region.outputs:
        largest = max(1.0, float(np.abs(results[0][name]).max(initial=0.0)))
        np.testing.assert_allclose(results[1][name], results[0][name], rtol=1e-10, atol=1e-10 * largest)


def assert_folds_right(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> None:
    expected = compute(model, feeds)
    before = model.SerializeToString(deterministic=True)
    fold_plan = plan(model)
    folded = apply(model, fold_plan)
    assert model.SerializeToString(deterministic=True) == before, "a plan only reads"
    onnx.checker.check_model(folded.model, full_check=True)
    for actual, wanted in zip(compute(folded.model, feeds), expected, strict=True):
        # Magnitudes grow from layer to layer; what is compared is the error against the largest of them.
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10 * max(1.0, float(np.abs(wanted).max())))

    kept = len(fold_plan.kept)
    done = sum(fold.subject.op_type == "BatchNormalization" for fold in fold_plan.folds)
    assert kept + done == batch_norms(model)
    assert kept == batch_norms(folded.model)
    assert [value.name for value in folded.model.graph.output] == [value.name for value in model.graph.output]
    assert len(folded.model.graph.node) <= len(model.graph.node)
    assert plan(folded.model).folds == ()

    # Every region is bounded by values of both models, and every fold is inside exactly one.
    for region in folded.regions:
        for each in (model, folded.model):
            (view,) = views(each)
            known = set(view.producers) | view.inputs
            assert {*region.inputs, *region.outputs} <= known
        assert region.outputs
        assert_region_computes_the_same(region, model, folded.model, feeds)
    # A shift that was left as an Add and went on later is a fold of its own, under the same name.
    assert {name for region in folded.regions for name in region.sources} == {
        fold.subject.name for fold in fold_plan.folds if fold.index < len(model.graph.node)
    }


@settings(max_examples=max(300, settings().max_examples), suppress_health_check=list(HealthCheck))
@given(models())
def test_a_folded_chain_computes_what_the_original_computes(model: onnx.ModelProto) -> None:
    assert_folds_right(model, feeds_for(model, seed=1))


@settings(max_examples=max(500, settings().max_examples), suppress_health_check=list(HealthCheck))
@given(nets())
def test_a_folded_net_computes_what_the_original_computes(drawn: tuple[onnx.ModelProto, Mapping[str, Array]]) -> None:
    assert_folds_right(*drawn)
