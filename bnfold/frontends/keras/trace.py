"""A Keras model in inference mode as a frozen GraphDef in which every batch norm is one marked node.

Keras writes a batch norm as four arithmetic operations, or as an operation that knows only four axes and no float64.
While the model is traced, each batch norm layer leaves a marker instead: an operation that passes its input on, opaque
to every optimiser, with the key of the layer in it. On the way to ONNX it becomes a BatchNormalization.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.errors import CorruptModelError, InferenceModeError, SourceError, UnsupportedOpError
from bnfold.frontends.keras.build import Built
from bnfold.frontends.keras.guests import keras_of, quiet, tensorflow
from bnfold.frontends.own_code import first_line
from bnfold.frontends.tensorflow.batch_norms import MARKER, BatchNorm, marker_key
from bnfold.frontends.tensorflow.concrete import Frozen, freeze, nodes_of

__all__ = ["Traced", "call_in_inference_mode", "paths_of", "trace"]


@dataclass(frozen=True, slots=True)
class Traced:
    """A frozen graph and what its markers stand for.

    Attributes:
        frozen: The graph.
        batch_norms: The layers behind the markers that its outputs need, by marker key.
    """

    frozen: Frozen
    batch_norms: dict[str, BatchNorm]

    def only(self, chosen: Sequence[int]) -> Traced:
        """Return what some of the outputs need, by their positions."""
        frozen = self.frozen.only(chosen)
        needed = _markers(frozen.graph_def)
        return Traced(frozen, {key: norm for key, norm in self.batch_norms.items() if key in needed})


@dataclass(slots=True)
class _Marks:
    paths: dict[int, str]
    found: dict[str, BatchNorm] = field(default_factory=dict)
    refused: list[SourceError] = field(default_factory=list)


def trace(built: Built) -> Traced:
    """Return a model's inference-mode graph, frozen, with a marker for every call of a batch norm layer.

    Raises:
        InferenceModeError: If a batch norm insists on batch statistics, or something random is left.
        CorruptModelError: If a batch norm has statistics that are not finite or variances that are too negative.
        UnsupportedOpError: If the model cannot be traced.
    """
    tf = tensorflow()
    marks = _Marks(paths_of(built.model))
    _refuse_bfloat16(built.model, marks)
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{index}")
        for index, tensor in enumerate(built.model.inputs)
    ]

    def infer(*flat: Any) -> list[Any]:
        return [
            tf.identity(tensor, name=f"output_{index}")
            for index, tensor in enumerate(call_in_inference_mode(built, flat))
        ]

    with quiet(), _batch_norms_marked(built.generation, marks):
        try:
            concrete = tf.function(infer, autograph=False, input_signature=specs).get_concrete_function()
        except Exception as error:
            if marks.refused:  # Keras rewrites whatever passes through its layers
                raise marks.refused[0] from None
            raise _untraceable(error) from error
    try:
        frozen = freeze(concrete)
    except InferenceModeError:
        raise
    except Exception as error:
        raise _untraceable(error) from error
    return Traced(frozen, marks.found).only(range(len(frozen.outputs)))


def _untraceable(error: Exception) -> UnsupportedOpError:
    return UnsupportedOpError(
        f"the model cannot be traced in inference mode: {first_line(error)}",
        hint="Check that the model runs on an example: model(x, training=False).",
    )


def _refuse_bfloat16(model: Any, marks: _Marks) -> None:
    for layer in model._flatten_layers():  # noqa: SLF001  # the same in both generations
        if getattr(layer, "compute_dtype", None) == "bfloat16":
            raise UnsupportedOpError(
                f"layer {marks.paths.get(id(layer), layer.name)!r} computes in bfloat16, which cannot be converted",
                hint="Rebuild the model with the policy float32 or mixed_float16, load its weights and save it again.",
            )


def call_in_inference_mode(built: Built, flat: Any) -> list[Any]:
    """Return the outputs of a model, in order, on its inputs, in order."""
    if built.generation >= 3:
        tree = keras_of(3).tree
        structure = getattr(built.model, "_inputs_struct", None)
        inputs = tree.pack_sequence_as(structure, list(flat)) if structure is not None else _bare(flat)
        return list(tree.flatten(built.model(inputs, training=False)))
    nest = tensorflow().nest
    return list(nest.flatten(built.model(nest.pack_sequence_as(built.model.input, list(flat)), training=False)))


def _bare(flat: Any) -> Any:
    return flat[0] if len(flat) == 1 else list(flat)


def paths_of(model: Any) -> dict[int, str]:
    """Return the path of every layer by its identity; where a layer is in several models, its first one."""
    paths: dict[int, str] = {}
    stack: list[tuple[Any, str]] = [(model, "")]
    while stack:
        layer, prefix = stack.pop()
        children = [*getattr(layer, "layers", [])]
        children += [
            inner
            for key in ("layer", "forward_layer", "backward_layer")
            if (inner := getattr(layer, key, None)) is not None
        ]
        named = [(child, f"{prefix}{child.name}") for child in children if hasattr(child, "name")]
        new = [(child, path) for child, path in named if id(child) not in paths]
        for child, path in new:
            paths.setdefault(id(child), path)
        stack.extend((child, f"{path}/") for child, path in reversed(new))
    return paths


@contextmanager
def _batch_norms_marked(generation: int, marks: _Marks) -> Iterator[None]:
    keras = keras_of(generation)
    if generation >= 3:
        patches: list[tuple[type, Callable[..., Any]]] = [
            (keras.layers.BatchNormalization, _marking_call(marks)),
            (keras.layers.TimeDistributed, _folded_time(keras.layers.TimeDistributed.call)),
        ]
    else:
        from tf_keras.src.layers.normalization.batch_normalization import BatchNormalizationBase

        patches = [(BatchNormalizationBase, _marking_call(marks))]
    before = [(owner, owner.__dict__["call"]) for owner, _ in patches]
    try:
        for owner, call in patches:
            owner.call = call  # type: ignore[attr-defined]
        yield
    finally:
        for owner, call in before:
            owner.call = call  # type: ignore[attr-defined]


def _marking_call(marks: _Marks) -> Callable[..., Any]:
    def call(self: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:  # noqa: ARG001
        name = marks.paths.get(id(self), self.name)
        if not isinstance(training, bool | int | type(None)) or (training and self.trainable):
            refusal = InferenceModeError(
                f"batch norm {name!r} normalises with the statistics of the batch even in inference mode",
                hint="Rebuild the model without training=True in that call, load its weights and save it again.",
            )
            marks.refused.append(refusal)
            raise refusal
        return _mark(self, name, inputs, marks)

    return call


def _mark(layer: Any, name: str, inputs: Any, marks: _Marks) -> Any:
    """Emit ``inputs`` with the channel on axis 1, the marker behind it, and the way back."""
    tf = tensorflow()
    wide = tf.float32 if inputs.dtype in (tf.float16, tf.bfloat16) else inputs.dtype
    x = tf.cast(inputs, wide)
    try:
        with tf.init_scope():  # values, not tensors of the graph that is being traced
            norm = _facts(layer, name, wide.as_numpy_dtype)
    except CorruptModelError as refusal:
        marks.refused.append(refusal)
        raise
    key = f"bnfold/{len(marks.found)}"
    marks.found[key] = norm
    axes = _axes(layer, len(inputs.shape))
    kept = [axis for axis in range(len(inputs.shape)) if axis not in axes]
    order = [*kept[:1], *axes, *kept[1:]]
    x = x if order == sorted(order) else tf.transpose(x, order)
    shape = None
    if len(axes) != 1 or not kept:
        shape = tf.shape(x)
        channels = [norm.gamma.size]
        x = tf.reshape(x, tf.concat([shape[: len(kept[:1])] if kept else [1], channels, shape[1 + len(axes) :]], 0))
    with tf.name_scope(f"{_scope(name)}/"):
        x = tf.raw_ops.CheckNumericsV2(tensor=x, message=key, name="BatchNormalization")
    if shape is not None:
        x = tf.reshape(x, shape)
    x = x if order == sorted(order) else tf.transpose(x, [order.index(axis) for axis in range(len(order))])
    x.set_shape(inputs.shape)
    # Keras 3 leaves the layer in the precision of its policy, tf_keras in that of its input.
    return tf.cast(x, layer.compute_dtype if hasattr(layer, "dtype_policy") and not _is_legacy(layer) else inputs.dtype)


def _scope(name: str) -> str:
    """Return a layer's path spelt as TensorFlow spells scopes."""
    plain = re.sub(r"[^\w.\\/>-]", "_", name, flags=re.ASCII)
    return plain if plain[:1].isalnum() else f"layer{plain}"


