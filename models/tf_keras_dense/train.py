"""Keras 2: dense layers with batch norm on top of a nested network of which a part was frozen.

The nested base learns the digits 0 to 4. Its first dense layer and batch norm are frozen then (``trainable=False``),
and the whole learns all ten digits. What Keras 2 left behind: the whole model as ``.h5`` with its optimizer, the best
weights alone as ``ModelCheckpoint(save_weights_only=True)`` writes them, the architecture as JSON beside them, and the
author's own ``builder.py``, which freezes nothing and so expects the weights in another order.

``phase1.h5`` is the same network with its last batch norm called with ``training=True``, the learning phase 1 of old:
its own ``predict`` uses the statistics of the batch.

Run ``python models/tf_keras_dense/train.py``; it writes next to itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import digits
import numpy as np
import tf_keras
from builder import build_base, build_model


def fit(model: tf_keras.Model, split: digits.Split, epochs: int, *callbacks: tf_keras.callbacks.Callback) -> None:
    """Train with Adam, in batches of 64."""
    model.compile(tf_keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.pixels, split.labels, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks)


def trained_base(split: digits.Split) -> tf_keras.Model:
    """Return the base after it learned the digits 0 to 4, with its first dense layer and batch norm frozen."""
    few = split.labels < 5
    base = build_base()
    whole = tf_keras.Sequential([base, tf_keras.layers.Dense(5, activation="softmax")])
    fit(whole, digits.Split(split.pixels[few], split.labels[few]), 25)
    for name in ("base_fc1", "base_bn1"):
        base.get_layer(name).trainable = False
    return base


def in_inference_mode(model: tf_keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Run the network layer by layer with ``training=False``, whatever its configuration says."""
    x = pixels
    for layer in model.layers[1:]:
        x = layer(x, training=False)
    return np.asarray(x)


def main() -> None:
    """Train, save and print the accuracies."""
    data = digits.load()
    pixels = data.test.pixels

    tf_keras.utils.set_random_seed(22)
    model = build_model(trained_base(data.train))
    checkpoint = tf_keras.callbacks.ModelCheckpoint(
        str(HERE / "best_weights.h5"), monitor="loss", save_best_only=True, save_weights_only=True
    )
    fit(model, data.train, 40, checkpoint)
    model.save(HERE / "tuned.h5")
    print("tuned:", digits.record(HERE / "scores_tuned.npy", model.predict(pixels, verbose=0), data.test))
    (HERE / "architecture.json").write_text(model.to_json(indent=1) + "\n", "utf-8")
    model.load_weights(HERE / "best_weights.h5")
    print("best weights:", digits.record(HERE / "scores_best.npy", model.predict(pixels, verbose=0), data.test))

    tf_keras.utils.set_random_seed(23)
    model = build_model(trained_base(data.train), phase=True)
    fit(model, data.train, 40)
    scores = in_inference_mode(model, pixels)
    print("phase1, moving statistics:", digits.record(HERE / "scores_phase1.npy", scores, data.test))
    model.save(HERE / "phase1.h5")
    print("phase1, batch statistics:", digits.correct(model.predict(pixels, verbose=0), data.test))


if __name__ == "__main__":
    main()
