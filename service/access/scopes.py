"""Which scope a request takes, as one table: an endpoint that is not in it takes a key of any scope."""

from __future__ import annotations

import re
from collections.abc import Mapping

from service.callers import ADMIN, FOLD, INFER, READ

__all__ = ["ANY", "CALLS", "OPEN", "RULES", "scopes_for"]

OPEN: frozenset[str] = frozenset()
"""Open to everybody."""

ANY = frozenset({FOLD, INFER, READ, ADMIN})

_NAME = "[^/]+"
_MODEL = f"/v2/models/{_NAME}(?:/versions/{_NAME})?"

RULES: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("GET", "/|/livez|/readyz|/health|/v2/health/live|/v2/health/ready", OPEN),
    ("GET", "/openapi.json|/docs(?:/.*)?|/static/.*|/favicon.ico|/page/.*", OPEN),
    ("POST", "/fold", frozenset({FOLD, ADMIN})),
    ("GET", f"/jobs(?:/{_NAME}(?:/events)?)?", frozenset({FOLD, READ, ADMIN})),
    ("DELETE", f"/jobs/{_NAME}", frozenset({FOLD, ADMIN})),
    ("GET", f"/models(?:/{_NAME}(?:/versions/{_NAME}(?:/{_NAME})?)?)?", frozenset({FOLD, READ, ADMIN})),
    ("DELETE", f"/models/{_NAME}/versions/{_NAME}", frozenset({ADMIN})),
    ("POST", f"{_MODEL}/infer", frozenset({INFER, ADMIN})),
    ("GET", "/v2", ANY),
    ("GET", f"{_MODEL}(?:/ready|/config|/stats)?|/v2/models/stats", frozenset({INFER, READ, ADMIN})),
    ("POST", "/v2/repository/index", frozenset({INFER, READ, ADMIN})),
    ("POST", f"/v2/repository/models/{_NAME}/(?:load|unload)", frozenset({ADMIN})),
    ("GET", "/metrics", frozenset({ADMIN})),
)
"""Method (GET is HEAD, too), path, and the scopes of which one is enough."""

_INFER = frozenset({INFER, ADMIN})
_SEEN = frozenset({INFER, READ, ADMIN})

CALLS: Mapping[str, frozenset[str]] = {
    "ServerLive": OPEN,
    "ServerReady": OPEN,
    "ServerMetadata": ANY,
    "ModelInfer": _INFER,
    **dict.fromkeys(("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"), _SEEN),
    **dict.fromkeys(("RepositoryModelLoad", "RepositoryModelUnload"), frozenset({ADMIN})),
}
"""Methods of gRPC, and the scopes of which one is enough."""

_COMPILED: Mapping[str, tuple[tuple[re.Pattern[str], frozenset[str]], ...]] = {
    method: tuple((re.compile(path), scopes) for told, path, scopes in RULES if told == method)
    for method in ("GET", "POST", "DELETE")
}


def scopes_for(method: str, path: str) -> frozenset[str]:
    """Return the scopes of which one is enough for a request; none where it is open to everybody."""
    if method == "POST" and path.endswith("/infer"):
        return _INFER  # what is asked most often is not looked up
    if method == "HEAD":
        method = "GET"
    for pattern, scopes in _COMPILED.get(method, ()):
        if pattern.fullmatch(path):
            return scopes
    return ANY
