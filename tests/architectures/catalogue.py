"""All architectures, and what algebra says must remain of each.

``stays`` counts the batch norms that cannot go without leaving an operation that takes as long, by the reason for which
they stay: each row follows from what stands in front of and behind its batch norms. ``fewest`` counts those that no
rearrangement of the weights can take in, whatever it leaves. ``at_most`` bounds how many nodes of a kind may be left,
which says that branches became one and that no batch norm was paid for with something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.architectures import branched, further, images, linear, mobile, residual, sound, tokens
from tests.architectures.net import Net, Style

if TYPE_CHECKING:
    from onnx import ModelProto

if TYPE_CHECKING:
    Build = Callable[[Net], None]


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """One network, small, and what is known about it.

    Attributes:
        name: What it is called.
        build: Writes it into an empty net.
        batch_norms: How many it has.
        stays: How many of them stay, by reason.
        fewest: How many stay where an Add or a Max may take their place; None where that makes no difference.
        at_most: How many nodes of an operation may be left.
        style: How its file looks; gammas of both signs unless it says otherwise.
    """

    name: str
    build: Build
    batch_norms: int
    stays: Mapping[str, int] = field(default_factory=dict)
    fewest: Mapping[str, int] | None = None
    at_most: Mapping[str, int] = field(default_factory=dict)
    style: Mapping[str, Any] = field(default_factory=dict)

    def model(self, **changes: Any) -> ModelProto:
        """Return the network in the style of its own, but for what is given."""
        net = Net(Style(**{"gammas": "mixed", **self.style, **changes}))
        self.build(net)
        return net.model(self.name.replace(" ", "_"))


POSITIVE = {"gammas": "positive"}
TENSORFLOW = {"names": "tensorflow"}
BARE = {"names": "none", "weights": "constant"}
FREE = {"free_image": True}
DYNAMO = {"names": "dynamo", "opset": 18}
COMPUTED = {"computed_shapes": True}

# Behind a convolution: every batch norm goes backward, whatever its sign.
_BEHIND = (
    Architecture("ResNet, basic", residual.resnet, 10, at_most={"Add": 4}),
    Architecture(
        "ResNet, bottleneck",
        partial(residual.resnet, block="bottleneck", average_down=True, cardinality=2),
        15,
        at_most={"Add": 4},
        style=BARE,
    ),
    Architecture("ResNet, free image", residual.resnet, 10, at_most={"Add": 4}, style=FREE),
    Architecture("ResNet, features", partial(residual.resnet, features=True), 10, at_most={"Add": 4}),
    Architecture("ResNet, dynamo", residual.resnet, 10, at_most={"Add": 4}, style=DYNAMO),
    Architecture("EfficientNet, dynamo", mobile.efficientnet, 16, at_most={"Add": 3}, style=DYNAMO),
    Architecture("ResNet, computed shapes", residual.resnet, 10, at_most={"Add": 4}, style=COMPUTED | FREE),
    Architecture("HRNet, computed shapes", residual.hrnet, 31, at_most={"Conv": 31}, style=COMPUTED),
    Architecture("HRNet", residual.hrnet, 31, at_most={"Conv": 31}),
    Architecture("MobileNetV2", mobile.mobilenet_v2, 13, at_most={"Add": 2, "Clip": 9}),
    Architecture("MobileNetV2, TensorFlow", mobile.mobilenet_v2, 13, at_most={"Add": 2, "Clip": 9}, style=TENSORFLOW),
    Architecture("MobileNetV3", mobile.mobilenet_v3, 16, at_most={"Add": 2, "Mul": 3}),
    Architecture("EfficientNet", mobile.efficientnet, 16, at_most={"Add": 3}, style={"opset": 20}),
    Architecture("EfficientNet, TensorFlow", mobile.efficientnet, 16, at_most={"Add": 3}, style=TENSORFLOW),
    Architecture("MixNet", mobile.mixnet, 14, at_most={"Conv": 38, "Concat": 12}),
    Architecture("ShuffleNetV2", mobile.shufflenet_v2, 24, at_most={"Conv": 24}),
    Architecture("ShuffleNetV2, computed shapes", mobile.shufflenet_v2, 24, at_most={"Conv": 24}, style=COMPUTED),
    Architecture("Inception", mobile.inception, 24, at_most={"Conv": 24}),
    Architecture(
        "Inception, transformed input",
        partial(mobile.inception, transform=True),
        24,
        at_most={"Conv": 24, "Mul": 0, "Add": 0},
    ),
    Architecture("Inception, free image", mobile.inception, 24, at_most={"Conv": 24}, style=FREE),
    Architecture("GhostNet", branched.ghostnet, 13, at_most={"Conv": 13, "Add": 3}),
    Architecture("PointNet", tokens.pointnet, 8, at_most={"Conv": 5, "Gemm": 5, "Add": 1}, style={"opset": 20}),
    Architecture("CRNN", tokens.crnn, 3, at_most={"Add": 2}),
    Architecture("U-Net", images.unet, 12, at_most={"Conv": 11, "ConvTranspose": 2}),
    Architecture("U-Net, resized", partial(images.unet, up="resized"), 12, at_most={"Conv": 13}, style=FREE),
    Architecture(
        "U-Net, computed shapes", partial(images.unet, up="resized"), 12, at_most={"Conv": 13}, style=FREE | COMPUTED
    ),
    Architecture("DCGAN", images.dcgan, 3, at_most={"ConvTranspose": 4}),
    Architecture("GAN of upsampling", images.upsampling_gan, 4, at_most={"Gemm": 1, "Conv": 4, "Resize": 3}),
    Architecture("EfficientDet", images.efficientdet, 22, at_most={"Conv": 44, "Add": 4}),
    Architecture("SRGAN", further.srgan, 7, at_most={"Conv": 9, "Add": 3}),
    Architecture("R(2+1)D", further.r2plus1d, 6, at_most={"Add": 2, "Conv": 6}),
    Architecture("Xception", further.xception, 8, at_most={"Conv": 13, "Add": 2}, style=TENSORFLOW),
    Architecture("YOLO", further.yolo, 20, at_most={"Conv": 25}),
    Architecture("Conformer", sound.conformer, 2, at_most={"Conv": 6}),
    Architecture("Temporal convolutions", sound.temporal, 4, at_most={"Conv": 6, "Pad": 4}),
    Architecture("Two towers", further.two_towers, 4, at_most={"Conv": 4, "Add": 0}),
    Architecture("Keras", images.keras_cnn, 3, at_most={"Transpose": 16, "Conv": 3}, style=TENSORFLOW),
)

# In front of a dense layer, an unpadded convolution or a recurrent layer: forward, whatever the sign.
_IN_FRONT = (
    Architecture("LeViT", tokens.levit, 21, at_most={"Add": 25, "Mul": 4}),
    Architecture("LeViT, dynamic", partial(tokens.levit, dynamic=True), 21, at_most={"Add": 25, "Mul": 4}),
    Architecture("LeViT, dynamo", tokens.levit, 21, at_most={"Add": 25, "Mul": 4}, style=DYNAMO | COMPUTED),
    Architecture("LeViT, computed shapes", tokens.levit, 21, at_most={"Add": 25, "Mul": 4}, style=COMPUTED),
    Architecture("CoAtNet", further.coatnet, 11, at_most={"Conv": 17, "Add": 3 + 7}),
    Architecture("Visformer", tokens.visformer, 15, at_most={"Conv": 26}),
    Architecture("PointNet, computed shapes", tokens.pointnet, 8, at_most={"Conv": 5, "Gemm": 5}, style=COMPUTED),
    Architecture("CRNN, batch norm last", partial(tokens.crnn, bn_last=True), 3, at_most={"Add": 2}),
    Architecture("Table", further.tabular, 4, at_most={"Gemm": 4, "Add": 0, "Mul": 0}, style=BARE),
    Architecture("Deep Speech 2", tokens.deepspeech, 5, at_most={"Add": 0, "Gemm": 1}),
)

# Behind an activation: only a positive scale goes through ReLU, and no map through GELU. A shift that is in front of
# padding can only go backward, or stay.
_ACTIVATED = (
    Architecture("ResNetV2, basic", residual.resnet_v2, 9, at_most={"Add": 4, "Mul": 0}, style=POSITIVE),
    Architecture(
        "ResNetV2, bottleneck",
        partial(residual.resnet_v2, block="bottleneck"),
        13,
        at_most={"Add": 4, "Mul": 0},
        style=POSITIVE,
    ),
    Architecture("ResNetV2, dynamo", residual.resnet_v2, 9, at_most={"Add": 4, "Mul": 0}, style=POSITIVE | DYNAMO),
    Architecture("ResNetV2, free image", residual.resnet_v2, 9, at_most={"Add": 4, "Mul": 0}, style=POSITIVE | FREE),
    Architecture(
        "ResNetV2, features",
        partial(residual.resnet_v2, features=True),
        9,
        stays={"model-output": 2},
        fewest={},
        at_most={"Add": 4},
        style=POSITIVE,
    ),
    Architecture(
        "DenseNet, dynamo",
        residual.densenet,
        15,
        stays={"used-elsewhere": 7},
        fewest={},
        style=POSITIVE | DYNAMO,
    ),
    # The first of its batch norms stands behind zeros that were padded by a node of their own.
    Architecture(
        "ResNetV2, Keras",
        residual.resnet_v2_keras,
        19,
        stays={"padded-shift": 1},
        fewest={},
        at_most={"Add": 6},
        style=POSITIVE | TENSORFLOW,
    ),
    Architecture("ResNetV2, both signs", residual.resnet_v2, 9, stays={"sign": 5}),
    # The batch norms of a block share their features, which can carry the shift of one of them; a block that begins
    # behind ReLU can carry none.
    Architecture("DenseNet", residual.densenet, 15, stays={"used-elsewhere": 7}, fewest={}, style=POSITIVE),
    Architecture("DenseNet, both signs", residual.densenet, 15, stays={"sign": 8}),
    Architecture(
        "IR-ResNet", further.ir_resnet, 16, stays={"padded-shift": 1}, fewest={}, at_most={"Add": 4, "Mul": 0}
    ),
    Architecture("X-vector", sound.xvector, 7, at_most={"Add": 0, "Mul": 1}, style=POSITIVE),
    Architecture("X-vector, both signs", sound.xvector, 7, stays={"sign": 1}),
    Architecture("ECAPA", sound.ecapa, 13, at_most={"Add": 6}, style=POSITIVE),
    Architecture("XCiT", tokens.xcit, 5, stays={"padded-shift": 2}, fewest={}, at_most={"Conv": 7}),
    Architecture("ConvMixer", tokens.convmixer, 5, stays={"no-gain": 4}),
    Architecture(
        "U-Net, batch norm behind ReLU",
        partial(images.unet, order="conv-relu-bn", width=8),
        12,
        stays={"padded-shift": 9},
        fewest={},
        at_most={"Add": 0, "Mul": 0},
        style=POSITIVE,
    ),
    Architecture(
        "U-Net, batch norm behind ReLU, both signs",
        partial(images.unet, order="conv-relu-bn", width=8),
        12,
        stays={"padded-shift": 7, "sign": 2},
        fewest={"sign": 2},
        at_most={"Add": 0, "Mul": 0},
    ),
    Architecture(
        "U-Net, batch norm behind Concat",
        partial(images.unet, bn_behind_concat=True),
        14,
        stays={"padded-shift": 2},
        fewest={},
        at_most={"Add": 0, "Mul": 0},
        style=TENSORFLOW,
    ),
    Architecture(
        "Keras, batch norm behind ReLU",
        partial(images.keras_cnn, order="conv-relu-bn", pad="valid", side=30),
        3,
        at_most={"Add": 0, "Mul": 0},
        style=POSITIVE | TENSORFLOW,
    ),
    Architecture(
        "Keras, batch norm behind ReLU, both signs",
        partial(images.keras_cnn, order="conv-relu-bn", pad="valid", side=30),
        3,
        stays={"sign": 2},
        fewest={"sign": 2},
        style=TENSORFLOW,
    ),
)

# Not a batch norm in name: constants that are multiplied and added.
_FROZEN = (
    Architecture("SSD, frozen", images.ssd, 0, at_most={"Mul": 0, "Add": 0}),
    Architecture(
        "SSD, computed", partial(images.ssd, frozen="computed"), 0, at_most={"Mul": 0, "Add": 0, "Sub": 0, "Sqrt": 0}
    ),
    Architecture(
        "SSD, spelled out",
        partial(images.ssd, frozen="spelled"),
        0,
        at_most={"Mul": 0, "Add": 0, "Sub": 0, "Div": 1, "Sqrt": 0},
        style=BARE,
    ),
    Architecture(
        "Keras, last axis",
        partial(images.keras_cnn, norm="last axis"),
        0,
        at_most={"Mul": 0, "Add": 0},
        style=TENSORFLOW,
    ),
)

# Branches over one value, summed: one convolution.
_BRANCHED = (
    Architecture("RepVGG", branched.repvgg, 12, at_most={"Conv": 5, "Add": 0}),
    Architecture(
        "RepVGG, grouped", partial(branched.repvgg, group=2, se=True), 12, at_most={"Conv": 15, "Add": 0}, style=FREE
    ),
    Architecture("MobileOne", branched.mobileone, 35, at_most={"Conv": 9, "Add": 0}, style=BARE),
    Architecture("MobileOne, dynamo", branched.mobileone, 35, at_most={"Conv": 9, "Add": 0}, style=DYNAMO),
    Architecture("RepGhost", branched.repghost, 19, at_most={"Conv": 15, "Add": 3}),
    Architecture("FastViT", branched.fastvit, 26, at_most={"Conv": 19, "Add": 11, "Sub": 0}),
)

# Layers in a row with nothing between them: one layer.
_LINEAR = (
    Architecture("ExpandNet", linear.expandnet, 3, at_most={"Conv": 3, "Gemm": 1}),
    Architecture("SESR", linear.sesr, 0, at_most={"Conv": 5, "Add": 1}),
    Architecture("SESR, bare", linear.sesr, 0, at_most={"Conv": 5, "Add": 1}, style={**BARE, **FREE}),
)

ARCHITECTURES = (*_BEHIND, *_IN_FRONT, *_ACTIVATED, *_FROZEN, *_BRANCHED, *_LINEAR)
"""Every network there is."""
