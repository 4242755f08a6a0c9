"""The recurrent kernels against onnxruntime, which has float32 ones: every direction, state, length and option."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from bnfold.parity.reference import run_float64
from bnfold.parity.run import Session

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "LSTM": [
        {},
        {"clip": 0.7},
        {"input_forget": 1},
        {
            "activations": ["HardSigmoid", "Softsign", "ScaledTanh"],
            "activation_alpha": [0.3, 1.2],
            "activation_beta": [0.4, 0.8],
        },
    ],
    "GRU": [{}, {"clip": 0.7}, {"linear_before_reset": 1}, {"activations": ["HardSigmoid", "LeakyRelu"]}],
    "RNN": [{}, {"clip": 0.7}, {"activations": ["Elu"]}, {"activations": ["Affine"], "activation_alpha": [0.5]}],
}
TIME, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6


def _compared(op_type: str, option: dict[str, Any], direction: str, given: set[str]) -> float:
    generator = np.random.default_rng(len(given))
    gates, directions = GATES[op_type], 2 if direction == "bidirectional" else 1
    shapes = {
        "X": (TIME, BATCH, FEATURES),
        "W": (directions, gates * HIDDEN, FEATURES),
        "R": (directions, gates * HIDDEN, HIDDEN),
        "B": (directions, 2 * gates * HIDDEN),
        "h": (directions, BATCH, HIDDEN),
        "c": (directions, BATCH, HIDDEN),
        "P": (directions, 3 * HIDDEN),
    }
    feeds: dict[str, npt.NDArray[Any]] = {
        name: (0.6 * generator.normal(size=shape)).astype(np.float32)
        for name, shape in shapes.items()
        if name in {"X", "W", "R", *given}
    }
    if "lengths" in given:
        feeds["lengths"] = np.array([5, 2, 3], dtype=np.int32)
    order = ("X", "W", "R", "B", "lengths", "h", *(("c", "P") if op_type == "LSTM" else ()))
    repeated: dict[str, Any] = {
        name: value * directions if isinstance(value, list) else value
        for name, value in {**option, "direction": direction, "hidden_size": HIDDEN}.items()
    }
    outputs = ["y", "last", *(["cell"] if op_type == "LSTM" else [])]
    node = helper.make_node(op_type, [name if name in feeds else "" for name in order], outputs, **repeated)
    kinds = {name: TensorProto.INT32 if name == "lengths" else TensorProto.FLOAT for name in feeds}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, kinds[name], value.shape) for name, value in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ours = run_float64(model, {name: value for name, value in feeds.items() if name in order})
    theirs = Session(model).run(feeds)
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in outputs)


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_layers_compute_what_onnxruntime_computes(op_type: str, direction: str) -> None:
    extras = [{"B"}, {"lengths"}, {"h", *({"c"} if op_type == "LSTM" else set())}]
    if op_type == "LSTM":
        extras.append({"P"})
    for option in OPTIONS[op_type]:
        for chosen in itertools.product([False, True], repeat=len(extras)):
            given = set[str]().union(*(extra for extra, use in zip(extras, chosen, strict=True) if use))
            assert _compared(op_type, option, direction, given) < 5e-6


@pytest.mark.parametrize("op_type", GATES)
def test_the_batch_may_stand_first(op_type: str) -> None:
    generator = np.random.default_rng(3)
    gates = GATES[op_type]
    x, h = generator.normal(size=(TIME, BATCH, FEATURES)), generator.normal(size=(1, BATCH, HIDDEN))
    w, r = generator.normal(size=(1, gates * HIDDEN, FEATURES)), generator.normal(size=(1, gates * HIDDEN, HIDDEN))
    got = []
    for layout in (0, 1):
        feeds = {"x": x, "w": w, "r": r, "h": h}
        if layout:
            feeds = {**feeds, "x": np.swapaxes(x, 0, 1), "h": np.swapaxes(h, 0, 1)}
        node = helper.make_node(op_type, ["x", "w", "r", "", "", "h"], ["y", "last"], hidden_size=HIDDEN, layout=layout)
        values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, value.shape) for name, value in feeds.items()]
        results = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in ("y", "last")]
        graph = helper.make_graph([node], "g", values, results)
        got.append(run_float64(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), feeds))
    np.testing.assert_array_equal(got[1]["y"], got[0]["y"].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(got[1]["last"], got[0]["last"].transpose(1, 0, 2))
