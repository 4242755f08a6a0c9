"""The main job: a model file in, the folded model out."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from service.cards import links_of
from service.jobs import Job
from service.options import FIELDS, key_of, read_options
from service.routes.models import card_body, model_file
from service.state import state_of
from service.upload import Upload, receive_upload

__all__ = ["router"]

router = APIRouter(tags=["fold"])
T = TypeVar("T")

_BINARY = "application/octet-stream"
_FORM = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {"type": "string", "format": "binary", "description": "The model file."},
        "architecture": {
            "type": "string",
            "format": "binary",
            "description": "The architecture of a Keras file that holds only weights, as JSON.",
        },
        **{field: {"type": "string", "description": says} for field, (_, says) in FIELDS.items()},
    },
}


@router.post(
    "/fold",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
    responses={200: {"content": {"application/json": {}, _BINARY: {}}}},
)
async def fold(request: Request) -> Response:
    """Fold a model: a form with the file in `model`, and options in other fields.

    The answer is an account of the model; `Accept: application/octet-stream` gets the folded file itself.
    """
    state = state_of(request)
    with state.jobs.admitted():
        folder = await asyncio.to_thread(state.store.aside)
        mine = True
        try:
            settings = state.settings
            upload = await receive_upload(request, folder, int(settings.upload_size), settings.upload_seconds)
            job = _job(upload, folder)
            card = await asyncio.to_thread(state.store.card, job.name)
            cached = card is not None
            if card is None:
                mine = False  # from here on the folder belongs to the job
                card = await _while_there(request, state.jobs.convert(job))
        finally:
            if mine:
                await asyncio.shield(asyncio.to_thread(state.store.discard, folder))
    if _wants_file(request.headers.get("accept", "")):
        links = links_of(card)
        headers = {
            "ETag": f'"{card.sha256}"',
            "Content-Location": links["model"],
            "Link": f'<{links["report"]}>; rel="describedby", <{links["self"]}>; rel="about"',
        }
        return model_file(request, card, headers)
    return JSONResponse({"cached": cached, **card_body(card)})


def _job(upload: Upload, folder: Any) -> Job:
    options = read_options(upload.fields)
    return Job(key_of(upload.digests, upload.suffix, options), upload.name, options, folder)


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what the work returns, and stop it when the client goes away.

    Raises:
        ClientDisconnect: If the client went away.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _wants_file(accept: str) -> bool:
    """Say whether a client would rather have the file than an account of it."""
    weights: dict[str, float] = {}
    for one in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in one.split(";"))
        told = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            weights[kind] = float(told)
        except ValueError:
            weights[kind] = 0.0
    return weights.get(_BINARY, 0.0) > max(weights.get("application/json", 0.0), 0.0)
