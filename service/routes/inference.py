"""The Open Inference Protocol, version 2, over HTTP. Inference itself is in ``service.serving.http``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from service.callers import caller_of
from service.problems import MalformedError, TooLargeError
from service.serving.http import Inference
from service.serving.protocol import Protocol
from service.serving.questions import read_json
from service.state import state_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["router"]

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

_LARGEST = 2**16
_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "data": {"type": "array", "items": {}},
        "parameters": {"type": "object"},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
            },
        },
    },
}
_INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _REQUEST}, "application/octet-stream": {}},
    }
}
_OBJECT: dict[str, Any] = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


class _Inference(Response):
    """Stands for the answer of ``Inference``, which makes it itself."""

    def __init__(self, inference: Inference) -> None:
        super().__init__()
        self._inference = inference

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        await self._inference(scope, receive, send)


@router.get("")
async def server(request: Request) -> Response:
    """Say what serves, and which extensions of the protocol it speaks."""
    return JSONResponse(_protocol(request).server())


@router.get("/models/stats")
async def all_statistics(request: Request) -> Response:
    """Say what was asked of every model, and how long it took."""
    return JSONResponse(await _protocol(request).statistics(_tenant(request), "", ""))


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(request: Request, name: str, version: str = "") -> Response:
    """Say what a model takes and answers."""
    return JSONResponse(await _protocol(request).metadata(_tenant(request), name, version))


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str = "") -> Response:
    """Load a model if it is not loaded, run it once, and say that it can be asked."""
    card = await _protocol(request).ready(_tenant(request), name, version)
    return JSONResponse({"name": card.name, "ready": True})


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def config(request: Request, name: str, version: str = "") -> Response:
    """Say how a model is run."""
    return JSONResponse(await _protocol(request).config(_tenant(request), name, version))


@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def statistics(request: Request, name: str, version: str = "") -> Response:
    """Say what was asked of a model, and how long it took."""
    return JSONResponse(await _protocol(request).statistics(_tenant(request), name, version))


@router.post("/models/{name}/infer", openapi_extra=_INFER)
@router.post("/models/{name}/versions/{version}/infer", openapi_extra=_INFER)
async def infer(request: Request, name: str, version: str = "") -> Response:
    """Run a model on tensors, in JSON or binary, as they are or compressed with gzip or deflate."""
    del name, version  # it reads them from the path
    return _Inference(state_of(request).inference)


@router.post("/repository/index", openapi_extra=_OBJECT)
async def index(request: Request) -> Response:
    """List the kept models, with the latest version of each; `ready` leaves out those that are not loaded."""
    ready = (await _body(request)).get("ready", False)
    if not isinstance(ready, bool):
        raise MalformedError("ready is neither true nor false", hint="Send true or false.")
    return JSONResponse(await _protocol(request).index(_tenant(request), ready=ready))


@router.post("/repository/models/{name}/load", openapi_extra=_OBJECT)
async def load(request: Request, name: str) -> Response:
    """Load the latest version of a model and run it once."""
    parameters = (await _body(request)).get("parameters", {})
    if not isinstance(parameters, dict):
        raise MalformedError("parameters is no JSON object", hint="Send an object, or nothing.")
    await _protocol(request).load(_tenant(request), name, parameters)
    return JSONResponse({})


@router.post("/repository/models/{name}/unload", openapi_extra=_OBJECT)
async def unload(request: Request, name: str) -> Response:
    """Unload a model when those who wait for it have their answers; it stays so until it is loaded by this protocol."""
    await _body(request)
    await _protocol(request).unload(_tenant(request), name)
    return JSONResponse({})


def _protocol(request: Request) -> Protocol:
    return state_of(request).protocol


def _tenant(request: Request) -> str:
    return caller_of(request).tenant


async def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request has, or an empty one."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > _LARGEST:
            raise TooLargeError(
                f"the request is larger than {_LARGEST} bytes",
                hint="Send an object with the parameters, or nothing.",
                members={"limit": _LARGEST},
            )
    return await run_in_threadpool(read_json, bytes(content)) if content else {}
