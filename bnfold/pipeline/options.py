"""What a caller may choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnfold.frontends.loaded import Request

if TYPE_CHECKING:
    from bnfold.graph.outside import Outside

__all__ = ["DEFAULTS", "LARGE", "Options", "Progress"]

Progress = Callable[[str, float | None], None]
"""Told the step that runs, and how much of it is done (0 to 1) where that is known."""

LARGE = 100_000_000
"""Parameters above which a model is verified with fewer probes, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert and what to prove. The defaults are right for most artifacts.

    Attributes:
        inputs: Names of the tensors to feed; empty means: find out.
        outputs: Names of the tensors to compute; empty means: find out.
        set_values: Mode inputs to pin, by name, as text (``"False"``, ``"1.0"``).
        signature: Name of the SavedModel's signature; None means the default one.
        architecture: A Keras architecture as JSON, for files that hold only weights.
        builder: ``file.py:function`` that builds the Keras model, for files that hold only weights. Runs code.
        custom: A Python file that defines the Keras layers and functions that are not Keras's own. Runs code.
        opset: ONNX opset to convert to; None means the frontend's default. ONNX files keep their own.
        trust: Whether code inside the artifact (Lambda layers) may run.
        ema: Whether weights are the moving averages that training kept of them: ``"yes"``, ``"no"``, or ``"auto"``,
            which takes what the program itself restores.
        fold: ``"all"`` that folds without making the model slower, ``"fewest"`` to leave as few batch norms as can be
            even where onnxruntime takes longer then, or ``"none"`` to convert without folding.
        keep: Names of batch norms, or glob patterns of them, to leave as they are.
        freeze_initializers: Whether initializers that are also inputs of the graph, which a caller may override, are
            taken as constants and dropped from the inputs.
        verify: ``"full"``, ``"fast"`` (two probes) or ``"off"``; None means by size: full
            up to 100 million parameters, fast above.
        data: Inputs to verify with: an ``.npz`` file or a folder of ``.npy`` files, by input name; a folder of ``.npz``
            files, one set of inputs each; or ``file.py:function``, which returns or yields them. Runs code.
        batch: Sizes of the batch to verify with, where it is free; empty means the usual ones.
        metric: ``file.py:function`` of outputs and inputs that measures how good they are. Runs code.
        repro: The folder that gets the smallest piece that shows what failed; None writes none.
        seed: What the probes are drawn with.
        layerwise: Whether the report also says how far every value in the model is from float64, and what stands around
            every batch norm that stays. Takes a few more runs of the models.
        outside: An open ``bnfold.graph.outside.Outside``: large weights that an ONNX file keeps beside it then stay out
            of memory until the result is saved, which has to happen before it is closed. Only with ``verify="off"``.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    set_values: Mapping[str, str] = field(default_factory=dict)
    signature: str | None = None
    architecture: Path | None = None
    builder: str | None = None
    custom: Path | None = None
    opset: int | None = None
    trust: bool = False
    ema: Literal["auto", "yes", "no"] = "auto"
    fold: Literal["all", "fewest", "none"] = "all"
    keep: tuple[str, ...] = ()
    freeze_initializers: bool = False
    verify: Literal["full", "fast", "off"] | None = None
    data: Path | None = None
    batch: tuple[int, ...] = ()
    metric: str | None = None
    repro: Path | None = None
    seed: int = 0
    layerwise: bool = False
    outside: Outside | None = None

    @property
    def request(self) -> Request:
        """The part that a frontend needs to know."""
        return Request(
            inputs=self.inputs,
            outputs=self.outputs,
            set_values=self.set_values,
            signature=self.signature,
            architecture=self.architecture,
            builder=self.builder,
            custom=self.custom,
            opset=self.opset,
            trust=self.trust,
            ema=self.ema,
            outside=self.outside if self.verify == "off" else None,
        )


DEFAULTS = Options()
"""What is done when the caller says nothing."""
