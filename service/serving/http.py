"""Inference over HTTP as a bare ASGI application: what is asked most often goes through as little code as there can be.

What a client sent is handed to the runner as it came; only the runner reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from service import problems
from service.problems import (
    InternalError,
    MalformedError,
    QueueFullError,
    ServiceError,
    SlowUploadError,
    TooLargeError,
    UnsupportedMediaError,
    problem,
)
from service.serving.frames import Answer, Form
from service.serving.runners import Ask, Runners
from service.serving.source import ModelSource

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Direct", "Inference", "error_of"]

_START = "/v2/models/"
_END = "/infer"
_LENGTH = b"inference-header-content-length"
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
_ERRORS: dict[str, type[ServiceError]] = {
    each.code: each
    for name in problems.__all__
    if isinstance(each := getattr(problems, name), type) and issubclass(each, ServiceError)
}
_HELD = 8  # requests of the largest size that may be in memory at a time


def error_of(answer: Answer, limit: int) -> ServiceError:
    """Return the error that a runner answered with.

    Args:
        answer: Of the runner, which is not trusted.
        limit: The largest request, in bytes.
    """
    kind = _ERRORS.get(answer.code, InternalError)
    members = {"limit": limit} if kind is TooLargeError else None
    return kind(answer.message[:2000], hint=answer.hint[:500], members=members)


class Inference:
    """Answers ``POST /v2/models/NAME[/versions/VERSION]/infer``.

    Args:
        runners: Run the models.
        source: Has the models.
        tenant_of: Says for whom a request is; raises a ``ServiceError`` where nobody may ask it.
    """

    def __init__(self, runners: Runners, source: ModelSource, tenant_of: Callable[[Scope], str]) -> None:
        self._runners = runners
        self._source = source
        self._tenant_of = tenant_of
        self._limit = int(runners.settings.infer_size)
        self._seconds = runners.settings.infer_seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            start, body = await self._answer(scope, receive)
        except ServiceError as error:
            await problem(error, inference=True)(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is there to read an answer
        else:
            await send(start)
            await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[dict[str, Any], bytes]:
        tenant = self._tenant_of(scope)
        name, _, version = scope["path"][len(_START) : -len(_END)].partition("/versions/")
        card = await self._source.card(tenant, name, version)
        ask, told = _ask(scope["headers"], self._limit)
        if self._held > _HELD * self._limit:
            raise QueueFullError(
                f"{self._held} bytes of requests wait to be answered, and no more are taken",
                hint="Try again in a moment.",
                headers={"Retry-After": "1"},
            )
        self._held += told
        try:
            body = await self._body(receive)
            answer, content = await self._runners.infer(tenant, card, ask, body)
        finally:
            self._held -= told
        if answer.code:
            raise error_of(answer, self._limit)
        headers = [(b"content-length", b"%d" % len(content))]
        if answer.length < 0:
            headers.append(_JSON)
        else:
            headers += (_BINARY, (_LENGTH, b"%d" % answer.length))
        if answer.encoding in ("gzip", "deflate"):
            headers.append((b"content-encoding", answer.encoding.encode("ascii")))
        return {"type": "http.response.start", "status": 200, "headers": headers}, content

    async def _body(self, receive: Receive) -> list[bytes]:
        """Return the pieces of a body, within the time that it may take to come."""
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    piece = message.get("body", b"")
                    size += len(piece)
                    if size > self._limit:
                        raise _too_large(self._limit)
                    pieces.append(piece)
                    if not message.get("more_body"):
                        return pieces
        except TimeoutError:
            raise SlowUploadError(
                f"the request did not arrive within {self._seconds:g} s", hint="Send it again over a faster line."
            ) from None


class Direct:
    """Hands inference to ``Inference``, past all that stands in front of other endpoints, and the rest on.

    Args:
        app: Takes the rest.
        inference: Takes inference.
    """

    def __init__(self, app: ASGIApp, inference: Inference) -> None:
        self._app = app
        self._inference = inference

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and (path := scope["path"]).endswith(_END)
            and path.startswith(_START)
            and path.count("/") in (4, 6)
        ):
            await self._inference(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _ask(headers: list[tuple[bytes, bytes]], limit: int) -> tuple[Ask, int]:
    """Return what the head of a request says, and how many bytes it holds in memory."""
    length: str | None = None
    encoding = accepts = ""
    size = limit
    for name, value in headers:
        if name == b"content-length":
            size = int(value)  # the server has checked it
            if size > limit:
                raise _too_large(limit)
        elif name == _LENGTH:
            length = value.decode("latin-1")
        elif name == b"content-encoding":
            encoding = value.decode("latin-1").strip().lower()
            if encoding in ("identity", "none"):
                encoding = ""
        elif name == b"accept-encoding" and value in (b"gzip", b"deflate"):
            # Only who asks for one of them wants it: libraries always list all that they understand.
            accepts = value.decode("ascii")
    if encoding not in ("", "gzip", "deflate"):
        raise UnsupportedMediaError(
            f"the request is encoded as {encoding[:40]}", hint="Send it as it is, or as gzip or deflate."
        )
    if length is not None and len(length) > 100:
        raise MalformedError(
            "Inference-Header-Content-Length is no length", hint="Send the length of the JSON in bytes."
        )
    return Ask(Form.HTTP, length, encoding, accepts), size


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"the request is larger than {limit} bytes",
        hint="Send fewer rows at a time, or set BNFOLD_INFER_SIZE higher.",
        members={"limit": limit},
    )
