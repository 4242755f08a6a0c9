"""A model file in, the folded model out: what comes back is what bnfold itself writes, and it stays."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import bnfold
from tests.service.server import Server, conv_model, post, wait_for

if TYPE_CHECKING:
    import httpx

BINARY = {"Accept": "application/octet-stream"}


def _converted(tmp_path: Path, content: bytes, name: str, options: bnfold.Options = bnfold.DEFAULTS) -> bytes:
    (tmp_path / name).write_bytes(content)
    return bnfold.convert(tmp_path / name, options).save(tmp_path / "folded.onnx").read_bytes()


def test_the_file_that_comes_back_is_what_bnfold_writes(client: httpx.Client, tmp_path: Path) -> None:
    content = conv_model(2)
    answer = client.post("/fold", files={"model": ("net.onnx", content)}, headers=BINARY)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="net.onnx"'
    assert answer.content == _converted(tmp_path, content, "net.onnx")
    folded = onnx.load_from_string(answer.content)
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Relu"]
    feeds = {"x": np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    original = onnx.load_from_string(content)
    (expected, computed) = (np.asarray(ReferenceEvaluator(m).run(None, feeds)[0]) for m in (original, folded))  # type: ignore[index]
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-4)


def test_the_account_says_what_was_done_and_where_everything_is(client: httpx.Client) -> None:
    content = conv_model(4)
    body = post(client, content).json()
    assert body["cached"] is False
    assert body["verdict"] in {"pass", "pass-more-accurate"}
    assert body["upload"] == "network.onnx"
    assert body["source"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert body["batch_norms"] == {"total": 1, "folded": 1, "kept": []}
    assert body["before"]["ops"]["BatchNormalization"] == 1
    assert "BatchNormalization" not in body["after"]["ops"]
    assert body["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
    assert body["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4, 6, 6]}]
    model, report = client.get(body["links"]["model"]), client.get(body["links"]["report"])
    assert hashlib.sha256(model.content).hexdigest() == body["sha256"]
    assert len(model.content) == body["bytes"]
    assert report.json()["source"]["path"] == "network.onnx"
    assert report.json()["parity"] is not None
    described = client.get(body["links"]["self"]).json()
    assert described == {name: value for name, value in body.items() if name != "cached"}
    assert client.get(f"/models/{body['name']}").json() == {
        "name": body["name"],
        "versions": [1],
        "latest": described,
    }
    assert client.get(f"/models/{body['name']}/versions/latest").json() == described


def test_the_same_again_is_answered_without_a_conversion(client: httpx.Client, server: Server) -> None:
    content = conv_model(5)
    first = post(client, content).json()
    jobs = client.get("/jobs?limit=1000").json()["jobs"]
    assert post(client, content).json() == {**first, "cached": True}
    assert client.get("/jobs?limit=1000").json()["jobs"] == jobs
    assert server.children("service.child") == []


def test_other_options_are_another_model(client: httpx.Client, tmp_path: Path) -> None:
    content = conv_model(6)
    plain = post(client, content).json()
    kept = post(client, content, keep="*", verify="off").json()
    assert kept["name"] != plain["name"]
    assert kept["verdict"] == "not-verified"
    assert kept["batch_norms"]["folded"] == 0
    assert [one["outcome"] for one in kept["batch_norms"]["kept"]] == ["kept"]
    options = bnfold.Options(keep=("*",), verify="off")
    assert client.get(kept["links"]["model"]).content == _converted(tmp_path, content, "network.onnx", options)


def test_options_that_say_nothing_are_no_other_model(client: httpx.Client) -> None:
    content = conv_model(6)
    plain = post(client, content).json()
    assert post(client, content, outputs=" ", keep="", signature="").json()["name"] == plain["name"]


def test_fields_may_be_repeated_and_lists_have_commas(client: httpx.Client) -> None:
    form = [("outputs", (None, "n, y")), ("outputs", (None, "h")), ("verify", (None, "off"))]
    body = client.post("/fold", files=[*form, ("model", ("m.onnx", conv_model(7)))]).json()
    assert [output["name"] for output in body["outputs"]] == ["n", "y", "h"]


def test_nothing_is_left_of_a_request(client: httpx.Client, server: Server) -> None:
    post(client, conv_model(8))
    post(client, b"no model")
    own = {path for path in (server.store / "aside").iterdir() if (path / "upload").exists()}
    wait_for(lambda: not any(path.exists() for path in own))


def test_models_are_listed_page_by_page(client: httpx.Client) -> None:
    names = {post(client, conv_model(seed), verify="off").json()["name"] for seed in (10, 11, 12)}
    seen: list[str] = []
    following: str | None = "/models?limit=2"
    while following:
        page = client.get(following).json()
        assert len(page["models"]) <= 2
        seen += [model["name"] for model in page["models"]]
        following = page["next"]
    assert seen == sorted(set(seen))
    assert names <= set(seen)


def test_a_file_is_sent_in_ranges_and_not_again_to_who_has_it(client: httpx.Client, folded: dict[str, str]) -> None:
    link = f"/models/{folded['name']}/versions/latest/model.onnx"
    whole = client.get(link)
    etag = whole.headers["etag"]
    assert etag == f'"{folded["sha256"]}"'
    part = client.get(link, headers={"Range": "bytes=10-19", "If-Range": etag})
    assert part.status_code == 206
    assert part.content == whole.content[10:20]
    assert client.get(link, headers={"If-None-Match": f'"other", {etag}'}).status_code == 304
    assert client.get(link, headers={"If-None-Match": '"other"'}).content == whole.content
    assert client.head(link).headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    "path",
    [
        "/models/x",
        "/models/%2e%2e/versions/1/model.onnx",
        "/models/..%2f..%2fetc/versions/1/report",
        f"/models/{'0' * 64}",
        f"/models/{'0' * 64}/versions/1/model.onnx",
        f"/models/{'A' * 64}",
        "/models/%00",
        "/nothing",
    ],
)
def test_what_is_not_there_is_not_found(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not-found"


def test_a_version_that_is_not_there_is_not_found(client: httpx.Client, folded: dict[str, str]) -> None:
    assert client.get(f"/models/{folded['name']}/versions/2/model.onnx").json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "the model has no version '2'",
        "code": "not-found",
        "hint": "Its version is 1.",
    }


def test_a_name_gathers_versions(client: httpx.Client) -> None:
    to = "/fold?verify=off&name=gathered"
    first, second = (client.post(to, content=conv_model(seed)).json() for seed in (300, 301))
    assert [(body["name"], body["version"]) for body in (first, second)] == [("gathered", 1), ("gathered", 2)]
    assert client.post(to, content=conv_model(300)).json() == {**first, "cached": True}
    assert client.get("/models/gathered").json()["versions"] == [1, 2]
    latest = client.get("/models/gathered/versions/latest/model.onnx")
    assert (latest.headers["etag"], latest.headers["cache-control"]) == (f'"{second["sha256"]}"', "no-cache")
    assert client.delete("/models/gathered/versions/2").status_code == 204
    assert client.get(second["links"]["model"]).status_code == 404
    assert client.get("/models/gathered/versions/latest/model.onnx").headers["etag"] == f'"{first["sha256"]}"'
    assert client.delete("/models/gathered/versions/2").status_code == 404
    assert client.post(to, content=conv_model(301)).json()["version"] == 3


def test_a_loaded_version_is_deleted_only_by_force(client: httpx.Client) -> None:
    body = client.post("/fold?verify=off&name=loaded", content=conv_model(302)).json()
    question = {"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]}
    assert client.post(body["links"]["infer"], content=json.dumps(question)).status_code == 200
    refused = client.delete(body["links"]["self"])
    assert (refused.status_code, refused.json()["code"]) == (409, "loaded")
    assert client.get(body["links"]["model"]).status_code == 200
    assert client.delete(f"{body['links']['self']}?force=true").status_code == 204
    assert client.post(body["links"]["infer"], content=json.dumps(question)).status_code == 404


def test_the_report_is_a_page_too(client: httpx.Client, folded: dict[str, Any]) -> None:
    page = client.get(folded["links"]["page"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!DOCTYPE html>")
    assert page.headers["content-security-policy"].startswith("default-src 'none';")
    assert client.get(folded["links"]["report"], headers={"Accept": "text/html"}).text == page.text
    assert client.get(folded["links"]["report"]).json() == client.get(f"{folded['links']['self']}/report.json").json()


def test_triton_gets_a_repository(client: httpx.Client, folded: dict[str, Any]) -> None:
    answer = client.get(folded["links"]["triton"])
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        name = folded["name"]
        assert archive.namelist() == [f"{name}/config.pbtxt", f"{name}/1/model.onnx"]
        assert archive.read(f"{name}/1/model.onnx") == client.get(folded["links"]["model"]).content
        config = archive.read(f"{name}/config.pbtxt").decode("utf-8")
    assert config == (
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 0\n'
        'input {\n  name: "x"\n  data_type: TYPE_FP32\n  dims: [ -1, 3, 8, 8 ]\n}\n'
        'output {\n  name: "y"\n  data_type: TYPE_FP32\n  dims: [ -1, 4, 6, 6 ]\n}\n'
    )
    again = client.get(folded["links"]["triton"], headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_health_is_told(client: httpx.Client, server: Server) -> None:
    ready = {"live": True, "ready": True, "sandbox": server.sandbox}
    assert client.get("/health").json() == {**ready, "version": bnfold.__version__}
    assert client.get("/livez").json() == {"live": True}
    assert client.get("/readyz").json() == ready


def test_a_method_that_is_not_taken_says_which_are(client: httpx.Client) -> None:
    answer = client.put("/fold")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["detail"] == "/fold does not take PUT"


def _in_the_end(client: httpx.Client, **told: Any) -> httpx.Response:
    """Fold what may take longer than a request waits."""
    answer = client.post("/fold", headers={"Prefer": "wait=30"}, **told)
    if answer.status_code != 202:
        return answer
    link = answer.headers["location"]
    wait_for(lambda: client.get(link).json()["state"] not in {"queued", "running"}, 300)
    return client.post("/fold", **told)


@pytest.mark.tensorflow
def test_a_keras_file_is_folded_like_by_bnfold(client: httpx.Client, repository: Path, tmp_path: Path) -> None:
    content = (repository / "models" / "keras_dense" / "tuned.keras").read_bytes()
    answer = _in_the_end(client, files={"model": ("tuned.keras", content)})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["verdict"] in {"pass", "pass-more-accurate"}
    assert body["source"]["format"] == "keras"
    assert body["batch_norms"]["total"] > 0
    assert client.get(body["links"]["model"]).content == _converted(tmp_path, content, "tuned.keras")
    question = {
        "inputs": [{"name": body["inputs"][0]["name"], "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]
    }
    assert client.post(body["links"]["infer"], content=json.dumps(question)).status_code == 200


@pytest.mark.tensorflow
def test_weights_come_with_their_architecture(client: httpx.Client, repository: Path) -> None:
    folder = repository / "models" / "keras_dense"
    files = {
        "model": ("tuned.weights.h5", (folder / "tuned.weights.h5").read_bytes()),
        "architecture": ("architecture.json", (folder / "architecture.json").read_bytes()),
    }
    answer = _in_the_end(client, files=files, data={"verify": "off"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["source"]["format"] == "h5-weights"
