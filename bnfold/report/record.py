"""The account of one run as plain data: what came in, what was done to it, and how well the result is proven."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import Literal

from bnfold.frontends.loaded import ModeChange, TensorSpec
from bnfold.parity.layerwise import Layerwise
from bnfold.parity.verdict import Parity

__all__ = [
    "SCHEMA",
    "Absorbed",
    "Affine",
    "BatchNorm",
    "Command",
    "Inlined",
    "Kept",
    "Measure",
    "Neighbour",
    "Outcome",
    "OwnAnswer",
    "Paired",
    "Report",
    "RolledBack",
    "Signature",
    "Source",
    "Surroundings",
    "Timing",
    "Verdict",
    "plain",
]

SCHEMA = "bnfold-report/1"

Command = Literal["convert", "fold", "inspect", "verify"]
Outcome = Literal["folded", "kept", "rolled-back"]
Verdict = Literal["pass", "pass-more-accurate", "rolled-back", "inconclusive", "fail", "not-verified"]


@dataclass(frozen=True, slots=True)
class Source:
    """The artifact that a run read.

    Attributes:
        path: As the caller gave it.
        format: What the file is, by its content.
        framework: The framework and version it was written with, as far as the file tells.
        description: A short line for people, for example ``"TF1 frozen graph"``.
        sha256: Of the file; of a folder or a checkpoint, over the names and contents of its files.
        bytes: How large it is on disk.
    """

    path: str
    format: str
    framework: str
    description: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Signature:
    """What the model is fed and what it answers."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A layer that took in an affine map.

    Attributes:
        node: The layer's name.
        op_type: What it is, for example ``"Conv"``.
        rule: The rule that did it.
        side: ``"output"`` where the layer stood before the map, ``"input"`` where it stood after.
    """

    node: str
    op_type: str
    rule: str
    side: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Why something was left in place.

    Attributes:
        reason: The stable name of the reason, which ``bnfold explain`` takes.
        says: What the reason means.
        detail: This case, with names and numbers. May be empty.
        remedy: What the model's owner could change.
    """

    reason: str
    says: str
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A node, an input or an output near a batch norm.

    Attributes:
        name: Its name.
        op_type: Its operation; ``"input"`` and ``"output"`` of the graph itself.
        step: How many edges behind the batch norm it stands; in front of it the number is negative.
    """

    name: str
    op_type: str
    step: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The graph around one batch norm, two steps to either side.

    Attributes:
        nodes: The nearest nodes, the batch norm itself first.
        edges: Pairs of places in ``nodes``: a value goes from the first to the second.
        more: Neighbours that were left out because there are many.
    """

    nodes: tuple[Neighbour, ...]
    edges: tuple[tuple[int, int], ...]
    more: int


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """One batch norm, and what became of it.

    Attributes:
        name: The node's name.
        output: The value it computes.
        channels: How many channels it normalises; None where the model does not say.
        outcome: ``"folded"``, ``"kept"``, or ``"rolled-back"``: folded, found wanting and put back.
        form: How it was folded, where something other than weights changed: ``"scale-only"`` (it is an Add now, its
            scale is in the layers), ``"max-form"`` (an activation became Max or Min with constants), ``"bias-map"`` (a
            layer's bias became one a position), ``"branches"`` (parallel layers became one); empty otherwise.
        into: The layers that took it in; empty unless folded.
        kept: Why it stays; None where it was folded.
        also: What the layers on its other side said, where that differs.
        around: The graph around it, where it stays and somebody asked for it.
    """

    name: str
    output: str
    channels: int | None
    outcome: Outcome
    form: str = ""
    into: tuple[Absorbed, ...] = ()
    kept: Kept | None = None
    also: tuple[Kept, ...] = ()
    around: Surroundings | None = None


@dataclass(frozen=True, slots=True)
class Affine:
    """A constant Mul, Add, Sub, Div or Neg, or a layer, that went into another layer; those that stay are no news."""

    name: str
    op_type: str
    output: str
    into: tuple[Absorbed, ...]


