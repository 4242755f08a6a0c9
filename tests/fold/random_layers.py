"""Random chains of the layers beyond convolutions and dense ones: norms, recurrent cells, einsums, embeddings."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.fold.random_graphs import Builder, Layer, Shape, batch_norm, carrier, constant_affine, dense

__all__ = ["chains"]

_LARGEST = 400


def einsum(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    """Sum over some axes, keep others, add new ones; the constant may have any of them."""
    letters = "abcde"[: len(shape)]
    summed = b.draw(st.sets(st.sampled_from(letters), max_size=2))
    kept = [letter for letter in letters if letter not in summed]
    own = b.draw(st.sets(st.sampled_from(letters), min_size=1))
    size_of = dict(zip(letters, shape, strict=True)) | {"y": 3, "z": 2}
    fresh = b.draw(st.sampled_from([(), ("y",), ("y", "z")])) if len(kept) < 3 else ()
    weight = b.draw(st.permutations([*own, *fresh]))
    output = b.draw(st.permutations([*kept, *fresh]))
    if len(output) < 2:
        return b.node("Identity", [x]), shape
    factors = [(letters, x), ("".join(weight), b.normal(*(size_of[letter] for letter in weight)))]
    if b.chance(40):
        factors.reverse()
    terms = ",".join(term for term, _name in factors)
    y = b.node("Einsum", [name for _term, name in factors], equation=f"{terms}->{''.join(output)}")
    return y, tuple(size_of[letter] for letter in output)


def layer_norm(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    axis = b.draw(st.integers(1, len(shape) - 1))
    parameters = [b.normal(*shape[axis:])]
    if b.chance(60):
        parameters.append(b.normal(*shape[axis:]))
    return b.node("LayerNormalization", [x, *parameters], axis=axis, epsilon=0.5), shape


def rms_norm(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    axis = b.draw(st.integers(1, len(shape) - 1))
    return b.node("RMSNormalization", [x, b.normal(*shape[axis:])], axis=axis - len(shape), epsilon=0.5), shape


def channel_norm(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) < 3:
        return layer_norm(b, x, shape)
    parameters = [b.normal(shape[1]), b.normal(shape[1])]
    groups = [count for count in (1, 2, 3) if shape[1] % count == 0]
    if b.chance(50):
        return b.node("GroupNormalization", [x, *parameters], num_groups=b.draw(st.sampled_from(groups))), shape
    return b.node("InstanceNormalization", [x, *parameters], epsilon=0.5), shape


def recurrent(b: Builder, x: str, shape: Shape) -> tuple[str, Shape]:
    if len(shape) != 3:
        return dense(b, x, shape)
    op_type, gates = b.draw(st.sampled_from([("LSTM", 4), ("GRU", 3), ("RNN", 1)]))
    direction, directions = b.draw(st.sampled_from([("forward", 1), ("reverse", 1), ("bidirectional", 2)]))
    hidden = b.draw(st.integers(1, 3))
    inputs = [x, b.normal(directions, gates * hidden, shape[2]), b.normal(directions, gates * hidden, hidden)]
    if b.chance(50):
        inputs.append(b.normal(directions, 2 * gates * hidden))
    more = {"activations": ["Tanh"] * directions} if op_type == "RNN" else {}
    y = b.node(op_type, inputs, hidden_size=hidden, direction=direction, **more)
    return y, (shape[0], directions, shape[1], hidden)


LAYERS: tuple[Layer, ...] = (
    *(batch_norm, batch_norm, batch_norm, constant_affine, constant_affine, carrier),
    *(einsum, einsum, layer_norm, rms_norm, channel_norm, recurrent, dense),
)


@st.composite
def chains(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a chain of layers, which may begin with an embedding."""
    b = Builder(draw)
    start: Shape = draw(st.sampled_from([(2, 3), (4, 2, 3), (2, 3, 5), (2, 4, 3, 2)]))
    x, shape, dtype = "x", start, TensorProto.DOUBLE
    if b.chance(25):
        dtype, rows = TensorProto.INT64, [2, *draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))]
        axis = draw(st.integers(0, len(rows) - 1)) if rows[0] == rows[-1] else 0
        rows[axis] = 2
        x = b.node("Gather", [b.normal(*rows), "x"], axis=axis)
        shape = tuple(np.take(np.ones(rows), np.zeros(start[:2], np.int64), axis=axis).shape)
        start = start[:2]
    for _step in range(draw(st.integers(2, 8))):
        y, wide = draw(st.sampled_from(LAYERS))(b, x, shape)
        if np.prod(wide) > _LARGEST:
            break
        x, shape = y, wide
    produced = [name for node in b.nodes for name in node.output]
    last = helper.make_node("Identity", [x], ["last"])
    nodes = [*b.nodes[: produced.index(x) + 1 if x in produced else 0], last]
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("x", dtype, list(start))],
        [helper.make_tensor_value_info("last", TensorProto.DOUBLE, list(shape))],
        b.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
