"""The Open Inference Protocol, version 2, with binary tensors."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

import bnfold
from service.cards import Card
from service.problems import NotRunnableError, SlowUploadError, TooLargeError, UnsupportedMediaError
from service.serving.questions import read_question, write_answer
from service.state import kept, state_of

__all__ = ["router"]

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

_LENGTH = "inference-header-content-length"
_PLATFORM = "onnx_onnxv1"
_LARGE = 2**16  # bytes of JSON that may be read without keeping others waiting


@router.get("")
async def server() -> Response:
    """Say what serves, and which extensions of the protocol it speaks."""
    return JSONResponse({"name": "bnfold", "version": bnfold.__version__, "extensions": ["binary_tensor_data"]})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(request: Request, name: str, version: str = "latest") -> Response:
    """Say what a model takes and answers."""
    card = kept(request, name, version)
    body: dict[str, Any] = {
        "name": card.name,
        "versions": [card.version],
        "platform": _PLATFORM,
        "inputs": [spec.model_dump() for spec in card.inputs],
        "outputs": [spec.model_dump() for spec in card.outputs],
    }
    return JSONResponse(body)


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str = "latest") -> Response:
    """Say whether a model can be run: it is loaded when it is first asked."""
    card = _runnable(kept(request, name, version))
    return JSONResponse({"name": card.name, "ready": True})


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str = "latest") -> Response:
    """Run a model on tensors, in JSON or binary."""
    state = state_of(request)
    card = _runnable(kept(request, name, version))
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedMediaError(
            f"the request is encoded as {encoding[:40]}", hint="Send it as it is, without compression."
        )
    try:
        async with asyncio.timeout(state.settings.infer_seconds):
            body = await _body(request, int(state.settings.infer_size))
    except TimeoutError:
        raise SlowUploadError(
            f"the request did not arrive within {state.settings.infer_seconds:g} s",
            hint="Send it again over a faster line.",
        ) from None
    length = request.headers.get(_LENGTH)
    large = len(body) > _LARGE
    question = (
        await asyncio.to_thread(read_question, body, length, card) if large else read_question(body, length, card)
    )
    answers = await state.runners.infer(card.name, question.inputs, question.outputs)
    large = sum(len(answer.raw) for answer in answers) > _LARGE
    content, length_of_json = (
        await asyncio.to_thread(write_answer, card, question, answers)
        if large
        else write_answer(card, question, answers)
    )
    if length_of_json is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={_LENGTH: str(length_of_json)})


def _runnable(card: Card) -> Card:
    if card.unrunnable:
        raise NotRunnableError(card.unrunnable, hint="Download the model and run it elsewhere.")
    return card


async def _body(request: Request, limit: int) -> bytes:
    told = request.headers.get("content-length")
    if told is not None and int(told) > limit:
        raise _too_large(limit)
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"the request is larger than {limit} bytes",
        hint="Send fewer rows at a time, or set BNFOLD_INFER_SIZE higher.",
        members={"limit": limit},
    )