def _is_legacy(layer: Any) -> bool:
    return any(cls.__module__.startswith("tf_keras") for cls in type(layer).__mro__)


def _axes(layer: Any, rank: int) -> list[int]:
    """Return the axes of the channel, from 0. Virtual batches make tf_keras count one more than there are."""
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if getattr(layer, "virtual_batch_size", None) is not None:
        axes = [axis - 1 for axis in axes]
    return sorted(axis % rank for axis in axes)


def _facts(layer: Any, name: str, dtype: type[np.floating[Any]]) -> BatchNorm:
    running_mean = _flat(layer.moving_mean, dtype)
    running_var = _flat(layer.moving_variance, dtype)
    gamma = np.ones_like(running_mean) if layer.gamma is None else _flat(layer.gamma, dtype)
    beta = np.zeros_like(running_mean) if layer.beta is None else _flat(layer.beta, dtype)
    for what, values in (
        ("gamma", gamma), ("beta", beta), ("moving_mean", running_mean), ("moving_variance", running_var)
    ):  # fmt: skip
        broken = int(np.count_nonzero(~np.isfinite(values)))
        if broken:
            raise CorruptModelError(
                f"batch norm {name!r}: {broken} of {values.size} values of {what} are not finite",
                hint="Go back to a checkpoint from before the training diverged.",
            )
    negative = int(np.count_nonzero(running_var + dtype(layer.epsilon) <= 0))
    if negative:
        raise CorruptModelError(
            f"batch norm {name!r}: {negative} of {running_var.size} values of moving_variance are so negative that "
            f"epsilon {layer.epsilon:g} does not make them positive (smallest {running_var.min():g})",
            hint="Go back to a checkpoint from before the training diverged.",
        )
    return BatchNorm(name, gamma, beta, running_mean, running_var, float(layer.epsilon))


