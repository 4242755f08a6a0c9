"""Whatever is sent to ``/fold``, the answer says what is wrong with it and what to do, and the service stays well."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from service.options import FIELDS
from tests.service.server import Server, conv_model, post, serving

if TYPE_CHECKING:
    import httpx

SEND = "Send a form with the file in the field model, for example: curl -F model=@network.keras"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture(autouse=True)
def _stays_well(client: httpx.Client) -> Iterator[None]:
    yield
    assert client.get("/health").json()["ready"] is True


def _part(head: str, content: bytes = b"x") -> bytes:
    return f"--b\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


MODEL = _part('Content-Disposition: form-data; name="model"; filename="m.onnx"')


@pytest.mark.parametrize(
    ("content", "name", "status", "code", "detail", "hint"),
    [
        pytest.param(
            b"",
            "a.onnx",
            415,
            "unknown-format",
            "a.onnx is empty",
            "Export the model again, or download it again.",
            id="empty",
        ),
        pytest.param(
            b"hello\nworld\n",
            "a.onnx",
            415,
            "unknown-format",
            "a.onnx is a text file that begins with 'hello'",
            None,
            id="text",
        ),
        pytest.param(
            b"\xff\xd8\xff\xe0" * 9,
            "a.keras",
            415,
            "unknown-format",
            "a.keras looks like a JPEG image",
            None,
            id="image",
        ),
        pytest.param(
            b"import os\n",
            "numpy.py",
            415,
            "unknown-format",
            "numpy.py is a text file that begins with 'import os'",
            None,
            id="python",
        ),
        pytest.param(
            b"hello",
            "../../up.onnx",
            415,
            "unknown-format",
            "up.onnx is a text file that begins with 'hello'",
            None,
            id="path",
        ),
        pytest.param(
            b"hello",
            "C:\\a\\-b c.onnx",
            415,
            "unknown-format",
            "b_c.onnx is a text file that begins with 'hello'",
            None,
            id="dos",
        ),
        pytest.param(
            b"hello", "..", 415, "unknown-format", "model is a text file that begins with 'hello'", None, id="dots"
        ),
    ],
)
def test_what_is_no_model_is_refused_as_the_command_line_refuses_it(
    client: httpx.Client, *, content: bytes, name: str, status: int, code: str, detail: str, hint: str | None
) -> None:
    answer = post(client, content, name)
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"], body["detail"]) == (status, status, code, detail)
    assert body["hint"]
    assert hint is None or body["hint"] == hint


def test_random_bytes_are_refused(client: httpx.Client) -> None:
    import random

    for seed in range(3):
        answer = post(client, random.Random(seed).randbytes(5000), "a.onnx")
        assert answer.status_code in {415, 422}
        assert answer.json()["hint"]


def test_a_model_that_breaks_off_is_refused(client: httpx.Client) -> None:
    answer = post(client, conv_model(1)[:-40])
    assert answer.status_code == 422
    assert answer.json()["code"] == "corrupt"


def test_an_output_that_does_not_exist_is_named_with_those_that_do(client: httpx.Client) -> None:
    body = post(client, conv_model(1), outputs="z").json()
    assert (body["status"], body["code"]) == (422, "signature")
    assert "z" in body["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "detail", "hint"),
    [
        pytest.param(
            b"x",
            {"Content-Type": "application/json"},
            415,
            "the request is application/json, not multipart/form-data",
            SEND,
        ),
        pytest.param(b"", {}, 415, "the request is nothing, not multipart/form-data", SEND),
        pytest.param(
            b"x",
            {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"},
            415,
            "the request is encoded as gzip",
            "Send the file as it is, without compression.",
        ),
        pytest.param(
            b"x",
            {"Content-Type": "multipart/form-data"},
            400,
            "the form does not say what separates its parts",
            "Give the boundary in Content-Type.",
        ),
        pytest.param(b"--b--\r\n", FORM, 400, "the form has no file in the field model", SEND),
        pytest.param(MODEL, FORM, 400, "the form breaks off before its end", "Send it again, whole."),
        pytest.param(b"", FORM, 400, "the form breaks off before its end", "Send it again, whole."),
        pytest.param(
            _part('Content-Disposition: form-data; name="model"') + b"--b--",
            FORM,
            400,
            "the field model came without a file",
            SEND,
        ),
        pytest.param(
            _part('Content-Disposition: form-data; name="model"; filename=""') + b"--b--",
            FORM,
            400,
            "the field model came without a file",
            SEND,
        ),
        pytest.param(
            MODEL + MODEL + b"--b--",
            FORM,
            400,
            "the form has more than one file in the field model",
            "Send one model at a time.",
        ),
        pytest.param(
            _part('Content-Disposition: form-data; name="file"; filename="m"') + b"--b--",
            FORM,
            400,
            "'file' is no field that takes a file",
            SEND,
        ),
        pytest.param(
            _part("Content-Disposition: form-data") + b"--b--", FORM, 400, "a part of the form has no name", SEND
        ),
        pytest.param(_part("X: y") + b"--b--", FORM, 400, "a part of the form has no name", SEND),
        pytest.param(_part("A: b") * 300, FORM, 400, "a part of the form has no name", SEND),
        pytest.param(
            MODEL + _part('Content-Disposition: form-data; name="keep"', b"\xff") + b"--b--",
            FORM,
            400,
            "the field 'keep' is no UTF-8",
            "Encode text as UTF-8.",
        ),
        pytest.param(
            MODEL + _part('Content-Disposition: form-data; name="keep"', b"k" * 70000) + b"--b--",
            FORM,
            400,
            "the field 'keep' is longer than 65536 bytes",
            "Send a file as model=@FILE.",
        ),
        pytest.param(
            MODEL + _part('Content-Disposition: form-data; name="keep"') * 200 + b"--b--",
            FORM,
            400,
            "the form has more than 200 parts",
            SEND,
        ),
    ],
)
def test_what_is_no_form_with_a_model_is_refused(
    client: httpx.Client, *, body: bytes, headers: dict[str, str], status: int, detail: str, hint: str
) -> None:
    answer = client.post("/fold", content=body, headers=headers)
    told = answer.json()
    assert (answer.status_code, told["detail"], told["hint"]) == (status, detail, hint)


def test_a_form_that_is_none_inside_is_refused(client: httpx.Client) -> None:
    answer = client.post("/fold", content=b"nothing of a form", headers=FORM)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_a_form_in_many_small_pieces_is_read(client: httpx.Client) -> None:
    whole = _part('Content-Disposition: form-data; name="model"; filename="m.onnx"', conv_model(1)) + b"--b--"
    pieces = (whole[at : at + 7] for at in range(0, len(whole), 7))
    assert client.post("/fold", content=pieces, headers=FORM).status_code == 200


@pytest.mark.parametrize(
    ("fields", "detail", "hint"),
    [
        ({"output": "y"}, "'output' is no field of this form", "Did you mean outputs?"),
        (
            {"trust": "true"},
            "'trust' is no field of this form",
            f"The fields are model, architecture, {', '.join(FIELDS)}.",
        ),
        ({"verify": "fully"}, "verify is 'fully'", "Send one of full, fast, off."),
        ({"opset": "x"}, "opset is 'x', no whole number from 1", "Send opset as a number."),
        ({"seed": "-1"}, "seed is '-1', no whole number from 0", "Send seed as a number."),
        ({"set": "a"}, "set='a' is not of the form NAME=VALUE", "Write it as set=NAME=VALUE."),
        ({"fold": ["all", "none"]}, "the field fold came 2 times", "Send it once."),
        (
            {"name": "../x"},
            "a model cannot be called '../x'",
            "Take 1 to 100 letters, digits, dots, dashes and underscores, the first a letter or a digit.",
        ),
    ],
)
def test_an_option_that_cannot_be_is_refused(
    client: httpx.Client, fields: dict[str, str], detail: str, hint: str
) -> None:
    answer = client.post("/fold", files={"model": ("m.onnx", b"x")}, data=fields)
    told = answer.json()
    assert (answer.status_code, told["code"], told["detail"], told["hint"]) == (400, "malformed", detail, hint)


def test_what_is_too_large_is_told_the_limit(client: httpx.Client) -> None:
    answer = post(client, bytes(5 * 2**20))
    assert answer.status_code == 413
    assert answer.json() == {
        "type": "about:blank",
        "title": answer.reason_phrase,
        "status": 413,
        "detail": "the request is larger than 4194304 bytes",
        "code": "too-large",
        "hint": "Set BNFOLD_UPLOAD_SIZE higher, or convert the model with the command line.",
        "limit": 4194304,
    }


def test_what_does_not_say_how_large_it_is_is_counted(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield _part('Content-Disposition: form-data; name="model"; filename="m.onnx"')[:-3]
        for _ in range(80):
            yield bytes(2**16)

    assert client.post("/fold", content=endless(), headers=FORM).status_code == 413


def test_a_request_without_a_length_is_told_so(server: Server) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=180)
    connection.putrequest("POST", "/fold")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, b'"code":"length-required"' in answer.read()) == (411, True)
    connection.close()


def test_an_upload_that_never_ends_is_given_up(store: Path) -> None:
    with serving(store, upload_seconds="0.5") as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=180)
        connection.putrequest("POST", "/fold")
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(MODEL)
        answer = connection.getresponse()
        assert (answer.status, b'"code":"slow-upload"' in answer.read()) == (408, True)
        connection.close()
        assert server.aside() == []


def test_a_file_beyond_its_limit_is_not_written(store: Path) -> None:
    with serving(store, job_file_size="600") as server, server.client() as client:
        body = post(client, conv_model(1)).json()
        assert (body["status"], body["code"], body["limit"]) == (422, "limit", 600)
        assert client.get("/models").json()["models"] == []
        assert not list((store / "objects").glob("artifacts/*/*"))


def test_a_bare_file_is_folded_with_options_from_the_query(client: httpx.Client) -> None:
    answer = client.post("/fold?verify=off&keep=*&filename=../net.onnx", content=conv_model(1))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["upload"], answer.json()["verdict"]) == ("net.onnx", "not-verified")
    assert answer.json()["batch_norms"]["folded"] == 0
    named = client.post(
        "/fold?verify=off&keep=*",
        content=conv_model(1),
        headers={"Content-Disposition": 'attachment; filename="net.onnx"', "Content-Type": "application/onnx"},
    )
    assert named.json() == {**answer.json(), "cached": True}
    both = client.post("/fold?seed=1", files={"model": ("m.onnx", b"x")}, data={"seed": "2"})
    assert (both.status_code, both.json()["detail"]) == (400, "'seed' stands in the form and in the query")
    unknown = client.post("/fold?quick=1", content=b"x")
    assert (unknown.status_code, unknown.json()["detail"]) == (400, "'quick' is no field of this form")
    assert client.post("/fold", content=b"").status_code == 415


@pytest.mark.parametrize("prefer", ["wait=soon", "wait", "wait=-1", "wait=1e3"])
def test_a_wait_that_is_none_is_refused(client: httpx.Client, prefer: str) -> None:
    answer = client.post("/fold", content=b"x", headers={"Prefer": prefer})
    assert (answer.status_code, answer.json()["hint"]) == (400, "Write it as wait=20.")


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_is_none_is_refused(client: httpx.Client, key: str) -> None:
    answer = client.post("/fold", content=b"x", headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
