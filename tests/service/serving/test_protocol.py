"""The rest of the protocol at a real service: what it says of models, loading, running together, and rubbish."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.problems import MalformedError
from service.serving.frames import Answer, Form, Question
from service.serving.messages import METHODS, SERVICE, message
from service.serving.rounds import Rounds
from service.serving.rpc import model_of
from service.serving.session import open_session, signature_of
from tests.service.server import Server, serving, wait_for

if TYPE_CHECKING:
    import httpx

LENGTH = "Inference-Header-Content-Length"
DENSE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,16] x) => (float[n,4] y, int64[n] best) <float[16,4] w> {
    y = MatMul(x, w)
    best = ArgMax <axis = 1, keepdims = 0> (y)
}"""
MEAN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,16] x) => (float[n,16] y) {
    m = ReduceMean <axes = [0]> (x)
    y = Sub(x, m)
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("protocol"), grpc_port="0", infer_size="1MiB", infer_queue="200") as running:
        with running.client() as client:
            dense = onnx.parser.parse_model(DENSE)
            w = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
            dense.graph.initializer.append(numpy_helper.from_array(w, "w"))
            for name, model in (("dense", dense), ("mean", onnx.parser.parse_model(MEAN)), ("spare", dense)):
                files = {"model": (f"{name}.onnx", model.SerializeToString())}
                answer = client.post("/fold", files=files, data={"name": name, "verify": "off"})
                assert answer.status_code == 200, answer.text
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened


def _question(x: np.ndarray[Any, Any]) -> str:
    one = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    return json.dumps({"inputs": [one]})


def _call(channel: grpc.Channel, method: str, request: bytes, **told: Any) -> bytes:
    answer: bytes = channel.unary_unary(f"/{SERVICE}/{method}")(request, timeout=60, **told)
    return answer


def test_a_model_says_how_it_is_run(client: httpx.Client) -> None:
    told = client.get("/v2/models/dense/config").json()
    assert told == {
        "name": "dense",
        "platform": "onnx_onnxv1",
        "backend": "onnxruntime",
        "version_policy": {"all": {}},
        "max_batch_size": 0,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 16]}],
        "output": [
            {"name": "y", "data_type": "TYPE_FP32", "dims": [-1, 4]},
            {"name": "best", "data_type": "TYPE_INT64", "dims": [-1]},
        ],
    }
    assert client.get("/v2/models/dense/versions/1/config").json() == told
    answer = client.get("/v2/models/absent/config")
    assert (answer.status_code, answer.json()["error"]) == (
        404,
        "there is no model 'absent'. GET /models lists those that are kept.",
    )


def test_requests_are_counted(client: httpx.Client) -> None:
    def told() -> dict[str, Any]:
        (one,) = client.get("/v2/models/spare/stats").json()["model_stats"]
        return dict(one)

    before = told()
    x = np.zeros((1, 16), np.float32)
    for _ in range(3):
        assert client.post("/v2/models/spare/infer", content=_question(x)).status_code == 200
    assert client.post("/v2/models/spare/infer", content=b"{").status_code == 400
    after = told()
    assert (after["name"], after["version"]) == ("spare", "1")
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 3
    for part, more in (("success", 3), ("fail", 1), ("queue", 3), ("compute_infer", 3), ("cache_hit", 0)):
        assert after["inference_stats"][part]["count"] - before["inference_stats"][part]["count"] == more
    assert after["last_inference"] > before["last_inference"]
    everything = client.get("/v2/models/stats").json()["model_stats"]
    assert after in everything
    assert client.get("/v2/models/spare/versions/1/stats").json()["model_stats"] == [after]