def _flat(variable: Any, dtype: type[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    return np.asarray(variable.numpy(), dtype).reshape(-1)


def _folded_time(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``TimeDistributed.call`` that runs its layer once on all steps, where Keras 3 runs it once a step.

    In inference mode every step is a sample of its own, so both are the same, and the layer stays one layer. Where the
    number of steps is free, Keras 3 traces as many steps as the batch has samples; called eagerly it runs all of them.
    """

    def call(self: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        tf = tensorflow()
        if not tf.is_tensor(inputs) or getattr(self.layer, "stateful", False):
            return original(self, inputs, training=training, mask=mask)
        kwargs: dict[str, Any] = {}
        if self.layer._call_has_mask_arg and mask is not None:  # noqa: SLF001
            kwargs["mask"] = _without_time(tf, mask)
        if self.layer._call_has_training_arg:  # noqa: SLF001
            kwargs["training"] = training
        outputs = self.layer.call(_without_time(tf, inputs), **kwargs)
        if not tf.is_tensor(outputs):
            return original(self, inputs, training=training, mask=mask)
        batch = inputs.shape[0] if inputs.shape[0] is not None else -1
        steps = inputs.shape[1] if inputs.shape[1] is not None else tf.shape(inputs)[1]
        result = tf.reshape(outputs, [batch, steps, *_sizes(tf, outputs, 1)])
        result.set_shape([*inputs.shape[:2], *outputs.shape[1:]])
        return result

    return call


def _without_time(tf: Any, tensor: Any) -> Any:
    return tf.reshape(tensor, [-1, *_sizes(tf, tensor, 2)])


def _sizes(tf: Any, tensor: Any, start: int) -> list[Any]:
    return [
        size if size is not None else tf.shape(tensor)[start + offset]
        for offset, size in enumerate(tensor.shape[start:])
    ]


def _markers(graph_def: Any) -> set[str]:
    return {marker_key(node) for node in nodes_of(graph_def) if node.op == MARKER}
