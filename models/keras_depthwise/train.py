"""Keras 3: a small convolutional network with depthwise and separable convolutions, and a batch norm on the image.

Five of its batch norms stand right behind a convolution (plain, depthwise, pointwise, separable), two of them on the
branches of a residual. The first one normalises the image, in front of a convolution that pads with zeros. Saved in
Keras's own format and exported as a SavedModel to serve.

Run ``python models/keras_depthwise/train.py``; it writes next to itself.
"""

from __future__ import annotations

import os
import shutil
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
    """Return the untrained network: images of 8 × 8 × 1 in, ten probabilities out."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.BatchNormalization(name="image_bn", momentum=0.95)(image)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem_conv")(x)
    x = layers.BatchNormalization(name="stem_bn", momentum=0.95)(x)
    x = layers.ReLU(6.0, name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False, name="dw_conv")(x)
    x = layers.BatchNormalization(name="dw_bn", momentum=0.95)(x)
    x = layers.ReLU(6.0, name="dw_relu")(x)
    x = layers.Conv2D(24, 1, name="pw_conv")(x)
    x = shortcut = layers.BatchNormalization(name="pw_bn", momentum=0.95)(x)
    x = layers.ReLU(name="sep1_relu")(x)
    x = layers.SeparableConv2D(24, 3, padding="same", use_bias=False, name="sep1_conv")(x)
    x = layers.BatchNormalization(name="sep1_bn", momentum=0.95, scale=False)(x)
    x = layers.Add(name="residual")([x, shortcut])
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.SeparableConv2D(32, 3, padding="valid", name="sep2_conv")(x)
    x = layers.BatchNormalization(name="sep2_bn", momentum=0.95)(x)
    x = layers.ReLU(name="sep2_relu")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(x), name="depthwise_digits")


def main() -> None:
    """Train, save and print the accuracy."""
    keras.utils.set_random_seed(44)
    data = digits.load()
    model = build()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = data.train.images(channels_last=True), data.train.labels
    model.fit(images, labels, batch_size=64, epochs=45, verbose=0)
    scores = np.asarray(model.predict(data.test.images(channels_last=True), verbose=0))
    print(digits.record(HERE / "scores.npy", scores, data.test))
    model.save(HERE / "depthwise.keras")
    shutil.rmtree(HERE / "saved_model", ignore_errors=True)
    model.export(HERE / "saved_model", verbose=False)


if __name__ == "__main__":
    main()
