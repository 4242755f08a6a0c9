"""A mistyped name is answered with the one that was meant."""

from __future__ import annotations

import pytest

from bnfold.errors import SignatureError
from bnfold.frontends.signature import listed, nearest, require_known, unknown_name

NAMES = ["input_1:0", "model/block1/conv/Relu:0", "model/block2/conv/Relu:0", "model/Logits:0", "phase_train:0", "x"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("logits", "model/Logits:0"),
        ("model/logits", "model/Logits:0"),
        ("Logits:1", "model/Logits:0"),
        ("model/blok2/conv/Relu", "model/block2/conv/Relu:0"),
        ("phase_trian:0", "phase_train:0"),
        ("input:0", "input_1:0"),
        ("X", "x"),
    ],
)
def test_the_nearest_name_comes_first(typed: str, meant: str) -> None:
    assert nearest(typed, NAMES)[0] == meant


def test_nothing_is_near_to_something_else() -> None:
    assert nearest("entirely different", NAMES) == []
    assert nearest("x", []) == []


def test_the_error_lists_few_names_and_counts_many() -> None:
    few = unknown_name("output", "logit", ["logits", "aux"], option="--outputs")
    assert (str(few), few.hint) == (
        "there is no output 'logit'; there are logits, aux",
        "Did you mean --outputs logits?",
    )
    one = unknown_name("input", "q", ["image"])
    assert (str(one), one.hint) == ("there is no input 'q'; there is image", "Look up the names with: bnfold inspect")
    many = unknown_name("tensor", "relu_99", [f"relu_{number}" for number in range(50)], option="--outputs")
    assert str(many) == "there is no tensor 'relu_99' among 50 tensors"
    assert many.hint.startswith("Did you mean --outputs relu_9? (or ")


def test_names_are_required_to_exist_once() -> None:
    require_known("value", ["a", "b"], ["a", "b", "c"])
    with pytest.raises(SignatureError, match=r"^value 'a' is named twice$"):
        require_known("value", ["a", "a"], ["a", "b", "c"])


def test_long_lists_are_cut() -> None:
    assert listed([]) == "none"
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(11)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"
