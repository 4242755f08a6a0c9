"""Tokens: those of the issuer are taken, and those that only look like it are not."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from service.access import oidc
from service.access.oidc import Tokens
from service.callers import Caller, Limits
from service.problems import IssuerAwayError, UnauthorizedError
from tests.service.access.issuer import AUDIENCE, Issuer, issuing

LIMITS = Limits(1, 2, 3.0)


@pytest.fixture(scope="module")
def one_issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
def issuer(one_issuer: Issuer) -> Iterator[Issuer]:
    published = list(one_issuer.published)
    one_issuer.asked.clear()
    yield one_issuer
    one_issuer.published, one_issuer.answers = published, True


def tokens(issuer: Issuer, **told: str) -> Tokens:
    settings = {"keys_at": "", "tenant_claim": "sub", "scopes_claim": "scope", **told}
    return Tokens(issuer.url, AUDIENCE, limits=LIMITS, **settings)


def caller(checks: Tokens, token: str) -> Caller:
    return asyncio.run(checks.caller(token))


def refused(checks: Tokens, token: str) -> str:
    with pytest.raises(UnauthorizedError) as told:
        caller(checks, token)
    assert told.value.headers == {"WWW-Authenticate": 'Bearer realm="bnfold", error="invalid_token"'}
    assert token not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(("kid", "algorithm"), [("rsa", "RS256"), ("ec", "ES256")])
def test_a_token_of_the_issuer_says_who_asks(kid: str, algorithm: str, issuer: Issuer) -> None:
    found = caller(tokens(issuer), issuer.token(kid, algorithm))
    assert (found.tenant, found.scopes, found.limits) == ("anna", frozenset({"fold", "infer"}), LIMITS)
    assert re.fullmatch(r"sub:[0-9a-f]{12}", found.key)
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


def test_claims_may_be_called_otherwise(issuer: Issuer) -> None:
    checks = tokens(issuer, tenant_claim="org", scopes_claim="roles", keys_at=f"{issuer.url}/keys")
    found = caller(checks, issuer.token(org="Team Ä", roles=["bnfold:admin", "other", 3]))
    assert (len(found.tenant), found.scopes) == (64, frozenset({"admin"}))
    assert caller(checks, issuer.token(org="team-a")).scopes == frozenset()
    assert issuer.asked == ["/keys"]
    assert refused(checks, issuer.token()) == ("the token is not valid: it has no claim 'org', which says whose it is")


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": 1}, "Signature has expired"),
        ({"exp": None}, 'Token is missing the "exp" claim'),
        ({"nbf": int(time.time()) + 3600}, "The token is not yet valid (nbf)"),
        ({"aud": "another service"}, "Audience doesn't match"),
        ({"aud": None}, 'Token is missing the "aud" claim'),
        ({"iss": "https://elsewhere.example"}, "Invalid issuer"),
        ({"iss": None}, 'Token is missing the "iss" claim'),
        ({"sub": None}, 'Token is missing the "sub" claim'),
        ({"sub": 7}, "Subject must be a string"),
        ({"sub": ""}, "it has no claim 'sub', which says whose it is"),
    ],
)
def test_a_token_for_others_or_of_others_or_too_old_is_refused(
    claims: dict[str, Any], said: str, issuer: Issuer
) -> None:
    assert refused(tokens(issuer), issuer.token(**claims)) == f"the token is not valid: {said}"


def _unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims))
    return ".".join(parts) + "."


def _public(issuer: Issuer) -> bytes:
    return bytes(
        issuer.keys["rsa"]
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def test_the_token_does_not_choose_how_it_is_checked(issuer: Issuer) -> None:
    checks = tokens(issuer)
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    only = "and only RS256 and ES256 are taken"
    assert refused(checks, _unsigned({"alg": "none", "kid": "rsa"}, claims)).endswith(f"signed with 'none', {only}")
    head = _unsigned({"alg": "HS256", "kid": "rsa"}, claims).rstrip(".")
    forged = base64.urlsafe_b64encode(hmac.digest(_public(issuer), head.encode(), "sha256")).rstrip(b"=").decode()
    shared = f"{head}.{forged}"
    assert refused(checks, shared).endswith(f"signed with 'HS256', {only}")
    assert refused(checks, issuer.token("rsa", "PS256")).endswith(f"signed with 'PS256', {only}")
    crossed = issuer.token("ec", "ES256", header={"kid": "rsa"})
    assert refused(checks, crossed) == "the token is not valid: it is signed with ES256, and its key is for RS256"
    crossed = issuer.token("rsa", "RS256", header={"kid": "ec"})
    assert refused(checks, crossed) == "the token is not valid: it is signed with RS256, and its key is for ES256"
    stranger = issuer.token(key=rsa.generate_private_key(65537, 2048))
    assert refused(checks, stranger) == "the token is not valid: Signature verification failed"
    stranger = issuer.token("ec", "ES256", key=ec.generate_private_key(ec.SECP256R1()))
    assert refused(checks, stranger) == "the token is not valid: Signature verification failed"
    # What the token itself brings along or points to is no key of the issuer's.
    own = {"kid": "rsa", "jku": f"{issuer.url}/mine", "x5u": f"{issuer.url}/mine", "jwk": issuer.published[0]}
    assert refused(checks, issuer.token(header=own, key=rsa.generate_private_key(65537, 2048))).endswith("failed")
    assert "/mine" not in issuer.asked
    good = issuer.token()
    head, body, signature = good.split(".")
    swapped = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "eve"}).encode()).rstrip(b"=").decode()
    assert refused(checks, f"{head}.{swapped}.{signature}") == "the token is not valid: Signature verification failed"
    for broken in ("a.b.c", "..", f"{head}.{body}", good[:-10], "x" * 9000 + ".a.b"):
        refused(checks, broken)


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits long")
@pytest.mark.parametrize("kid", ["shared", "short", "none of them", "new"])
def test_a_key_that_is_not_published_or_no_good_signs_nothing(kid: str, issuer: Issuer) -> None:
    key = issuer.keys.get(kid, issuer.keys["rsa"])
    token = issuer.token("rsa", "RS256", header={"kid": kid}, key=key)
    assert refused(tokens(issuer), token).endswith("it is signed with a key that its issuer does not publish")
    nameless = jwt.encode({"iss": issuer.url}, issuer.keys["rsa"], "RS256")
    assert refused(tokens(issuer), nameless).endswith("it does not name the key that it is signed with")


def test_the_issuer_is_asked_seldom_and_new_keys_are_found(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_AGAIN", "_FRESH"):
        monkeypatch.setattr(oidc, name, 3600.0)

    async def run() -> None:
        checks = tokens(issuer, keys_at=f"{issuer.url}/keys")
        for number in range(5):
            await checks.caller(issuer.token(sub=f"s{number}"))
            with pytest.raises(UnauthorizedError):
                await checks.caller(issuer.token("new", header={"kid": f"new{number}"}))
        assert issuer.asked == ["/keys"]
        issuer.published.append({**issuer.published[0], "n": _modulus(issuer, "new"), "kid": "new"})
        monkeypatch.setattr(oidc, "_AGAIN", 0.0)
        assert (await checks.caller(issuer.token("new"))).tenant == "anna"
        assert issuer.asked == ["/keys"] * 2
        # Known keys go on working while the issuer is away; the tokens are not asked about at all.
        issuer.answers = False
        monkeypatch.setattr(oidc, "_FRESH", 0.0)
        assert (await checks.caller(issuer.token(sub="later"))).tenant == "later"
        assert issuer.asked == ["/keys"] * 3

    asyncio.run(run())


def _modulus(issuer: Issuer, kid: str) -> str:
    from jwt.algorithms import RSAAlgorithm

    return str(RSAAlgorithm.to_jwk(issuer.keys[kid].public_key(), as_dict=True)["n"])


def test_a_token_is_not_taken_when_nobody_can_check_it(issuer: Issuer) -> None:
    issuer.answers = False
    with pytest.raises(IssuerAwayError) as told:
        caller(tokens(issuer), issuer.token())
    assert (told.value.status, told.value.headers) == (503, {"Retry-After": "10"})


@pytest.mark.parametrize(("seconds", "remembered"), [(5, 5), (600, 60)])
def test_a_token_is_remembered_for_a_while_and_not_beyond_its_end(
    seconds: int, remembered: int, issuer: Issuer
) -> None:
    checks, now = tokens(issuer), int(time.time())
    token = issuer.token(exp=now + seconds)
    assert caller(checks, token).tenant == "anna"
    ((_, until),) = checks._known.values()
    assert until <= time.time() + remembered
    assert until <= now + seconds
