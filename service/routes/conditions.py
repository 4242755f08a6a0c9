"""Conditions of a request: whether the client has the content already."""

from __future__ import annotations

from starlette.requests import Request  # noqa: TC002  (FastAPI reads the annotations)

__all__ = ["has"]


def has(request: Request, etag: str) -> bool:
    """Say whether a client has what a tag stands for, by ``If-None-Match``."""
    told = request.headers.get("if-none-match", "")
    return told.strip() == "*" or etag in {one.strip().removeprefix("W/") for one in told.split(",")}
