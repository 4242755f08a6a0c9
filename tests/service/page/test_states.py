"""The states of the page that are no plain success: keys, a service that is away, what runs, and every look of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.access.keys import entry, new_key
from tests.service.page.conftest import Visit, Visiting
from tests.service.page.models import every_kind, hostile_model, sent
from tests.service.server import Server, conv_model, serving

if TYPE_CHECKING:
    import httpx

# Every text that is shown, where its contrast is less than it should be (WCAG 2.2, AA).
CONTRAST = """() => {
  const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const under = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parts(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    throw new Error("nothing lies under it");
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
    const isShown = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!text || !isShown || element.closest(".hidden, .skip, :disabled, option")) continue;
    const style = getComputedStyle(element);
    const color = light(parts(element.closest("svg") ? style.fill : style.color));
    const [high, low] = [color, light(under(element))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < wanted) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""
UNNAMED = """() => ["a", "button", "input", "select", "textarea", "summary", "iframe", "progress", "[role=img]"]
  .flatMap((kind) => [...document.querySelectorAll(kind)])
  .filter((at) => at.checkVisibility())
  .filter((at) => !(at.labels?.length || at.getAttribute("aria-label") || at.title || at.textContent.trim()))
  .map((at) => at.outerHTML.slice(0, 80))"""
TENSORS = """async ([what, told]) => {
  const tensors = await import("/page/tensors.js");
  if (what === "to halves") return told.map(tensors.toHalf);
  if (what === "from halves") return told.map((bits) => String(tensors.fromHalf(bits)));
  if (what === "to brains") return told.map(tensors.toBrain);
  const bytes = Uint8Array.from(atob(told), (c) => c.charCodeAt(0));
  try {
    const text = new TextDecoder().decode(bytes);
    const { values, shape } = what === "numpy" ? tensors.readNumpy(bytes.buffer) : tensors.readJson(text);
    return { values: values.map(String), shape };
  } catch (error) {
    return { error: error instanceof SyntaxError ? "no JSON" : error.message };
  }
}"""


@pytest.mark.parametrize("look", ["desktop", "phone", "dark"])
def test_every_look_can_be_read_fits_and_names_what_it_shows(visiting: Visiting, server: Server, look: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "desktop": {},
        "phone": {"viewport": {"width": 360, "height": 740}, "reduced_motion": "reduce"},
        "dark": {"color_scheme": "dark"},
    }
    with server.client() as client:
        told = sent(client, hostile_model(), layerwise="yes")["model"]
        refused = sent(client, b"a text", name="notes.txt")
        assert refused["error"]["code"] == "unknown-format"
    visit = visiting(server, **settings[look])

    def judged() -> None:
        assert visit.page.evaluate(CONTRAST) == []
        assert visit.page.evaluate(UNNAMED) == []
        assert visit.overflow() == 0

    page = visit.open()
    page.locator("#models li").first.wait_for()
    page.get_by_text("Options", exact=True).click()
    visit.drop(b"", "empty.onnx")
    page.locator("#form-problem .problem").wait_for()
    judged()
    page.locator("#models li button").first.click()
    page.get_by_role("dialog").wait_for()
    judged()
    page.get_by_role("button", name="Cancel").click()
    visit.open(f"/#/models/{told['name']}/{told['version']}")
    page.get_by_role("button", name="Run it").click()
    page.locator(".output").first.wait_for()
    judged()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(18, 21, 26)" if look == "dark" else "rgb(255, 255, 255)"
    )
    visit.open(f"/#{refused['links']['self']}")
    page.locator("#place .problem").wait_for()
    judged()
    visit.open("/docs")
    judged()


def test_where_events_do_not_come_through_the_job_is_looked_at_instead(visit: Visit, server: Server) -> None:
    visit.page.route("**/events", lambda route: route.abort())
    page = visit.open()
    visit.drop(conv_model(51), "polled.onnx")
    visit.send()
    child = server.held_child()
    page.locator(".stages .now").wait_for()
    for _ in range(4):
        page.wait_for_event("request", lambda request: "/jobs/" in request.url and not request.url.endswith("/events"))
    os.kill(child, signal.SIGCONT)
    assert "Its one batch norm is folded." in visit.verdict()
    assert sum(url.endswith("/events") for url in visit.requests) == 2


