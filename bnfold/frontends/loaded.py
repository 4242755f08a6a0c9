"""What every frontend returns: an ONNX model in inference mode, and the original program to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

    from bnfold.graph.outside import Outside

__all__ = ["Array", "LayerReader", "LayerValue", "Loaded", "ModeChange", "Request", "Runner", "TensorSpec"]

Array = npt.NDArray[np.generic]
Runner = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True, slots=True)
class LayerValue:
    """What one layer or operation of the original program computed.

    Attributes:
        name: Its name, or path.
        kind: What it is: the class of a layer, the type of an operation.
        value: What it computed; of several values the first.
        reads: Names of those whose values it read.
    """

    name: str
    kind: str
    value: Array = field(repr=False)
    reads: tuple[str, ...]


LayerReader = Callable[[Mapping[str, Array]], tuple[LayerValue, ...]]
"""Runs the original program, and returns what its layers computed, in the order in which they did."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: Its name in the ONNX model.
        dtype: numpy's name of its element type, for example ``"float32"``.
        shape: One entry an axis: a size, a symbol such as ``"batch"``, or None where nothing is known.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class ModeChange:
    """One thing that was done to put the network in inference mode, with the evidence for it.

    Attributes:
        kind: ``"switch"`` (a mode input was pinned), ``"dropout"``, ``"statistics"`` (a batch norm was wired to its
            moving statistics), ``"averaged-weights"`` or ``"training-mode"`` (an attribute was flipped).
        name: The tensor, node or layer it was done to.
        before: What it was, for example ``"bool placeholder"``.
        after: What it is now, for example ``"False"``.
        proof: Why that is inference, in one line with numbers. May be empty.
    """

    kind: str
    name: str
    before: str
    after: str
    proof: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller knows about the artifact. Everything has a default, and most artifacts need no hint.

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
        outside: Where the large weights of an ONNX file stay out of memory; None reads all of them.
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
    outside: Outside | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """An artifact as an ONNX model in inference mode, batch norms in place and under their layers' names.

    Attributes:
        model: The unfolded model.
        format: What the file is, by one of the names of ``sniff.Format``.
        framework: The framework and version that wrote it, as far as the file tells, for example ``"Keras 3.15"``.
        description: A short line for people, for example ``"TF1 frozen graph"``.
        inputs: The model's inputs, in order.
        outputs: The model's outputs, in order.
        mode: What was done to reach inference mode.
        run: Runs the *original program*, in inference mode, on arrays by ONNX input name; returns arrays by ONNX output
            name. None where the file itself is ONNX: then the model is its own original.
        layers: Runs it as well, and returns what its layers compute; None where they cannot be seen.
        own: Runs the artifact as its own framework does by itself, without inference mode being asked for; None where
            that is what ``run`` does, or there is no such way.
        own_says: Why there is no such way; empty where there is one.
    """

    model: onnx.ModelProto
    format: str
    framework: str
    description: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    mode: tuple[ModeChange, ...] = ()
    run: Runner | None = None
    layers: LayerReader | None = None
    own: Runner | None = None
    own_says: str = ""
