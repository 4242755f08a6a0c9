"""What the terminal shows of a report."""

from __future__ import annotations

import io
import textwrap
from dataclasses import replace

import pytest
from rich.console import Console

from bnfold.parity.verdict import Finding, Parity, Verdict
from bnfold.report import Report, Source
from bnfold.report.render_layout import size
from bnfold.report.render_text import render, render_line
from tests.report.reports import FOLDED, PUT_BACK, SOURCE, WANTING, comparison, region, report


def shown(of: Report, *, width: int = 110, verbose: bool = False) -> str:
    """Return the screen without the spaces at the ends of its lines."""
    console = Console(file=io.StringIO(), width=width, no_color=True)
    with console.capture() as captured:
        console.print(render(of, width=width, verbose=verbose))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def expected(text: str) -> str:
    """Return a screen that stands indented in a test; it is indented by two itself."""
    return textwrap.indent(textwrap.dedent(text).lstrip("\n"), "  ")


def test_a_good_run_looks_as_it_should() -> None:
    assert shown(report()) == expected("""
        face.pb      TF1 frozen graph · TensorFlow 1.15 · 23.5 M parameters · 449 conditionals
        mode         phase_train:0 (bool placeholder) → False   True leaves 3 nodes, False none
        convert      opset 17   4.1 s
        fold         2 of 3 batch norms   1 into Conv before · 1 into Gemm after   0.6 s
                     1 constant Mul   1 into Conv before
        kept         1 × padded-shift: The border never sees the shift.
                     bn3
                     hint: Pad before it.
        verify       each fold   2/2   worst η 5.2 (limit 61) bn1
                     translation PASS   error against float64: ONNX 3.1e-06, original 1.2e-06
                     whole       PASS   error against float64: unfolded 3.1e-06, folded 1.2e-06
                     laws        PASS   batch independence, determinism
        result       PASS (more accurate)
                     ┌────────────────────┬──────────┬─────────┐
                     │                    │ unfolded │  folded │
                     ├────────────────────┼──────────┼─────────┤
                     │ BatchNormalization │        3 │       1 │
                     │ If                 │      449 │       0 │
                     │ nodes              │     2312 │     431 │
                     │ inputs             │        1 │       1 │
                     │ size               │  93.8 MB │ 93.3 MB │
                     └────────────────────┴──────────┴─────────┘
    """)


def test_the_details_are_there_for_who_asks() -> None:
    told = shown(report(), verbose=True)
    for line in (
        "bn1 → Conv conv1 (conv-output)",
        "bn3: conv3 pads 1 (padded-shift)",
        "bn3: no layer before bn3 (edge-of-graph)",
        "bn2: η 2 on ones, 1000 values",
        "fed real: N(0,1); x (2, 3)",
        f"sha256       {'ab' * 32}",
        "versions     bnfold 0.1.0 · python 3.11",
        "seed         7",
    ):
        assert line in told


@pytest.mark.parametrize("width", [20, 44, 60, 100, 200])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, *, verbose: bool) -> None:
    assert max(map(len, shown(report(), width=width, verbose=verbose).splitlines())) <= max(width, 38)


def test_what_was_put_back_is_said_with_the_verdict() -> None:
    told = shown(report(verdict="rolled-back", rolled_back=(WANTING,), batch_norms=(FOLDED, PUT_BACK)))
    assert "  put back     bn4: backward error 1050 u, 61 u allowed\n" in told
    assert "  result       ROLLED BACK 1\n" in told


def test_a_failure_shows_what_failed() -> None:
    parity = Parity(
        Verdict.FAIL,
        "full",
        static=(Finding("names", "the output y is gone"),),
        regions=(region(), region(1050.0, Verdict.FAIL, "bn9")),
        folding=(
            comparison(Verdict.PASS),
            comparison(Verdict.FAIL, output="aux", candidate=0.1, detail="error 0.1, limit 1e-05"),
        ),
    )
    told = shown(report(parity=parity, verdict="fail", reason="…"))
    assert "static      FAIL   names: the output y is gone\n" in told
    assert "each fold   1/2   worst η 1e+03 (limit 61) bn9\n" in told
    assert "whole       FAIL   aux   error 0.1, limit 1e-05\n" in told
    assert "result       FAIL\n" in told


def test_an_integer_output_shows_how_many_elements_differ() -> None:
    exact = replace(comparison(Verdict.PASS, output="top"), kind="exact", compared=90, differing=2)
    told = shown(report(parity=Parity(Verdict.PASS, "full", folding=(exact,)), verdict="pass"))
    assert "whole       PASS   2 of 90 elements differ\n" in told


def test_an_inspection_says_what_would_happen_and_writes_no_verdict() -> None:
    told = shown(report(command="inspect", parity=None, after=None, verdict="not-verified"))
    assert "  inputs       x   float32 (batch, 3, ?)\n  outputs      logits   float32 (batch, 10)\n" in told
    assert "2 of 3 batch norms can be folded" in told
    assert "result" not in told
    assert "┌" not in told


def test_a_comparison_shows_both_models() -> None:
    told = shown(report(command="verify", other=Source("b.onnx", "onnx", "x", "ONNX", "", 1)))
    assert told.count("parameters") == 2
    assert "error against float64: A 3.1e-06, B 1.2e-06" in told
    assert "│       A │       B │" in told


def test_names_cannot_command_the_terminal_nor_the_markup() -> None:
    odd = Source("[bold]\x1b[2J\n.onnx", "onnx", "\x1b]0;x\x07", "ONNX", "", 1)
    told = shown(report(source=odd))
    assert "[bold]\\x1b[2J\\n.onnx" in told
    assert "\x1b" not in told
    assert "\x07" not in told


def test_one_of_many_is_one_line() -> None:
    console = Console(file=io.StringIO(), width=110, no_color=True)
    with console.capture() as captured:
        console.print(render_line(report(source=SOURCE)))
    assert captured.get() == "  face.pb   2 of 3 batch norms folded   PASS (more accurate)\n"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (987, "987 B"),
        (999.6, "1.00 kB"),
        (1000, "1.00 kB"),
        (123_456, "123 kB"),
        (999_999, "1.00 MB"),
        (93_800_000, "93.8 MB"),
        (3.2e9, "3.20 GB"),
        (5e12, "5000 GB"),
    ],
)
def test_sizes_have_three_digits(count: float, said: str) -> None:
    assert size(count) == said