def test_a_service_that_takes_no_models_says_so_until_it_does(visit: Visit) -> None:
    page = visit.page
    page.route("**/readyz", lambda route: route.fulfill(status=503, json={"ready": False, "live": True}))
    visit.open()
    page.locator("#banner").get_by_text("The service takes no models at the moment").wait_for()
    page.unroute("**/readyz")
    page.locator("#banner").wait_for(state="hidden")


def test_a_key_is_asked_for_sent_with_everything_and_kept_in_the_tab_only(visiting: Visiting, store: Path) -> None:
    key = new_key()
    store.mkdir()
    keys = store.parent / "keys.toml"
    keys.write_text(entry(key, "team", ["fold", "infer", "read"], ""))
    keys.chmod(0o600)
    with serving(store, keys=str(keys)) as server:
        visit = visiting(server)
        page = visit.open()
        page.get_by_text("This service asks for an API key").wait_for()
        page.get_by_role("textbox", name="API key").fill("not-the-key")
        page.get_by_role("button", name="Use this key").click()
        page.get_by_text("The key was not accepted.").wait_for()
        page.get_by_role("textbox", name="API key").fill(key)
        page.keyboard.press("Enter")
        page.get_by_text("No job yet.").wait_for()
        visit.drop(conv_model(52), "secret.onnx")
        visit.send()
        assert "Its one batch norm is folded." in visit.verdict()
        page.get_by_role("button", name="Run it").click()
        page.locator(".output").wait_for()
        with page.expect_download() as coming:
            page.get_by_role("link", name="Download the folded model").click()
        assert coming.value.suggested_filename == "secret.onnx"
        assert coming.value.path().stat().st_size > 100
        page.get_by_role("button", name="Delete this version").click()
        page.get_by_role("button", name="Delete it", exact=True).click()
        page.get_by_text("the key may fold, infer and read, and this takes admin").wait_for()
        page.get_by_role("button", name="Close").click()
        stores = "JSON.stringify([Object.entries(localStorage), document.cookie, location.href])"
        assert key not in page.evaluate(stores)
        assert not [url for url in visit.requests if key in url]
        page.get_by_role("button", name="Forget the key").click()
        page.get_by_text("This service asks for an API key").wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.locator(".problem", has_text="Nobody said who asks.").first.wait_for()
        assert page.evaluate("sessionStorage.length") == 0


def test_many_jobs_and_models_are_listed_and_can_go(visit: Visit, client: httpx.Client) -> None:
    for number in range(5):
        assert sent(client, f"text {number}".encode(), name=f"job{number}.txt")["state"] == "failed"
    for number in (1, 2):
        assert sent(client, conv_model(60 + number), name="two.onnx")["state"] == "succeeded"
    page = visit.open()
    page.locator("#jobs li").nth(5).wait_for()
    page.locator("#jobs").get_by_role("button", name="Show more").click()
    page.locator("#jobs li", has_text="job0.txt").wait_for()
    page.get_by_role("button", name="Forget the job of job4.txt").click()
    page.get_by_role("button", name="Forget it").click()
    page.locator("#jobs li", has_text="job4.txt").wait_for(state="detached")
    assert "job4.txt" not in [job["upload"] for job in client.get("/jobs").json()["jobs"]]
    (model,) = [one for one in client.get("/models").json()["models"] if one["upload"] == "two.onnx"][:1]
    from playwright.sync_api import TimeoutError as TooLongError

    link, more = page.get_by_role("link", name=model["name"]), page.locator("#models").get_by_role("button")
    more = more.filter(has_text="Show more")
    link.or_(more).first.wait_for()
    for _ in range(4):
        if more.count() and not link.count():
            with contextlib.suppress(TooLongError):  # the list may be written anew with all that there is
                more.click(timeout=3000)
    link.wait_for()
    page.get_by_role("button", name=f"Delete version 1 of {model['name']}").click()
    page.get_by_role("button", name="Delete it", exact=True).click()
    page.get_by_role("link", name=model["name"]).wait_for(state="detached")
    assert client.get(model["links"]["self"]).status_code == 404
    visit.open(f"/#/models/{model['name']}/1")
    page.get_by_text("There is no model").wait_for()
    visit.open("/#/jobs/none")
    page.get_by_text("There is no job 'none'.").wait_for()
    visit.open("/#/jobs/%E0%A4%A")
    page.locator("#home h1").wait_for()


