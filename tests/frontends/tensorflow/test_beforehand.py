"""What TensorFlow's files are refused for before it is there, and what is let through to it."""

from __future__ import annotations

import pytest

from bnfold.errors import CorruptModelError, UnsupportedOpError
from bnfold.frontends.tensorflow.beforehand import demand_bounded, demand_harmless_ends
from bnfold.frontends.tensorflow.messages import parsed
from tests.service.attacks.files import FLOAT, _field, _function, _graph, _node, _type


def constants(count: int, size: int) -> bytes:
    value = _field(8, _field(1, FLOAT) + _field(2, _field(2, _field(1, size))) + _field(5, b"\0\0\0\0"))
    return _graph(*(_node(f"zeros_{number}", "Const", dtype=_type(FLOAT), value=value) for number in range(count)))


def test_what_the_variables_of_a_large_old_program_begin_with_is_no_harm() -> None:
    # A thousand million weights, and two averages of each.
    demand_bounded(parsed(constants(30, 100_000_000), "Graph"), 4000)


def test_constants_that_no_memory_holds_are_refused() -> None:
    with pytest.raises(CorruptModelError) as raised:
        demand_bounded(parsed(constants(100, 1 << 28), "Graph"), 9000)
    assert str(raised.value) == (
        "the graph's constants say that they hold 26843545600 elements, in a file of 9000 bytes"
    )


def test_functions_that_call_themselves_are_left_to_who_spells_them_out() -> None:
    body = _function("f", _node("r", "f", "a"))
    demand_bounded(parsed(_graph(_node("y", "f", "x"), functions=(body,)), "Graph"), 100)


def reading(*more: bytes) -> bytes:
    x = _node("x", "Placeholder", dtype=_type(FLOAT))
    file = _node("file", "ReadFile", "x")
    return _graph(
        x, file, _node("y", "Identity", "file", T=_type(FLOAT)), _node("z", "Relu", "x", T=_type(FLOAT)), *more
    )


def test_only_what_the_outputs_need_counts() -> None:
    graph = parsed(reading(), "Graph")
    demand_harmless_ends(graph, ["z:0"], [], "a frozen graph")
    demand_harmless_ends(graph, ["y:0"], ["file:0"], "a frozen graph")  # it is fed, and not read
    with pytest.raises(UnsupportedOpError, match=r"ReadFile at file$"):
        demand_harmless_ends(graph, ["y:0"], [], "a frozen graph")


def test_a_program_that_writes_what_it_predicts_is_not_taken_for_one_that_predicts_by_writing() -> None:
    weight = _node("w", "Placeholder", dtype=_type(FLOAT))
    y = _node("y", "MatMul", "x", "w", T=_type(FLOAT))
    write = _node("write", "WriteFile", "y", "y")
    graph = _graph(_node("x", "Placeholder", dtype=_type(FLOAT)), weight, y, write)
    demand_harmless_ends(parsed(graph, "Graph"), [], [], "a frozen graph")


def test_what_cannot_be_told_is_let_through() -> None:
    demand_harmless_ends(parsed(reading(), "Graph"), ["nowhere:0"], [], "a frozen graph")
    lost = _node("lost", "Relu", "nothing", T=_type(FLOAT))
    demand_harmless_ends(parsed(reading(lost), "Graph"), ["y:0"], [], "a frozen graph")
