"""Asks a service with KServe's clients over HTTP and gRPC: ``python kserve_both.py URL HOST:PORT``."""

import asyncio
import sys

import httpx
import numpy as np
from elements import arrays
from grpc.aio import AioRpcError
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


async def main() -> None:
    url, address = sys.argv[1:]
    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    assert await rest.is_server_live(url)
    assert await rest.is_server_ready(url)
    assert await rest.is_model_ready(url, "two")
    for binary in (True, False):
        await everything(rest, url, binary)
    await several(rest, url)
    try:
        await rest.infer(url, request(1), model_name="absent")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404
    else:
        raise AssertionError("a model that is not there answered")
    rpc = InferenceGRPCClient(address)
    assert await rpc.is_server_live()
    assert await rpc.is_server_ready()
    assert await rpc.is_model_ready("two")
    answer = await rpc.infer(request(3), timeout=60)
    check(answer, 3)
    bad = InferRequest(model_name="absent", infer_inputs=request(1).inputs)
    try:
        await rpc.infer(bad)
    except AioRpcError as error:
        assert error.code().name == "NOT_FOUND", error.code()
    else:
        raise AssertionError("a model that is not there answered over gRPC")
    await rpc.close()
    await rest.close()
    print("ok")


def request(rows: int) -> InferRequest:
    inputs = []
    for name, array in (("a", np.ones((rows, 2), np.float32)), ("b", np.full((rows, 2), 2, np.float32))):
        one = InferInput(name=name, shape=[rows, 2], datatype="FP32")
        one.set_data_from_numpy(array, binary_data=True)
        inputs.append(one)
    return InferRequest(model_name="two", infer_inputs=inputs)


def check(answer: object, rows: int) -> None:
    found = {one.name: one.as_numpy() for one in answer.outputs}
    np.testing.assert_array_equal(found["sum"], np.full((rows, 2), 3, np.float32))
    np.testing.assert_array_equal(found["difference"], np.full((rows, 2), -1, np.float32))


async def everything(client: InferenceRESTClient, url: str, binary: bool) -> None:
    inputs = []
    feeds = arrays()
    for datatype, array in feeds.items():
        one = InferInput(name=f"{datatype}_in", shape=list(array.shape), datatype=datatype)
        one.set_data_from_numpy(array, binary_data=binary or datatype == "FP16")
        inputs.append(one)
    asked = InferRequest(model_name="everything", infer_inputs=inputs, parameters={"binary_data_output": True})
    answer = await client.infer(url, asked, model_name="everything")
    for one in answer.outputs:
        array = feeds[one.datatype]
        got = one.as_numpy()
        if one.datatype == "BYTES":
            texts = [e if isinstance(e, bytes) else str(e).encode() for e in got.ravel()]
            assert texts == list(array.ravel()), texts
        else:
            assert got.tobytes() == array.tobytes(), one.datatype


async def several(client: InferenceRESTClient, url: str) -> None:
    answers = await asyncio.gather(*(client.infer(url, request(rows), model_name="two") for rows in range(1, 10)))
    for rows, answer in enumerate(answers, 1):
        check(answer, rows)


asyncio.run(main())