def test_a_model_is_unloaded_and_loaded_by_name(client: httpx.Client, server: Server) -> None:
    x = np.ones((2, 16), np.float32)
    first = client.post("/v2/models/spare/infer", content=_question(x))
    assert first.status_code == 200
    index = {one["name"]: one for one in client.post("/v2/repository/index").json()}
    assert index["spare"] == {"name": "spare", "version": "1", "state": "READY", "reason": ""}
    running = len(server.children("service.serving.runner"))
    answer = client.post("/v2/repository/models/mean/load")
    assert (answer.status_code, answer.json()) == (200, {})
    assert client.post("/v2/repository/models/mean/unload").status_code == 200
    wait_for(lambda: len(server.children("service.serving.runner")) <= running)
    refused = client.post("/v2/models/mean/infer", content=_question(x))
    assert (refused.status_code, refused.json()["code"]) == (503, "not-ready")
    assert refused.json()["detail"] == "the model mean was unloaded"
    assert client.get("/v2/models/mean/ready").status_code == 503
    index = {one["name"]: one for one in client.post("/v2/repository/index", content=b"{}").json()}
    assert (index["mean"]["state"], index["mean"]["reason"]) == ("UNAVAILABLE", "unloaded")
    ready = client.post("/v2/repository/index", content=b'{"ready": true}').json()
    assert "mean" not in {one["name"] for one in ready}
    assert client.post("/v2/repository/models/mean/load", content=b'{"parameters": {}}').status_code == 200
    assert client.get("/v2/models/mean/ready").json() == {"name": "mean", "ready": True}
    assert client.post("/v2/models/mean/infer", content=_question(x)).status_code == 200


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b'{"parameters": {"config": "{}"}}', "a model is loaded as it was folded, without 'config'"),
        (
            b'{"parameters": {"file:1/model.onnx": "AAAA"}}',
            "a model is loaded as it was folded, without 'file:1/model.onnx'",
        ),
        (b'{"parameters": 3}', "parameters is no JSON object"),
        (b"[]", "the request is no JSON object"),
        (b"{", "the request is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_a_model_is_loaded_as_it_is(client: httpx.Client, content: bytes, detail: str) -> None:
    answer = client.post("/v2/repository/models/dense/load", content=content)
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)
    assert "error" in answer.json()


def test_answers_do_not_depend_on_who_else_asks(client: httpx.Client, server: Server) -> None:
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=(int(rng.integers(1, 4)), 16)).astype(np.float32) for _ in range(120)]
    for name in ("dense", "mean"):
        link = f"/v2/models/{name}/infer"
        alone = [client.post(link, content=_question(x)).json()["outputs"] for x in rows]
        with ThreadPoolExecutor(24) as pool, server.client() as crowd:
            together = list(
                pool.map(lambda x, c=crowd, to=link: c.post(to, content=_question(x)).json()["outputs"], rows)
            )
        assert together == alone
    (dense,) = client.get("/v2/models/dense/stats").json()["model_stats"]
    (mean,) = client.get("/v2/models/mean/stats").json()["model_stats"]
    assert {one["batch_size"] for one in mean["batch_stats"]} == {1}, "its rows depend on each other"
    assert (
        sum(one["batch_size"] * one["compute_infer"]["count"] for one in dense["batch_stats"])
        == dense["inference_count"]
    )
    assert dense["execution_count"] == sum(one["compute_infer"]["count"] for one in dense["batch_stats"])


def test_one_bad_request_among_many_spoils_only_itself(client: httpx.Client, server: Server) -> None:
    good, bad = _question(np.ones((1, 16), np.float32)), _question(np.ones((1, 15), np.float32))
    expected = client.post("/v2/models/dense/infer", content=good).json()
    with ThreadPoolExecutor(24) as pool, server.client() as crowd:
        answers = list(
            pool.map(lambda n: crowd.post("/v2/models/dense/infer", content=bad if n % 5 == 0 else good), range(100))
        )
    assert [answer.status_code for answer in answers] == [400 if n % 5 == 0 else 200 for n in range(100)]
    assert all(answer.json() == expected for answer in answers if answer.status_code == 200)


@pytest.mark.parametrize("body", [b"", b'{"inputs":'])
def test_a_request_that_never_ends_is_given_up(store: Path, body: bytes) -> None:
    with serving(store, infer_seconds="0.5") as slow:
        with slow.client() as client:
            files = {"model": ("m.onnx", onnx.parser.parse_model(MEAN).SerializeToString())}
            assert client.post("/fold", files=files, data={"name": "m", "verify": "off"}).status_code == 200
        connection = http.client.HTTPConnection(urlsplit(slow.url).netloc, timeout=60)
        connection.putrequest("POST", "/v2/models/m/infer")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(body)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        assert (answer.status, told["code"], told["detail"]) == (
            408,
            "slow-upload",
            "the request did not arrive within 0.5 s",
        )
        connection.close()


