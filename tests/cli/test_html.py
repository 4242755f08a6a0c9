"""``--html``: the page that convert, fold and verify write, whatever the verdict."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest

from tests.cli.program import CONV_BN, TWO_BN, Ended, bnfold, files, written
from tests.cli.test_results import REFUTED
from tests.report.test_render_html import Page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two models."""
    written(tmp_path / "one.onnx", CONV_BN)
    written(tmp_path / "two.onnx", TWO_BN)
    return tmp_path


def _page(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def test_the_page_and_the_report_say_the_same(folder: Path, repository: Path) -> None:
    ended = bnfold("convert", "two.onnx", "-o", "o.onnx", "--html", "r.html", "--report", "r.json", "-q", cwd=folder)
    assert ended == Ended(0, "", "")
    report = json.loads((folder / "r.json").read_text("utf-8"))
    jsonschema.validate(report, json.loads((repository / "docs" / "report.schema.json").read_text("utf-8")))
    page = _page(folder / "r.html")
    assert page.all("h1")[0].text.startswith("PASS")
    text = page.all("body")[0].text
    assert report["source"]["sha256"] in text
    assert [value["value"] for value in report["layers"]["values"]] == ["n", "s", "y"]
    assert "batchnormalization_3" in text  # it stays, with its neighbours
    (kept,) = (row for row in report["batch_norms"] if row["outcome"] == "kept")
    assert {node["op_type"] for node in kept["around"]["nodes"]} == {"BatchNormalization", "Sigmoid", "output"}
    assert any(picture.attributes.get("class") == "drawn" for picture in page.all("svg"))
    for row in report["batch_norms"]:
        assert row["name"] in text


def test_a_page_of_a_comparison_names_both_files(folder: Path) -> None:
    bnfold("fold", "one.onnx", "-o", "o.onnx", "--verify", "off", "-q", "--report", "r.json", cwd=folder)
    report = json.loads((folder / "r.json").read_text("utf-8"))
    assert report["layers"] is None  # nobody asked for a page
    assert all(row["around"] is None for row in report["batch_norms"])
    ended = bnfold("verify", "one.onnx", "o.onnx", "--html", "v.html", "-q", cwd=folder)
    assert ended == Ended(0, "", "")
    page = _page(folder / "v.html")
    assert "B can take the place of A." in page.all("header")[0].text
    assert "A one.onnx · B o.onnx" in " ".join(page.all("header")[0].text.split())
    assert "Batch norms" not in [heading.text for heading in page.all("h2")]


def test_a_failure_has_its_page_too_and_it_says_where(folder: Path) -> None:
    ended = bnfold(
        "fold", "one.onnx", "-o", "o.onnx", "--html", "f.html", cwd=folder, code=(sys.executable, "-c", REFUTED)
    )
    assert ended.code == 1
    assert not (folder / "o.onnx").exists()
    page = _page(folder / "f.html")
    assert page.all("h1")[0].text == "FAIL"
    assert "Do not use the result" in page.all("header")[0].text
    assert "Where the fault enters: n" in page.all("main")[0].text


def test_without_a_proof_the_page_says_so(folder: Path) -> None:
    bnfold("fold", "one.onnx", "-o", "o.onnx", "--verify", "off", "--html", "n.html", "-q", cwd=folder)
    page = _page(folder / "n.html")
    assert page.all("h1")[0].text == "NOT VERIFIED"
    assert "Error layer by layer" not in [heading.text for heading in page.all("h2")]


SEE = "Give the page a path of its own."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("fold", "one.onnx", "-o", "o.onnx", "--html", "-"),
            "--html: a page goes into a file\n  hint: Give it a name, for example: --html report.html",
        ),
        (
            ("fold", "one.onnx", "-o", "o.onnx", "--html", "one.onnx"),
            "--html: one.onnx is the file that is read\n  hint: Write the result to another path.",
        ),
        (
            ("convert", "one.onnx", "-o", "o.onnx", "--html", "./o.onnx"),
            f"--html: o.onnx is the file of the model\n  hint: {SEE}",
        ),
        (
            ("verify", "one.onnx", "two.onnx", "--html", "r", "--report", "r"),
            f"--html: r is the file of the JSON report\n  hint: {SEE}",
        ),
        (
            ("fold", "one.onnx", "two.onnx", "--out-dir", "out", "--html", "r.html"),
            "--html is for one input, and there are 2\n  hint: Fold them one by one.",
        ),
    ],
)
def test_a_page_that_cannot_be_written_is_said_before_the_work(
    folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    before = files(folder)
    assert bnfold(*arguments, cwd=folder) == Ended(2, "", f"error[usage]: {says}\n")
    assert files(folder) == before


def test_a_folder_that_does_not_exist_is_said_before_the_work(folder: Path) -> None:
    ended = bnfold("fold", "one.onnx", "-o", "o.onnx", "--html", "no/r.html", cwd=folder)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error[file]: no/r.html: the folder no does not exist\n")
    assert not (folder / "o.onnx").exists()
