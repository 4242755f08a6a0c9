"""Weights whose moving average training kept beside them: which are stored, and which a conversion takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from bnfold.errors import SignatureError
from bnfold.frontends.loaded import ModeChange
from bnfold.frontends.tensorflow.net import Net, Ref, data_inputs, is_variable
from bnfold.frontends.tensorflow.stored import Stored

__all__ = ["Choice", "account", "averages", "chosen"]

Choice = Literal["auto", "yes", "no"]

_AVERAGE = "/ExponentialMovingAverage"
_READS = frozenset({"Identity", "ReadVariableOp", "Cast", "Switch", "RefSwitch", "RefIdentity", "Enter", "RefEnter"})
_LONGEST_LIST = 4


def averages(program: Net, stored: Stored) -> dict[str, str]:
    """Return the names under which averages of variables are stored, by the variables' names.

    The update is the better witness: ``average -= (average - variable) * (1 - decay)`` says it whatever the name is.
    Otherwise ``ExponentialMovingAverage`` names an average after its variable.
    """
    found: dict[str, str] = {}
    for node in program.nodes.values():
        if node.op not in ("AssignSub", "AssignSubVariableOp"):
            continue
        average, value = (_behind(program, ref) for ref in data_inputs(node)[:2])
        source = _averaged(program, average, value)
        name = stored.name_of(average.name) if is_variable(average) else None
        if source is not None and name is not None and stored.shapes[name] == _shape(stored, source):
            found[source] = name
    for node in program.nodes.values():
        if is_variable(node) and node.name not in found:
            own = stored.name_of(node.name)
            for name in (f"{own or node.name}{_AVERAGE}", f"{node.name}{_AVERAGE}"):
                if name in stored.shapes and (own is None or stored.shapes[own] == stored.shapes[name]):
                    found[node.name] = name
    return found


def _averaged(program: Net, average: Any, value: Any) -> str | None:
    """Return the variable that an update draws an average towards; None where it does something else."""
    if value.op != "Mul":
        return None
    for ref in data_inputs(value):
        difference = _behind(program, ref)
        if difference.op == "Sub":
            minuend, subtrahend = (_behind(program, other) for other in data_inputs(difference))
            if minuend is average and is_variable(subtrahend):
                return str(subtrahend.name)
    return None


def _behind(program: Net, ref: Ref) -> Any:
    node = program.nodes[ref[0]]
    while node.op in _READS and data_inputs(node):
        node = program.nodes[data_inputs(node)[0][0]]
    return node


def _shape(stored: Stored, variable: str) -> tuple[int, ...] | None:
    name = stored.name_of(variable)
    return None if name is None else stored.shapes[name]


def chosen(stored: Stored, found: Mapping[str, str], choice: Choice) -> Stored:
    """Return stored values where variables have their averages, or their own values, as the user chose."""
    if choice == "yes":
        return replace(stored, names={**stored.names, **found})
    if choice == "no":
        plain = {
            variable: name.removesuffix(_AVERAGE)
            for variable, name in stored.names.items()
            if name.endswith(_AVERAGE) and name.removesuffix(_AVERAGE) in stored.shapes
        }
        return replace(stored, names={**stored.names, **plain})
    return stored


def account(variables: Collection[str], stored: Stored, found: Mapping[str, str], choice: Choice) -> list[ModeChange]:
    """Say which values were taken, where averages of the variables that are needed exist.

    Args:
        variables: Names of the variables that the outputs need.
        stored: The values as they were chosen.
        found: Where averages are, by variable.
        choice: What the user said.

    Raises:
        SignatureError: If averages were asked for, and there is none; or own values, and only averages are stored.
    """
    taken = [name for name in variables if (key := stored.name_of(name)) is not None and _is_average(name, key, found)]
    offered = [name for name in variables if name in found]
    if choice == "yes" and not taken:
        raise SignatureError(
            f"{stored.place} holds no moving average of the {len(variables)} variables that the outputs need",
            hint="Leave --ema out, or give the checkpoint of a program that averaged its weights.",
        )
    if choice == "no" and taken:
        raise SignatureError(
            f"{stored.place} holds only the moving averages of {len(taken)} variables: {_listed(taken)}",
            hint="Leave --ema out, or give the checkpoint of training.",
        )
    if not taken and not offered:
        return []
    if not taken:
        why = "asked for with --ema no" if choice == "no" else "the program itself reads the plain ones"
        more = "" if choice == "no" else "; --ema yes takes the averages"
        before = f"with an average in {stored.place}"
        return [ModeChange("averaged-weights", f"{len(offered)} variables", before, "plain values", f"{why}{more}")]
    rest = [name for name in variables if name not in taken]
    why = "asked for with --ema yes" if choice == "yes" else "the program itself restores the averages"
    without = f"; {len(rest)} without an average keep their values: {_listed(rest)}" if rest else ""
    return [ModeChange("averaged-weights", f"{len(taken)} variables", "plain values", "averages", f"{why}{without}")]


def _is_average(variable: str, key: str, found: Mapping[str, str]) -> bool:
    return found.get(variable) == key or (key.endswith(_AVERAGE) and not variable.endswith(_AVERAGE))


def _listed(names: list[str]) -> str:
    more = len(names) - _LONGEST_LIST
    return ", ".join(sorted(names)[:_LONGEST_LIST]) + (f" and {more} more" if more > 0 else "")
