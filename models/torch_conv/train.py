"""PyTorch: a convolutional network exported to ONNX by PyTorch itself, with its batch norms in place.

A transposed convolution first enlarges the digit, so batch norms stand behind ConvTranspose, Conv, grouped Conv and
Linear, in front of an unpadded Conv, inside a residual block, and once where nothing linear is next to it.

PyTorch is no dependency of this project: run this in an environment of its own with torch, onnx, onnxruntime and
scikit-learn, ``python models/torch_conv/train.py``; it writes next to itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import digits
import numpy as np
import onnxruntime
import torch
from torch import nn


class Residual(nn.Module):
    """Two convolutions and a way around them: ``relu(bn2(conv2(relu(bn1(conv1(x))))) + x)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + x)


class PreActivation(nn.Module):
    """A residual block of the other order: its batch norm reads what the way around also carries."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.relu(self.bn(x))) + x


class Digit(nn.Module):
    """Images of 1 × 8 × 8 in, ten scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(1, 8, 3, stride=2, padding=1, output_padding=1)
        self.up_bn = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.down_bn = nn.BatchNorm2d(16)
        self.residual = Residual(16)
        self.pre_activation = PreActivation(16)
        self.front_bn = nn.BatchNorm2d(16)
        self.front = nn.Conv2d(16, 24, 3)
        self.fc = nn.Linear(24 * 3 * 3, 32)
        self.fc_bn = nn.BatchNorm1d(32)
        self.dropout = nn.Dropout(0.3)
        self.digit = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.up_bn(self.up(x)))
        x = torch.relu(self.down_bn(self.down(x)))
        x = self.pre_activation(self.residual(x))
        x = nn.functional.max_pool2d(torch.relu(self.front(self.front_bn(torch.relu(x)))), 2)
        x = torch.relu(self.fc_bn(self.fc(x.flatten(1))))
        return self.digit(self.dropout(x))


def train(model: Digit, split: digits.Split, rng: np.random.Generator) -> None:
    """Train with SGD and momentum for 30 epochs of batches of 64."""
    epochs, batch = 30, 64
    images, labels = torch.from_numpy(split.images(channels_last=False)), torch.from_numpy(split.labels)
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for chosen in digits.batches(split, batch, rng):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main() -> None:
    """Train, export, and print both accuracies."""
    torch.manual_seed(55)
    torch.set_num_threads(2)
    data = digits.load()
    model = Digit()
    train(model, data.train, np.random.default_rng(55))
    images = data.test.images(channels_last=False)
    with torch.no_grad():
        scores = model(torch.from_numpy(images)).numpy()
    print("PyTorch:", digits.record(HERE / "scores.npy", scores, data.test))
    path = HERE / "digits.onnx"
    torch.onnx.export(
        model,
        (torch.from_numpy(images[:2]),),
        str(path),
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
        opset_version=17,
        dynamo=False,
        # The model is in eval mode already. This leaves the graph as it is; otherwise the exporter itself folds.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    again = session.run(None, {"image": images})[0]
    found, error = digits.correct(again, data.test), np.abs(again - scores).max()
    print(f"ONNX: {found} of {len(data.test.labels)}, off by {error:.1e}")


if __name__ == "__main__":
    main()
