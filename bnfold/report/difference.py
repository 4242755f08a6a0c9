"""How two ONNX files differ, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BatchNormChange",
    "Change",
    "Difference",
    "FileChange",
    "NodeChange",
    "OpCount",
    "WeightChange",
]

Change = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class OpCount:
    """How many nodes there are of one operation, bodies of control flow and functions included."""

    op_type: str
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node that only one file has, or that both have and that is not the same.

    Attributes:
        name: Its name, or that of its first output where it has none.
        scope: The nodes around it, outermost first, or the function that it stands in; empty in the main graph.
        change: ``"added"``, ``"removed"`` or ``"changed"``.
        op_type: Its operation; where that has changed, the one in A.
        what: What has changed: ``"inputs"``, ``"outputs"``, ``"operation Conv → Gemm"``, ``"attribute pads"``.
    """

    name: str
    scope: str
    change: Change
    op_type: str
    what: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightChange:
    """A constant that only one file has, or whose values, shape or type are not the same.

    Attributes:
        name: Its name in A, or in B where A has none.
        renamed: Its name in B, where that is another: the same node reads it in the same place.
        scope: Where it stands, like that of a node.
        change: ``"added"``, ``"removed"`` or ``"changed"``.
        dtype_a: Its type in A; empty where A has none.
        dtype_b: Its type in B; empty where B has none.
        shape_a: Its shape in A.
        shape_b: Its shape in B.
        elements: How many elements were compared; 0 where the shapes differ.
        changed: How many of them differ.
        ulps: By how many units in the last place they differ at most, in the narrower of two types; NaN where that
            means nothing, infinite where one of two is not finite.
        largest: The largest difference.
    """

    name: str
    renamed: str
    scope: str
    change: Change
    dtype_a: str
    dtype_b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    elements: int
    changed: int
    ulps: float
    largest: float


@dataclass(frozen=True, slots=True)
class BatchNormChange:
    """What became of one batch norm.

    Attributes:
        name: Its name, or that of its first output.
        scope: Where it stands.
        change: ``"removed"``, ``"added"``, or ``"changed"``: it is in both, and it or one of its weights is not the
            same.
        becomes: The operation that has its name in B, where it is no batch norm any more.
    """

    name: str
    scope: str
    change: Change
    becomes: str = ""


@dataclass(frozen=True, slots=True)
class FileChange:
    """Anything else that differs: an input, an output, an operator set, an entry of the metadata.

    Attributes:
        kind: ``"input"``, ``"output"``, ``"opset"``, ``"metadata"``, ``"function"`` or ``"file"``.
        name: Which one.
        a: What A says; empty where it says nothing.
        b: What B says.
    """

    kind: str
    name: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything in which two ONNX files differ. The order of nodes and of constants is not looked at.

    Attributes:
        a: The path of the first file.
        b: The path of the second.
        equal: Whether both hold the same model: nothing differs but what says who wrote the file, and how.
        ops: Operations of which there are not as many.
        nodes: Nodes that differ.
        weights: Constants that differ: initializers, and those in Constant nodes.
        batch_norms: Batch norms that are gone, new or changed.
        batch_norms_kept: How many are the same in both.
        others: Inputs, outputs, operator sets, metadata.
        nodes_a: How many nodes A has.
        nodes_b: How many nodes B has.
        weights_equal: How many constants are the same in both.
        schema: The name of this form.
    """

    a: str
    b: str
    equal: bool
    ops: tuple[OpCount, ...]
    nodes: tuple[NodeChange, ...]
    weights: tuple[WeightChange, ...]
    batch_norms: tuple[BatchNormChange, ...]
    batch_norms_kept: int
    others: tuple[FileChange, ...]
    nodes_a: int
    nodes_b: int
    weights_equal: int
    schema: Literal["bnfold-difference/1"] = "bnfold-difference/1"
