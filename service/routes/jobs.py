"""Jobs: where each stands, what happens to it, and its end."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.sse import format_sse_event
from starlette.responses import JSONResponse, Response, StreamingResponse

from service.callers import caller_of
from service.jobs.job import QUEUED, Job, State
from service.problems import MalformedError, NotFoundError
from service.registry.cards import Card, links_of
from service.retention import drop_upload
from service.routes.conditions import has
from service.state import state_of

__all__ = ["job_body", "job_of", "router"]

router = APIRouter(tags=["jobs"])

_POLL = 0.2  # seconds between two looks for events
_STREAM = "text/event-stream"
_SILENCE = 15.0  # seconds after which somebody who listens is told that all is well


@router.get("/jobs")
async def jobs(
    request: Request,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """List jobs, the newest first: `limit` of them, `cursor` from `next` of the page before."""
    shared = state_of(request)
    found = await asyncio.to_thread(
        shared.table.listed, caller_of(request).tenant, state, limit + 1, _place_of(cursor) if cursor else None
    )
    page = found[:limit]
    more = (
        f"/jobs?limit={limit}" + (f"&state={state}" if state else "") + f"&cursor={_cursor(page[-1])}" if page else ""
    )
    body = {"jobs": [job_body(job) for job in page], "next": more if len(found) > limit else None}
    return JSONResponse(body)


@router.get("/jobs/{job_id}")
async def job(request: Request, job_id: str) -> Response:
    """Say where a job stands; with its model once it has succeeded, with its problem once it has failed."""
    found = await job_of(request, job_id)
    card = await _card(request, found)
    body = job_body(found, card)
    text = json.dumps(body).encode("utf-8")
    headers = {"ETag": f'"{hashlib.sha256(text).hexdigest()[:32]}"', "Cache-Control": "no-cache"}
    if has(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if not found.ended:
        headers["Retry-After"] = "1"
    return Response(text, media_type="application/json", headers=headers)


@router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses={200: {"content": {_STREAM: {}}}})
async def events(request: Request, job_id: str) -> Response:
    """Tell what happens to a job as it happens, until it has ended; `Last-Event-ID` goes on where a client stopped."""
    found = await job_of(request, job_id)
    told = request.headers.get("last-event-id", "0")
    after = int(told) if told.isascii() and told.isdigit() and len(told) <= 9 else 0
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_told(request, found.id, after), headers=headers, media_type=_STREAM)


async def _told(request: Request, job_id: str, after: int) -> AsyncIterator[bytes]:
    table = state_of(request).table
    silent = 0.0
    yield format_sse_event(comment="what happens to the job", retry=1000)
    while True:
        # Looked at before the events: what comes in between is then told, and nothing comes after the end.
        current = await asyncio.to_thread(table.job, job_id)
        happened = await asyncio.to_thread(table.events, job_id, after)
        for event in happened:
            after = event.number
            body = {**event.body, "at": _moment(event.at)}
            yield format_sse_event(data_str=json.dumps(body), event=event.kind, id=str(event.number))
        if not happened and (current is None or current.ended):
            return
        if state_of(request).draining.begun and not happened:
            return  # the client comes again, to whoever is there then
        silent = 0.0 if happened else silent + _POLL
        if silent >= _SILENCE:
            silent = 0.0
            yield format_sse_event(comment="still at it")
        await asyncio.sleep(0 if happened else _POLL)


@router.delete("/jobs/{job_id}", responses={202: {}, 204: {}})
async def end(request: Request, job_id: str) -> Response:
    """Cancel a job that has not ended (202), or forget one that has (204); a model that came of it stays."""
    shared = state_of(request)
    found = await job_of(request, job_id)
    if not found.ended:
        cancelled = await asyncio.to_thread(shared.table.cancel, found.id)
        assert cancelled is not None
        return JSONResponse(job_body(cancelled), 202, {"Location": f"/jobs/{found.id}"})
    await drop_upload(shared.storage, found)
    await asyncio.to_thread(shared.table.purge, found.id)
    return Response(status_code=204)


async def job_of(request: Request, job_id: str) -> Job:
    """Return a job that is the caller's.

    Raises:
        NotFoundError: If there is none.
    """
    found = await asyncio.to_thread(state_of(request).table.job, job_id)
    if found is None or found.tenant != caller_of(request).tenant:
        raise NotFoundError(f"there is no job {job_id[:40]!r}", hint="GET /jobs lists those that are remembered.")
    return found


def job_body(job: Job, card: Card | None = None) -> dict[str, Any]:
    """Return what a client is told of a job."""
    body: dict[str, Any] = {
        "id": job.id,
        "state": job.state,
        "attempt": job.attempt,
        "upload": job.upload["name"],
        "bytes": job.bytes,
        "options": job.options,
        "created": _moment(job.created),
        "started": _moment(job.started),
        "finished": _moment(job.finished),
        "upload_expires_at": _moment(job.upload_expires_at),
        "expires_at": _moment(job.expires_at),
        "links": {"self": f"/jobs/{job.id}", "events": f"/jobs/{job.id}/events"},
    }
    if job.state == QUEUED:
        body["step"] = "wait"
    if job.step is not None:
        body |= {"step": job.step, "done": job.done}
    if job.cancel and not job.ended:
        body["cancelling"] = True
    if job.error is not None:
        body["error"] = job.error
    if job.sandbox is not None:
        body["sandbox"] = job.sandbox
    if job.version is not None:
        body["model"] = {"name": job.name, "version": job.version}
    if card is not None:
        body["model"] |= {"sha256": card.sha256, "bytes": card.bytes, **card.summary, "links": links_of(card)}
    return body


async def _card(request: Request, job: Job) -> Card | None:
    if job.version is None:
        return None
    registry = state_of(request).registry
    return await asyncio.to_thread(registry.card, job.tenant, job.name, str(job.version))


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _cursor(job: Job) -> str:
    return base64.urlsafe_b64encode(f"{job.created!r} {job.id}".encode("ascii")).decode("ascii").rstrip("=")


def _place_of(cursor: str) -> tuple[float, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        created, job_id = text.split(" ")
        return float(created), job_id
    except (ValueError, binascii.Error):
        raise MalformedError("the cursor is none that this service gave", hint="Begin again without it.") from None
