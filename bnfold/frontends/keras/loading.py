"""Keras files of both generations: the model is built by its own Keras, traced in inference mode, converted to ONNX."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.errors import SignatureError
from bnfold.frontends.keras.archive import Artifact, read_artifact
from bnfold.frontends.keras.build import Built, build, refuse_beforehand
from bnfold.frontends.keras.guests import keras_of, quiet, tensorflow
from bnfold.frontends.keras.layer_values import layer_reader
from bnfold.frontends.keras.names import layer_names
from bnfold.frontends.keras.trace import call_in_inference_mode, trace
from bnfold.frontends.loaded import Array, Loaded, ModeChange, Request, Runner
from bnfold.frontends.signature import require_known
from bnfold.frontends.sniff import Format
from bnfold.frontends.tensorflow.batch_norms import convert
from bnfold.frontends.tensorflow.io_names import rename_io, specs_of

__all__ = ["load"]

_DROPPED = ("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D", "ActivityRegularization")  # fmt: skip


def load(path: Path, request: Request) -> Loaded:
    """Turn a Keras file into an ONNX model in inference mode, every batch norm in place under its layer's name.

    Args:
        path: A ``.keras`` archive, or HDF5 with a model or only weights, of Keras 2 or 3.
        request: ``architecture`` or ``builder`` where the file holds only weights; ``trust`` lets code in it run.

    Raises:
        SourceError: If it holds only weights and the request does not say what they belong to, or they do not fit.
        CorruptModelError: If it is not whole, or its weights are not what its configuration says.
        UnsupportedOpError: If a layer is not Keras's own, or cannot be converted.
        InferenceModeError: If the network stays in training mode.
        SignatureError: If the request names inputs or outputs that the model does not have.
        MissingExtraError: If TensorFlow is not installed.
    """
    if request.set_values:
        raise SignatureError(
            f"{path.name} is a Keras model, which has no mode inputs to set: {', '.join(sorted(request.set_values))}",
            hint="Leave out --set: Keras models are traced with training=False.",
        )
    artifact = read_artifact(path)
    refuse_beforehand(artifact, request)
    with _clean_session():
        built = build(artifact, request)
        _require_inputs(built)
        traced = trace(built)
        inputs, outputs = layer_names(built.model, built.generation, len(traced.frozen.outputs))
        require_known("input", request.inputs, inputs, option="--inputs")
        require_known("output", request.outputs, outputs, option="--outputs")
        chosen = [outputs.index(name) for name in request.outputs or outputs]
        traced = traced.only(chosen)
        model = convert(traced.frozen, traced.batch_norms, request.opset)
    named = tuple(outputs[index] for index in chosen)
    rename_io(model, dict(zip((*traced.frozen.inputs, *traced.frozen.outputs), (*inputs, *named), strict=True)))
    return Loaded(
        model=model,
        format=_format(artifact).value,
        framework=f"Keras {artifact.version or built.generation}",
        description=_description(artifact),
        inputs=specs_of(model.graph.input),
        outputs=specs_of(model.graph.output),
        mode=(*built.changes, *_dropped(built)),
        run=_runner(built, inputs, named, chosen),
        own=_as_it_is(artifact, request, inputs, named, chosen) if built.changes else None,
        layers=layer_reader(built, inputs),
    )


@contextmanager
def _clean_session() -> Iterator[None]:
    """Start with Keras's counters at zero, so that names do not depend on what ran before, and leave them so."""
    try:
        _start_over()
        yield
    finally:
        _start_over()


def _start_over() -> None:
    """Reset what is imported: importing the other Keras takes a second, and its counters are at zero then."""
    for name, generation in (("tf_keras", 2), ("keras", 3)):
        if name in sys.modules:
            with quiet():
                keras_of(generation).backend.clear_session()


def _require_inputs(built: Built) -> None:
    if not getattr(built.model, "inputs", None):
        raise SignatureError(
            f"the model {built.model.name!r} does not say what its inputs are: "
            "it is neither functional nor Sequential with an input shape",
            hint="Build it with keras.Input, or give its first layer an input shape.",
        )


def _format(artifact: Artifact) -> Format:
    if artifact.container == "zip":
        return Format.KERAS
    return Format.KERAS_WEIGHTS if artifact.config is None else Format.KERAS_H5


def _description(artifact: Artifact) -> str:
    return {Format.KERAS: "Keras model", Format.KERAS_H5: "Keras model in HDF5", Format.KERAS_WEIGHTS: "Keras weights"}[
        _format(artifact)
    ]


def _dropped(built: Built) -> tuple[ModeChange, ...]:
    """Return what is random while training and does nothing in inference mode, layer by layer."""
    found: dict[int, ModeChange] = {}
    stack: list[tuple[Any, str]] = [(built.model, "")]
    while stack:
        layer, prefix = stack.pop()
        stack.extend((child, f"{prefix}{child.name}/") for child in reversed(getattr(layer, "layers", [])))
        rate = getattr(layer, "rate", getattr(layer, "stddev", None))
        if type(layer).__name__ in _DROPPED and id(layer) not in found:
            found[id(layer)] = ModeChange(
                kind="dropout",
                name=prefix.removesuffix("/"),
                before=type(layer).__name__ + (f" {rate:g}" if isinstance(rate, int | float) else ""),
                after="Identity",
                proof="traced with training=False",
            )
    return tuple(found.values())


def _as_it_is(
    artifact: Artifact, request: Request, inputs: tuple[str, ...], outputs: tuple[str, ...], chosen: list[int]
) -> Runner:
    """Return a function that does what the model's own ``predict`` does; the model is built when it is first run.

    It is a model of its own, because in Keras 2 a batch norm that was told to train changes while it predicts.
    """

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return _runner(build(artifact, request, as_it_is=True), inputs, outputs, chosen)(feeds)

    return run


def _runner(built: Built, inputs: tuple[str, ...], outputs: tuple[str, ...], chosen: list[int]) -> Runner:
    """Return a function that runs the Keras model itself: eagerly, so that nothing combines its operations."""

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        tf = tensorflow()
        with quiet():
            values = call_in_inference_mode(
                built,
                [
                    tf.convert_to_tensor(np.asarray(feeds[name]), tensor.dtype)
                    for name, tensor in zip(inputs, built.model.inputs, strict=True)
                ],
            )
        return {name: np.asarray(values[index]) for name, index in zip(outputs, chosen, strict=True)}

    return run