def test_grpc_says_what_is_wrong(channel: grpc.Channel) -> None:
    def refused(request: bytes, method: str = "ModelInfer") -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            _call(channel, method, request)
        return caught.value.code().name, caught.value.details()

    infer = message("ModelInferRequest")
    assert refused(b"\xff") == (
        "INVALID_ARGUMENT",
        "the request is no ModelInferRequest. Follow the Open Inference Protocol, version 2.",
    )
    assert refused(infer(model_name="absent").SerializeToString()) == (
        "NOT_FOUND",
        "there is no model 'absent'. GET /models lists those that are kept.",
    )
    assert refused(infer(model_name="dense", model_version="7").SerializeToString()) == (
        "NOT_FOUND",
        "the model has no version '7'. Its version is 1.",
    )

    def asked(**told: Any) -> bytes:
        one = {"name": "x", "datatype": "FP32", "shape": [1, 16], **told.pop("input", {})}
        raw = told.pop("raw", [bytes(64)])
        content: bytes = infer(model_name="dense", inputs=[one], raw_input_contents=raw, **told).SerializeToString()
        return content

    def detail(content: bytes) -> str:
        code, said = refused(content)
        assert code == "INVALID_ARGUMENT"
        return said

    assert (
        detail(asked(raw=[])) == "x of shape [1, 16] and datatype FP32 takes 64 bytes, and 0 came. "
        "Send the elements in row-major order, little-endian, without padding."
    )
    assert detail(asked(raw=[bytes(64), b""])) == "1 inputs came with 2 raw contents. Send raw contents for each input."
    both = asked(input={"contents": {"fp32_contents": [1.0]}})
    assert detail(both) == "x came with contents and with raw contents. Send one of them."
    wrong = asked(input={"contents": {"int_contents": [1]}}, raw=[])
    assert detail(wrong) == "x is FP32 and came as int_contents. Send it as fp32_contents, or raw."
    assert detail(asked(input={"shape": [2**62, 2**62]})).startswith("x has the shape [4611686018427387904, ")
    assert detail(asked(input={"shape": [-1, 16]})).startswith("x has the shape [-1, 16]. Give the shape as a list")
    assert detail(asked(outputs=[{"name": "z"}])) == "the model has no output 'z'. It answers y, best."
    assert detail(asked(outputs=[{"name": "y"}] * 2)) == "the output y is asked for twice. Ask for each output once."
    shared = asked(outputs=[{"name": "y", "parameters": {"shared_memory_region": {"string_param": "r"}}}])
    assert (
        detail(shared) == "y has the parameter shared_memory_region, which is not offered. Send the request without it."
    )
    sequence = asked(parameters={"sequence_id": {"int64_param": 3}})
    assert detail(sequence) == "sequences of requests are not offered. Send every request by itself."


def test_grpc_takes_typed_contents(channel: grpc.Channel, client: httpx.Client) -> None:
    x = np.random.default_rng(4).normal(size=(1, 16)).astype(np.float32)
    expected = client.post("/v2/models/dense/infer", content=_question(x)).json()["outputs"]
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16], "contents": {"fp32_contents": x.ravel().tolist()}}
    request = message("ModelInferRequest")(model_name="dense", id="9", inputs=[one])
    answer = message("ModelInferResponse").FromString(_call(channel, "ModelInfer", request.SerializeToString()))
    assert (answer.id, answer.model_name, answer.model_version) == ("9", "dense", "1")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [
        ("y", "FP32", [1, 4]),
        ("best", "INT64", [1]),
    ]
    assert not any(output.HasField("contents") for output in answer.outputs)
    y, best = answer.raw_output_contents
    np.testing.assert_array_equal(np.frombuffer(y, "<f4"), np.array(expected[0]["data"], "<f4"))
    assert np.frombuffer(best, "<i8").tolist() == expected[1]["data"]


def _code(channel: grpc.Channel, method: str, request: bytes) -> str:
    try:
        _call(channel, method, request)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_every_method_of_grpc_answers_or_says_why_not(channel: grpc.Channel) -> None:
    rng = random.Random(5)
    for method in METHODS:
        assert _code(channel, method, b"") in {"OK", "NOT_FOUND"}
        assert _code(channel, method, b"\xff\xff") == "INVALID_ARGUMENT"
        for _ in range(10):
            assert _code(channel, method, rng.randbytes(20)) in {"OK", "NOT_FOUND", "INVALID_ARGUMENT"}
    live = message("ServerLiveResponse").FromString(_call(channel, "ServerLive", b""))
    assert live.live


def test_the_model_of_a_message_is_found_without_reading_the_rest() -> None:
    infer = message("ModelInferRequest")
    request = infer(model_name="ü", model_version="3", raw_input_contents=[b"x" * 300, b""])
    assert model_of(request.SerializeToString()) == ("ü", "3")
    assert model_of(b"") == ("", "")
    again = request.SerializeToString() + infer(model_name="later").SerializeToString()
    assert model_of(again) == ("later", "3")
    whole = request.SerializeToString()
    for end in range(len(whole)):
        parsed: tuple[str, str] | None
        try:
            read = infer.FromString(whole[:end])
            parsed = (read.model_name, read.model_version)
        except Exception:  # the library's error has no public name that mypy knows
            parsed = None
        try:
            found: tuple[str, str] | None = model_of(whole[:end])
        except MalformedError:
            found = None
        assert found == parsed


