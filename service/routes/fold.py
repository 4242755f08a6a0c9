"""The main job: a model file in, the folded model out."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from service.access.limits import check_bytes, check_jobs
from service.callers import Caller, caller_of
from service.engines.engine import EngineAwayError
from service.jobs.job import FAILED, QUEUED, SUCCEEDED, Job, Wanted
from service.jobs.table import OtherRequestError
from service.options import FIELDS, key_of, read_options
from service.problems import (
    CancelledError,
    DrainingError,
    IdempotencyError,
    MalformedError,
    NotFoundError,
    QueueFullError,
    ServiceError,
    answer_with,
)
from service.registry.cards import Card, links_of
from service.registry.registry import name_for
from service.routes.jobs import job_body
from service.routes.models import card_body, model_file
from service.sandbox import level_for
from service.state import State, state_of
from service.storage import upload_folder
from service.upload import Upload, receive_upload

__all__ = ["MODEL", "router"]

router = APIRouter(tags=["fold"])

_BINARY = "application/octet-stream"
_LONGEST_WAIT = 30.0
_LONGEST_KEY = 255
_FIRST_LOOK, _LAST_LOOK = 0.01, 0.25  # seconds between two looks at a job that is waited for
MODEL = (
    "The model file; what is several files (a SavedModel, a checkpoint with its graph, an ONNX model with its weights) "
    "as `.zip`, `.tar` or `.tar.gz`."
)
"""What the field of that name takes."""
_FORM = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {"type": "string", "format": "binary", "description": MODEL},
        "architecture": {
            "type": "string",
            "format": "binary",
            "description": "The architecture of a Keras file that holds only weights, as JSON.",
        },
        **{field: {"type": "string", "description": says} for field, (_, says) in FIELDS.items()},
    },
}
_QUERY = [
    {"name": field, "in": "query", "description": says, "schema": {"type": "string"}}
    for field, (_, says) in FIELDS.items()
] + [{"name": "filename", "in": "query", "description": "The name of a raw body.", "schema": {"type": "string"}}]
_HEADERS = [
    {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N`: answer within N seconds (up to 30); `respond-async`: answer at once.",
        "schema": {"type": "string"},
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A name for this request: sent again, it is the same job.",
        "schema": {"type": "string", "maxLength": _LONGEST_KEY},
    },
]


@router.post(
    "/fold",
    openapi_extra={
        "parameters": [*_QUERY, *_HEADERS],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _FORM},
                _BINARY: {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
    responses={200: {"content": {"application/json": {}, _BINARY: {}}}, 202: {"content": {"application/json": {}}}},
)
async def fold(request: Request) -> Response:
    """Fold a model: a form with the file in `model` and options in other fields, or the bare file and a query.

    The answer is an account of the model once it is there, or 202 with the job where that takes longer than the client
    waits; `Accept: application/octet-stream` gets the folded file itself.
    """
    state, caller = state_of(request), caller_of(request)
    tenant = caller.tenant
    seconds, called = _patience(request, state.settings.wait_seconds), _idempotency(request)
    _admit(state)
    await _allow(request, state, caller)
    with state.arrivals.one():
        folder = await asyncio.to_thread(state.scratch.folder)
        try:
            settings = state.settings
            upload = await receive_upload(request, folder, int(settings.upload_size), settings.upload_seconds)
            wanted = replace(_wanted(upload, folder, tenant, called), trace=state.tracing.carried())
            card = await asyncio.to_thread(state.registry.made_by, tenant, wanted.key)
            if card is not None:
                return await _answer_card(request, card, cached=True)
            job = await _accept(state, caller, wanted, folder, upload)
        finally:
            await asyncio.shield(asyncio.to_thread(state.scratch.discard, folder))
    request.state.job = job.id  # for the log
    job = await _wait(state, job, seconds)
    return await _answer_job(request, state, job)


def _admit(state: State) -> None:
    """Refuse a request that nothing could be done for, before its upload arrives.

    Raises:
        ServiceError: If the service ends, or if it cannot confine what it would read.
    """
    if state.draining.begun:
        raise DrainingError(
            "the service is about to end", hint="Send it again in a moment.", headers={"Retry-After": "5"}
        )
    level_for(state.settings.sandbox)


async def _allow(request: Request, state: State, caller: Caller) -> None:
    """Refuse an upload that the caller's limits leave no room for, before it arrives.

    One that may be a request sent again is let in: it makes no new job.

    Raises:
        QuotaError: If they do not.
    """
    if not caller.limits.bytes_a_day or "idempotency-key" in request.headers:
        return
    _, sent = await asyncio.to_thread(state.table.asked, caller.tenant)
    length = request.headers.get("content-length", "0")
    check_bytes(caller, sent, int(length) if length.isdigit() else 0)


def _wanted(upload: Upload, folder: Path, tenant: str, called: str | None) -> Wanted:
    options = read_options(upload.fields)
    key = key_of(upload.digests, upload.suffix, options)
    name = options.pop("name", None) or name_for(upload.name, key)
    job = folder.name  # random, and as good as any
    files = {field: f"{upload_folder(job)}/{field}" for field in upload.digests}
    size = sum(path.stat().st_size for path in folder.glob("*/*"))
    return Wanted(job, tenant, key, called, name, {"name": upload.name, "files": files}, options, size)


async def _accept(state: State, caller: Caller, wanted: Wanted, folder: Path, upload: Upload) -> Job:
    """Keep the upload and then make the row: from then on the job is safe, whatever dies.

    Raises:
        ServiceError: If it cannot be taken.
    """
    for field, key in wanted.upload["files"].items():
        await state.storage.take(upload.path(folder, field), key)
    limited = bool(caller.limits.jobs or caller.limits.bytes_a_day)

    def check(unfinished: int, sent: int) -> None:
        check_jobs(caller, unfinished)
        check_bytes(caller, sent, wanted.bytes)

    most = state.settings.jobs + state.settings.queue
    try:
        accepted = await asyncio.to_thread(state.table.accept, wanted, most, check if limited else None)
    except OtherRequestError:
        await _forget(state, wanted)
        raise IdempotencyError(
            "this Idempotency-Key was used for another request", hint="Give each request a key of its own."
        ) from None
    except ServiceError:
        await _forget(state, wanted)
        raise
    # Where nobody can say what became of the row, the upload stays: if there is none, it is swept away one day.
    if accepted is None or not accepted.new:
        await _forget(state, wanted)
    if accepted is None:
        raise QueueFullError(
            f"{most} conversions run or wait, and no more are taken",
            hint="Try again in a few seconds.",
            headers={"Retry-After": "5"},
        )
    if accepted.new:
        try:
            await state.engine.submit(accepted.job.id)
            await asyncio.to_thread(state.table.rang, accepted.job.id)
        except (EngineAwayError, SQLAlchemyError):
            pass  # the row is there, and the engine is told when it is back
    return accepted.job


async def _forget(state: State, wanted: Wanted) -> None:
    for key in wanted.upload["files"].values():
        await state.storage.drop(key)


async def _wait(state: State, job: Job, seconds: float) -> Job:
    """Return a job as it is when it has ended, or when so many seconds are over."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + seconds, _FIRST_LOOK
    while not job.ended and loop.time() < until:
        if state.draining.over or (state.draining.begun and job.state == QUEUED):
            break  # it goes on after the next start, or elsewhere
        await asyncio.sleep(min(pause, max(until - loop.time(), 0.0)))
        pause = min(pause * 1.3, _LAST_LOOK)
        seen = await asyncio.to_thread(state.table.job, job.id)
        job = job if seen is None else seen
    return job


