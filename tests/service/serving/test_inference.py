"""Folded models at the Open Inference Protocol: right answers, in JSON and binary, and clear refusals."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from service.serving.tensors import DATATYPES
from tests.service.server import Server, conv_model, post

if TYPE_CHECKING:
    import httpx

LENGTH = "Inference-Header-Content-Length"
ELEMENTS = {datatype: datatype.lower() for datatype in DATATYPES if datatype != "BF16"}
BINARY = {"FP16"}
ELEMENTS |= {"FP16": "float16", "FP32": "float", "FP64": "double", "BYTES": "string"}
SOME: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True],
    "UINT8": [0, 255, 7, 1],
    "UINT16": [0, 65535, 7, 1],
    "UINT32": [0, 2**32 - 1, 7, 1],
    "UINT64": [0, 2**64 - 1, 2**63, 2**53 + 1],
    "INT8": [-128, 127, 0, 1],
    "INT16": [-(2**15), 2**15 - 1, 0, 1],
    "INT32": [-(2**31), 2**31 - 1, 0, 1],
    "INT64": [-(2**63), 2**63 - 1, 2**53 + 1, 1],
    "FP16": [0.5, -65504.0, 1.0, 2.0],
    "FP32": [0.1, -3.4028234663852886e38, 1, 1e-45],
    "FP64": [0.1, -1.7976931348623157e308, 1, 5e-324],
    "BYTES": ["", "a", "ü→", "x" * 300],
}


@pytest.fixture(scope="module")
def everything(server: Server) -> str:
    """The name of a model that answers what it is asked, in every datatype."""
    takes = ", ".join(f"{element}[n,2] {name}_in" for name, element in ELEMENTS.items())
    answers = ", ".join(f"{element}[n,2] {name}_out" for name, element in ELEMENTS.items())
    nodes = "\n".join(f"{name}_out = Identity({name}_in)" for name in ELEMENTS)
    text = f'<ir_version: 8, opset_import: ["" : 17]>\ng ({takes}) => ({answers}) {{\n{nodes}\n}}'
    with server.client() as client:
        answer = post(client, onnx.parser.parse_model(text).SerializeToString(), verify="off")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["name"])


def _raw(datatype: str, elements: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(e.encode()).to_bytes(4, "little") + e.encode() for e in elements)
    return np.array(elements, dtype=DATATYPES[datatype]).tobytes()


def _ask_everything(binary: bool) -> tuple[dict[str, Any], bytes]:  # noqa: FBT001
    inputs, raw = [], b""
    for datatype, elements in SOME.items():
        one: dict[str, Any] = {"name": f"{datatype}_in", "datatype": datatype, "shape": [2, 2]}
        if binary or datatype in BINARY:
            content = _raw(datatype, elements)
            one["parameters"] = {"binary_data_size": len(content)}
            raw += content
        else:
            one["data"] = elements
        inputs.append(one)
    return {"inputs": inputs}, raw


def _send(client: httpx.Client, name: str, asked: object, raw: bytes = b"") -> httpx.Response:
    text = json.dumps(asked).encode()
    return client.post(f"/v2/models/{name}/infer", content=text + raw, headers={LENGTH: str(len(text))} if raw else {})


def test_every_datatype_goes_through_json_unchanged(client: httpx.Client, everything: str) -> None:
    asked, raw = _ask_everything(binary=False)
    asked["outputs"] = [{"name": f"{d}_out", "parameters": {"binary_data": d in BINARY}} for d in SOME]
    answer = _send(client, everything, asked, raw)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[LENGTH])
    told = json.loads(answer.content[:length])
    assert answer.content[length:] == b"".join(_raw(d, SOME[d]) for d in SOME if d in BINARY)
    for output in told["outputs"]:
        datatype = output["datatype"]
        assert output["name"] == f"{datatype}_out"
        assert output["shape"] == [2, 2]
        if datatype == "FP32":
            np.testing.assert_array_equal(np.array(output["data"], "f4"), np.array(SOME["FP32"], "f4"))
        elif datatype not in BINARY:
            assert output["data"] == SOME[datatype]
            assert [type(e) for e in output["data"]] == [type(SOME[datatype][1])] * 4


def test_every_datatype_goes_through_binary_unchanged(client: httpx.Client, everything: str) -> None:
    asked, raw = _ask_everything(binary=True)
    asked["parameters"] = {"binary_data_output": True}
    asked["id"] = "42"
    answer = _send(client, everything, asked, raw)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[LENGTH])
    told = json.loads(answer.content[:length])
    assert (told["id"], told["model_name"], told["model_version"]) == ("42", everything, "1")
    assert answer.content[length:] == raw
    assert [output["parameters"]["binary_data_size"] for output in told["outputs"]] == [
        len(_raw(d, SOME[d])) for d in SOME
    ]


def test_bf16_goes_through_binary_unchanged(client: httpx.Client, made: Callable[[str], str]) -> None:
    name = made(
        "g (bfloat16[n] x, int8[n] i) => (bfloat16[n] y, float[n] z, int8[n] j) "
        "{ y = Identity(x)  z = Cast <to = 1> (x)  j = Identity(i) }"
    )
    patterns = np.array([0x3F80, 0xFF7F, 0x0001, 0x7FC0], "<u2")  # 1, the least, the smallest above 0, NaN
    asked = {
        "inputs": [
            {"name": "x", "datatype": "BF16", "shape": [4], "parameters": {"binary_data_size": 8}},
            {"name": "i", "datatype": "INT8", "shape": [4], "data": [1, 2, 3, 4]},
        ],
        "parameters": {"binary_data_output": True},
    }
    answer = _send(client, name, asked, patterns.tobytes())
    assert answer.status_code == 200, answer.text
    raw = answer.content[int(answer.headers[LENGTH]) :]
    assert raw[:8] == patterns.tobytes()
    wide = (patterns.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(np.frombuffer(raw[8:24], "<f4"), wide)
    assert raw[24:] == bytes([1, 2, 3, 4])
    asked["inputs"][0] |= {"data": [1, 2, 3, 4], "parameters": {}}  # type: ignore[index]
    assert _send(client, name, asked).json()["detail"] == "x is BF16, which JSON has no form for"


def test_a_model_that_takes_bf16_and_texts_at_once_is_not_served(
    client: httpx.Client, made: Callable[[str], str]
) -> None:
    name = made("g (bfloat16[n] x, string[n] s) => (bfloat16[n] y, string[n] t) { y = Identity(x)  t = Identity(s) }")
    answer = client.get(f"/v2/models/{name}/ready")
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "it takes BF16 and BYTES at once, which onnxruntime cannot be given",
    )


def test_a_model_answers_as_the_original_does(client: httpx.Client) -> None:
    content = conv_model(200)
    name = post(client, content).json()["name"]
    x = np.random.default_rng(201).normal(size=(3, 3, 8, 8)).astype(np.float32)
    expected = np.asarray(ReferenceEvaluator(onnx.load_from_string(content)).run(None, {"x": x})[0])  # type: ignore[index]
    for nested in (x.tolist(), x.ravel().tolist()):
        asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 3, 8, 8], "data": nested}]}
        output = _send(client, name, asked).json()["outputs"][0]
        assert output["shape"] == [3, 4, 6, 6]
        np.testing.assert_allclose(np.reshape(output["data"], (3, 4, 6, 6)), expected, rtol=1e-4, atol=1e-4)


def test_an_empty_batch_has_an_empty_answer(client: httpx.Client, everything: str) -> None:
    inputs: list[dict[str, Any]] = [
        {"name": f"{d}_in", "datatype": d, "shape": [0, 2], "data": []} for d in SOME if d not in BINARY
    ]
    inputs += [
        {"name": f"{d}_in", "datatype": d, "shape": [0, 2], "parameters": {"binary_data_size": 0}}
        for d in sorted(BINARY)
    ]
    answer = _send(client, everything, {"inputs": inputs, "outputs": [{"name": "BYTES_out"}, {"name": "INT8_out"}]})
    assert answer.status_code == 200, answer.text
    assert [(o["name"], o["shape"], o["data"]) for o in answer.json()["outputs"]] == [
        ("BYTES_out", [0, 2], []),
        ("INT8_out", [0, 2], []),
    ]


def test_the_server_and_its_models_describe_themselves(client: httpx.Client, folded: dict[str, str]) -> None:
    name = folded["name"]
    assert client.get("/v2").json()["extensions"] == [
        "binary_tensor_data",
        "model_repository",
        "model_configuration",
        "statistics",
    ]
    assert client.get("/v2/health/live").json() == {"live": True}
    ready = client.get("/v2/health/ready")
    assert (ready.status_code, ready.json()["ready"], ready.json()["live"]) == (200, True, True)
    for link in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
        assert client.get(link).json() == {
            "name": name,
            "versions": ["1"],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4, 6, 6]}],
        }
        assert client.get(f"{link}/ready").json() == {"name": name, "ready": True}


def test_a_model_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    for answer in (
        client.post("/v2/models/x/infer", content=b"{}"),
        client.get("/v2/models/x"),
        client.get("/v2/models/x/ready"),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"] == "there is no model 'x'. GET /models lists those that are kept."


X: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": [0.5] * 192}
FOLLOW = "Follow the Open Inference Protocol, version 2."
TYPES = f"Use one of {', '.join(DATATYPES)}."
SIZES = "Give the shape as a list of whole numbers from 0."
TAKES = "and the model takes [-1, 3, 8, 8]. Send the shape that the model takes; -1 stands for any size."
LIST = "Send the elements as a list, flat or nested by axis."
BEYOND = "which is beyond any tensor. Send a smaller tensor."
RANGE = "x holds a number that FP32 cannot hold. Send numbers within the datatype's range."
BEHIND = "Send the raw bytes of the inputs behind the JSON, in the order of the inputs."
ALL = "Send as many elements as the shape says."


def _with(**changes: Any) -> dict[str, Any]:
    one = {name: value for name, value in {**X, **changes}.items() if value is not None}
    return {"inputs": [one]}


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({}, f"the request has no list inputs. {FOLLOW}"),
        ([], f"the request is no JSON object. {FOLLOW}"),
        ({"inputs": []}, "the request lacks the input x. The model takes x."),
        ({"inputs": [3]}, f"an input is no JSON object. {FOLLOW}"),
        ({"inputs": [X, X]}, "the input x came twice. Send each input once."),
        (_with(name="y"), "the model has no input 'y'. It takes x."),
        (_with(name=None), "the model has no input None. It takes x."),
        (_with(datatype="FP64"), "x is FP64, and the model takes FP32. Send it as FP32."),
        (_with(datatype="F"), f"x has the datatype 'F'. {TYPES}"),
        (_with(datatype=["FP32"]), f"x has the datatype ['FP32']. {TYPES}"),
        (_with(shape=[1, 3, 8, 9], data=[0.5] * 216), f"x has the shape [1, 3, 8, 9], {TAKES}"),
        (_with(shape=[192]), f"x has the shape [192], {TAKES}"),
        (_with(shape=[2, 3, 8, 8]), f"x of shape [2, 3, 8, 8] has 384 elements, and 192 came. {ALL}"),
        (_with(shape=[-1, 3, 8, 8]), f"x has the shape [-1, 3, 8, 8]. {SIZES}"),
        (_with(shape=[True, 3, 8, 8]), f"x has the shape [True, 3, 8, 8]. {SIZES}"),
        (_with(shape=None), f"x has the shape None. {SIZES}"),
        (_with(shape=[2**32, 2**32, 3, 8]), f"x has the shape [4294967296, 4294967296, 3, 8], {BEYOND}"),
        (_with(shape=[0, 2**42, 2**62, 8], data=[]), f"x has the shape [0, {2**42}, {2**62}, 8], {BEYOND}"),
        (_with(data=None), "x came without data. Send its elements as data, or as binary."),
        (_with(data=3), f"x has no list as data. {LIST}"),
        (_with(data=["0.5"] * 192), "x is FP32 and holds text. Send numbers."),
        (_with(data=[True] * 192), "x is FP32 and holds true or false. Send numbers."),
        (
            _with(data=[[0.5]] * 192),
            f"the data of x is not nested as its shape [1, 3, 8, 8]: axis 0 should have 1 items. {LIST}",
        ),
        (_with(data=[1e39] * 192), RANGE),
        (_with(data=[10**400] * 192), RANGE),
        (
            _with(parameters={"binary_data_size": 768}, data=None),
            f"x says that it has 768 bytes, and 0 are left. {BEHIND}",
        ),
        (_with(parameters=[1]), f"parameters is no JSON object. {FOLLOW}"),
        ({**_with(), "outputs": [{"name": "z"}]}, "the model has no output 'z'. It answers y."),
        (
            {**_with(), "outputs": [{"name": "y"}, {"name": "y"}]},
            "the output y is asked for twice. Ask for each output once.",
        ),
        (
            {**_with(), "outputs": [{"name": "y", "parameters": {"classification": 2}}]},
            "outputs as classes are not offered. Ask for the output itself.",
        ),
        ({**_with(), "outputs": 3}, f"the request has no list outputs. {FOLLOW}"),
        ({**_with(), "id": 3}, f"the id of the request is no text. {FOLLOW}"),
        ({**_with(), "parameters": {"binary_data_output": 1}}, "binary_data_output is 1. Send true or false."),
    ],
)
def test_what_does_not_fit_is_refused(client: httpx.Client, folded: dict[str, str], asked: object, error: str) -> None:
    answer = _send(client, folded["name"], asked)
    assert (answer.status_code, answer.json()["code"], answer.json()["error"]) == (400, "tensor", error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"{",
        b'{"inputs": [NaN]}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"a":' * 50_000,
        b'{"inputs": [' + b"9" * 5000 + b"]}",
    ],
)
def test_what_is_no_json_is_refused(client: httpx.Client, folded: dict[str, str], body: bytes) -> None:
    answer = client.post(f"/v2/models/{folded['name']}/infer", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "tensor")


@pytest.mark.parametrize("length", ["-1", "1e3", "999999", "9" * 30, "x", "+5", "١"])
def test_a_header_length_that_lies_is_refused(client: httpx.Client, folded: dict[str, str], length: str) -> None:
    headers = {LENGTH.encode(): length.encode("utf-8")}
    answer = client.post(f"/v2/models/{folded['name']}/infer", content=json.dumps(_with()), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "tensor")


def test_raw_bytes_must_be_as_many_as_are_told(client: httpx.Client, folded: dict[str, str]) -> None:
    asked = _with(data=None, parameters={"binary_data_size": 768})
    assert _send(client, folded["name"], asked, bytes(768)).status_code == 200
    assert _send(client, folded["name"], asked, bytes(769)).json()["detail"] == "1 bytes are left behind the last input"
    short = _with(data=None, parameters={"binary_data_size": 764})
    told = _send(client, folded["name"], short, bytes(764)).json()["detail"]
    assert told == "x of shape [1, 3, 8, 8] and datatype FP32 takes 768 bytes, and 764 came"


@pytest.mark.parametrize(
    ("datatype", "raw", "detail"),
    [
        ("BOOL", b"\0\1\2\0", "BOOL_in is BOOL and has a byte that is neither 0 nor 1"),
        ("BYTES", b"\1\0\0", "BYTES_in is BYTES, and an element at byte 0 of 3 goes beyond the end"),
        ("BYTES", b"\1\0\0\0a\xff\xff\xff\xff", "BYTES_in is BYTES, and an element at byte 5 of 9 goes beyond the end"),
        ("BYTES", bytes(8), "BYTES_in of shape [2, 2] has 4 elements, and 2 came"),
        ("INT8", bytes(3), "INT8_in of shape [2, 2] and datatype INT8 takes 4 bytes, and 3 came"),
    ],
)
def test_raw_bytes_are_looked_at(client: httpx.Client, everything: str, datatype: str, raw: bytes, detail: str) -> None:
    one = {
        "name": f"{datatype}_in",
        "datatype": datatype,
        "shape": [2, 2],
        "parameters": {"binary_data_size": len(raw)},
    }
    answer = _send(client, everything, {"inputs": [one]}, raw)
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)


@pytest.mark.parametrize(
    ("datatype", "elements", "detail"),
    [
        ("INT8", [128, 0, 0, 0], "INT8_in holds a number that INT8 cannot hold"),
        ("UINT64", [2**64, 0, 0, 0], "UINT64_in holds a number that UINT64 cannot hold"),
        ("UINT8", [-1, 0, 0, 0], "UINT8_in holds a number that UINT8 cannot hold"),
        ("INT32", [1.5, 0, 0, 0], "INT32_in is INT32 and holds numbers with a fraction"),
        ("INT32", [None, 0, 0, 0], "INT32_in is INT32 and holds null"),
        ("BOOL", [1, 0, True, 0], "BOOL_in is BOOL and holds whole numbers"),
        ("BYTES", [1, "a", "b", "c"], "BYTES_in is BYTES and holds whole numbers"),
        ("BYTES", ["\ud800", "a", "b", "c"], "BYTES_in holds text that is no Unicode"),
        ("FP16", [1, 2, 3, 4], "FP16_in is FP16, which JSON has no form for"),
        ("FP64", [{}, 2, 3, 4], "FP64_in is FP64 and holds objects"),
    ],
)
def test_elements_are_looked_at(
    client: httpx.Client, everything: str, datatype: str, elements: list[Any], detail: str
) -> None:
    one = {"name": f"{datatype}_in", "datatype": datatype, "shape": [2, 2], "data": elements}
    answer = _send(client, everything, {"inputs": [one]})
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)


def test_what_is_too_large_is_told_the_limit(client: httpx.Client, folded: dict[str, str]) -> None:
    answer = client.post(f"/v2/models/{folded['name']}/infer", content=bytes(2**20 + 1))
    assert (answer.status_code, answer.json()["limit"]) == (413, 2**20)
    assert "error" in answer.json()


def _compressed(content: bytes, how: str) -> bytes:
    window = {"gzip": 31, "deflate": 15, "raw": -15}[how]
    deflate = zlib.compressobj(9, zlib.DEFLATED, window)
    return deflate.compress(content) + deflate.flush()


@pytest.mark.parametrize(("how", "told"), [("gzip", "gzip"), ("deflate", "deflate"), ("raw", "deflate")])
def test_a_compressed_request_is_read(client: httpx.Client, folded: dict[str, str], how: str, told: str) -> None:
    link = f"/v2/models/{folded['name']}/infer"
    text = json.dumps(_with()).encode()
    answer = client.post(link, content=_compressed(text, how), headers={"Content-Encoding": told})
    assert answer.status_code == 200, answer.text
    assert answer.json() == client.post(link, content=text).json()
    raw = json.dumps(_with(data=None, parameters={"binary_data_size": 768})).encode()
    headers = {"Content-Encoding": told, LENGTH: str(len(raw))}  # of what is inside
    assert client.post(link, content=_compressed(raw + bytes(768), how), headers=headers).status_code == 200


@pytest.mark.parametrize("wanted", ["gzip", "deflate"])
def test_an_answer_is_compressed_for_who_asks_for_one_compression(
    client: httpx.Client, folded: dict[str, str], wanted: str
) -> None:
    link = f"/v2/models/{folded['name']}/infer"
    asked = _with(shape=[20, 3, 8, 8], data=[0.5] * 192 * 20)
    plain = client.post(link, content=json.dumps(asked), headers={"Accept-Encoding": "gzip, deflate, br"})
    assert "content-encoding" not in plain.headers
    packed = client.post(link, content=json.dumps(asked), headers={"Accept-Encoding": wanted})
    assert packed.headers["content-encoding"] == wanted
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.json() == plain.json()
    small = client.post(link, content=json.dumps({"inputs": []}), headers={"Accept-Encoding": wanted})
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize(
    ("encoding", "content", "status", "code", "detail"),
    [
        ("br", b"x", 415, "unsupported-media", "the request is encoded as br"),
        ("gzip, gzip", b"x", 415, "unsupported-media", "the request is encoded as gzip, gzip"),
        ("gzip", b"x", 400, "malformed", "the request says that it is compressed as gzip, and is not: "),
        ("gzip", _compressed(b"{}", "gzip")[:-3], 400, "malformed", "the request says that it is compressed as gzip"),
        ("gzip", _compressed(b"{}", "gzip") * 2, 400, "malformed", "the request says that it is compressed as gzip"),
        ("deflate", b"", 400, "malformed", "the request says that it is compressed as deflate, and is not: "),
    ],
)
def test_what_is_not_compressed_as_it_says_is_refused(
    client: httpx.Client, folded: dict[str, str], *, encoding: str, content: bytes, status: int, code: str, detail: str
) -> None:
    answer = client.post(f"/v2/models/{folded['name']}/infer", content=content, headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_a_request_that_unpacks_to_too_much_is_refused(client: httpx.Client, folded: dict[str, str], how: str) -> None:
    bomb = _compressed(bytes(2**26), how)
    assert len(bomb) < 2**17
    answer = client.post(f"/v2/models/{folded['name']}/infer", content=bomb, headers={"Content-Encoding": how})
    assert (answer.status_code, answer.json()["limit"]) == (413, 2**20)
    assert answer.json()["detail"] == "the request is larger than 1048576 bytes when it is no longer compressed"


@pytest.fixture(scope="module")
def made(server: Server) -> Callable[[str], str]:
    def make(text: str) -> str:
        content = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}').SerializeToString()
        with server.client() as client:
            answer = post(client, content, verify="off")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["name"])

    return make


def test_an_answer_that_json_cannot_write_is_told(client: httpx.Client, made: Callable[[str], str]) -> None:
    name = made("g (float[n] x) => (float[n] y) { y = Log(x) }")
    asked: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [0, 1]}]}
    answer = _send(client, name, asked)
    assert (answer.status_code, answer.json()["detail"]) == (400, "y holds NaN or infinity, which JSON has no form for")
    answer = _send(client, name, {**asked, "parameters": {"binary_data_output": True}})
    assert answer.content[int(answer.headers[LENGTH]) :] == np.array([-np.inf, 0], dtype="<f4").tobytes()


def test_what_the_model_cannot_compute_is_told(client: httpx.Client, made: Callable[[str], str]) -> None:
    name = made("g (float[n] x) => (float[a,b] y) <int64[2] s = {2, -1}> { y = Reshape(x, s) }")
    asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]}
    answer = _send(client, name, asked)
    assert (answer.status_code, answer.json()["code"]) == (400, "tensor")
    assert answer.json()["detail"].startswith("onnxruntime cannot run the model on this: ")
    asked["inputs"][0] |= {"shape": [4], "data": [1, 2, 3, 4]}
    assert _send(client, name, asked).json()["outputs"][0]["data"] == [1, 2, 3, 4]


def test_a_model_that_onnxruntime_cannot_run_is_kept_and_not_served(
    client: httpx.Client, made: Callable[[str], str]
) -> None:
    # onnxruntime has no convolution in float64.
    name = made(
        "g (double[n,1,3,3] x) => (double[n,1,1,1] y) <double[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}> { y = Conv(x, w) }"
    )
    body = client.get(f"/models/{name}").json()["latest"]
    assert body["unrunnable"].startswith("onnxruntime cannot load it: ")
    assert client.get(body["links"]["model"]).status_code == 200
    answer = client.get(f"/v2/models/{name}/ready")
    assert (answer.status_code, answer.json()["code"]) == (422, "not-runnable")
    assert _send(client, name, {"inputs": []}).status_code == 422


def test_a_batch_norm_that_was_kept_is_served_as_it_stands(client: httpx.Client) -> None:
    # Behind the Reshape the channel is another axis; onnxruntime's own rewriting folds it all the same, and is wrong.
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[4,6] x) => (float[2,6,2] y) <int64[3] shape = {2, 6, 2}, float[6,6] w, float[6] gamma = {1,2,3,4,5,6},
        float[6] beta = {1,0,2,0,1,0}, float[6] mean = {0,1,2,0,1,2}, float[6] var = {1,2,3,1,2,3}> {
        h = MatMul(x, w)
        r = Reshape(h, shape)
        y = BatchNormalization(r, gamma, beta, mean, var)
    }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(210)
    w = onnx.numpy_helper.from_array(rng.normal(size=(6, 6)).astype(np.float32), "w")
    model.graph.initializer.append(w)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    expected = np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0])  # type: ignore[index]
    body = post(client, model.SerializeToString()).json()
    asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [4, 6], "data": x.tolist()}]}
    computed = np.reshape(_send(client, body["name"], asked).json()["outputs"][0]["data"], (2, 6, 2))
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-5)