def _mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        match rng.randint(0, 4):
            case 0 if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            case 1 if changed:
                del changed[rng.randrange(len(changed)) :][: rng.randint(1, 20)]
            case 2:
                at = rng.randrange(len(changed) + 1)
                changed[at:at] = rng.choice(
                    [b"9" * 30, b"[[", b"-", b"\0", b'"', b"null", b"1e999", b"{}", b"\xff" * 4]
                )
            case 3 if changed:
                at = rng.randrange(len(changed))
                changed[at : at + rng.randint(1, 30)] = b""
            case 4 if changed:
                at = rng.randrange(len(changed))
                changed += changed[at : at + 50]
    return bytes(changed)


def test_whatever_is_sent_the_service_answers_and_stays_as_it_was(
    client: httpx.Client, channel: grpc.Channel, server: Server
) -> None:
    rng = random.Random(17)
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    text = _question(x).encode()
    good = client.post("/v2/models/dense/infer", content=text)
    runners = server.children("service.serving.runner")
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
    binary = json.dumps({"inputs": [one], "outputs": [{"name": "y"}]}).encode()
    rpc = message("ModelInferRequest")(
        model_name="dense",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 16]}],
        raw_input_contents=[x.tobytes()],
    ).SerializeToString()
    seen = set()
    for _ in range(300):
        body, headers = _mutated(text, rng), {}
        if rng.random() < 0.5:
            body = _mutated(binary + x.tobytes(), rng)
            headers[LENGTH] = rng.choice([str(len(binary)), "0", str(len(body)), "99999999999999999999", "-1"])
        if rng.random() < 0.2:
            headers["Content-Encoding"] = rng.choice(["gzip", "deflate", "identity", "zip"])
        answer = client.post("/v2/models/dense/infer", content=body, headers=headers)
        seen.add(answer.status_code)
        assert answer.status_code in {200, 400, 415}, (answer.text, body, headers)
        if answer.status_code != 200:
            assert isinstance(answer.json()["error"], str)
    assert seen == {200, 400, 415}
    for _ in range(200):
        assert _code(channel, "ModelInfer", _mutated(rpc, rng)) in {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert client.post("/v2/models/dense/infer", content=text).content == good.content
    assert server.children("service.serving.runner") == runners, "no runner died of it"
    assert client.get("/v2/health/ready").status_code == 200


def test_an_answer_that_is_too_large_is_refused_and_the_runner_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = "g (float[n,2] x) => (float[n,2] y) { y = Relu(x) }"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}'), path)
    session = open_session(path, 1)
    rounds = Rounds(session, signature_of(session), largest=300)
    told: list[tuple[Answer, list[Any]]] = []

    def ask(rows: int) -> Answer:
        x = np.zeros((rows, 2), np.float32)
        question = Question(rows, Form.HTTP, "m", "1", time.monotonic() + 60, None, "", "", 2**20)
        rounds.answer([(question, _question(x).encode())], lambda answer, pieces: told.append((answer, pieces)))
        return told[-1][0]

    assert ask(1).code == ""
    refused = ask(100)
    assert (refused.number, refused.code) == (100, "tensor")
    assert refused.message.startswith("the answer would have ")
    assert refused.message.endswith(" bytes, and 300 are sent at most")
    assert ask(2).code == ""


def test_a_run_ends_at_its_deadline(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    # Nothing but steps, so many that they take minutes, between each two of which the runtime can be stopped.
    text = """g (float[n,2] x) => (float[n,2] y) <int64 most = {2000000000}, bool on = {1}> {
        y = Loop (most, on, x) <body = b (int64 i, bool c, float[n,2] v) => (bool d, float[n,2] w) {
            d = Identity(c)
            w = Neg(v)
        }>
    }"""
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}'), path)
    session = open_session(path, 1)
    rounds = Rounds(session, signature_of(session), largest=2**20)
    told: list[Answer] = []
    question = Question(1, Form.HTTP, "m", "1", time.monotonic() + 0.3, None, "", "", 2**20)
    rounds.answer([(question, _question(np.zeros((1, 2), np.float32)).encode())], lambda answer, _: told.append(answer))
    assert [(answer.code, answer.message) for answer in told] == [("time-limit", "the inference took too long")]
    late = Question(2, Form.HTTP, "m", "1", time.monotonic() - 1, None, "", "", 2**20)
    rounds.answer([(late, _question(np.zeros((1, 2), np.float32)).encode())], lambda answer, _: told.append(answer))
    assert told[1].code == "time-limit"
