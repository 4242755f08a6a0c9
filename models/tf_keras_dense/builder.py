"""Build the network whose weights are in ``best_weights.h5``, as its author's program did: with nothing frozen.

Keras 2 stores the weights of a nested network in the order trainable, then frozen. Read by position into this network,
the two dense layers of the base, which have the same shape, would change places without a word. Read by name they fit.
"""

from __future__ import annotations

from typing import Any


def build_base() -> Any:
    """Return the nested network that first learned five digits, without its head."""
    from tf_keras import Sequential, layers

    return Sequential(
        [
            layers.Input((64,)),
            layers.Dense(64, activation="relu", name="base_fc1"),
            layers.BatchNormalization(name="base_bn1", momentum=0.95),
            layers.Dense(64, name="base_fc2"),
            layers.BatchNormalization(name="base_bn2", momentum=0.95),
            layers.Activation("relu", name="base_act2"),
        ],
        name="base",
    )


def build_model(base: Any = None, *, phase: bool | None = None) -> Any:
    """Return the whole network: the base, and a head whose batch norm is called in the given learning phase."""
    from tf_keras import Input, Model, layers

    pixels = Input((64,), name="pixels")
    x = (base or build_base())(pixels)
    x = layers.Dropout(0.3, name="head_dropout")(x)
    x = layers.Dense(40, use_bias=False, name="head_fc")(x)
    x = layers.BatchNormalization(name="head_bn", momentum=0.9)(x, training=phase)
    x = layers.LeakyReLU(0.1, name="head_act")(x)
    return Model(pixels, layers.Dense(10, activation="softmax", name="digit")(x), name="digits")
