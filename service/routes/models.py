"""The kept models: what there is, and the files."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from service.callers import caller_of
from service.problems import LoadedError
from service.registry.cards import Card, links_of
from service.registry.triton import triton_zip
from service.routes.conditions import has
from service.state import kept, state_of

__all__ = ["card_body", "model_file", "router"]

router = APIRouter(tags=["models"])
_FOREVER = "private, max-age=31536000, immutable"
_REVISED = "no-cache"
_BINARY = "application/octet-stream"


@router.get("/models")
async def models(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """List the kept models by name, each with its latest version: `limit` of them, `after` the last name before."""
    registry = state_of(request).registry
    cards = await asyncio.to_thread(registry.latest, caller_of(request).tenant, limit + 1, after)
    page = cards[:limit]
    listed = [
        {
            "name": card.name,
            "version": card.version,
            "upload": card.upload,
            "created": card.created,
            "bytes": card.bytes,
            "verdict": card.summary["verdict"],
            "links": links_of(card),
        }
        for card in page
    ]
    following = f"/models?limit={limit}&after={page[-1].name}" if len(cards) > limit else None
    return JSONResponse({"models": listed, "next": following})


@router.get("/models/{name}")
async def model(request: Request, name: str) -> Response:
    """Say what the latest version of a model is, and which versions there are."""
    card = await kept(request, name)
    versions = await state_of(request).models.versions(caller_of(request).tenant, name)
    return JSONResponse({"name": card.name, "versions": versions, "latest": card_body(card)})


@router.get("/models/{name}/versions/{version}")
async def version_of(request: Request, name: str, version: str) -> Response:
    """Say what a version is: inputs, outputs, where it comes from, what was folded, and where its files are."""
    return JSONResponse(card_body(await kept(request, name, version)))


@router.delete("/models/{name}/versions/{version}", status_code=204)
async def delete(request: Request, name: str, version: str, *, force: bool = False) -> Response:
    """Delete a version with its files; one that is loaded only with `force`."""
    state = state_of(request)
    card = await kept(request, name, version)
    if state.runners.is_loaded(card):
        if not force:
            raise LoadedError(
                f"version {card.version} of the model is loaded", hint="Unload it first, or delete it with ?force=true."
            )
        await state.runners.stop(card)
    await state.registry.delete(caller_of(request).tenant, card)
    return Response(status_code=204)


@router.get("/models/{name}/versions/{version}/model.onnx", response_class=FileResponse)
@router.head("/models/{name}/versions/{version}/model.onnx", include_in_schema=False)
async def download(request: Request, name: str, version: str) -> Response:
    """Send the folded model; ranges and conditions are understood."""
    card = await kept(request, name, version)
    headers = {"ETag": f'"{card.sha256}"', "Cache-Control": _lasting(version)}
    if has(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return await model_file(request, card, headers)


@router.get("/models/{name}/versions/{version}/report", response_class=FileResponse)
async def report(request: Request, name: str, version: str) -> Response:
    """Send the full report of the conversion: as JSON, or as a page where the client would rather have HTML."""
    kinds = [one.partition(";")[0].strip() for one in request.headers.get("accept", "").split(",")]
    page = "text/html" in kinds and "application/json" not in kinds
    return await _report(request, name, version, page=page)


@router.get("/models/{name}/versions/{version}/report.json", response_class=FileResponse)
async def report_json(request: Request, name: str, version: str) -> Response:
    """Send the full report of the conversion as JSON."""
    return await _report(request, name, version, page=False)


@router.get("/models/{name}/versions/{version}/report.html", response_class=FileResponse)
async def report_html(request: Request, name: str, version: str) -> Response:
    """Send the full report of the conversion as a page."""
    return await _report(request, name, version, page=True)


async def _report(request: Request, name: str, version: str, *, page: bool) -> Response:
    card = await kept(request, name, version)
    sha256 = card.page if page else card.report
    headers = {"ETag": f'"{sha256}"', "Cache-Control": _lasting(version), "Vary": "Accept"}
    if has(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    path = await state_of(request).models.report(card, page=page)
    if not page:
        return FileResponse(path, headers=headers, media_type="application/json")
    # What is written in it comes from a foreign file: it may show itself, and nothing else.
    headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
    return FileResponse(path, headers=headers, media_type="text/html; charset=utf-8")


@router.get("/models/{name}/versions/{version}/triton.zip", response_class=StreamingResponse)
async def triton(request: Request, name: str, version: str) -> Response:
    """Send the version as a model repository for Triton Inference Server."""
    card = await kept(request, name, version)
    headers = {
        "ETag": f'"{card.sha256}-triton-{card.version}"',
        "Cache-Control": _lasting(version),
        "Content-Disposition": f'attachment; filename="{card.name}-{card.version}-triton.zip"',
    }
    if has(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    path = await state_of(request).models.file(card)
    return StreamingResponse(triton_zip(card, path), headers=headers, media_type="application/zip")


async def model_file(request: Request, card: Card, headers: dict[str, str]) -> FileResponse:
    """Return the folded model as an answer that names it after the upload.

    Raises:
        NotFoundError: If it was deleted in the meantime.
    """
    stem = card.upload.rpartition(".")[0] or card.upload
    path = await state_of(request).models.file(card)
    return FileResponse(path, headers=headers, media_type=_BINARY, filename=f"{stem}.onnx")


def card_body(card: Card) -> dict[str, Any]:
    """Return what a client is told of a kept model."""
    return {**card.model_dump(exclude={"summary", "report", "page"}), **card.summary, "links": links_of(card)}


def _lasting(version: str) -> str:
    """Return for how long an answer may be kept: a number stays what it is, ``latest`` does not."""
    return _FOREVER if version.isdigit() else _REVISED
