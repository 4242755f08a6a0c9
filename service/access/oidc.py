"""Tokens of somebody who signs people in: OpenID Connect, with RS256 and ES256 and nothing else.

Which algorithm a token is checked with is decided by the key that its issuer published, never by the token alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt

from service.access.keys import is_tenant
from service.callers import SCOPES, Caller, Limits
from service.problems import IssuerAwayError, UnauthorizedError
from service.settings import is_safe

__all__ = ["Tokens"]

_LOG = logging.getLogger("service.access")
_ALGORITHMS = ("RS256", "ES256")
_LEEWAY = 30.0  # seconds that clocks may differ
_FRESH = 300.0  # seconds that published keys are used without asking again
_AGAIN = 10.0  # seconds between two questions, whatever is asked of us
_TIMEOUT = 10.0
_LARGEST = 2**20
_LONGEST = 8192  # characters of a token
_REMEMBERED = 60.0  # seconds that a token is not checked again
_MOST = 10_000
_LEAST_BITS = 2048  # of an RSA key
_HINT = "Get a new token."


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Go nowhere else: the address is what the administrator trusts."""


@dataclass(slots=True)
class Tokens:
    """Checks tokens.

    Attributes:
        issuer: Who signs them, as ``iss`` says it.
        audience: For whom they have to be, as ``aud`` says it.
        keys_at: Where the issuer publishes the keys; empty means that its own description says so.
        tenant_claim: The claim that says whose things are seen.
        scopes_claim: The claim that says what the bearer may do.
        limits: Of everybody who comes with a token.
    """

    issuer: str
    audience: str
    keys_at: str
    tenant_claim: str
    scopes_claim: str
    limits: Limits
    _keys: Mapping[str, tuple[jwt.PyJWK, str]] = field(default_factory=dict, init=False)
    _asked: float = field(default=float("-inf"), init=False)
    _got: float = field(default=float("-inf"), init=False)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _known: dict[bytes, tuple[Caller, float]] = field(default_factory=dict, init=False)

    async def caller(self, token: str) -> Caller:
        """Return who bears a token.

        Raises:
            UnauthorizedError: If it is not valid.
            IssuerAwayError: If that cannot be found out now.
        """
        name = hashlib.sha256(token.encode("utf-8")).digest()
        known = self._known.get(name)
        if known is not None and time.time() < known[1]:
            return known[0]
        key, algorithm = await self._key_of(token)
        try:
            claims = jwt.decode(
                token,
                key=key,
                algorithms=[algorithm],
                audience=self.audience,
                issuer=self.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise _invalid(str(error)) from error
        caller = self._caller(claims)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[name] = (caller, min(float(claims["exp"]), time.time() + _REMEMBERED))
        return caller

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        tenant = claims.get(self.tenant_claim)
        if not isinstance(tenant, str) or not tenant:
            raise _invalid(f"it has no claim {self.tenant_claim!r}, which says whose it is")
        if not is_tenant(tenant):
            tenant = hashlib.sha256(tenant.encode("utf-8")).hexdigest()
        told = claims.get(self.scopes_claim, "")
        words = told.split() if isinstance(told, str) else told if isinstance(told, list) else []
        bare = {word.removeprefix("bnfold:") for word in words if isinstance(word, str)}
        subject = hashlib.sha256(str(claims["sub"]).encode("utf-8")).hexdigest()[:12]
        return Caller(tenant, f"sub:{subject}", frozenset(bare & set(SCOPES)), self.limits)

    async def _key_of(self, token: str) -> tuple[jwt.PyJWK, str]:
        if len(token) > _LONGEST:
            raise _invalid(f"it is longer than {_LONGEST} characters")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise _invalid(str(error)) from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in _ALGORITHMS:
            raise _invalid(f"it is signed with {str(algorithm)[:20]!r}, and only RS256 and ES256 are taken")
        if not isinstance(kid, str):
            raise _invalid("it does not name the key that it is signed with")
        published = await self._published(kid)
        if published is None:
            raise _invalid("it is signed with a key that its issuer does not publish")
        if published[1] != algorithm:
            raise _invalid(f"it is signed with {algorithm}, and its key is for {published[1]}")
        return published

    async def _published(self, kid: str) -> tuple[jwt.PyJWK, str] | None:
        now = time.monotonic()
        if kid in self._keys and now - self._got < _FRESH:
            return self._keys[kid]
        async with self._asking:
            now = time.monotonic()
            if (kid not in self._keys or now - self._got >= _FRESH) and now - self._asked >= _AGAIN:
                self._asked = now
                try:
                    self._keys = await asyncio.to_thread(self._fetch)
                    self._got = time.monotonic()
                except (OSError, ValueError, KeyError, TypeError) as error:
                    _LOG.warning("the keys of %s cannot be had: %s", self.issuer, error)
        if not self._keys:
            raise IssuerAwayError(
                "the keys of whoever signs tokens cannot be had, so none can be checked",
                hint="Try again in a moment.",
                headers={"Retry-After": "10"},
            )
        return self._keys.get(kid)

    def _fetch(self) -> dict[str, tuple[jwt.PyJWK, str]]:
        where = self.keys_at
        if not where:
            described = _get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
            if described["issuer"] != self.issuer:
                raise ValueError("its description is of another issuer")
            where = str(described["jwks_uri"])
        found = {}
        for told in _get(where)["keys"]:
            algorithm = _algorithm(told)
            if algorithm is None:
                continue
            try:
                key = jwt.PyJWK({name: value for name, value in told.items() if name != "d"}, algorithm)
            except jwt.PyJWTError as error:
                _LOG.warning("a key of %s cannot be used: %s", self.issuer, error)
                continue
            if algorithm == "RS256" and key.key.key_size < _LEAST_BITS:
                _LOG.warning("a key of %s has fewer than %d bits", self.issuer, _LEAST_BITS)
                continue
            found[told["kid"]] = (key, algorithm)
        if not found:
            raise ValueError("it publishes none that can be used")
        return found


def _algorithm(told: Any) -> str | None:
    """Return what a published key is for; None where that is nothing that is taken, a shared secret for example."""
    match told:
        case {"use": str(use)} if use != "sig":
            return None
        case {"kty": "RSA", "kid": str()}:
            algorithm = "RS256"
        case {"kty": "EC", "crv": "P-256", "kid": str()}:
            algorithm = "ES256"
        case _:
            return None
    return algorithm if told.get("alg", algorithm) == algorithm else None


def _get(url: str) -> Any:
    if not is_safe(url):
        raise ValueError(f"{url[:200]} is not https")
    try:
        with build_opener(_NoRedirect).open(
            Request(url, headers={"Accept": "application/json"}),  # noqa: S310  (checked above)
            timeout=_TIMEOUT,
        ) as answer:
            content = answer.read(_LARGEST + 1)
    except URLError as error:
        raise OSError(f"{url}: {error.reason}") from error
    if len(content) > _LARGEST:
        raise ValueError(f"{url} answers with more than {_LARGEST} bytes")
    return json.loads(content)


def _invalid(why: str) -> UnauthorizedError:
    return UnauthorizedError(
        f"the token is not valid: {why}",
        hint=_HINT,
        headers={"WWW-Authenticate": 'Bearer realm="bnfold", error="invalid_token"'},
    )
