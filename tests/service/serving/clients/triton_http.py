"""Asks a service with Triton's client over HTTP: ``python triton_http.py HOST:PORT``."""

import sys

import numpy as np
import tritonclient.http as triton
from elements import ELEMENTS, arrays
from tritonclient.utils import InferenceServerException


def main() -> None:
    client = triton.InferenceServerClient(sys.argv[1])
    assert client.is_server_live()
    assert client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("everything")
    assert metadata["platform"] == "onnx_onnxv1"
    assert {(one["name"], one["datatype"], tuple(one["shape"])) for one in metadata["inputs"]} == {
        (f"{datatype}_in", datatype, (-1, 2)) for datatype in ELEMENTS
    }
    assert client.get_model_config("everything")["max_batch_size"] == 0
    for binary in (True, False):
        everything(client, binary)
    several(client)
    compressed(client)
    errors(client)
    repository(client)
    statistics = client.get_inference_statistics("two")["model_stats"][0]
    assert statistics["inference_count"] > 0, statistics
    print("ok")


def everything(client: triton.InferenceServerClient, binary: bool) -> None:
    feeds = arrays()
    inputs, outputs = [], []
    for datatype, array in feeds.items():
        one = triton.InferInput(f"{datatype}_in", list(array.shape), datatype)
        one.set_data_from_numpy(array, binary_data=binary or datatype == "FP16")
        inputs.append(one)
        outputs.append(triton.InferRequestedOutput(f"{datatype}_out", binary_data=binary or datatype == "FP16"))
    answer = client.infer("everything", inputs, outputs=outputs, request_id="17")
    assert answer.get_response()["id"] == "17"
    for datatype, array in feeds.items():
        got = answer.as_numpy(f"{datatype}_out")
        assert got.shape == array.shape
        if datatype == "BYTES":
            texts = [e if isinstance(e, bytes) else str(e).encode() for e in got.ravel()]
            assert texts == list(array.ravel()), texts
        else:
            assert got.dtype == array.dtype, (datatype, got.dtype)
            assert got.tobytes() == array.tobytes(), datatype


def several(client: triton.InferenceServerClient) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(3, 2), np.full((3, 2), 10, np.float32)
    inputs = [triton.InferInput("b", [3, 2], "FP32"), triton.InferInput("a", [3, 2], "FP32")]
    inputs[0].set_data_from_numpy(b)
    inputs[1].set_data_from_numpy(a)
    answer = client.infer("two", inputs)
    np.testing.assert_array_equal(answer.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(answer.as_numpy("difference"), a - b)
    only = client.infer("two", inputs, outputs=[triton.InferRequestedOutput("difference")], model_version="1")
    np.testing.assert_array_equal(only.as_numpy("difference"), a - b)
    assert only.as_numpy("sum") is None
    waiting = [client.async_infer("two", inputs) for _ in range(20)]
    for one in waiting:
        np.testing.assert_array_equal(one.get_result().as_numpy("sum"), a + b)


def compressed(client: triton.InferenceServerClient) -> None:
    a = np.zeros((500, 2), np.float32)
    inputs = [triton.InferInput(name, [500, 2], "FP32") for name in ("a", "b")]
    for one in inputs:
        one.set_data_from_numpy(a)
    for how in ("gzip", "deflate"):
        answer = client.infer("two", inputs, request_compression_algorithm=how, response_compression_algorithm=how)
        np.testing.assert_array_equal(answer.as_numpy("sum"), a)


def errors(client: triton.InferenceServerClient) -> None:
    one = triton.InferInput("a", [1, 2], "FP32")
    one.set_data_from_numpy(np.zeros((1, 2), np.float32))
    says(lambda: client.infer("two", [one]), "the request lacks the input b. The model takes a, b.")
    says(lambda: client.infer("absent", [one]), "there is no model 'absent'. GET /models lists those that are kept.")
    says(lambda: client.get_model_metadata("two", "9"), "the model has no version '9'. Its version is 1.")
    assert not client.is_model_ready("absent")


def repository(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("two")
    states = {one["name"]: one["state"] for one in client.get_model_repository_index()}
    assert states["two"] == "READY"
    client.unload_model("two")
    assert not client.is_model_ready("two")
    one = triton.InferInput("a", [1, 2], "FP32")
    one.set_data_from_numpy(np.zeros((1, 2), np.float32))
    says(
        lambda: client.infer("two", [one]),
        "the model two was unloaded. POST /v2/repository/models/two/load loads it again.",
    )
    says(
        lambda: client.load_model("two", config="{}"),
        "a model is loaded as it was folded, without 'config'. POST /fold takes models.",
    )
    client.load_model("two")
    assert client.is_model_ready("two")
    several(client)


def says(call: object, message: str) -> None:
    try:
        call()
    except InferenceServerException as error:
        assert error.message() == message, error.message()
    else:
        raise AssertionError(f"no error: {message}")


main()
