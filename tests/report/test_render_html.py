"""The page of a report: its verdict first, its names harmless, and nothing in it that comes from elsewhere."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from bnfold.parity.layerwise import Histogram, Layerwise, OriginalLayer, SharedValue, WorstLayer
from bnfold.parity.verdict import Parity, Verdict
from bnfold.report import BatchNorm, Neighbour, OwnAnswer, Paired, Report, Surroundings
from bnfold.report.conclusion import conclusion
from bnfold.report.figures import plot
from bnfold.report.render_html import render_page
from tests.report.reports import FOLDED, FORWARD, PARITY, PUT_BACK, SOURCE, STAYS, WANTING, comparison, report
from tests.report.test_render_text import shown as text

VOID = frozenset({"meta", "br", "img", "input", "link", "hr"})
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}{% raw %}\x1b[31m\u202e</title></svg>'


@dataclass(slots=True)
class Element:
    """One element of a page: its tag, its attributes, the text in it, and the elements around it."""

    tag: str
    attributes: dict[str, str]
    around: tuple[str, ...]
    text: str = ""
    children: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """A page read strictly: what is opened is closed, in the right order, and nothing else is."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert [element.tag for element in self._open] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _value in attrs]
        assert len(names) == len(set(names)), f"{tag} states an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(one.tag for one in self._open))
        if self._open:
            self._open[-1].children.append(tag)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        """Return the elements of a tag."""
        return [element for element in self.elements if element.tag == tag]


def layer(number: int, *, unfolded: float = 2e-7, folded: float = 3e-7, **changes: object) -> SharedValue:
    """Return the error of one value."""
    value = SharedValue(f"value_{number}", f"node_{number}", "Relu", 100, unfolded, folded, 3 * unfolded + 1e-9, False)  # noqa: FBT003
    return replace(value, **changes)  # type: ignore[arg-type]


ERRORS = Histogram((1e-9, 1e-8, 1e-7, 1e-6), (1, 5, 3), (2, 4, 3), exact=(7, 8))
VALUES = Histogram((-1.0, 0.0, 1.0), (40, 60), (40, 60), (41, 59))
LAYERS = Layerwise(
    "normal draw 1", "x: N(0,1)", (layer(1), layer(2), layer(3)), 4, WorstLayer("value_2", ERRORS, VALUES), 0.1
)
AROUND = Surroundings(
    (Neighbour("bn3", "BatchNormalization", 0), Neighbour("x", "input", -1), Neighbour("conv3", "Conv", 1)),
    ((1, 0), (0, 2)),
    2,
)
DRAWN = replace(STAYS, around=AROUND)
FAILING = Parity(
    Verdict.FAIL, "full", folding=(comparison(Verdict.FAIL, candidate=0.5, detail="error 0.5 against float64"),)
)

REPORTS = {
    "passes": report(layers=LAYERS, batch_norms=(FOLDED, FORWARD, DRAWN)),
    "without layers": report(),
    "not verified": report(parity=None, verdict="not-verified"),
    "rolled back": report(verdict="rolled-back", rolled_back=(WANTING,), batch_norms=(FOLDED, PUT_BACK)),
    "fails": report(verdict="fail", reason="output logits: error 0.5 against float64", parity=FAILING, layers=LAYERS),
    "inconclusive": report(verdict="inconclusive", reason="output logits: nothing was compared"),
    "compares": report(command="verify", other=SOURCE, layers=LAYERS),
    "nothing to fold": report(batch_norms=(), affines=()),
    "no layer to compare": report(layers=Layerwise("", "", (), 0, None, 0.0, "the two models share no value by name")),
    "odd figures": report(
        layers=replace(
            LAYERS, values=(layer(1, unfolded=0.0, folded=0.0), layer(2, folded=math.inf), layer(3, moved=True))
        )
    ),
}
CASES = [pytest.param(one, id=name) for name, one in REPORTS.items()]


@pytest.mark.parametrize("one", CASES)
def test_a_page_is_sound(one: Report) -> None:
    page = Page(render_page(one))
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        for name in element.attributes.get("aria-labelledby", "").split():
            assert name in ids
    assert [element.attributes.get("lang") for element in page.all("html")] == ["en"]
    assert len(page.all("title")[0].text) > 5
    assert len(page.all("main")) == len(page.all("header")) == 1


