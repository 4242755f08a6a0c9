"""A service that asks nobody for a key is for its own page and for programs, not for other people's pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from service.settings import UnusableSettingsError, read_settings
from tests.service.server import Server, conv_model, serving

if TYPE_CHECKING:
    import httpx

PAGE = "https://tools.example.org"


def told(client: httpx.Client, method: str = "GET", path: str = "/models", **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    files = {"model": ("m.onnx", conv_model(1))} if method == "POST" else None
    answer = client.request(method, path, headers=named, files=files)
    return answer.status_code, answer.json().get("detail", "")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_name_that_is_not_its_own_is_refused(host: str, client: httpx.Client) -> None:
    # Whoever owns a name can let it point to this machine, and its pages are of the same origin then.
    assert told(client, Host=host) == (403, f"the request is for {host!r}, which is no name of this service")
    assert told(client, "POST", "/fold", Host=host)[0] == 403
    assert client.post("/v2/models/x/infer", headers={"Host": host}, content=b"{}").json()["code"] == "forbidden"
    assert client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:1", "[::1]:8080", "192.168.1.2", "bnfold.localhost", "LOCALHOST."]
)
def test_this_machine_and_addresses_are_its_own(host: str, client: httpx.Client) -> None:
    assert told(client, Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1"])
def test_a_page_of_another_origin_is_refused(origin: str, client: httpx.Client) -> None:
    assert told(client, Origin=origin) == (403, f"a page of {origin!r} may not use this service")
    assert told(client, "POST", "/fold", Origin=origin)[0] == 403
    answer = client.options("/fold", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_its_own_page_may_ask(server: Server, client: httpx.Client) -> None:
    assert told(client, Origin=server.url, Sec_Fetch_Site="same-origin")[0] == 200
    assert told(client, "POST", "/fold", Origin=server.url, Sec_Fetch_Site="same-origin")[0] == 200


def test_a_link_from_elsewhere_opens_and_nothing_else_from_there_does(client: httpx.Client) -> None:
    assert told(client, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    for site in ("cross-site", "same-site"):
        assert told(client, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors") == (
            403,
            "a page from elsewhere may not use this service",
        )
        assert told(client, "POST", "/fold", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 403
    assert told(client, Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate")[0] == 200


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that another page may use, under a name of its own."""
    with serving(tmp_path_factory.mktemp("shared") / "store", origins=PAGE, hosts="bnfold.internal") as server:
        yield server


def test_a_page_that_is_named_may_ask(shared: Server) -> None:
    with shared.client() as client:
        assert told(client, Host="bnfold.internal:8080")[0] == 200
        assert told(client, Host="other.internal")[0] == 403
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key, Prefer"}
        answer = client.options("/fold", headers={"Origin": PAGE, **asked})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        answer = client.get("/models", headers={"Origin": PAGE, "Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        assert "Location" in answer.headers["access-control-expose-headers"]
        answer = client.get("/models", headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {"ORIGINS": "*"},
            (
                "BNFOLD_ORIGINS is *, and nobody would be asked for a key: every page could use the service\n"
                "  hint: Name the origins, or set BNFOLD_KEYS."
            ),
        ),
        (
            {"ORIGINS": "tools.example.org"},
            (
                "BNFOLD_ORIGINS has 'tools.example.org', which is no origin\n"
                "  hint: Write scheme, host and port: https://tools.example.org"
            ),
        ),
        (
            {"OIDC_ISSUER": "https://login.example.org"},
            (
                "BNFOLD_OIDC_ISSUER is set and BNFOLD_OIDC_AUDIENCE is not: tokens for others would be taken\n"
                "  hint: Set BNFOLD_OIDC_AUDIENCE to what tokens for this service have as aud."
            ),
        ),
        (
            {"OIDC_ISSUER": "http://login.example.org", "OIDC_AUDIENCE": "x"},
            (
                "BNFOLD_OIDC_ISSUER is http://login.example.org, where anybody on the way could sign tokens\n"
                "  hint: Take an address that begins with https://"
            ),
        ),
    ],
)
def test_settings_that_let_in_more_than_one_may_think_are_refused(told: dict[str, str], said: str) -> None:
    with pytest.raises(UnusableSettingsError) as error:
        read_settings({f"BNFOLD_{name}": value for name, value in told.items()})
    assert str(error.value) == said


def test_with_keys_others_may_reach_it() -> None:
    assert read_settings({"BNFOLD_HOST": "0.0.0.0", "BNFOLD_KEYS": "keys.toml"}).asks
    oidc = {"BNFOLD_OIDC_ISSUER": "https://login.example.org", "BNFOLD_OIDC_AUDIENCE": "bnfold"}
    assert read_settings({"BNFOLD_HOST": "::", **oidc}).asks
