"""The kept models: what there is, and the files."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, JSONResponse, Response

from service.cards import Card, links_of
from service.state import kept, state_of

__all__ = ["card_body", "model_file", "router"]

router = APIRouter(tags=["models"])
_FOREVER = "private, max-age=31536000, immutable"


@router.get("/models")
async def models(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """List the kept models by name: `limit` of them, `after` the last name of the page before."""
    store = state_of(request).store
    names = [name for name in await asyncio.to_thread(store.names) if name > after]
    cards = await asyncio.to_thread(lambda: [card for name in names[:limit] if (card := store.card(name)) is not None])
    listed = [
        {
            "name": card.name,
            "upload": card.upload,
            "created": card.created,
            "bytes": card.bytes,
            "links": links_of(card),
        }
        for card in cards
    ]
    following = f"/models?limit={limit}&after={names[limit - 1]}" if len(names) > limit else None
    return JSONResponse({"models": listed, "next": following})


@router.get("/models/{name}")
async def model(request: Request, name: str) -> Response:
    """Say what a kept model is: inputs, outputs, where it comes from, what was folded, and where its files are."""
    return JSONResponse(card_body(kept(request, name)))


@router.get("/models/{name}/versions/{version}/model.onnx")
@router.head("/models/{name}/versions/{version}/model.onnx", include_in_schema=False)
async def download(request: Request, name: str, version: str) -> Response:
    """Send the folded model; ranges and conditions are understood."""
    card = kept(request, name, version)
    headers = {"ETag": f'"{card.sha256}"', "Cache-Control": _FOREVER}
    if _has(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return model_file(request, card, headers)


@router.get("/models/{name}/versions/{version}/report")
async def report(request: Request, name: str, version: str) -> Response:
    """Send the full report of the conversion."""
    card = kept(request, name, version)
    headers = {"ETag": f'"{card.name}-report"', "Cache-Control": _FOREVER}
    if _has(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return FileResponse(state_of(request).store.report(card.name), headers=headers, media_type="application/json")


def model_file(request: Request, card: Card, headers: dict[str, str]) -> FileResponse:
    """Return the folded model as an answer that names it after the upload."""
    stem = card.upload.rpartition(".")[0] or card.upload
    return FileResponse(
        state_of(request).store.model(card.name),
        headers=headers,
        media_type="application/octet-stream",
        filename=f"{stem}.onnx",
    )


def card_body(card: Card) -> dict[str, Any]:
    """Return what a client is told of a kept model."""
    return {**card.model_dump(exclude={"summary"}), **card.summary, "links": links_of(card)}


def _has(request: Request, etag: str) -> bool:
    """Say whether a client has the content already."""
    told = request.headers.get("if-none-match", "")
    return told.strip() == "*" or etag in {one.strip().removeprefix("W/") for one in told.split(",")}
