"""Recurrent layers in float64: LSTM, GRU and RNN, both directions, sequences of different lengths included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.parity.kernels.call import Array, Call, Inputs, Kernel, given, required

__all__ = ["RECURRENT"]

Activation = Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


_PLAIN: Mapping[str, Activation] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanh": np.tanh,
}
_SCALED: Mapping[str, tuple[Callable[[Array, float, float], Array], tuple[float | None, float | None]]] = {
    "affine": (lambda x, alpha, beta: alpha * x + beta, (1.0, 0.0)),
    "elu": (lambda x, alpha, _: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))), (1.0, None)),
    "hardsigmoid": (lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1), (0.2, 0.5)),
    "leakyrelu": (lambda x, alpha, _: np.where(x >= 0, x, alpha * x), (0.01, None)),
    "scaledtanh": (lambda x, alpha, beta: alpha * np.tanh(beta * x), (1.0, 1.0)),
    "thresholdedrelu": (lambda x, alpha, _: np.where(x > alpha, x, 0), (1.0, None)),
}
"""With the defaults of alpha and beta; None where the function does not take it."""


def _scaled(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    """Return an activation by its name; those that are scaled take the next of the node's numbers."""
    lowered = name.lower()
    if lowered in _PLAIN:
        return _PLAIN[lowered]
    if lowered not in _SCALED:
        raise ValueError(f"no activation is called {name}")
    function, (alpha, beta) = _SCALED[lowered]
    first = 0.0 if alpha is None else float(np.float32(next(alphas, alpha)))
    second = 0.0 if beta is None else float(np.float32(next(betas, beta)))
    return lambda x: function(x, first, second)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One direction: its weights by gate, its functions, and what goes on beside it."""

    weight: Sequence[Array]
    recurrence: Sequence[Array]
    bias: Sequence[Array]
    recurrent_bias: Sequence[Array]
    peepholes: Sequence[Array]
    functions: Sequence[Activation]
    clip: float
    coupled: bool = False
    """LSTM: the forget gate is what the input gate leaves."""
    late: bool = False
    """GRU: the reset gate acts behind the recurrent product."""

    def clipped(self, x: Array) -> Array:
        return np.clip(x, -self.clip, self.clip) if self.clip else x

    def gate(self, number: int, x: Array, h: Array) -> Array:
        total = x @ self.weight[number].T + h @ self.recurrence[number].T
        return np.asarray(total + self.bias[number] + self.recurrent_bias[number])


Step = Callable[[_Layer, Array, Array, Array], tuple[Array, Array]]


def _lstm_step(layer: _Layer, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    f, g, out = layer.functions
    i, o, forget, cell = (layer.gate(number, x, h) for number in range(4))
    if layer.peepholes:
        i, forget = i + layer.peepholes[0] * c, forget + layer.peepholes[2] * c
    i = f(layer.clipped(i))
    forget = 1 - i if layer.coupled else f(layer.clipped(forget))
    c = forget * c + i * g(layer.clipped(cell))
    if layer.peepholes:
        o = o + layer.peepholes[1] * c
    return f(layer.clipped(o)) * out(c), c


def _gru_step(layer: _Layer, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    f, g = layer.functions
    update, reset = (f(layer.clipped(layer.gate(number, x, h))) for number in range(2))
    hidden = x @ layer.weight[2].T + layer.bias[2]
    if layer.late:
        hidden = hidden + reset * (h @ layer.recurrence[2].T + layer.recurrent_bias[2])
    else:
        hidden = hidden + (reset * h) @ layer.recurrence[2].T + layer.recurrent_bias[2]
    return (1 - update) * g(layer.clipped(hidden)) + update * h, c


def _rnn_step(layer: _Layer, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    return layer.functions[0](layer.clipped(layer.gate(0, x, h))), c


def _follow(
    layer: _Layer, step: Step, x: Array, state: tuple[Array, Array], lengths: Array, *, backwards: bool
) -> tuple[Array, Array, Array]:
    """Run one direction over (time, batch, features); what lies behind a sequence's end is 0 and changes nothing."""
    h, c = state
    outputs = np.zeros((x.shape[0], *h.shape))
    for number in range(x.shape[0]):
        alive = number < lengths
        # Backwards a sequence begins at its own end.
        place = np.where(alive, lengths - 1 - number, 0) if backwards else np.full(lengths.shape, number)
        rows = np.arange(lengths.size)
        new_h, new_c = step(layer, x[place, rows], h, c)
        h, c = np.where(alive[:, None], new_h, h), np.where(alive[:, None], new_c, c)
        outputs[place[alive], rows[alive]] = new_h[alive]
    return outputs, h, c


def _recurrent(step: Step, gates: int, names: tuple[str, ...]) -> Kernel:
    def kernel(call: Call, inputs: Inputs) -> tuple[Array, ...]:
        x, w, r = (required(inputs, position) for position in range(3))
        first = bool(call.integer("layout"))  # the batch stands first
        x = np.swapaxes(x, 0, 1) if first else x
        directions, hidden, batch = w.shape[0], r.shape[-1], x.shape[1]
        lengths = given(inputs, 4)
        lengths = np.full(batch, x.shape[0]) if lengths is None else lengths.astype(np.int64)
        bias = given(inputs, 3)
        bias = np.zeros((directions, 2 * gates * hidden)) if bias is None else bias
        states = []
        for position in (5, 6):
            start = given(inputs, position) if position == 5 or gates == 4 else None
            if start is None:
                states.append(np.zeros((directions, batch, hidden)))
            else:
                states.append(np.swapaxes(start, 0, 1) if first else start)
        peepholes = given(inputs, 7) if gates == 4 else None
        functions = _functions(call, names, directions)
        results = []
        for number in range(directions):
            layer = _Layer(
                weight=np.split(w[number], gates),
                recurrence=np.split(r[number], gates),
                bias=np.split(bias[number, : gates * hidden], gates),
                recurrent_bias=np.split(bias[number, gates * hidden :], gates),
                peepholes=() if peepholes is None else np.split(peepholes[number], 3),
                functions=functions[number],
                clip=call.number("clip", 0.0),
                coupled=bool(call.integer("input_forget")),
                late=bool(call.integer("linear_before_reset")),
            )
            backwards = number == 1 or call.text("direction", "forward").lower() == "reverse"
            state = (states[0][number], states[1][number])
            results.append(_follow(layer, step, x, state, lengths, backwards=backwards))
        y = np.stack([outputs for outputs, _, _ in results], axis=1)
        last = [np.stack([result[place] for result in results]) for place in ((1, 2) if gates == 4 else (1,))]
        if first:
            y, last = y.transpose(2, 0, 1, 3), [np.swapaxes(state, 0, 1) for state in last]
        return (y, *last)

    return kernel


def _functions(call: Call, names: tuple[str, ...], directions: int) -> list[list[Activation]]:
    wanted = call.attributes.get("activations") or list(names) * directions
    alphas, betas = (iter(call.attributes.get(name) or ()) for name in ("activation_alpha", "activation_beta"))
    found = [_scaled(str(name), alphas, betas) for name in wanted]
    return [found[number * len(names) : (number + 1) * len(names)] for number in range(directions)]


RECURRENT: Mapping[str, Kernel] = {
    "GRU": _recurrent(_gru_step, 3, ("Sigmoid", "Tanh")),
    "LSTM": _recurrent(_lstm_step, 4, ("Sigmoid", "Tanh", "Tanh")),
    "RNN": _recurrent(_rnn_step, 1, ("Tanh",)),
}
"""The recurrent operations of the standard domain."""
