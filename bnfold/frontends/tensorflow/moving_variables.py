"""Where a batch statistic's moving average is: by the operations that update it, or by the names that programs give.

The update is the better witness: what a statistic is subtracted from, multiplied and assigned to is its average, in
whatever scope and under whatever name. Names are asked only where the update is no part of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.frontends.tensorflow.moments import COPIES, is_data_input
from bnfold.frontends.tensorflow.net import Net, Ref, Value, control_inputs, data_inputs, is_variable
from bnfold.frontends.tensorflow.stored import Stored

__all__ = ["Found", "Search"]

_ARITHMETIC = frozenset({"Mul", "Sub", "Add", "AddV2", "AddN", "Neg", "RealDiv", "Div", "Cast", "Pack", "Mean"})
_FLOW = frozenset({"Switch", "RefSwitch", "Merge", "RefMerge", "RefIdentity", "IdentityN", "Enter", "Exit", *COPIES})
_ASSIGNS = frozenset(
    {
        "Assign",
        "AssignSub",
        "AssignAdd",
        "AssignVariableOp",
        "AssignSubVariableOp",
        "AssignAddVariableOp",
    }
)
_MEANS = (
    "moving_mean",
    "pop_mean",
    "population_mean",
    "running_mean",
    "mean_ema",
    "ema_mean",
    "avg_mean",
    "mean",
    "mu",
)
_VARIANCES = (
    "moving_variance",
    "moving_var",
    "pop_var",
    "pop_variance",
    "population_variance",
    "population_var",
    "running_var",
    "running_variance",
    "variance_ema",
    "var_ema",
    "ema_var",
    "avg_var",
    "variance",
    "var",
    "sigma",
)
_DEBIAS = re.compile(r"/(?:biased|local_step)(?:_\d+)?$")
_AVERAGE = "ExponentialMovingAverage"


@dataclass(frozen=True, slots=True)
class Found:
    """A moving average.

    Attributes:
        name: What it is stored under.
        value: Its value.
        how: How it was found, in words.
    """

    name: str
    value: Value
    how: str


class Search:
    """Looks for moving averages in a whole program and what is stored with it.

    Args:
        program: The whole graph, updates included, all branches spelled out.
        stored: The values that the artifact holds.
    """

    def __init__(self, program: Net, stored: Stored) -> None:
        self._program = program
        self._stored = stored
        self._readers = program.consumers()
        self._waiting: dict[str, list[str]] = {}
        for node in program.nodes.values():
            for source in control_inputs(node):
                self._waiting.setdefault(source, []).append(node.name)
        self._on_input = self._reached(name for name, node in program.nodes.items() if is_data_input(node))

    def find(self, statistics: Iterable[Ref], scopes: Iterable[str], *, variance: bool, channels: int) -> Found | str:
        """Return the moving average of a batch statistic, or why there is none.

        Args:
            statistics: The tensors that hold the statistic.
            scopes: Names of nodes and variables of the same batch norm, nearest first.
            variance: Whether it is a variance; otherwise it is a mean.
            channels: How many elements it has.
        """
        family = self._family(statistics)
        updated = self._updated(family)
        names = [name for variable in updated if (name := self._stored.name_of(variable)) is not None]
        names = self._without_debias([name for name in dict.fromkeys(names) if self._fits(name, channels)])
        how = "its update operation names it"
        if not names:
            names = self._averages(family, channels)
            how = f"its name in {self._stored.place}"
        if not names:
            names = self._by_scope(scopes, _VARIANCES if variance else _MEANS, channels)
        if not names:
            return f"{self._stored.place} holds no moving {'variance' if variance else 'mean'} for it"
        values = [np.asarray(self._stored.read(name)) for name in names]
        if any(not np.array_equal(value, values[0]) for value in values[1:]):
            return f"{len(names)} variables could be its moving average: {', '.join(sorted(names))}"
        return self._checked(names[0], values[0], how, variance=variance)

    def _checked(self, name: str, value: Value, how: str, *, variance: bool) -> Found | str:
        counts = re.compile(rf"(^|/){re.escape(name)}/local_step(_\d+)?$")
        count = next((other for other in self._stored.shapes if counts.search(other)), None)
        if count is not None and not np.any(self._stored.read(count)):
            return f"{name} was never updated: its count of updates is 0"
        if not np.all(np.isfinite(value)):
            return f"{name} holds values that are not finite"
        if variance and np.any(value < 0):
            return f"{name} holds a negative variance, {float(np.min(value)):.6g}"
        if variance and not np.any(value):
            return f"{name} was never updated: all its values are 0"
        return Found(name, value, how)

    def _fits(self, name: str, channels: int) -> bool:
        shape = self._stored.shapes[name]
        return int(np.prod(shape)) == channels and max(shape, default=1) == channels

    def _family(self, statistics: Iterable[Ref]) -> list[Ref]:
        """Return the tensors that hold the same numbers: what is squeezed, reshaped and copied from the statistic."""
        found = list(dict.fromkeys(statistics))
        for name, port in found:
            for reader, position in self._readers.get(name, ()):
                node = self._program.nodes[reader]
                if position == 0 and node.op in COPIES and data_inputs(node)[0] == (name, port):
                    found.extend([(reader, 0)] if (reader, 0) not in found else [])
        return found

    def _reached(self, names: Iterable[str]) -> set[str]:
        """Return what depends on the network's input: gradients are, an average's own arithmetic is not."""
        found = set(names)
        stack = list(found)
        while stack:
            for reader, position in self._readers.get(stack.pop(), ()):
                node = self._program.nodes[reader]
                if reader in found or node.op in ("Shape", "ShapeN", "Size", "Rank") or is_variable(node):
                    continue
                if node.op in ("Switch", "RefSwitch") and position == 1:
                    continue
                found.add(reader)
                stack.append(reader)
        return found

    def _updated(self, family: Sequence[Ref]) -> list[str]:
        """Return the variables that are assigned what is computed from a statistic and no other activation."""
        found: dict[str, None] = {}
        own = {name for name, _ in family}
        stack = list(family)
        seen = set(stack)
        reached = set(own)
        while stack:
            name, port = stack.pop()
            for reader, position in self._readers.get(name, ()):
                node = self._program.nodes[reader]
                inputs = data_inputs(node)
                if inputs[position] != (name, port):
                    continue
                if node.op in _ASSIGNS:
                    if position == 1 and (variable := self._variable(inputs[0])) is not None:
                        found[variable] = None
                elif node.op not in _FLOW and not (node.op in _ARITHMETIC and self._alone(inputs, position, reached)):
                    continue
                nexts: list[Ref] = [(reader, 0)]
                if node.op in _ASSIGNS:
                    nexts += [
                        (waiting, 0)
                        for waiting in self._waiting.get(reader, ())
                        if self._program.nodes[waiting].op == "ReadVariableOp"
                        and self._variable(data_inputs(self._program.nodes[waiting])[0]) in found
                    ]
                for new in nexts:
                    reached.add(new[0])
                    if new not in seen:
                        seen.add(new)
                        stack.append(new)
        return list(found)

    def _alone(self, inputs: Sequence[Ref], position: int, reached: set[str]) -> bool:
        return all(
            at == position or name in reached or name not in self._on_input for at, (name, _) in enumerate(inputs)
        )

    def _variable(self, ref: Ref) -> str | None:
        """Return the variable behind a reference or a resource; in a frozen graph, the constant that it became."""
        node = self._program.nodes[ref[0]]
        while node.op in _FLOW and data_inputs(node):
            node = self._program.nodes[data_inputs(node)[0][0]]
        return node.name if is_variable(node) or node.op == "Const" else None

    def _without_debias(self, names: list[str]) -> list[str]:
        """Drop the two variables with which TensorFlow corrects an average that began at 0.

        The average itself, under the name in front of theirs, is the corrected one.
        """
        plain = [name for name in names if not _DEBIAS.search(name)]
        if plain:
            return plain
        # Their scope comes once more in front of the average's own name.
        parents = {_DEBIAS.sub("", name) for name in names}
        found = [name for name in self._stored.shapes if any(f"/{parent}".endswith(f"/{name}") for parent in parents)]
        return found or names

    def _averages(self, family: Iterable[Ref], channels: int) -> list[str]:
        """Return what is stored under a statistic's name with ``/ExponentialMovingAverage`` behind it."""
        suffixes = {f"{name}/{_AVERAGE}" for name, _ in family}
        return [
            name
            for name in self._stored.shapes
            if self._fits(name, channels) and any(name == end or name.endswith(f"/{end}") for end in suffixes)
        ]

    def _by_scope(self, scopes: Iterable[str], leaves: Sequence[str], channels: int) -> list[str]:
        """Return what is stored in the nearest scope under one of the usual names."""
        for scope in _nearest_first(scopes):
            for leaf in leaves:
                for ending in (leaf, f"{leaf}/{_AVERAGE}"):
                    name = f"{scope}/{ending}" if scope else ending
                    if name in self._stored.shapes and self._fits(name, channels):
                        return [name]
        return []


def _nearest_first(names: Iterable[str]) -> list[str]:
    """Return the scopes around names, the innermost first; a scope that was entered again (``bn_1``) also as ``bn``."""
    found: dict[str, int] = {}
    for name in names:
        parts = name.split("/")[:-1]
        for depth in range(len(parts), 0, -1):
            scope = parts[:depth]
            found.setdefault("/".join(scope), -depth)
            found.setdefault("/".join(re.sub(r"_\d+$", "", part) for part in scope), -depth)
    return sorted(found, key=lambda scope: found[scope])