@dataclass(frozen=True, slots=True)
class Inlined:
    """A function of the model itself whose calls were replaced by its nodes, so that batch norms can be folded.

    Attributes:
        name: Its domain and name.
        calls: How many calls of it there were, those in other functions included.
        holds_batch_norm: Whether a batch norm stands in it, or in a function that it calls; otherwise it has a layer
            that takes one in.
    """

    name: str
    calls: int
    holds_batch_norm: bool


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A piece of the graph whose folding failed its own check, and was put back.

    Attributes:
        sources: Names of the batch norms and constant affines that were folded in it.
        eta: Its backward error, in the units of gate A.
        limit: The largest that rounding explains.
        detail: What was wrong, in one line.
    """

    sources: tuple[str, ...]
    eta: float
    limit: float
    detail: str


@dataclass(frozen=True, slots=True)
class Measure:
    """What a model consists of.

    Attributes:
        opset: The version of ONNX's operator set.
        bytes: Its size as one ONNX file; of more than 64 MiB of weights, the size of these.
        parameters: Elements of its floating initializers.
        nodes: Nodes, those inside control flow and functions included.
        inputs: Inputs that a caller feeds.
        ops: How many nodes there are of each operation.
    """

    opset: int
    bytes: int
    parameters: int
    nodes: int
    inputs: int
    ops: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one step took, in seconds."""

    step: str
    seconds: float


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """Whether the artifact answers the same by itself, run by its own framework without being put in inference mode.

    Attributes:
        agrees: None where that cannot be told.
        error: The largest difference of an output, as a share of its largest value; None where nothing was compared.
        why: Why not, or why it cannot be told; empty where it agrees.
    """

    agrees: bool | None
    error: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Paired:
    """An input or an output that two models call differently, and that was taken for the same.

    Attributes:
        kind: ``"input"`` or ``"output"``.
        name: Its name in the first model.
        other: Its name in the second.
    """

    kind: str
    name: str
    other: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a run found out and did.

    Attributes:
        command: What was asked for.
        source: The artifact.
        signature: Its inputs and outputs.
        mode: What was done to put it in inference mode, with the proof.
        batch_norms: Every batch norm exactly once, in the order of the graph.
        affines: Constant affines that were folded.
        inlined: Functions of the model itself that were replaced by their nodes.
        before: The unfolded model in inference mode.
        after: The folded model, or the one that was compared; None where there is none.
        verdict: ``"pass"``, ``"pass-more-accurate"``, ``"rolled-back"`` (what failed was taken back, and the rest
            passes), ``"inconclusive"``, ``"fail"``, or ``"not-verified"`` where nobody asked for it.
        reason: What speaks against the result, in one sentence with numbers; empty where nothing does.
        rolled_back: What was folded, found wanting, and put back.
        parity: The proof; None where none was asked for.
        other: What the source was compared with; only of ``verify``.
        timings: The steps in order.
        versions: Of bnfold, Python and the libraries that took part.
        seed: What the probes were drawn with.
        paired: Inputs and outputs that the two models call differently; only of ``verify``.
        reproduction: The folder with the smallest piece that shows what failed; empty where there is none.
        layers: The error of every value inside; None where nobody asked for it, or nothing was run.
        own: Whether the artifact agrees by itself; None where nothing was verified.
        schema: The name of this form.
    """

    command: Command
    source: Source
    signature: Signature
    mode: tuple[ModeChange, ...]
    batch_norms: tuple[BatchNorm, ...]
    affines: tuple[Affine, ...]
    inlined: tuple[Inlined, ...]
    before: Measure
    after: Measure | None
    verdict: Verdict
    reason: str
    rolled_back: tuple[RolledBack, ...]
    parity: Parity | None
    other: Source | None
    timings: tuple[Timing, ...]
    versions: Mapping[str, str]
    seed: int
    paired: tuple[Paired, ...] = ()
    reproduction: str = ""
    layers: Layerwise | None = None
    own: OwnAnswer | None = None
    schema: Literal["bnfold-report/1"] = "bnfold-report/1"

    @property
    def folded(self) -> tuple[BatchNorm, ...]:
        """The batch norms that are gone."""
        return tuple(batch_norm for batch_norm in self.batch_norms if batch_norm.outcome == "folded")

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the result."""
        return self.verdict not in {"fail", "inconclusive"}

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the report as JSON text that follows ``docs/report.schema.json``.

        Args:
            indent: Spaces per level; None writes it on one line.
        """
        return json.dumps(plain(self), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """Return the report as one HTML page that needs nothing beside it: no script, no other file, no network."""
        from bnfold.report.render_html import render_page

        return render_page(self)


def plain(thing: object) -> object:
    """Return dataclasses, mappings, tuples, enums and paths as what JSON has; a number that is not finite is null."""
    match thing:
        case Enum():
            return plain(thing.value)
        case None | bool() | int():
            return thing
        case str():
            return thing.encode("utf-8", "backslashreplace").decode("utf-8")
        case float():
            return thing if math.isfinite(thing) else None
        case PurePath():
            return plain(str(thing))
        case Mapping():
            return {str(plain(key)): plain(value) for key, value in thing.items()}
        case tuple() | list() | frozenset() | set():
            return [plain(item) for item in (sorted(thing) if isinstance(thing, frozenset | set) else thing)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        # The schema's name comes first: it says how to read the rest.
        names = sorted((field.name for field in dataclasses.fields(thing)), key=lambda name: name != "schema")
        return {name: plain(getattr(thing, name)) for name in names}
    raise TypeError(f"a report cannot hold {type(thing).__name__}")
