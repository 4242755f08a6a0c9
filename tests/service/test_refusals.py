"""A model that is refused: its job, its events and its answer say why in the words of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import parser

import bnfold
from tests.frontends.test_bundles import net
from tests.service.server import ROOT, Server, conv_model, serving, wait_for

TRAINS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,3,3] x, float[4] m, float[4] v) => (float[N,4,3,3] y) <float[4] s = {1, 1, 1, 1}> {
    y, a, b = BatchNormalization<training_mode = 1>(x, s, s, m, v)
}"""
UNKNOWN = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = Gelu(x) }"""
FOREIGN = """<ir_version: 8, opset_import: ["" : 17, "evil.ops" : 1]>
g (float[N] x) => (float[N] y) { y = evil.ops.Run(x) }"""


def onnx(text: str) -> Callable[[], bytes]:
    return lambda: bytes(parser.parse_model(text).SerializeToString())


REFUSED: dict[str, tuple[int, str, Callable[[], bytes], dict[str, str]]] = {
    "unknown-format": (415, "m.onnx", lambda: b"hello", {}),
    "corrupt": (422, "m.onnx", net, {}),
    "unsupported-op": (422, "m.onnx", onnx(UNKNOWN), {}),
    "signature": (422, "m.onnx", lambda: conv_model(5), {"outputs": "nothing"}),
    "inference-mode": (422, "m.onnx", onnx(TRAINS), {}),
    "source": (422, "m.weights.h5", (ROOT / "models/keras_dense/tuned.weights.h5").read_bytes, {}),
    "inconclusive": (409, "m.onnx", onnx(FOREIGN), {}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("refusals") / "store") as started:
        yield started


@pytest.mark.parametrize("code", REFUSED)
def test_a_refusal_is_told_everywhere_as_the_command_line_tells_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    status, name, content, options = REFUSED[code]
    (tmp_path / name).write_bytes(content())
    monkeypatch.chdir(tmp_path)
    wanted = {key: tuple(value.split(",")) for key, value in options.items()}
    with pytest.raises(bnfold.BnfoldError) as raised:
        bnfold.convert(Path(name), bnfold.Options(outputs=wanted.get("outputs", ())))
    here = raised.value
    assert here.code == code
    with server.client() as client:
        begun = client.post(
            "/fold", files={"model": (name, content())}, data=options, headers={"Prefer": "respond-async"}
        )
        location = begun.headers["location"]

        def ended() -> dict[str, Any]:
            body: dict[str, Any] = client.get(location).json()
            return body if body["state"] == "failed" else {}

        told = wait_for(ended, 300)["error"]
        assert (told["status"], told["code"], told["detail"], told["hint"]) == (status, code, str(here), here.hint)
        events = client.get(f"{location}/events").text
        last = json.loads([line for line in events.splitlines() if line.startswith("data: ")][-1][6:])
        assert (last["state"], last["error"]) == ("failed", told)
        again = client.post("/fold", files={"model": (name, content())}, data=options, headers={"Prefer": "wait=30"})
        if again.status_code != 202:  # a machine that is busy may need longer
            body = again.json()
            assert (again.status_code, body["code"], body["detail"], body["hint"]) == (
                status, code, told["detail"], told["hint"],
            )  # fmt: skip
            assert again.headers["content-type"] == "application/problem+json"


def test_every_refusal_of_the_command_line_has_a_model_here() -> None:
    kinds = {getattr(bnfold, name).code for name in bnfold.__all__ if name.endswith("Error")}
    # No file of a stranger's makes these: bnfold itself is at fault, an extra is missing, or another service refuses.
    assert kinds - set(REFUSED) == {"error", "missing-extra", "parity", "server"}
