"""The page that people use, and the reference of the endpoints."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from service.page.files import HEADERS, PageFile, files, tagged
from service.page.reference import reference_page
from service.problems import NotFoundError
from service.routes.conditions import has
from service.state import state_of

__all__ = ["router"]

router = APIRouter(tags=["page"])


@router.get("/", response_class=HTMLResponse)
@router.head("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """Show the page: fold a model, watch it, see the verdict, try it, download it."""
    settings = state_of(request).settings
    limits = {b"@UPLOAD_SIZE@": int(settings.upload_size), b"@INFER_SIZE@": int(settings.infer_size)}
    content = files()["index.html"].content
    for name, limit in limits.items():
        content = content.replace(name, b"%d" % limit)
    return _sent(request, tagged(content, ".html"))


@router.get("/page/{name}", include_in_schema=False)
@router.head("/page/{name}", include_in_schema=False)
async def page_file(request: Request, name: str) -> Response:
    """Send a file of the page.

    Raises:
        NotFoundError: If there is none of that name.
    """
    file = files().get(name)
    if file is None or name == "index.html":
        raise NotFoundError(f"the page has no file {name[:40]!r}", hint="Load / again.")
    return _sent(request, file)


@router.get("/docs", response_class=HTMLResponse)
@router.head("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """Show all endpoints, from `/openapi.json`."""
    text = await run_in_threadpool(lambda: reference_page(request.app.openapi()))
    return _sent(request, tagged(text.encode("utf-8"), ".html"))


def _sent(request: Request, file: PageFile) -> Response:
    codings = [one.strip() for one in request.headers.get("accept-encoding", "").lower().split(",")]
    content, headers = file.content, {**HEADERS, "ETag": file.etag}
    if "gzip" in codings:
        content = file.packed
        headers |= {"Content-Encoding": "gzip", "ETag": f'{file.etag[:-1]}-gzip"'}
    if has(request, headers["ETag"]):
        headers.pop("Content-Encoding", None)
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=file.kind, headers=headers)
