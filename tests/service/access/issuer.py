"""Somebody who signs people in: publishes keys over HTTP on this machine, and signs tokens with them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "bnfold"


@dataclass(slots=True)
class Issuer:
    """Has a key of each kind; what it publishes may be changed."""

    url: str
    keys: dict[str, Any]
    published: list[dict[str, Any]]
    asked: list[str] = field(default_factory=list)
    answers: bool = True

    def token(
        self, kid: str = "rsa", algorithm: str = "RS256", *, header: Any = None, key: Any = None, **claims: Any
    ) -> str:
        now = int(time.time())
        told = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "anna",
            "exp": now + 600,
            "scope": "openid bnfold:fold infer",
            **claims,
        }
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, self.keys[kid] if key is None else key, algorithm, headers=header or {"kid": kid})


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Sign people in while the context lasts."""
    keys: dict[str, Any] = {
        "rsa": rsa.generate_private_key(65537, 2048),
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "new": rsa.generate_private_key(65537, 2048),
        "short": rsa.generate_private_key(65537, 1024),
    }
    rsa_only = ("rsa", "new", "short")
    published = [
        {**RSAAlgorithm.to_jwk(keys[kid].public_key(), as_dict=True), "kid": kid, "use": "sig"}
        for kid in ("rsa", "short")
    ]
    published.append({**ECAlgorithm.to_jwk(keys["ec"].public_key(), as_dict=True), "kid": "ec"})
    # What no issuer should publish: whoever reads it could sign with it.
    published.append({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "shared"})
    assert set(rsa_only) <= set(keys)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            told: Any = {"keys": issuer.published}
            if self.path == "/.well-known/openid-configuration":
                told = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
            body = json.dumps(told).encode()
            self.send_response(200 if issuer.answers else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}", keys, published)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
