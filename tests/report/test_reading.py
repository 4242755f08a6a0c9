"""A report that was written as JSON is read back as what it was."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

import bnfold
from bnfold.report.reading import report_from_json
from tests.cli.program import TWO_BN, written


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> bnfold.Report:
    path = written(tmp_path_factory.mktemp("reading") / "m.onnx", TWO_BN)
    return bnfold.convert(Path(path), bnfold.Options(layerwise=True)).report


def test_what_is_read_is_what_was_written(report: bnfold.Report) -> None:
    again = report_from_json(report.to_json())
    assert again.to_json() == report.to_json()
    assert type(again) is type(report)
    assert again.batch_norms == report.batch_norms
    assert (again.holds, again.folded) == (report.holds, report.folded)
    assert again.to_html() == report.to_html()


def test_a_number_that_was_none_is_none_and_what_is_new_is_left_out(report: bnfold.Report) -> None:
    assert report.parity is not None
    odd = dataclasses.replace(report, parity=dataclasses.replace(report.parity, amplification=math.inf))
    told = json.loads(odd.to_json())
    told["of_a_later_version"] = {"a": 1}
    told["source"]["more"] = 2
    again = report_from_json(json.dumps(told))
    assert again.parity is not None
    assert math.isnan(again.parity.amplification)
    assert again.source == report.source


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "bnfold-report/2"}, "it is no report of the form bnfold-report/1"),
        ({"verdict": "splendid"}, "report.verdict is no Literal"),
        ({"seed": "7"}, "report.seed is no int"),
        ({"batch_norms": {}}, "report.batch_norms is no tuple"),
        ({"source": []}, "report.source is no Source"),
        ({"source": {}}, "report.source lacks something: "),
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, object], said: str, report: bnfold.Report) -> None:
    told = {**json.loads(report.to_json()), **change}
    with pytest.raises(ValueError, match=said):
        report_from_json(json.dumps(told))
    with pytest.raises(ValueError, match="it is no report of the form"):
        report_from_json("[]")
