"""Asks a service with Triton's client over gRPC: ``python triton_grpc.py HOST:PORT``."""

import queue
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
from elements import ELEMENTS, arrays
from tritonclient.utils import InferenceServerException


def main() -> None:
    client = triton.InferenceServerClient(sys.argv[1])
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata().extensions[0] == "binary_tensor_data"
    metadata = client.get_model_metadata("everything", as_json=True)
    assert metadata["platform"] == "onnx_onnxv1"
    assert {(one["name"], one["datatype"], tuple(one["shape"])) for one in metadata["inputs"]} == {
        (f"{datatype}_in", datatype, ("-1", "2")) for datatype in ELEMENTS
    }
    config = client.get_model_config("everything").config
    assert (config.name, config.backend, list(config.input[0].dims)) == ("everything", "onnxruntime", [-1, 2])
    assert {one.name: one.data_type for one in config.input}["BYTES_in"] == 13
    everything(client)
    bf16(client)
    several(client)
    errors(client)
    repository(client)
    statistics = client.get_inference_statistics("two").model_stats[0]
    assert statistics.inference_count > 0, statistics
    assert statistics.inference_stats.success.ns > 0
    print("ok")


def everything(client: triton.InferenceServerClient) -> None:
    feeds = arrays()
    inputs = []
    for datatype, array in feeds.items():
        one = triton.InferInput(f"{datatype}_in", list(array.shape), datatype)
        one.set_data_from_numpy(array)
        inputs.append(one)
    answer = client.infer("everything", inputs, request_id="17")
    response = answer.get_response()
    assert (response.id, response.model_name, response.model_version) == ("17", "everything", "1")
    assert len(response.raw_output_contents) == len(feeds)
    for datatype, array in feeds.items():
        got = answer.as_numpy(f"{datatype}_out")
        if datatype == "BYTES":
            assert list(got.ravel()) == list(array.ravel())
        else:
            assert got.tobytes() == array.tobytes(), datatype


def bf16(client: triton.InferenceServerClient) -> None:
    values = np.array([[1, -2.5]], ml_dtypes.bfloat16)
    one = triton.InferInput("x", [1, 2], "BF16")
    one.set_data_from_numpy(values)
    answer = client.infer("bf16", [one])
    np.testing.assert_array_equal(answer.as_numpy("y").astype(np.float32), values.astype(np.float32))


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
    answers: queue.Queue = queue.Queue()
    for _ in range(20):
        client.async_infer("two", inputs, callback=lambda result, error: answers.put((result, error)))
    for _ in range(20):
        result, error = answers.get(timeout=60)
        assert error is None, error
        np.testing.assert_array_equal(result.as_numpy("sum"), a + b)


def errors(client: triton.InferenceServerClient) -> None:
    one = triton.InferInput("a", [1, 2], "FP32")
    one.set_data_from_numpy(np.zeros((1, 2), np.float32))
    says(
        lambda: client.infer("two", [one]),
        "INVALID_ARGUMENT",
        "the request lacks the input b. The model takes a, b.",
    )
    says(
        lambda: client.infer("absent", [one]),
        "NOT_FOUND",
        "there is no model 'absent'. GET /models lists those that are kept.",
    )
    says(
        lambda: client.get_model_metadata("two", "9"),
        "NOT_FOUND",
        "the model has no version '9'. Its version is 1.",
    )
    large = triton.InferInput("a", [1 << 20, 2], "FP32")
    large.set_data_from_numpy(np.zeros((1 << 20, 2), np.float32))
    try:
        client.infer("two", [large])
    except InferenceServerException as error:
        assert error.status() == "StatusCode.RESOURCE_EXHAUSTED", error.status()
    else:
        raise AssertionError("8 MiB were taken")
    assert not client.is_model_ready("absent")


def repository(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("two")
    states = {one.name: one.state for one in client.get_model_repository_index().models}
    assert states["two"] == "READY"
    client.unload_model("two")
    assert not client.is_model_ready("two")
    one = triton.InferInput("a", [1, 2], "FP32")
    one.set_data_from_numpy(np.zeros((1, 2), np.float32))
    told = "the model two was unloaded. POST /v2/repository/models/two/load loads it again."
    says(lambda: client.infer("two", [one]), "UNAVAILABLE", told)
    says(
        lambda: client.load_model("two", config="{}"),
        "INVALID_ARGUMENT",
        "a model is loaded as it was folded, without 'config'. POST /fold takes models.",
    )
    client.load_model("two")
    assert client.is_model_ready("two")
    several(client)


def says(call: object, code: str, message: str) -> None:
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{code}", error.status()
        assert error.message() == message, error.message()
    else:
        raise AssertionError(f"no error: {message}")


main()
