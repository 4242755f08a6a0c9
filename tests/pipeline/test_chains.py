"""Layers that become one: the report counts them, ``keep`` and ``fold="none"`` keep them, and the proof holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.errors import SignatureError
from bnfold.pipeline.options import Options

_NODES: list[tuple[str, list[str], str, str, dict[str, Any]]] = [
    ("Conv", ["x", "expand.w"], "e", "expand", {}),
    ("Conv", ["e", "conv.w", "conv.b"], "c", "conv", {"pads": [1, 1, 1, 1]}),
    ("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], "n", "norm", {}),
    ("Relu", ["n"], "r", "act", {}),
    ("Flatten", ["r"], "f", "flat", {}),
    ("MatMul", ["f", "head.w"], "m", "head", {}),
    ("Add", ["m", "head.b"], "a", "bias", {}),
    ("MatMul", ["a", "logits.w"], "y", "logits", {}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    shapes = {"expand.w": (16, 3, 1, 1), "conv.w": (8, 16, 3, 3), "conv.b": (8,), "head.w": (200, 32), "head.b": (32,)}
    shapes |= {"logits.w": (32, 10), **dict.fromkeys(("gamma", "beta", "mean", "var"), (8,))}
    arrays = {name: rng.uniform(0.1, 1.0, shape).astype(np.float32) for name, shape in shapes.items()}
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [out], name, **more) for kind, inputs, out, name, more in _NODES],
        "tower",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "tower.onnx"
    )
    return tmp_path / "tower.onnx"


def left(conversion: bnfold.Conversion) -> list[str]:
    return [node.op_type for node in conversion.model.graph.node]


def test_layers_with_nothing_between_them_become_one_and_the_report_names_them(path: Path) -> None:
    conversion = bnfold.fold_onnx(path)
    assert left(conversion) == ["Conv", "Relu", "Flatten", "MatMul", "Add"]
    report = conversion.report
    assert [(row.name, row.into[0].node, row.into[0].rule) for row in report.affines] == [
        ("expand", "conv", "layer-chain"),
        ("bias", "logits", "matmul-input"),
        ("head", "logits", "layer-chain"),
    ]
    assert report.verdict in {"pass", "pass-more-accurate"}
    assert report.rolled_back == ()


def test_a_layer_that_is_to_be_kept_stays_and_the_batch_norm_folds(path: Path) -> None:
    kept = bnfold.fold_onnx(path, Options(keep=("expand", "log*")))
    assert left(kept) == ["Conv", "Conv", "Relu", "Flatten", "MatMul", "Add", "MatMul"]
    assert [row.outcome for row in kept.report.batch_norms] == ["folded"]


def test_a_fold_of_nothing_leaves_the_layers(path: Path) -> None:
    assert left(bnfold.fold_onnx(path, Options(fold="none"))) == [row[0] for row in _NODES]


def test_a_misspelt_layer_is_refused(path: Path) -> None:
    with pytest.raises(SignatureError, match=r"^--keep expnd names none of the 1 batch norms$"):
        bnfold.fold_onnx(path, Options(keep=("expnd",)))
