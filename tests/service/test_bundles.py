"""Models that are several files: sent to a service as an archive, by anybody or by ``bnfold convert --server``."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from tests.cli.program import bnfold
from tests.frontends.test_bundles import VALUES, net
from tests.service.server import Server, serving, wait_for

if TYPE_CHECKING:
    import httpx


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("bundles") / "store") as started:
        yield started


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as into:
        for name, content in files.items():
            into.writestr(name, content)
    return packed.getvalue()


def folded(client: httpx.Client, content: bytes, **fields: str) -> dict[str, Any]:
    """Send an archive, and return its job when that has ended."""
    answer = client.post(
        "/fold", files={"model": ("net.zip", content)}, data=fields, headers={"Prefer": "respond-async"}
    )
    assert answer.status_code == 202, answer.text

    def ended() -> dict[str, Any]:
        body: dict[str, Any] = client.get(answer.headers["location"]).json()
        return body if body["state"] in {"succeeded", "failed"} else {}

    return wait_for(ended, 300)


def test_a_model_with_files_of_weights_comes_back_as_one_file_that_runs(server: Server) -> None:
    content = archive({"m/net.onnx": net(), "m/weights/w.bin": VALUES, "m/notes.txt": b"nobody's"})
    with server.client() as client:
        assert folded(client, content, name="bundled")["state"] == "succeeded"
        model = onnx.load_from_string(client.get("/models/bundled/versions/1/model.onnx").content)
        assert [one.data_location for one in model.graph.initializer] == [0] * len(model.graph.initializer)
        assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
        tensor = {"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [1.0] * 192}
        question = {"inputs": [tensor]}
        wait_for(lambda: client.post("/v2/models/bundled/infer", json=question).status_code == 200, 300)


def test_an_archive_without_the_weights_is_refused_as_the_command_line_does(server: Server) -> None:
    with server.client() as client:
        error = folded(client, archive({"m/net.onnx": net()}))["error"]
    assert (error["status"], error["code"]) == (422, "corrupt")
    assert error["detail"] == (
        "net.zip/m/net.onnx is damaged: tensor 'w' is kept in 'weights/w.bin', and that file is not beside the model"
    )


def test_the_command_line_packs_a_model_with_its_weights(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "net.onnx").write_bytes(net())
    (tmp_path / "weights" / "w.bin").write_bytes(VALUES)
    done = bnfold(
        "convert", "net.onnx", "-o", "there.onnx", "--server", server.url, "--report", "there.json", cwd=tmp_path
    )
    assert (done.code, done.err) == (0, "")
    assert bnfold("convert", "net.onnx", "-o", "here.onnx", cwd=tmp_path).code == 0
    assert onnx.load(tmp_path / "there.onnx").graph == onnx.load(tmp_path / "here.onnx").graph
    told = json.loads((tmp_path / "there.json").read_text("utf-8"))["source"]
    assert (told["path"], told["format"]) == ("net.zip", "onnx")


@pytest.mark.tensorflow
def test_the_command_line_packs_a_checkpoint(server: Server, tmp_path: Path, repository: Path) -> None:
    source = repository / "models/tf1_batch_statistics"
    done = bnfold(
        "convert", str(source), "-o", "there.onnx", "--server", server.url, "--report", "there.json", cwd=tmp_path,
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    told = json.loads((tmp_path / "there.json").read_text("utf-8"))
    assert (told["source"]["path"], told["source"]["format"]) == ("my_net.ckpt.zip", "checkpoint")
    assert len(told["batch_norms"]) == 3
    assert told["verdict"] in {"pass", "pass-more-accurate"}
