"""Every example of every rule: what folds computes the same in float64, what is refused is refused for that reason."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.fold import apply, plan
from bnfold.rules import RULES, Absorber, Carrier, Example, Source
from tests.rules.example_models import build, feeds_for, run

Rule = Source | Carrier | Absorber

EVERY_RULE: tuple[Rule, ...] = (*RULES.sources.values(), *RULES.carriers.values(), *RULES.absorbers.values())

CASES = [
    pytest.param(example, id=f"{rule.op_type}: {example.title}") for rule in EVERY_RULE for example in rule.examples
]


@pytest.mark.parametrize("example", CASES)
def test_an_example_folds_exactly_or_is_refused_for_its_reason(example: Example) -> None:
    model = build(example.graph, seed=7, opset=example.opset)
    fold_plan = plan(model)
    stays = (*fold_plan.kept, *fold_plan.plain)
    if example.refused is not None:
        assert example.refused in [kept.refusal.reason for kept in stays]
        assert len(stays) == 1 + example.stays
        return
    feeds = feeds_for(model, seed=8)
    expected = run(model, feeds)
    assert len(stays) == example.stays
    assert fold_plan.folds
    folded = apply(model, fold_plan)
    assert len(folded.model.graph.node) <= len(model.graph.node)
    for actual, wanted in zip(run(folded.model, feeds), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)
    again = plan(folded.model)
    assert again.folds == ()


def test_every_rule_shows_a_fold_and_a_refusal() -> None:
    for rule in EVERY_RULE:
        refusals = {example.refused is not None for example in rule.examples}
        assert refusals == {True, False}, rule.op_type
