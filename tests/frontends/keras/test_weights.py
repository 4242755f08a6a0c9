"""Weights find their variables by name and shape, and nothing is guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bnfold.errors import CorruptModelError, SourceError
from bnfold.frontends.keras.weights import Slot, Stored, match_layers, match_names

Array = npt.NDArray[Any]


def value(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def norm(scope: str, size: int = 4) -> list[Slot]:
    return [Slot(f"{scope}/{name}", (size,)) for name in ("gamma", "beta", "moving_mean", "moving_variance")]


def stored(*slots: Slot) -> dict[str, Array]:
    return {slot.name: np.full(slot.shape, index, np.float32) for index, slot in enumerate(slots)}


def test_order_does_not_matter_where_names_do() -> None:
    slots = [*norm("a"), *norm("b")]
    shuffled = stored(*slots[4:], *slots[:4])
    found = match_names(shuffled, slots, "inner", CorruptModelError, "m.h5")
    assert list(found) == [slot.name for slot in slots]
    assert all(found[name] is shuffled[name] for name in found)


def test_scopes_that_were_counted_on_are_paired_by_their_last_parts() -> None:
    file = {"net_3/conv_1_1/kernel": value(3, 2), "net_3/conv_1_1/bias": value(2)}
    slots = [Slot("conv_1/kernel", (3, 2)), Slot("conv_1/bias", (2,))]
    found = match_names(file, slots, "conv_1", CorruptModelError, "m.h5")
    assert found["conv_1/kernel"] is file["net_3/conv_1_1/kernel"]


def test_numbers_of_inner_layers_are_paired_by_rank() -> None:
    file = stored(*norm("bn_7"), *norm("bn_12"))
    found = match_names(file, [*norm("bn"), *norm("bn_1")], "inner", CorruptModelError, "m.h5")
    assert found["bn/gamma"] is file["bn_7/gamma"]
    assert found["bn_1/moving_variance"] is file["bn_12/moving_variance"]


def test_names_that_could_be_two_things_are_refused() -> None:
    file = {"x/w": value(2), "y/w": value(2)}
    with pytest.raises(SourceError) as refused:
        match_names(file, [Slot("p/w", (2,)), Slot("q/w", (2,))], "pair", SourceError, "m.h5")
    assert str(refused.value) == (
        "m.h5: the weights of layer 'pair' cannot be told apart by name: stored x/w, y/w; expected p/w, q/w"
    )


def test_another_shape_is_refused_with_both() -> None:
    with pytest.raises(CorruptModelError) as refused:
        match_names({"d/kernel": value(3, 4)}, [Slot("d/kernel", (3, 5))], "d", CorruptModelError, "m.h5")
    assert str(refused.value) == "m.h5: weight d/kernel of layer 'd' has shape [3, 4], and the model expects [3, 5]"
    assert refused.value.hint == (
        "Give the architecture that these weights were saved from: --architecture model.json or "
        "--builder file.py:function"
    )


def test_a_missing_weight_is_refused() -> None:
    with pytest.raises(CorruptModelError, match="cannot be told apart"):
        match_names(stored(*norm("bn")[1:]), norm("bn"), "bn", CorruptModelError, "m.h5")


def dense(name: str, *shape: int) -> list[Slot]:
    return [Slot(f"{name}/kernel", shape), Slot(f"{name}/bias", shape[-1:])]


def test_layers_counted_on_in_their_process_are_paired_in_order() -> None:
    file: Stored = {"dense_4": stored(*dense("dense_4", 3, 5)), "dense_5": stored(*dense("dense_5", 5, 5))}
    model = {"dense": dense("dense", 3, 5), "dense_1": dense("dense_1", 5, 5)}
    found = match_layers(file, model, SourceError, "w.h5")
    assert found["dense_1"]["dense_1/kernel"] is file["dense_5"]["dense_5/kernel"]


@pytest.mark.parametrize(
    ("file", "model", "says"),
    [
        pytest.param(
            {"dense_4": stored(*dense("dense_4", 5, 5)), "dense_5": stored(*dense("dense_5", 5, 5))},
            {"dense_1": dense("dense_1", 5, 5), "dense": dense("dense", 5, 5)},
            "no weights for dense, dense_1; weights of dense_4, dense_5, which the model does not have",
            id="another-order",
        ),
        pytest.param(
            {"dense_4": stored(*dense("dense_4", 5, 4))},
            {"dense": dense("dense", 5, 5)},
            "no weights for dense; weights of dense_4, which the model does not have",
            id="another-shape",
        ),
        pytest.param(
            {"a": stored(*dense("a", 5, 5)), "b": stored(*dense("b", 5, 5))},
            {"a": dense("a", 5, 5)},
            "weights of b, which the model does not have",
            id="left-over",
        ),
        pytest.param({}, {"a": dense("a", 5, 5)}, "no weights for a", id="nothing"),
    ],
)
def test_layers_that_do_not_pair_up_are_refused(file: Stored, model: dict[str, list[Slot]], says: str) -> None:
    with pytest.raises(SourceError) as refused:
        match_layers(file, model, SourceError, "w.h5")
    assert str(refused.value) == f"w.h5 does not fit the model: {says}"