def test_a_question_that_was_taken_back_is_not_answered_by_the_next_one(visit: Visit, client: httpx.Client) -> None:
    name = sent(client, conv_model(88), "asked.onnx")["model"]["name"]
    page = visit.open(f"/#/models/{name}/1")
    page.get_by_role("button", name="Delete this version").wait_for()
    # Escape, and at once the same again: a browser that is busy tells of the first one's end after the second one's.
    page.evaluate(
        """() => {
            const again = [...document.querySelectorAll("button")].find((b) => b.innerText === "Delete this version");
            again.click();
            document.getElementById("ask").close();
            again.click();
            document.getElementById("ask-yes").click();
        }"""
    )
    page.locator("#home h1").wait_for()
    asked = [url for url in visit.requests if url.endswith(f"/models/{name}/versions/1")]
    assert len(asked) == 2, "one to show it, one to delete it"
    assert client.get(f"/models/{name}").status_code == 404


def test_tensors_of_every_kind_come_back_as_they_were_sent(visit: Visit, client: httpx.Client) -> None:
    told = sent(client, every_kind(), name="kinds.onnx")["model"]
    assert client.get(told["links"]["self"]).json()["unrunnable"] == ""
    page = visit.open(f"/#/models/{told['name']}/{told['version']}")
    given = {
        "half": [0.5, -65504, 6.103515625e-05],
        "double": [0.1, -1e300, 5e-324],
        "flag": [1, 0, 1],
        "small": [-128, 127, 0],
        "large": [-(2**63), 2**63 - 1, 2**53 + 1],
        "unsigned": [0, 1, 2**32 - 1],
        "text": ["<b>bold</b>", "ä€\U0001f600", ""],
    }
    for name, values in given.items():
        page.get_by_label(f"{name}: values as JSON").fill(json.dumps(values))
    page.get_by_role("button", name="Run it").click()
    page.locator(".output").nth(len(given) - 1).wait_for()
    shown = {}
    for output in page.locator(".output").all():
        name = output.locator("h3 code").inner_text().removesuffix("_out")
        shown[name] = json.loads(f"[{output.locator('.values code').inner_text()}]")
    assert shown == {**given, "flag": [True, False, True], "half": [0.5, -65504, 6.103516e-05]}

    # What cannot be sent is told at once, and nothing is asked.
    asked = len(visit.requests)
    small = page.get_by_label("small: values as JSON")
    for text, says in {
        "[1, 2, 300]": "small: value 3 is 300, beyond what INT8 holds",
        "[1, 2.5, 3]": "small: value 2 is 2.5, and the model takes whole numbers",
        "[[1, 2, 3]]": "small: its shape is (1, 3), and the model takes (3)",
        "[1, [2], 3]": "small: its lists are not of equal depth",
        "[1, 2": "small: this is no JSON",
        "": "small: nothing is written",
    }.items():
        small.fill(text)
        page.get_by_text(says, exact=True).wait_for()
        page.get_by_role("button", name="Run it").click()
        page.locator(".answer .problem").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "small: values as JSON"
    assert len(visit.requests) == asked


