"""The files of the page, as any client gets them."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest

from service.options import FIELDS
from service.page.files import FOLDER, files

if TYPE_CHECKING:
    import httpx

TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
ON_THE_WIRE = 60_000
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "frame-src 'self'",
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
}
ADDRESSES = [("/" if name == "index.html" else f"/page/{name}") for name in sorted(files())]


@pytest.mark.parametrize("path", [*ADDRESSES, "/docs"])
def test_a_file_is_sent_with_its_type_its_tag_and_what_a_browser_may_do_with_it(
    client: httpx.Client, path: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    suffix = path.rpartition(".")[2] if "." in path else "html"
    assert answer.headers["content-type"].partition(";")[0] == TYPES[suffix]
    assert set(answer.headers["content-security-policy"].split("; ")) == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content
    assert "content-encoding" not in plain.headers
    assert answer.headers["content-encoding"] == "gzip"
    assert plain.headers["etag"] != answer.headers["etag"]
    head = client.head(path, headers={"Accept-Encoding": "identity"})
    assert (head.content, head.headers["content-length"]) == (b"", str(len(plain.content)))


def test_the_page_knows_the_limits_of_its_service(client: httpx.Client) -> None:
    assert 'data-upload-size="4194304" data-infer-size="1048576"' in client.get("/").text


@pytest.mark.parametrize("name", ["none.js", "index.html", "..%2Ffiles.py", "%2e%2e", "reference.html.j2"])
def test_nothing_but_the_files_of_the_page_is_sent(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not-found"


def test_the_page_is_small_enough_for_a_slow_line() -> None:
    assert sum(len(gzip.compress(path.read_bytes())) for path in FOLDER.iterdir()) < ON_THE_WIRE


@pytest.mark.parametrize("name", sorted(files()))
def test_a_file_of_the_page_asks_nobody_else_and_makes_no_markup_of_text(name: str) -> None:
    text = files()[name].content.decode("utf-8")
    outside = [url for url in re.findall(r"https?://[^\s\"'`)]+", text) if url != "http://www.w3.org/2000/svg"]
    assert outside == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text) == []
    if name.endswith(".html"):
        assert re.findall(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|<style", text) == []


def test_the_form_has_every_option_of_the_service_and_no_other() -> None:
    form = files()["index.html"].content.decode("utf-8").partition("<form")[2].partition("</form>")[0]
    assert sorted(re.findall(r'<(?:input|select|textarea)[^>]*\sname="(\w+)"', form)) == sorted(FIELDS)


def test_the_reference_tells_every_endpoint_and_every_field(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    page = client.get("/docs").text
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            assert f'<b class="method">{method.upper()}</b> <code>{path}</code>' in page
            for parameter in about.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in page
    assert "`" not in page
    assert "<code>inputs[].datatype</code>" in page
    assert "<script" not in page
