"""A model is served as onnxruntime rewrites it only where the proof has seen that this computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.serving.runner import REWRITE
from tests.parity.test_rewritten import scrambled
from tests.service.server import Server, conv_model, post

if TYPE_CHECKING:
    import httpx

LEVELS = onnxruntime.GraphOptimizationLevel


def _at(content: bytes, level: Any, x: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def _answered(client: httpx.Client, told: dict[str, Any], x: Any) -> Any:
    question = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]}
    answer = client.post(told["links"]["infer"], json=question)
    assert answer.status_code == 200, answer.text
    output = answer.json()["outputs"][0]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_what_onnxruntime_rewrites_wrongly_is_served_as_it_stands(client: httpx.Client) -> None:
    content = scrambled().SerializeToString()
    told = post(client, content, "scrambled.onnx").json()
    assert told["verdict"] == "pass"
    x = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    right, other = (_at(content, level, x) for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL))
    wrong = not np.allclose(right, other, rtol=1e-3)
    assert told["default_level"] == ("fail" if wrong else "pass")
    np.testing.assert_allclose(_answered(client, told, x), right, rtol=1e-5)


@pytest.mark.parametrize(("verify", "level"), [("full", "pass"), ("fast", None), ("off", None)])
def test_what_it_rewrites_rightly_is_served_so_where_that_is_proved(
    server: Server, client: httpx.Client, verify: str, level: str | None
) -> None:
    told = post(client, conv_model({"full": 501, "fast": 502, "off": 503}[verify]), verify=verify).json()
    assert told["default_level"] == level
    x = np.random.default_rng(4).normal(size=(2, 3, 8, 8)).astype(np.float32)
    before = set(server.children("service.serving.runner"))
    got = _answered(client, told, x)
    folded = client.get(told["links"]["model"]).content
    onnx.load_from_string(folded)
    np.testing.assert_allclose(got, _at(folded, LEVELS.ORT_DISABLE_ALL, x), rtol=1e-4, atol=1e-5)
    (new,) = set(server.children("service.serving.runner")) - before
    words = Path(f"/proc/{new}/cmdline").read_bytes().split(b"\0")
    assert (REWRITE.encode() in words) == (level == "pass")