@pytest.mark.parametrize("one", CASES)
def test_a_page_can_be_listened_to(one: Report) -> None:
    page = Page(render_page(one))
    levels = [int(element.tag[1]) for element in page.elements if re.fullmatch(r"h[1-6]", element.tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for table in page.all("table"):
        assert table.children[0] == "caption"
    for cell in page.all("th"):
        assert cell.attributes["scope"] in {"row", "col"}
        assert cell.text.strip()
    for picture in page.all("svg"):
        hidden = picture.attributes.get("aria-hidden") == "true" or "ul" in picture.around
        assert hidden or (picture.attributes["role"] == "img" and picture.children[0] == "title")


@pytest.mark.parametrize("one", CASES)
def test_a_page_needs_nothing_and_runs_nothing(one: Report) -> None:
    text = render_page(one)
    page = Page(text)
    (policy,) = (item for item in page.all("meta") if item.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert {element.tag for element in page.elements} & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "image",
        "use",
    } == set()
    for element in page.elements:
        for name, value in element.attributes.items():
            assert name not in {"src", "href", "xlink:href", "srcset", "action", "data"}
            assert not name.startswith("on")
            assert "javascript:" not in value
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_names_in_a_model_are_text_and_nothing_else() -> None:
    around = Surroundings((Neighbour(HOSTILE, HOSTILE, 0), Neighbour(HOSTILE, "input", -1)), ((1, 0),), 0)
    kept = replace(STAYS.kept, detail=HOSTILE) if STAYS.kept else None
    hostile = report(
        source=replace(SOURCE, path=f"{HOSTILE}.onnx", framework=HOSTILE, description=HOSTILE),
        batch_norms=(
            replace(FOLDED, name=HOSTILE),
            BatchNorm(HOSTILE, HOSTILE, 4, "kept", kept=kept, around=around),
        ),
        layers=replace(
            LAYERS,
            probe=HOSTILE,
            origin=HOSTILE,
            values=(layer(1, value=HOSTILE, node=HOSTILE, op_type=HOSTILE), layer(2)),
            worst=WorstLayer(HOSTILE, ERRORS, VALUES),
        ),
        parity=replace(PARITY, folding=(comparison(output=HOSTILE),), engines=(HOSTILE,)),
    )
    text = render_page(hostile)
    page = Page(text)
    assert {element.tag for element in page.elements} & {"script", "img"} == set()
    assert all(not name.startswith("on") for element in page.elements for name in element.attributes)
    assert "\x1b" not in text
    assert "\u202e" not in text
    shown = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}{% raw %}\\x1b[31m\\u202e</title></svg>'
    assert sum(element.text.count(shown) for element in page.elements) > 20


def test_a_path_that_is_no_text_can_be_shown() -> None:
    text = render_page(report(source=replace(SOURCE, path="caf\udce9.onnx")))
    assert "caf\\udce9.onnx" in text
    text.encode("utf-8")


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render_page(REPORTS["passes"]) == render_page(report(layers=LAYERS, batch_norms=(FOLDED, FORWARD, DRAWN)))


ERRORS_ARE = "its error against float64 is 1.2e-06, that of the original 3.1e-06."
SAME = f"The result computes what the original computes: {ERRORS_ARE}"
BACK = "1 fold was taken back because it failed the check; the rest passes. 1 of 2 batch norms is folded."
USE = "It can take the place of the original."
BETTER = "PASS (more accurate)"
SENTENCES = {
    "passes": (BETTER, f"2 of 3 batch norms are folded. {SAME}", USE),
    "not verified": (
        "NOT VERIFIED",
        "Nobody has checked what the result computes. 2 of 3 batch norms are folded.",
        "Compare the two before you rely on it: bnfold verify ORIGINAL FOLDED.",
    ),
    "rolled back": ("ROLLED BACK", f"{BACK} {SAME}", USE),
    "fails": (
        "FAIL",
        "Output logits: error 0.5 against float64.",
        "Do not use the result: nothing was written without --force. Report the model.",
    ),
    "inconclusive": (
        "INCONCLUSIVE",
        "Output logits: nothing was compared.",
        "Give it real inputs with --data; without a proof nothing was written.",
    ),
    "compares": (
        BETTER,
        "B computes what A computes: the error of B against float64 is 1.2e-06, that of A 3.1e-06.",
        "B can take the place of A.",
    ),
    "nothing to fold": (BETTER, f"There is no batch norm in it. {SAME}", USE),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_the_verdict_comes_first_and_says_what_to_do(name: str) -> None:
    found = conclusion(REPORTS[name])
    assert (found.word, found.says, found.next) == SENTENCES[name]
    page = Page(render_page(REPORTS[name]))
    assert page.all("h1")[0].text == found.word
    (header,) = page.all("header")
    assert all(sentence in header.text for sentence in SENTENCES[name])
    assert page.elements.index(header) < page.elements.index(page.all("h2")[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"command": "verify"},
            "Do not put B in the place of A; look below at which outputs differ, and on which inputs.",
        ),
        (
            {"parity": Parity(Verdict.FAIL, "full", translation=FAILING.folding)},
            "Do not use the result. Not the folding but the conversion differs: try another --opset, and report it.",
        ),
    ],
)
def test_a_failure_says_whom_to_turn_to(changes: dict[str, object], says: str) -> None:
    assert conclusion(replace(REPORTS["fails"], **changes)).next == says  # type: ignore[arg-type]


def test_what_was_paired_and_what_shows_the_fault_are_named() -> None:
    one = replace(REPORTS["compares"], paired=(Paired("input", "x", HOSTILE),), reproduction="repro/<b>")
    text = Page(render_page(one)).all("body")[0].text
    assert 'The input x of A was taken for "><script>' in text
    assert "The smallest piece that shows it, with its inputs: repro/<b>" in text


@pytest.mark.parametrize(
    ("own", "kind", "says"),
    [
        (OwnAnswer(agrees=True, error=3e-7, why=""), "good", "AGREESthe same answers, largest difference 3e-07"),
        (
            OwnAnswer(agrees=False, error=0.42, why="it drops values while it runs"),
            "doubtful",
            "DIFFERSoff by 0.42 of the largest value; it drops values while it runs",
        ),
        (OwnAnswer(agrees=False, error=None, why=""), "doubtful", "DIFFERSanother shape"),
        (OwnAnswer(agrees=None, error=None, why="it has no call"), "doubtful", "UNKNOWNit has no call"),
    ],
    ids=["agrees", "differs", "another shape", "not told"],
)
@pytest.mark.parametrize("verified", [True, False], ids=["verified", "not verified"])
def test_the_page_says_whether_the_artifact_answers_the_same_by_itself(
    own: OwnAnswer, kind: str, says: str, *, verified: bool
) -> None:
    told = report(own=own) if verified else report(own=own, parity=None, verdict="not-verified")
    rows = [row for row in Page(render_page(told)).all("tr") if "the file as its framework runs it" in row.text]
    assert [row.text for row in rows] == [f"the file as its framework runs it{says}"]
    assert f'class="verdict-word {kind}"' in render_page(told)
    assert "the file as its framework runs it" not in render_page(report())


def test_the_page_holds_what_a_reader_looks_for() -> None:
    page = Page(render_page(REPORTS["passes"]))
    text = page.all("body")[0].text
    assert "Pad before it." in text  # what the owner could change
    assert "conv3 pads 1" in text
    assert "2 further neighbours not shown." in text
    assert "phase_train:0" in text
    assert "normal draw 1" in text
    assert "4 values that folding removed or rewrote cannot be compared." in text
    rows = [element.text for element in page.all("tr")]
    assert any(row.startswith("BatchNormalization31") for row in rows)
    assert any(row.startswith("batch independence") for row in rows)


def test_the_layers_of_an_original_are_listed_in_their_order() -> None:
    original = (OriginalLayer("stem", "Conv2D", "stem/out", 2e-7), OriginalLayer("head", "Dense", "", math.nan))
    layers = Layerwise("ones", "x", (), 0, None, 0.1, "the two models share no value by name", original)
    one = report(command="verify", other=SOURCE, layers=layers)
    rows = [row.text for row in Page(render_page(one)).all("tr")]
    assert [row for row in rows if "Conv2D" in row or "Dense" in row] == [
        "1stemConv2Dstem/out2e-07",
        "2headDensenothing of its size",
    ]
    told = text(one)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines() if "Conv2D" in line]
    assert cells == [["stem", "Conv2D", "stem/out", "2e-07"]]
    assert "2 layers of the original program, on the probe 'ones'" in told


