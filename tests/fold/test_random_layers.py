"""Norms, recurrent cells, einsums and embeddings among batch norms: folding computes the same in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings

from tests.fold.random_layers import chains
from tests.fold.test_random_graphs import assert_folds_right
from tests.rules.example_models import feeds_for

if TYPE_CHECKING:
    import onnx


@settings(
    max_examples=max(150, settings().max_examples),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(chains())
def test_a_random_chain_of_layers_folds_right(model: onnx.ModelProto) -> None:
    assert_folds_right(model, feeds_for(model, seed=1))
