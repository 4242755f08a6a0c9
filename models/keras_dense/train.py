"""Keras 3: dense layers with batch norm, fine-tuned with the first block frozen.

A network learns the digits 0 to 4. Its first block is then frozen (``trainable=False``: in Keras 3 its batch norm
normalises with the moving statistics even while training), the rest gets a new head and learns all ten digits.

One batch norm stands behind its activation, two in front of theirs, and the frozen one is called with
``training=False``, the learning phase 0 of old. Saved whole in both formats, and as weights alone with the
architecture beside them.

Run ``python models/keras_dense/train.py``; it writes next to itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import digits
import keras
import numpy as np
from keras import layers


def build() -> keras.Model:
    """Return the network that first learns five digits."""
    pixels = keras.Input((64,), name="pixels")
    x = layers.Dense(64, use_bias=False, name="block1_dense")(pixels)
    x = layers.BatchNormalization(name="block1_bn")(x)
    x = layers.ReLU(name="block1_relu")(x)
    x = layers.Dense(48, activation="relu", name="block2_dense")(x)
    x = layers.BatchNormalization(name="block2_bn", momentum=0.95)(x)
    x = layers.Dropout(0.2, name="block2_dropout")(x)
    return keras.Model(pixels, layers.Dense(5, activation="softmax", name="five_digits")(x), name="five_digits")


def tuned(base: keras.Model) -> keras.Model:
    """Return the same network with its first block frozen and a new head for ten digits."""
    for name in ("block1_dense", "block1_bn"):
        base.get_layer(name).trainable = False
    x = base.input
    for layer in base.layers[1:-1]:
        x = layer(x, training=False) if layer.name == "block1_bn" else layer(x)
    x = layers.Dense(32, name="head_dense")(x)
    x = layers.BatchNormalization(name="head_bn", momentum=0.9, epsilon=1e-4)(x)
    x = layers.Activation("tanh", name="head_tanh")(x)
    return keras.Model(base.input, layers.Dense(10, activation="softmax", name="digit")(x), name="digits")


def fit(model: keras.Model, split: digits.Split, epochs: int) -> None:
    """Train with Adam, in batches of 64."""
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.pixels, split.labels, batch_size=64, epochs=epochs, verbose=0)


def main() -> None:
    """Train, tune, save and print the accuracy."""
    keras.utils.set_random_seed(31)
    data = digits.load()
    few = data.train.labels < 5
    base = build()
    fit(base, digits.Split(data.train.pixels[few], data.train.labels[few]), epochs=25)
    model = tuned(base)
    fit(model, data.train, epochs=40)
    scores = np.asarray(model.predict(data.test.pixels, verbose=0))
    print(digits.record(HERE / "scores.npy", scores, data.test))
    model.save(HERE / "tuned.keras")
    model.save(HERE / "tuned.h5")
    model.save_weights(HERE / "tuned.weights.h5")
    (HERE / "architecture.json").write_text(model.to_json(indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