def test_words_of_verdicts_are_short_because_they_do_not_wrap() -> None:
    better = replace(comparison(), verdict=Verdict.PASS_MORE_ACCURATE)
    parity = replace(PARITY, folding=(better,), translation=(better,), rewritten=(better,))
    page = Page(render_page(report(parity=parity)))
    words = [cell.text for cell in page.all("td") if "verdict-word" in cell.attributes.get("class", "")]
    assert words
    assert max(map(len, words)) <= len("INCONCLUSIVE")


def test_a_curve_stands_where_its_errors_say() -> None:
    values = tuple(layer(number, unfolded=10.0**-number, folded=10.0**-number) for number in range(3, 8))
    drawn = plot(replace(LAYERS, values=values), width=880.0, height=300.0)
    assert drawn is not None
    heights = [mark.y for mark in drawn.folded.marks]
    steps = [after - before for before, after in pairwise(heights)]
    assert all(step == pytest.approx(steps[0], abs=0.2) for step in steps)  # a tenth is the same way down everywhere
    assert steps[0] > 10
    by_text = {tick.says: tick.at for tick in drawn.ticks}
    assert heights[0] == pytest.approx(by_text["1e-03"])
    assert [mark.number for mark in drawn.folded.marks] == [1, 2, 3, 4, 5]


