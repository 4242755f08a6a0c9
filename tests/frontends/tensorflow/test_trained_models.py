"""The TensorFlow 1 programs of ``models/``, as their training left them, with no hint at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnfold.frontends.loaded import Request
from bnfold.frontends.tensorflow import checkpoint, frozen_graph
from tests.frontends.tensorflow.test_inference_mode import agree, run_onnx

pytestmark = pytest.mark.tensorflow

NORMS = {
    "tf1_cond": ["hidden1/bn", "hidden2/bn"],
    "tf1_layers": ["fc1/batch_norm", "fc2/batch_norm", "fc3/batch_norm"],
    "tf1_batch_statistics": ["input_norm", "layer1", "layer2"],
}
FILES = [
    "tf1_cond/v1",
    "tf1_cond/v2",
    "tf1_cond/frozen_v1.pb",
    "tf1_cond/frozen_v2.pb",
    "tf1_layers",
    "tf1_layers/frozen.pb",
    "tf1_batch_statistics",
]


@pytest.mark.parametrize("file", FILES)
def test_a_trained_program_converts_without_a_hint(file: str, repository: Path) -> None:
    path = repository / "models" / file
    loaded = (checkpoint if path.is_dir() else frozen_graph).load(path, Request())
    norms = [node.name for node in loaded.model.graph.node if node.op_type == "BatchNormalization"]
    assert norms == NORMS[file.partition("/")[0]]
    (spec,) = loaded.inputs
    feeds = {spec.name: np.random.default_rng(9).uniform(0, 1, (7, 64)).astype(spec.dtype)}
    assert loaded.run is not None
    agree(run_onnx(loaded, feeds), list(loaded.run(feeds).values()))
