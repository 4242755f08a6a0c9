"""A service with keys lets in who has one, to what it is for, as often as it may, and shows nobody another's things."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from service.access.keys import entry, new_key
from service.access.scopes import ANY, OPEN, RULES, scopes_for
from service.serving.messages import METHODS, SERVICE, message
from tests.service.access.issuer import AUDIENCE, Issuer, issuing
from tests.service.server import Server, conv_model, post, serving, wait_for

if TYPE_CHECKING:
    import httpx

QUESTION = json.dumps({"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]})
SCOPES = ("fold", "infer", "read", "admin")


@dataclass(frozen=True, slots=True)
class Locked:
    """A service with keys, and a model of the tenant ``a``."""

    server: Server
    issuer: Issuer
    keys: dict[str, str]
    model: dict[str, Any]

    def client(self, key: str = "", **headers: str) -> httpx.Client:
        client = self.server.client()
        client.headers.update({"Authorization": f"Bearer {self.keys[key]}"} if key else {})
        client.headers.update(headers)
        return client

    def call(self, method: str, key: str = "", **told: Any) -> tuple[str, str]:
        """Make a call over gRPC, and return its code and its details."""
        with grpc.insecure_channel(self.server.grpc) as channel:
            called = channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=message(f"{method}Request").SerializeToString,
                response_deserializer=message(f"{method}Response").FromString,
            )
            metadata = [("authorization", f"Bearer {self.keys[key]}")] if key else []
            try:
                called(message(f"{method}Request")(**told), metadata=metadata, timeout=60)
            except grpc.RpcError as error:
                return error.code().name, error.details()
            return "OK", ""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("locked")
    names = ("all", *SCOPES, "b", "few", "none")
    keys = {name: new_key() for name in names}
    scopes = {name: [name] if name in SCOPES else list(SCOPES) for name in names}
    lines = [
        entry(key, name if name in {"b", "few", "none"} else "a", scopes[name], f"key {name}")
        for name, key in keys.items()
    ]
    lines[names.index("few")] += "requests_a_second = 0.001\n"
    lines[names.index("none")] += "jobs = 1\nbytes_a_day = 3200\n"
    (folder / "keys.toml").write_text("\n".join(lines))
    with (
        issuing() as issuer,
        serving(
            folder / "store",
            keys=str(folder / "keys.toml"),
            grpc_port="0",
            log_level="debug",
            oidc_issuer=issuer.url,
            oidc_audience=AUDIENCE,
            jobs="1",
        ) as server,
        server.client() as client,
    ):
        client.headers["X-API-Key"] = keys["all"]
        model = post(client, conv_model(1), verify="off").json()
        yield Locked(server, issuer, keys, model)


def test_the_table_has_every_endpoint(locked: Locked) -> None:
    with locked.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    told = {(method.upper(), path.format_map(_Same())) for path, methods in paths.items() for method in methods}
    assert len(told) > 30
    unknown = {pair for pair in told if scopes_for(*pair) is ANY} - {("GET", "/v2")}
    assert unknown == set()
    open_to_all = {path for method, path in told if scopes_for(method, path) is OPEN}
    health = {"/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready"}
    assert open_to_all == {"/", "/docs", *health}
    assert {scope for _, _, scopes in RULES for scope in scopes} == set(SCOPES)
    assert {method for method in METHODS if locked.call(method)[0] != "UNAUTHENTICATED"} == {
        "ServerLive",
        "ServerReady",
    }


class _Same(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return name


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "nobody said who asks"),
        ({"Authorization": "Bearer"}, "nobody said who asks"),
        ({"Authorization": "Bearer bnf_of_nobody"}, "the key is not known, or no longer valid"),
        ({"X-API-Key": "bnf_of_nobody"}, "the key is not known, or no longer valid"),
        ({"Authorization": "Basic YTpi"}, "Authorization is not of the form Bearer KEY"),
        ({"Authorization": "Bearer a", "X-API-Key": "b"}, "the request says twice who asks"),
        ({"Authorization": "Bearer a.b.c"}, "the token is not valid: Invalid header padding"),
    ],
)
def test_who_has_no_key_is_told_so(headers: dict[str, str], said: str, locked: Locked) -> None:
    with locked.client(**headers) as client:
        answers = [
            client.get("/models"),
            client.post("/fold", files={"model": ("m.onnx", conv_model(2))}),
            client.post(locked.model["links"]["infer"], content=QUESTION),
            client.get("/no/such/thing"),
            client.get("/metrics/"),
        ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="bnfold"')
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert (body["code"], body["status"]) == ("unauthorized", 401)
        assert body["detail"].startswith(said.partition(":")[0])
    assert "error" not in answers[0].json()
    assert answers[2].json()["error"] == f"{answers[2].json()['detail']}. {answers[2].json()['hint']}"


def test_health_and_the_page_take_no_key(locked: Locked) -> None:
    with locked.client() as client:
        for path in (
            "/livez",
            "/readyz",
            "/health",
            "/v2/health/live",
            "/v2/health/ready",
            "/openapi.json",
            "/",
            "/docs",
        ):
            assert client.get(path).status_code == 200, path
        assert client.get("/metrics").status_code == 200, "only this machine reaches it"


def test_each_scope_opens_what_it_is_for(locked: Locked) -> None:
    links, name = locked.model["links"], locked.model["name"]
    asked: dict[tuple[str, str], set[str]] = {
        ("GET", links["self"]): {"fold", "read", "admin"},
        ("GET", links["model"]): {"fold", "read", "admin"},
        ("HEAD", links["model"]): {"fold", "read", "admin"},
        ("GET", links["report"]): {"fold", "read", "admin"},
        ("GET", links["job"]): {"fold", "read", "admin"},
        ("GET", "/jobs"): {"fold", "read", "admin"},
        ("GET", f"/v2/models/{name}"): {"infer", "read", "admin"},
        ("GET", f"/v2/models/{name}/versions/1/ready"): {"infer", "read", "admin"},
        ("POST", links["infer"]): {"infer", "admin"},
        ("POST", f"/v2/models/{name}/infer"): {"infer", "admin"},
        ("POST", f"/v2/repository/models/{name}/load"): {"admin"},
        ("POST", "/v2/repository/index"): {"infer", "read", "admin"},
        ("GET", "/v2"): set(SCOPES),
        ("POST", "/fold"): {"fold", "admin"},
        ("DELETE", f"/models/{name}/versions/99"): {"admin"},
        ("DELETE", "/jobs/of-nobody"): {"fold", "admin"},
        ("GET", "/no/such/thing"): set(SCOPES),
    }
    for scope in SCOPES:
        with locked.client(scope) as client:
            for (method, path), allowed in asked.items():
                content = QUESTION if path.endswith("infer") else None
                answer = client.request(method, path, content=content)
                assert (answer.status_code not in {401, 403}) == (scope in allowed), (scope, method, path, answer.text)
                if answer.status_code == 403 and method != "HEAD":
                    assert answer.json()["code"] == "forbidden"
    with locked.client("read") as client:
        told = client.post("/fold").json()
    assert told["detail"] == "the key may read, and this takes admin or fold"
    assert locked.call("ModelMetadata", "read", name=name) == ("OK", "")
    assert locked.call("ModelMetadata", "fold", name=name)[0] == "PERMISSION_DENIED"
    assert locked.call("RepositoryModelUnload", "infer", model_name=name)[0] == "PERMISSION_DENIED"
    code, said = locked.call("ModelMetadata", name=name)
    assert (code, said.partition(". ")[0]) == ("UNAUTHENTICATED", "nobody said who asks")


def test_what_belongs_to_another_tenant_is_not_there(locked: Locked) -> None:
    links, name = locked.model["links"], locked.model["name"]
    with locked.client("b") as client:
        for link in (*links.values(), f"/models/{name}", f"/v2/models/{name}", f"/v2/models/{name}/ready"):
            answer = client.post(link, content=QUESTION) if link.endswith("/infer") else client.get(link)
            assert answer.status_code == 404, link
            assert answer.json()["code"] == "not-found"
        for method, link in (("DELETE", links["self"]), ("DELETE", links["job"]), ("GET", f"{links['job']}/events")):
            assert client.request(method, link).status_code == 404
        assert client.post(f"/v2/repository/models/{name}/load").status_code == 404
        assert client.post(f"/v2/repository/models/{name}/unload").status_code == 404
        assert client.get("/models").json()["models"] == []
        assert client.get("/jobs").json()["jobs"] == []
        assert client.post("/v2/repository/index").json() == []
        assert client.get("/v2/models/stats").json() == {"model_stats": []}
        own = post(client, conv_model(1), verify="off")
        assert (own.status_code, own.json()["cached"]) == (200, False), "the same file is another one's own"
        assert client.post(own.json()["links"]["infer"], content=QUESTION).status_code == 200
        assert client.delete(own.json()["links"]["self"], params={"force": "true"}).status_code == 204
    assert locked.call("ModelMetadata", "b", name=name)[0] == "NOT_FOUND"
    with locked.client("all") as client:
        assert client.get(links["model"]).status_code == 200
        assert client.post(links["infer"], content=QUESTION).status_code == 200


def test_a_token_is_as_good_as_a_key(locked: Locked) -> None:
    token = locked.issuer.token(sub="a")
    with locked.client(Authorization=f"Bearer {token}") as client:
        assert client.post(locked.model["links"]["infer"], content=QUESTION).status_code == 200
        assert client.get("/metrics/").status_code == 404
    with locked.client(Authorization=f"Bearer {locked.issuer.token(aud='another')}") as client:
        answer = client.get("/models")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="bnfold", error="invalid_token"'


def test_a_key_is_used_only_so_often(locked: Locked) -> None:
    with locked.client("few") as client:
        assert client.get("/models").status_code == 200
        answer = client.get("/models")
        assert answer.status_code == 429
        assert answer.json()["code"] == "rate-limited"
        assert answer.json()["detail"] == "the key was used more often than 0.001 times a second"
        assert 1 < int(answer.headers["retry-after"]) <= 1000
        answer = client.post(locked.model["links"]["infer"], content=QUESTION)
        assert answer.status_code == 429
        assert "more often" in answer.json()["error"]
        assert client.get("/readyz").status_code == 200
    assert locked.call("ServerMetadata", "few")[0] == "RESOURCE_EXHAUSTED"


def test_a_tenant_has_so_many_jobs_and_sends_so_many_bytes(locked: Locked) -> None:
    later = {"Prefer": "respond-async"}
    with locked.client("none", **later) as client, locked.client("all", **later) as other:
        assert 800 < len(conv_model(1)) < 900
        first = post(client, conv_model(11), verify="off")
        assert first.status_code == 202
        child = locked.server.held_child()
        try:
            answer = post(client, conv_model(12), verify="off")
            assert answer.status_code == 429
            told = answer.json()
            assert (told["code"], told["limit"]) == ("quota", 1)
            assert told["detail"] == "jobs of this tenant wait or run already: 1 of 1"
            assert int(answer.headers["retry-after"]) > 0
            assert post(client, conv_model(11), verify="off").json()["id"] == first.json()["id"], "no new job"
            assert post(other, conv_model(13), verify="off").status_code == 202, "of somebody else"
        finally:
            os.kill(child, signal.SIGCONT)
        job = f"/jobs/{first.json()['id']}"
        _succeeded(client, job)
        assert client.delete(job).status_code == 204
        for seed in (14, 15):
            answer = post(client, conv_model(seed), verify="off")
            assert answer.status_code == 202
            where = answer.headers["location"]
            _succeeded(client, where)
        answer = post(client, conv_model(16), verify="off")
        assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (429, "quota", 3200)
        assert int(answer.headers["retry-after"]) > 60


def _succeeded(client: httpx.Client, job: str) -> None:
    wait_for(lambda: client.get(job).json()["state"] == "succeeded", 120)


def test_the_log_says_who_asked_for_what_and_no_secrets(locked: Locked) -> None:
    path = Path(locked.server.store).with_name("store.log")
    with locked.client("read") as client:
        named = {"X-Request-ID": "my-request.1"}
        answer = client.get("/jobs", params={"cursor": "c2VjcmV0", "limit": "1"}, headers=named)
        assert answer.headers["x-request-id"] == "my-request.1"
        ill = client.get("/jobs", headers={"X-Request-ID": "a b{}"})
        assert ill.headers["x-request-id"] != "a b{}"
        client.get("/models/%0a%7b%22level%22")
    (line,) = [line for line in locked.server.logged() if line.get("request") == "my-request.1"]
    assert {name: line[name] for name in ("level", "logger", "tenant", "key", "method", "path", "status")} == {
        "level": "info",
        "logger": "service.requests",
        "tenant": "a",
        "key": "key read",
        "method": "GET",
        "path": "/jobs",
        "status": 400,
    }
    assert line["ms"] > 0
    assert line["time"].endswith("+00:00")
    jobs = [line for line in locked.server.logged() if line.get("path") == "/fold" and line["status"] in {200, 202}]
    assert jobs
    assert all(len(line["job"]) == 32 for line in jobs)
    begun = [line for line in locked.server.logged() if " begins, attempt " in line["message"]]
    assert begun
    assert all(line["job"] in line["message"] and line["tenant"] in {"a", "b", "none"} for line in begun)
    quiet = [line for line in locked.server.logged() if line.get("path", "").endswith(("/infer", "/livez"))]
    assert {line["level"] for line in quiet if line["status"] == 200} == {"debug"}
    text = path.read_text("utf-8")
    for secret in (*locked.keys.values(), "c2VjcmV0", locked.issuer.token()[:60], "bnf_of_nobody"):
        assert secret not in text
    assert all(line.startswith(("{", "bnfold", "children")) for line in text.splitlines() if line)


def test_a_key_that_is_taken_out_of_the_file_is_no_longer_taken(locked: Locked) -> None:
    file = locked.server.store.with_name("keys.toml")
    text = file.read_text()
    key = new_key()
    file.write_text(text + "\n" + entry(key, "a", ["read"], ""))
    try:
        locked.server.process.send_signal(1)  # SIGHUP
        with locked.client(Authorization=f"Bearer {key}") as client:
            wait_for(lambda: client.get("/jobs").status_code == 200)
            file.write_text(text)
            wait_for(lambda: client.get("/jobs").status_code == 401)
    finally:
        file.write_text(text)