def test_of_many_values_the_worst_are_shown() -> None:
    values = tuple(layer(number) for number in range(5000))
    values = (*values[:2500], layer(2500, folded=0.1), *values[2501:])
    many = replace(LAYERS, values=values)
    drawn = plot(many, width=880.0, height=300.0)
    assert drawn is not None
    assert len(drawn.folded.marks) <= 220
    assert [mark.value.value for mark in drawn.folded.marks if mark.beyond] == ["value_2500"]
    text = render_page(report(layers=many))
    assert f"Each mark is the worst of {drawn.group} values." in text
    assert "The other 4500 are in the JSON report." in text
    assert len(text) < 400_000


def test_many_batch_norms_are_cut_and_counted() -> None:
    text = render_page(report(batch_norms=(FOLDED,) * 700 + (STAYS,) * 600))
    assert "200 more are in the JSON report." in text
    assert "100 more are in the JSON report." in text


def test_moved_values_are_left_out_of_the_plot_and_named_in_its_caption() -> None:
    text = render_page(REPORTS["odd figures"])
    says = "1 value differs and nothing behind does: it stands for something else in the second model, and is left out."
    assert says in text


def _luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    """Return the contrast of two colours. Source: WCAG 2.2, relative luminance and contrast ratio."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_what_is_written_can_be_read_in_both_themes(theme: int) -> None:
    style = Page(render_page(REPORTS["passes"])).all("style")[0].text
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[theme]))
    assert len(colors) == 14
    for name in ("ink", "faint", "good", "doubtful", "bad", "other", "one"):
        assert _contrast(colors[name], colors["paper"]) >= 4.5, name
    for kind in ("good", "doubtful", "bad"):
        assert _contrast(colors[kind], colors[f"{kind}-panel"]) >= 4.5
        assert _contrast(colors["ink"], colors[f"{kind}-panel"]) >= 4.5
    for name in ("panel", "centre"):
        assert _contrast(colors["ink"], colors[name]) >= 4.5
        assert _contrast(colors["faint"], colors[name]) >= 4.5


def test_the_page_fits_a_phone_paper_and_the_dark() -> None:
    text = render_page(REPORTS["passes"])
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    for condition in ("(prefers-color-scheme: dark)", "(max-width: 44rem)", "print"):
        assert f"@media {condition}" in text
