"""The clients that people have ask a real service: Triton's and KServe's, from an environment of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from service.serving.tensors import DATATYPES
from tests.service.server import ROOT, Server, serving

SCRIPTS = Path(__file__).parent / "clients"
PYTHON = ROOT / ".clients" / "bin" / "python"
ELEMENTS = {datatype: datatype.lower() for datatype in DATATYPES if datatype != "BF16"}
ELEMENTS |= {"FP16": "float16", "FP32": "float", "FP64": "double", "BYTES": "string"}
TWO = """g (float[n,2] a, float[n,2] b) => (float[n,2] sum, float[n,2] difference) {
    sum = Add(a, b)
    difference = Sub(a, b)
}"""
BF16 = "g (bfloat16[n,2] x) => (bfloat16[n,2] y) { y = Identity(x) }"


def _everything() -> str:
    takes = ", ".join(f"{element}[n,2] {name}_in" for name, element in ELEMENTS.items())
    answers = ", ".join(f"{element}[n,2] {name}_out" for name, element in ELEMENTS.items())
    return f"g ({takes}) => ({answers}) {{ {'  '.join(f'{name}_out = Identity({name}_in)' for name in ELEMENTS)} }}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not PYTHON.exists():
        if os.environ.get("BNFOLD_TEST_EVERYTHING") == "1":
            pytest.fail("the clients are not there: make clients")
        pytest.skip("the clients are not there: make clients")
    with serving(tmp_path_factory.mktemp("clients"), grpc_port="0", infer_size="4MiB") as server:
        with server.client() as client:
            for name, text in (("everything", _everything()), ("two", TWO), ("bf16", BF16)):
                model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
                files = {"model": (f"{name}.onnx", model.SerializeToString())}
                answer = client.post("/fold", files=files, data={"name": name, "verify": "off"})
                assert answer.status_code == 200, answer.text
        yield server


def _run(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(PYTHON), str(SCRIPTS / script), *arguments], check=False, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr


def test_tritons_client_is_answered_over_http(served: Server) -> None:
    _run("triton_http.py", served.url.removeprefix("http://"))


def test_tritons_client_is_answered_over_grpc(served: Server) -> None:
    _run("triton_grpc.py", served.grpc)


def test_kserves_clients_are_answered(served: Server) -> None:
    _run("kserve_both.py", served.url, served.grpc)