async def _answer_job(request: Request, state: State, job: Job) -> Response:
    if job.state == FAILED and job.error is not None:
        return answer_with(job.error, {"Link": f'</jobs/{job.id}>; rel="about"'})
    if job.state == SUCCEEDED:
        card = await asyncio.to_thread(state.registry.card, job.tenant, job.name, str(job.version))
        if card is None:
            raise NotFoundError("the model was deleted in the meantime", hint="Send it again.")
        return await _answer_card(request, card, cached=False)
    if job.ended:
        raise CancelledError("the job was cancelled", hint="Send the model again if that was a mistake.")
    return JSONResponse(job_body(job), 202, {"Location": f"/jobs/{job.id}", "Retry-After": "1"})


async def _answer_card(request: Request, card: Card, *, cached: bool) -> Response:
    if _wants_file(request.headers.get("accept", "")):
        links = links_of(card)
        headers = {
            "ETag": f'"{card.sha256}"',
            "Content-Location": links["model"],
            "Link": f'<{links["report"]}>; rel="describedby", <{links["self"]}>; rel="about"',
        }
        return await model_file(request, card, headers)
    return JSONResponse({"cached": cached, **card_body(card)})


def _patience(request: Request, usual: float) -> float:
    """Return for how many seconds a client waits, by ``Prefer`` (RFC 7240).

    Raises:
        MalformedError: If it says so in a way that means nothing.
    """
    told = [part.strip().lower() for line in request.headers.getlist("prefer") for part in re.split("[,;]", line)]
    if "respond-async" in told and not any(part.startswith("wait") for part in told):
        return 0.0
    for part in told:
        name, _, value = part.partition("=")
        if name.strip() == "wait":
            value = value.strip().strip('"')
            if not (value.isascii() and value.isdigit() and len(value) <= 9):
                raise MalformedError(f"Prefer: {part[:40]!r} names no number of seconds", hint="Write it as wait=20.")
            return min(float(value), _LONGEST_WAIT)
    return usual


def _idempotency(request: Request) -> str | None:
    called = request.headers.get("idempotency-key")
    if called is None:
        return None
    if not 0 < len(called) <= _LONGEST_KEY or not called.isascii() or not called.isprintable():
        raise MalformedError(
            f"an Idempotency-Key has 1 to {_LONGEST_KEY} printable ASCII characters", hint="Send a UUID, for example."
        )
    return called


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
