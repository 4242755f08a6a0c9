"""The application: its endpoints, what they share, and how its errors are told."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

import bnfold
from service.access.gate import Gate
from service.database.connecting import first_line, is_outage
from service.observing.requests import Watch
from service.observing.tracing import Traced
from service.problems import (
    InternalError,
    MalformedError,
    MethodError,
    NotFoundError,
    ServiceError,
    no_answer,
    problem,
    storage_error,
)
from service.routes import fold, health, inference, jobs, metrics, models, page
from service.serving.http import Direct
from service.serving.rpc import serving_rpc
from service.state import State, running

__all__ = ["make_app"]

_LOG = logging.getLogger("service")
_ALLOWED = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Inference-Header-Content-Length",
    "Last-Event-ID",
    "Prefer",
    "X-API-Key",
    "X-Request-ID",
)
_EXPOSED = (
    "Content-Location",
    "ETag",
    "Inference-Header-Content-Length",
    "Link",
    "Location",
    "Retry-After",
    "X-Request-ID",
)


def make_app(state: State) -> FastAPI:
    """Return the application, ready to be served."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        rpc = serving_rpc(state.settings, state.protocol, state.access.call, lambda: health.can_work(state))
        async with running(state), rpc:
            yield

    app = FastAPI(
        title="bnfold",
        version=bnfold.__version__,
        summary=bnfold.__doc__.partition("\n")[0],
        lifespan=lifespan,
        # The pages that FastAPI would make load their scripts from the internet.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = state
    app.add_middleware(Direct, inference=state.inference)
    app.add_middleware(Gate, access=state.access)
    if state.settings.page_origins:
        # In front of the gate: what a browser asks before it sends a key comes without one.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=state.settings.page_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=_ALLOWED,
            expose_headers=_EXPOSED,
        )
    app.add_middleware(Watch, wanted=state.settings.log_requests)
    if state.tracing.on:
        app.add_middleware(Traced, tracing=state.tracing)
    for room in (page, fold, jobs, models, inference, health, metrics):
        app.include_router(room.router)
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(SQLAlchemyError, _database_error)
    app.add_exception_handler(Exception, _defect)
    return app


def _answer(request: Request, error: ServiceError) -> Response:
    return problem(error, inference=request.url.path == "/v2" or request.url.path.startswith("/v2/"))


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _answer(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    told: ServiceError
    match error.status_code:
        case 404:
            told = NotFoundError(f"there is nothing at {path}", hint="GET /openapi.json lists what there is.")
        case 405:
            told = MethodError(
                f"{path} does not take {method}",
                hint="GET /openapi.json lists what there is.",
                headers=dict(error.headers or {}),
            )
        case _:
            told = MalformedError(str(error.detail), hint="GET /openapi.json lists what there is.")
    return _answer(request, told)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where, name = str(first["loc"][0]), str(first["loc"][-1])
    told = MalformedError(
        f"{name} in the {where} cannot be {str(first.get('input'))[:40]!r}: {first['msg']}",
        hint="GET /openapi.json says what it can be.",
    )
    return _answer(request, told)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it


async def _os_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    return _answer(request, storage_error(error))


async def _database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SQLAlchemyError)
    if not is_outage(error):
        return await _defect(request, error)
    _LOG.warning("the database does not answer: %s", first_line(error))
    return _answer(request, no_answer())


async def _defect(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s met a defect", request.method, request.url.path, exc_info=error)
    answer = _answer(
        request, InternalError("the service met a defect of bnfold", hint="Report this, with what the service logged.")
    )
    answer.headers["X-Request-ID"] = request.state.request  # the answer goes past what names the others
    return answer
