"""What onnx's shape inference is asked, and what it is spared because it would take the process down."""

from __future__ import annotations

import onnx
import pytest

from bnfold.graph.shapes import infer


def types_of(graph: str, opset: int = 20) -> dict[str, object]:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> graph {graph}')
    return {name: value.shape for name, value in infer(model)[()].items()}


@pytest.mark.parametrize(
    "graph",
    [
        "(float[4,6] t, int64[5,-1] i) => (float y) { h = GatherND(t, i)  y = Relu(h) }",
        "(float[4,6] t, int64[5,1] i) => (float y) { h = GatherND<batch_dims=-2>(t, i)  y = Relu(h) }",
        "(float[6,2] t) => (float y) { h, i = Split<num_outputs=68719476736>(t)  y = Relu(h) }",
    ],
)
def test_what_would_make_the_inference_crash_is_kept_from_it(graph: str) -> None:
    assert types_of(graph).get("h") is None


def test_a_group_norm_keeps_the_shape_although_the_inference_does_not_know_it() -> None:
    shapes = types_of(
        "(float[2,N,5] x, float[4] s, float[4] b) => (float y) { h = GroupNormalization<num_groups=2>(x, s, b) "
        "y = Relu(h) }",
        opset=21,
    )
    assert (shapes["h"], shapes["y"]) == ((2, "N", 5), (2, "N", 5))