def test_files_with_tensors_are_read_as_numpy_wrote_them(visit: Visit, client: httpx.Client, tmp_path: Path) -> None:
    import base64

    page = visit.open()
    rng = np.random.default_rng(5)

    def asked(what: str, told: Any) -> Any:
        return page.evaluate(TENSORS, [what, told])

    def numpy(array: np.ndarray[Any, Any]) -> Any:
        file = io.BytesIO()
        np.save(file, array)
        return asked("numpy", base64.b64encode(file.getvalue()).decode("ascii"))

    for dtype in ("<f4", ">f8", "<f2", "<i8", ">u2", "|u1", "|i1", "|b1", "<u8"):
        for array in (
            rng.integers(0, 2, (2, 3, 2)).astype(dtype),
            np.asfortranarray(rng.normal(size=(3, 4)) * 9).astype(dtype),
        ):
            read = numpy(array)
            assert read["shape"] == list(array.shape)
            assert [float(text) for text in read["values"]] == [float(value) for value in array.ravel()]
    assert numpy(np.array(3, np.float32))["shape"] == []
    assert numpy(np.array(["a"])) == {"error": "it holds something that is no number"}

    def read_json(text: str) -> Any:
        return asked("json", base64.b64encode(text.encode()).decode("ascii"))

    assert read_json("[9007199254740993, -0.12345678901234567, 1e-7, NaN, -Infinity]") == {
        "values": ["9007199254740993", "-0.12345678901234566", "1e-7", "NaN", "-Infinity"],
        "shape": [5],
    }
    assert read_json('["NaN, 12345678901234567890"]')["values"] == ["NaN, 12345678901234567890"]
    assert read_json("[1,") == {"error": "no JSON"}

    # Half precision as numpy rounds it; brain floats are the upper half of a float, rounded to even.
    floats = [
        *(rng.normal(size=400) * 10.0 ** rng.integers(-9, 6, 400)),
        65519.99,
        65520,
        2**-25,
        3 * 2**-26,
        0.0,
        -0.0,
    ]
    with np.errstate(over="ignore"):
        assert asked("to halves", floats) == [int(bits) for bits in np.array(floats).astype(np.float16).view(np.uint16)]
    every = list(range(0, 0x7C01, 7))
    assert [float(text) for text in asked("from halves", every)] == [
        float(v) for v in np.array(every, np.uint16).view(np.float16)
    ]
    assert asked("to brains", [1.0, 1.00390625, 1.01171875, -3.0]) == [0x3F80, 0x3F80, 0x3F82, 0xC040]

    # A file as an input: a lone row gets its batch axis, and what does not fit is told with both shapes.
    told = sent(client, conv_model(1))["model"]
    visit.open(f"/#/models/{told['name']}/{told['version']}")
    page.get_by_label("Fill with").select_option("file")
    for name, shape in (("fits", (3, 8, 8)), ("two", (2, 3, 8, 8)), ("not", (8, 8))):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=shape).astype(np.float32))
    page.get_by_label("x: file").set_input_files(tmp_path / "not.npy")
    page.get_by_text("not.npy: its shape is (8, 8), and the model takes (any, 3, 8, 8)").wait_for()
    for name, batch in (("fits", 1), ("two", 2)):
        page.get_by_label("x: file").set_input_files(tmp_path / f"{name}.npy")
        page.get_by_text(f"{batch * 192} values, {batch} × 3 × 8 × 8").wait_for()
        page.get_by_role("button", name="Run it").click()
        page.locator(".output h3", has_text=f"{batch} × 4 × 6 × 6").wait_for()
    data = np.load(tmp_path / "two.npy")
    answer = client.post(
        told["links"]["infer"],
        json={"inputs": [{"name": "x", "shape": list(data.shape), "datatype": "FP32", "data": data.ravel().tolist()}]},
    )
    (output,) = answer.json()["outputs"]
    shown = [float(text) for text in re.sub(r", …$", "", page.locator(".values code").inner_text()).split(", ")]
    np.testing.assert_allclose(shown, np.ravel(output["data"])[: len(shown)], rtol=1e-6, atol=1e-7)
