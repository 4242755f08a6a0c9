"""Whether the service is there, and whether it can work."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

import bnfold
from service.state import State, state_of

__all__ = ["can_work", "router"]

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(request: Request) -> Response:
    """Say which version is there, and whether it can work: 503 where it cannot, with the `reason`."""
    return await _told(request, version=bnfold.__version__)


@router.get("/livez")
@router.get("/v2/health/live")
async def live() -> Response:
    """Say that the service is there."""
    return JSONResponse({"live": True})


@router.get("/readyz")
@router.get("/v2/health/ready")
async def ready(request: Request) -> Response:
    """Say whether the service can work, and how it keeps foreign files apart: 503 where it cannot, with the `reason`.

    It is `draining` (it is about to end), `sandbox`, `disk`, `database` or `storage`.
    """
    return await _told(request)


async def _told(request: Request, **more: Any) -> JSONResponse:
    state = state_of(request)
    lacks = await state.readiness.lacks()
    body = {"ready": not lacks, "live": True, "sandbox": state.sandbox.name, **more}
    if lacks:
        body["reason"] = lacks
    return JSONResponse(body, status_code=503 if lacks else 200)


async def can_work(state: State) -> bool:
    """Say whether the service takes work, and can write what comes of it."""
    return not await state.readiness.lacks()
