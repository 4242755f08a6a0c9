"""From a file to a verdict in a real browser: what a person sees, does and gets."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.service.page.conftest import Visit, Visiting
from tests.service.page.models import HOSTILE, LONG, hostile_model
from tests.service.server import Server, conv_model, wait_for

if TYPE_CHECKING:
    import httpx

MODELS = Path(__file__).parents[3] / "models"
DIGITS = MODELS / "torch_conv" / "digits.onnx"

TWO_FILES = """() => {
  const carried = new DataTransfer();
  for (const name of ["a.onnx", "b.onnx"]) carried.items.add(new File(["x"], name));
  document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: carried }));
}"""
LEFT_ALONE = """(place) => {
  const carried = new DataTransfer();
  carried.items.add(new File(["x"], "a.json"));
  const happens = (kind) => new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried });
  return ["dragover", "drop"].every((kind) => document.querySelector(place).dispatchEvent(happens(kind)));
}"""
FOCUSED = """() => {
  const at = document.activeElement;
  return at.labels?.[0]?.innerText || at.getAttribute("aria-label") || at.innerText || at.id;
}"""


def _cells(visit: Visit) -> dict[str, list[str]]:
    rows = visit.page.locator(".changes tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def _newest(client: httpx.Client) -> Any:
    return client.get("/jobs?limit=1").json()["jobs"][0]


def test_a_dropped_model_is_folded_judged_tried_and_downloaded(
    visit: Visit, client: httpx.Client, tmp_path: Path
) -> None:
    import onnxruntime

    page = visit.open()
    assert page.get_by_role("button", name="Fold it").is_disabled()
    visit.drop(DIGITS.read_bytes(), "digits.onnx")
    assert page.locator("#file-label").inner_text().startswith("digits.onnx 78.7\u00a0kB")
    assert page.evaluate("document.activeElement.id") == "send"
    visit.send()

    # The verdict comes first, and what it says is what the service says.
    said = visit.verdict()
    told = client.get(_newest(client)["links"]["self"]).json()["model"]
    assert (told["batch_norms"]["total"], told["batch_norms"]["folded"]) == (7, 6)
    assert said.startswith("PASS")
    assert "6 of 7 batch norms are folded. The result computes what the original computes: its error" in said
    assert said.endswith("It can take the place of the original.")
    assert page.locator("#place > *").nth(2).get_attribute("class") == "verdict good"
    assert page.evaluate("document.activeElement.tagName") == "H1"
    cells = _cells(visit)
    assert cells["batch norms"][:2] == ["7", "1"]
    assert cells["nodes"][:2] == [str(told["before"]["nodes"]), str(told["after"]["nodes"])]
    (kept,) = told["batch_norms"]["kept"]
    stays = page.locator(".stays").inner_text()
    assert all(kept[part] in stays for part in ("name", "reason", "says", "detail", "remedy"))

    # One mark for each value before and after, as many as the report has.
    report = client.get(told["links"]["report"]).json()
    values = len(report["layers"]["values"])
    assert page.locator(".plot circle.one").count() == page.locator(".plot circle.other").count() == values > 10

    # Try it, with what is written there.
    page.get_by_role("button", name="Draw again").click()
    image = np.array(json.loads(page.get_by_label("image: values as JSON").input_value()), np.float32)
    assert image.shape == (1, 1, 8, 8)
    page.get_by_role("button", name="Run it").click()
    shown = [float(text) for text in page.locator(".values code").inner_text().split(", ")]
    folded = client.get(told["links"]["model"]).content
    session = onnxruntime.InferenceSession(folded, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": image})
    np.testing.assert_allclose(shown, expected[0], rtol=1e-5, atol=1e-6)
    best = [int(text) for text in page.locator(".best tbody th").all_inner_texts()]
    assert best == list(np.argsort(-expected[0])[:5])

    # The files.
    for name, saved in (
        ("Download the folded model", "digits.onnx"),
        ("Triton", "triton.zip"),
        ("Report", "digits-report.html"),
    ):
        with page.expect_download() as coming:
            page.get_by_role("link", name=re.compile(f"^{name}")).first.click()
        coming.value.save_as(tmp_path / "saved")
        assert coming.value.suggested_filename.endswith(saved)
    page.get_by_role("link", name="Download").click()
    page.get_by_text("Show it here").click()
    frame = page.frame_locator("iframe.report")
    assert "PASS" in frame.locator(".verdict").first.inner_text()
    assert page.locator("iframe.report").get_attribute("sandbox") == ""

    # The same file again is answered at once, and says so; its name leads there from the list.
    page.goto(visit.url + "/")
    page.locator("#jobs li", has_text="digits.onnx").first.wait_for()
    assert page.locator("#models li", has_text=told["name"]).locator(".chip").inner_text() == "PASS"
    visit.drop(DIGITS.read_bytes(), "digits.onnx")
    visit.send()
    page.get_by_text("This file was folded before with these options").wait_for()


def test_a_refused_file_is_told_with_its_message_and_hint_and_can_be_sent_again(
    visit: Visit, client: httpx.Client
) -> None:
    page = visit.open()
    visit.drop(b"this is a text", "notes.onnx")
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Outputs").fill("logits:0")
    visit.send()
    told = page.locator("#place .problem")
    told.wait_for()
    error = _newest(client)["error"]
    assert error["code"] == "unknown-format"
    assert error["detail"] in told.inner_text()
    assert error["hint"] in told.inner_text()
    assert "outputs=logits:0" in page.locator("#place").inner_text()
    page.get_by_role("button", name="Change the options and send it again").click()
    page.locator("#form-problem .problem").wait_for()
    assert page.get_by_label("Outputs").input_value() == "logits:0"
    assert page.evaluate("document.activeElement.id") == "outputs"
    page.get_by_label("Keep").fill("x")
    page.get_by_label("Name", exact=True).fill("no name/")
    visit.send()
    page.get_by_text("A model cannot be called 'no name/'").wait_for()
    assert (
        page.locator("#form-problem .hint").inner_text().startswith("→")
        or "Take 1 to 100 letters" in page.locator("#form-problem").inner_text()
    )


def test_what_is_too_large_empty_a_folder_or_several_is_refused_before_it_is_sent(visit: Visit) -> None:
    page = visit.open()
    problem = page.locator("#form-problem .problem")
    visit.drop(bytes(4 * 2**20), "large.onnx")
    problem.get_by_text("large.onnx has 4,194,304 bytes, and this service takes 4,194,304 at most.").wait_for()
    problem.get_by_text("Set BNFOLD_UPLOAD_SIZE higher, or convert the model with the command line.").wait_for()
    assert page.get_by_role("button", name="Fold it").is_disabled()
    visit.drop(b"", "empty.onnx")
    problem.get_by_text("empty.onnx is empty.").wait_for()
    page.evaluate(TWO_FILES)
    problem.get_by_text("These are 2 files.").wait_for()
    # A field that takes a file of its own is left to the browser; elsewhere a file must not take the place of the page.
    page.get_by_text("Options", exact=True).click()
    assert page.evaluate(LEFT_ALONE, "#architecture") is True
    assert [page.evaluate(LEFT_ALONE, place) for place in ("#file", "#outputs", "body")] == [False] * 3
    assert not any(url.endswith("/fold") for url in visit.requests)


def test_names_in_files_are_text_and_run_nothing(visiting: Visiting, server: Server) -> None:
    visit = visiting(server, viewport={"width": 360, "height": 740})
    page = visit.open()
    visit.drop(hostile_model(), f"{HOSTILE}{LONG}.onnx")
    assert HOSTILE in page.locator("#file-label").inner_text()
    assert visit.overflow() == 0
    visit.send()
    visit.verdict()
    assert f"stays{HOSTILE}" in page.locator(".stays").inner_text()
    assert page.locator(".input legend").inner_text().startswith(HOSTILE)
    assert page.locator(".plot title", has_text=HOSTILE).count() > 0
    page.get_by_role("button", name="Run it").click()
    page.locator(".output").first.wait_for()
    assert f"y{HOSTILE}" in page.locator(".output h3").first.inner_text()
    page.get_by_text("The same from a command line").click()
    page.get_by_text("Show it here").click()
    assert HOSTILE in page.frame_locator("iframe.report").locator("body").inner_text()
    assert visit.overflow() == 0
    assert page.locator("img").count() == page.frame_locator("iframe.report").locator("img").count() == 0
    assert page.evaluate("window.ran") is None


def test_a_job_can_be_cancelled_and_so_can_an_upload(visit: Visit, server: Server, client: httpx.Client) -> None:
    page = visit.open()
    visit.drop(conv_model(41), "slow.onnx")
    visit.send()
    server.held_child()
    page.locator(".stages .now").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_text("The job was cancelled.").first.wait_for()
    assert _newest(client)["state"] == "cancelled"

    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    line.send("Network.emulateNetworkConditions", limits)
    visit.open()
    visit.drop(os.urandom(3 * 2**20), "large.onnx")
    visit.send()
    text = page.locator("#upload-text")
    wait_for(
        lambda: (
            re.fullmatch(r"[\d.]+\s[kM]?B of 3\.15\sMB sent", text.inner_text())
            and not text.inner_text().startswith("0\u00a0B")
        ),
        60,
    )
    assert page.locator("#upload-bar").evaluate("bar => bar.value") > 0
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Fold it").wait_for()
    assert _newest(client)["upload"] == "slow.onnx"


def test_the_keyboard_alone_is_enough(visit: Visit, tmp_path: Path) -> None:
    model = tmp_path / "by_keyboard.onnx"
    model.write_bytes(conv_model(42))
    # Listened for from the beginning: the browser is told so beside what is typed, and might hear it later.
    visit.page.on("filechooser", lambda chooser: chooser.set_files(model))
    page = visit.open()
    page.locator("#jobs li, #jobs p").first.wait_for()

    def tab_to(name: str) -> None:
        seen = []
        for _ in range(80):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(FOCUSED))
            if str(seen[-1]).startswith(name):
                assert page.evaluate("document.activeElement.matches(':focus-visible')")
                return
        raise AssertionError(f"{name} is not reached: {seen}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    tab_to("Drop a model here")
    page.keyboard.press("Enter")
    page.locator("#file-label", has_text="by_keyboard.onnx").wait_for()
    tab_to("Options")
    page.keyboard.press("Enter")
    tab_to("Verify")
    page.keyboard.type("fast")
    tab_to("Fold it")
    page.keyboard.press("Enter")
    assert "Its one batch norm is folded." in visit.verdict()
    tab_to("Run it")
    page.keyboard.press("Enter")
    page.locator(".output").wait_for()
    tab_to("Delete this version")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    assert page.evaluate("document.activeElement.innerText") == "Delete this version"
    page.keyboard.press("Enter")
    tab_to("Delete it")
    page.keyboard.press("Enter")
    # It is loaded since it was tried; the service says so in its own time, and until then Tab walks the page.
    page.get_by_role("dialog").get_by_text("It is loaded").wait_for()
    tab_to("Delete it all the same")
    page.keyboard.press("Enter")
    page.locator("#home h1").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"


def test_a_page_survives_the_end_of_its_service(visiting: Visiting, store: Path) -> None:
    from tests.service.server import serving

    with serving(store, lease_seconds="1") as server:
        port = server.url.rpartition(":")[2]
        visit = visiting(server)
        page = visit.open()
        visit.drop(conv_model(43), "kept.onnx")
        visit.send()
        server.held_child()
        page.locator(".stages .now").wait_for()
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        page.get_by_text("The service does not answer. Looking again…").wait_for()
        page.get_by_text("The connection is lost. The job goes on").wait_for()
    with serving(store, port=port, lease_seconds="1"):
        assert "Its one batch norm is folded." in visit.verdict()
        page.locator("#banner").wait_for(state="hidden")
        # Nothing else works without the service, and the page says so in place of what it cannot show.
        with page.expect_response("**/models/**"):
            page.reload()
        visit.verdict()
