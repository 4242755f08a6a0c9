"""A report is written as JSON that any reader of its schema can rely on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest

from bnfold.parity.verdict import Parity, Verdict
from bnfold.report import Source
from bnfold.report.record import plain
from bnfold.report.schema import report_schema
from tests.report.reports import PUT_BACK, SOURCE, WANTING, comparison, region, report


def _read(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is no JSON")

    read: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return read


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parity": None, "after": None, "command": "inspect", "verdict": "not-verified"},
        {"other": SOURCE, "command": "verify"},
        {"batch_norms": (PUT_BACK,), "rolled_back": (WANTING,), "verdict": "rolled-back"},
        {
            "verdict": "fail",
            "reason": "gate A",
            "parity": Parity(Verdict.FAIL, "fast", regions=(region(math.inf, Verdict.FAIL),), folding=(comparison(),)),
        },
    ],
)
def test_a_report_follows_its_schema(changes: dict[str, object]) -> None:
    validator = jsonschema.Draft202012Validator(report_schema())
    assert [error.message for error in validator.iter_errors(_read(report(**changes).to_json()))] == []


@pytest.mark.parametrize(
    ("place", "value"),
    [(("verdict",), "splendid"), (("before", "nodes"), "many"), (("surprise",), 1), (("source", "sha256"), None)],
)
def test_the_schema_refuses_what_is_no_report(place: tuple[str, ...], value: object) -> None:
    read = _read(report().to_json())
    inner = read
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    assert not jsonschema.Draft202012Validator(report_schema()).is_valid(read)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(report_schema())


def test_the_name_of_the_form_comes_first() -> None:
    assert next(iter(_read(report().to_json()))) == "schema"
    assert _read(report().to_json())["schema"] == "bnfold-report/1"


def test_a_figure_that_is_not_finite_is_null_and_not_broken_json() -> None:
    read = _read(report().to_json())
    assert read["parity"]["amplification"] is None


def test_a_path_that_is_no_text_can_be_written() -> None:
    odd = Source("caf\udce9.onnx", "onnx", "", "", "", 0)
    assert _read(report(source=odd).to_json())["source"]["path"] == "caf\\udce9.onnx"


def test_on_one_line_it_is_one_line() -> None:
    assert report().to_json(indent=None).count("\n") == 0
    assert _read(report().to_json(indent=None)) == _read(report().to_json())


def test_what_is_no_plain_value_is_refused() -> None:
    assert plain({"a": (1, None, True, Path("b"))}) == {"a": [1, None, True, "b"]}
    with pytest.raises(TypeError, match="a report cannot hold object"):
        plain(object())
