"""Whether the service is there, and whether it can work."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

import bnfold
from service.database.connecting import can_answer
from service.state import State, state_of

__all__ = ["can_work", "router"]

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(request: Request) -> Response:
    """Say which version is there, and whether it can work: 503 where it cannot."""
    ready = await _ready(request)
    body: dict[str, Any] = {"live": True, "ready": ready, "version": bnfold.__version__}
    return JSONResponse(body, status_code=200 if ready else 503)


@router.get("/livez")
@router.get("/v2/health/live")
async def live() -> Response:
    """Say that the service is there."""
    return JSONResponse({"live": True})


@router.get("/readyz")
@router.get("/v2/health/ready")
async def ready(request: Request) -> Response:
    """Say whether the service can work: 503 where it cannot."""
    can_work = await _ready(request)
    return JSONResponse({"ready": can_work, "live": True}, status_code=200 if can_work else 503)


async def _ready(request: Request) -> bool:
    return await can_work(state_of(request))


async def can_work(state: State) -> bool:
    """Say whether the service takes work, and can write what comes of it."""
    if state.draining.begun:
        return False

    def write() -> bool:
        try:
            folder = state.scratch.folder()
            (folder / "here").write_bytes(b"x")
        except OSError:
            return False
        state.scratch.discard(folder)
        return can_answer(state.table.engine)

    return await asyncio.to_thread(write)
