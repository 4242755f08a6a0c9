"""Every request has an id, which its answer and the lines about it have, too; and a line of its own at its end."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from service.observing.logs import begin_about

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Watch"]

_LOG = logging.getLogger("service.requests")
_HEADER = b"x-request-id"
_WELL_FORMED = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_LONGEST = 500
_QUIET = frozenset({"/livez", "/readyz", "/health", "/metrics", "/v2/health/live", "/v2/health/ready"})


class Watch:
    """Names requests, and logs them.

    Args:
        app: Answers them.
        wanted: Which are logged: ``all``, ``failed`` or ``none``.
    """

    def __init__(self, app: ASGIApp, wanted: str) -> None:
        self._app = app
        self._least = {"all": 0, "failed": 400, "none": 1000}[wanted]
        self._start = secrets.token_hex(6)
        self._number = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        name = b""
        for header, value in scope["headers"]:
            if header == _HEADER:
                name = value
        if not name or _WELL_FORMED.fullmatch(name) is None:
            name = b"%s-%x" % (self._start.encode("ascii"), next(self._number))
        request = name.decode("ascii")
        scope.setdefault("state", {})["request"] = request
        begin_about(request=request)
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER, name)]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            status = status or 500
            raise
        finally:
            self._tell(scope, status, began)

    def _tell(self, scope: Scope, status: int, began: float) -> None:
        path, state = scope["path"], scope["state"]
        quiet = path in _QUIET or (status == 200 and path.endswith("/infer"))
        level = logging.DEBUG if quiet else logging.INFO if status < 500 else logging.WARNING
        if status < self._least or not _LOG.isEnabledFor(level):
            return
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": path[:_LONGEST],
            # Nobody was there any more to be answered.
            "status": status or 499,
            "ms": round((time.perf_counter() - began) * 1000, 2),
        }
        if "job" in state:
            fields["job"] = state["job"]
        _LOG.log(level, "request", extra={"fields": fields})
