"""Hundreds of small graphs: what algebra allows is folded completely, what it does not stays or is right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from bnfold.fold import apply, plan
from tests.fold.small_graphs import (
    backward,
    chains,
    clauses,
    clauses_ways,
    corners_nets,
    corners_values,
    corners_ways,
    forward,
    joins,
    layouts,
    pointwise,
    quantised,
    situations,
    spellings,
    traps_axes,
    traps_signs,
    traps_uses,
    versions,
)
from tests.fold.small_graphs.judge import TOLERANCE, compute, feeds_of
from tests.fold.small_graphs.notation import Case, built

THEMES = {
    "clause": clauses,
    "clause of ways": clauses_ways,
    "behind a layer": backward,
    "in front of a layer": forward,
    "one behind another": chains,
    "through layouts": layouts,
    "through functions": pointwise,
    "through joins": joins,
    "spelt otherwise": spellings,
    "stored otherwise": quantised,
    "situations": situations,
    "spelt long ago": versions,
    "corner": corners_values,
    "corner of ways": corners_ways,
    "corner of nets": corners_nets,
    "trap of axes": traps_axes,
    "trap of signs": traps_signs,
    "trap of uses": traps_uses,
}
CASES = {f"{theme}: {title}": case for theme, module in THEMES.items() for title, case in module.CASES.items()}

COMPLETE = {title: case for title, case in CASES.items() if not case.why and re.search("BN|BatchNorm", case.graph)}
"""Those with batch norms all of which algebra allows to fold."""


def operations(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the operations of a graph and of the bodies in it; constants are none."""
    for node in graph.node:
        if node.op_type != "Constant":
            yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from operations(attribute.g)


def annotated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a model what folding must not lose: doc strings and metadata wherever they may stand."""
    model.doc_string, model.graph.doc_string, model.producer_name = "of the model", "of the graph", "somebody"
    onnx.helper.set_model_props(model, {"classes": "cat, dog"})
    for number, node in enumerate(model.graph.node):
        node.doc_string = f"node {number}"
    for tensor in model.graph.initializer:
        tensor.doc_string = f"about {tensor.name}"
    return model


def assert_untouched(model: onnx.ModelProto, folded: onnx.ModelProto, *, ir_version: int) -> None:
    for field in ("ir_version", "opset_import", "producer_name", "doc_string", "metadata_props", "functions"):
        assert getattr(folded, field) == getattr(model, field)
    assert (folded.graph.name, folded.graph.doc_string) == (model.graph.name, model.graph.doc_string)
    assert list(folded.graph.output) == list(model.graph.output)
    fed = {tensor.name for each in (model, folded) for tensor in each.graph.initializer} if ir_version < 4 else set()
    assert [value for value in folded.graph.input if value.name not in fed] == [
        value for value in model.graph.input if value.name not in fed
    ]
    before = {tensor.name: tensor for tensor in model.graph.initializer}
    after = {tensor.name: tensor for tensor in folded.graph.initializer}
    for name in before.keys() & after.keys():
        assert before[name].SerializeToString() == after[name].SerializeToString()
    nodes = {node.doc_string: node for node in model.graph.node}
    for node in folded.graph.node:
        if node.doc_string:  # a node that was there: its name is still its own
            assert node.name == nodes[node.doc_string].name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_small_graph_becomes_what_algebra_says(case: Case) -> None:
    model = annotated(built(case))
    if case.checked:
        onnx.checker.check_model(model, full_check=True)
    feeds = feeds_of(model, seed=1, free=case.free)
    expected = compute(model, feeds)
    before = model.SerializeToString(deterministic=True)

    fold_plan = plan(model)
    folded = apply(model, fold_plan).model

    assert model.SerializeToString(deterministic=True) == before, "planning and applying only read"
    if case.checked:
        onnx.checker.check_model(folded, full_check=True)
    for actual, wanted in zip(compute(folded, feeds), expected, strict=True):
        assert actual.shape == wanted.shape
        largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=1.0)) if wanted.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=TOLERANCE[case.element] * largest)

    left = " ".join(sorted(operations(folded.graph)))
    assert left in {" ".join(sorted(choice.split())) for choice in case.after.split(" | ")}
    assert tuple(kept.refusal.reason.id for kept in fold_plan.kept) == case.why
    assert Counter(operations(folded.graph))["BatchNormalization"] == len(fold_plan.kept)
    assert len(list(operations(folded.graph))) <= len(list(operations(model.graph)))
    assert_untouched(model, folded, ir_version=case.ir_version)

    again = plan(folded)
    assert again.folds == ()
    assert apply(folded, again).model.SerializeToString() == folded.SerializeToString()


def test_each_clause_has_a_graph_that_folds_completely_and_one_that_does_not() -> None:
    for folds, stays in (*clauses.CLAUSES.values(), *clauses_ways.CLAUSES.values()):
        assert not folds.why
        assert "BatchNorm" not in folds.after
        # Either a batch norm stays, for its reason, or a plain constant, which is no news, or two layers stay two.
        assert stays.why or {"Add", "Mul", "Div", "Conv"} & set(stays.after.split())


def test_all_graphs_that_can_be_folded_completely_are() -> None:
    models = [built(case) for case in COMPLETE.values()]
    assert len(models) >= 146, "the number of graphs that this was once measured by"
    folded = [apply(model, plan(model)).model for model in models]
    complete = sum("BatchNormalization" not in set(operations(model.graph)) for model in folded)
    assert f"{complete} of {len(models)}" == f"{len(models)} of {len(models)}"
