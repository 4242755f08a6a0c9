"""The gate in front of the service: it lets in who may ask, and says to everybody else why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from service.access.keys import KeyFile
from service.access.limits import Rates
from service.access.oidc import Tokens
from service.access.origins import Origins
from service.access.scopes import ANY, CALLS, OPEN, scopes_for
from service.callers import LOCAL, Caller, Limits
from service.observing.logs import about
from service.problems import ForbiddenError, ServiceError, UnauthorizedError, problem
from service.settings import Settings, is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Access", "Gate", "open_access"]

_METRICS = "/metrics"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="bnfold"'}
_NOBODY = Caller("", scopes=frozenset())
_HINT = "Send a key as Authorization: Bearer KEY, or as X-API-Key."


@dataclass(slots=True)
class Access:
    """Who is let in.

    Attributes:
        keys: The keys that are known; None where there is no file of them.
        tokens: Checks tokens; None where none are taken.
        everybody: Who asks where nobody is asked for a key; somebody without rights where all else takes one.
        origins: Which pages may ask then.
        open_metrics: Whether everybody may read the metrics.
    """

    keys: KeyFile | None
    tokens: Tokens | None
    everybody: Caller
    origins: Origins
    open_metrics: bool
    rates: Rates = field(default_factory=Rates)

    @property
    def asks(self) -> bool:
        """Whether anybody is asked for a key."""
        return self.keys is not None or self.tokens is not None

    async def http(self, scope: Scope) -> Caller:
        """Return who sends a request, when they may.

        Raises:
            ServiceError: If they may not.
        """
        method, path = scope["method"], scope["path"]
        wanted = scopes_for(method, path)
        if wanted is OPEN or (path == _METRICS and self.open_metrics):
            return self.everybody
        if not self.asks:
            self.origins.check(method, scope["headers"])
            self.rates.use(self.everybody)
            return self.everybody
        if method == "OPTIONS":
            return self.everybody  # there is no endpoint for it: it asks what a page may send, and nothing else
        authorization = key = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"x-api-key":
                key = value
        return await self._checked(authorization, key, wanted)

    async def call(self, method: str, metadata: Mapping[str, str]) -> str:
        """Return the tenant who makes a call over gRPC, when they may.

        Args:
            method: Of the protocol.
            metadata: Of the call; names are in lower case.

        Raises:
            ServiceError: If they may not.
        """
        wanted = CALLS.get(method, ANY)
        if wanted is OPEN:
            return self.everybody.tenant
        if not self.asks:
            self.rates.use(self.everybody)
            return self.everybody.tenant
        authorization, key = (metadata.get(name, "").encode("utf-8") for name in ("authorization", "x-api-key"))
        return (await self._checked(authorization, key, wanted)).tenant

    def reload(self) -> None:
        """Read the keys again."""
        if self.keys is not None:
            self.keys.reload()

    async def _checked(self, authorization: bytes, key: bytes, scopes: frozenset[str]) -> Caller:
        caller = await self._caller(authorization, key)
        self.rates.use(caller)
        if caller.scopes.isdisjoint(scopes):
            raise ForbiddenError(
                f"the key may {_listed(caller.scopes)}, and this takes {_listed(scopes, 'or')}",
                hint="Use another key, or ask whoever runs the service for the scope.",
            )
        return caller

    async def _caller(self, authorization: bytes, key: bytes) -> Caller:
        if authorization:
            scheme, _, told = authorization.partition(b" ")
            if scheme.lower() != b"bearer" or key:
                raise UnauthorizedError(
                    "the request says twice who asks" if key else "Authorization is not of the form Bearer KEY",
                    hint=_HINT,
                    headers=_CHALLENGE,
                )
            key = told.strip()
        if not key:
            raise UnauthorizedError("nobody said who asks", hint=_HINT, headers=_CHALLENGE)
        if self.tokens is not None and key.count(b".") == 2:
            return await self.tokens.caller(key.decode("latin-1"))
        caller = self.keys.caller(key) if self.keys is not None else None
        if caller is None:
            raise UnauthorizedError(
                "the key is not known, or no longer valid",
                hint="Look whether it is whole, or ask whoever runs the service for another.",
                headers={"WWW-Authenticate": 'Bearer realm="bnfold", error="invalid_token"'},
            )
        return caller


class Gate:
    """Lets requests in, and notes in each who sends it.

    Args:
        app: Takes those that are let in.
        access: Says who is.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._access.http(scope)
        except ServiceError as error:
            path = scope["path"]
            await problem(error, inference=path == "/v2" or path.startswith("/v2/"))(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        about(tenant=caller.tenant, key=caller.key)
        await self._app(scope, receive, send)


def open_access(settings: Settings) -> Access:
    """Return who is let in, as it is set.

    Raises:
        UnusableKeysError: If the file of keys cannot be used.
    """
    limits = Limits(settings.key_jobs, int(settings.key_bytes_a_day), settings.key_requests_a_second)
    keys = tokens = None
    if settings.keys is not None:
        keys = KeyFile(settings.keys, limits)
        keys.open()
    if settings.oidc_issuer:
        tokens = Tokens(
            settings.oidc_issuer,
            settings.oidc_audience,
            settings.oidc_keys,
            settings.oidc_tenant_claim,
            settings.oidc_scopes_claim,
            limits,
        )
    asks = keys is not None or tokens is not None
    return Access(
        keys=keys,
        tokens=tokens,
        everybody=_NOBODY if asks else replace(LOCAL, limits=limits),
        origins=Origins(settings.host_names, settings.page_origins),
        open_metrics=settings.open_metrics or is_loopback(settings.host),
    )


def _listed(scopes: frozenset[str], word: str = "and") -> str:
    names = sorted(scopes)
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "do nothing"
