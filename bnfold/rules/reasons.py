"""Why a batch norm stays: every reason with what it means and what the model's owner could change.

The order is by how much a reason tells: where both neighbours refuse, the earlier one is reported first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Reason", "Refusal"]


class Reason(Enum):
    """A reason why something is kept. Its value is ``(id, what it means, what its owner could change)``."""

    KEPT_ON_REQUEST = (
        "kept-on-request",
        "The caller asked for it to be kept.",
        "Leave it out of --keep.",
    )
    TRAINING_MODE = (
        "training-mode",
        "It normalises with the statistics of the batch that it is given, so it is no affine map.",
        "Export the model in inference mode.",
    )
    DYNAMIC_PARAMETERS = (
        "dynamic-parameters",
        "Its statistics, gamma or beta are computed while the model runs, or a caller may override them.",
        "Export with constant parameters; initializers that are also graph inputs can be overridden.",
    )
    NON_FINITE = (
        "non-finite",
        "A parameter or a result holds NaN or infinity.",
        "Repair the statistics: training diverged, or the file is damaged.",
    )
    VARIANCE_NOT_POSITIVE = (
        "variance-not-positive",
        "running_var + epsilon is zero or negative in some channel, so its root is no number.",
        "Repair the statistics: a variance is never negative.",
    )
    CHANNEL_MISMATCH = (
        "channel-mismatch",
        "The number of parameters is not the number of channels.",
        "Check the export: the parameters may belong to another layer.",
    )
    PER_ACTIVATION = (
        "per-activation",
        "It has statistics for every position (spatial=0), not for every channel.",
        "Train with one mean and variance a channel.",
    )
    INSIDE_FUNCTION = (
        "inside-function",
        "It stands in a function of the model that cannot be replaced by its nodes.",
        "Export the model without functions of its own.",
    )
    OUT_OF_RANGE = (
        "out-of-range",
        "A folded weight or bias overflows, or vanishes, in the type in which the model stores it.",
        "Store the layer in float32.",
    )
    PADDED_SHIFT = (
        "padded-shift",
        "The convolution pads with zeros after the batch norm, so its border never sees the shift.",
        "Pad before the batch norm, or train without padding.",
    )
    SIGN = (
        "sign",
        "Some channel has a negative scale, and the operation between the two keeps only positive ones.",
        "Nothing by hand: negative gammas come from training; weight decay or a constraint on gamma avoids them.",
    )
    OTHER_GRID = (
        "other-grid",
        "It stands beside a convolution that reads other positions or other groups, so the two are not one.",
        "Nothing: as one convolution they would need a larger kernel.",
    )
    SCRAMBLED = (
        "scrambled-channel",
        "A reshape between the two mixes the channel with another axis.",
        "Put the batch norm next to the layer, before the reshape.",
    )
    UNKNOWN_SHAPE = (
        "unknown-shape",
        "The rank or a dimension that decides it is not known.",
        "Export with fixed channel and spatial sizes (the batch may stay free).",
    )
    ENLARGES = (
        "enlarges",
        "The constant broadcasts the value to a larger shape.",
        "Give the constant the shape of one channel vector.",
    )
    WRONG_AXIS = (
        "wrong-axis",
        "It varies along an axis that the layer's weights do not have.",
        "Normalise the channel axis of the layer.",
    )
    DYNAMIC_WEIGHT = (
        "dynamic-weight",
        "The layer's weight or bias is computed while the model runs, or a caller may override it.",
        "Export with constant weights; initializers that are also graph inputs can be overridden.",
    )
    WEIGHT_TYPE = (
        "weight-type",
        "The layer's weight is not stored in a floating type.",
        "Fold before quantising.",
    )
    USED_ELSEWHERE = (
        "used-elsewhere",
        "The value between the two is also used by something else, which would see it changed.",
        "Give the other consumer its own layer, or take its input behind the batch norm.",
    )
    MODEL_OUTPUT = (
        "model-output",
        "The value between the two is an output of the model.",
        "Drop that output from the model.",
    )
    USED_IN_SUBGRAPH = (
        "used-in-subgraph",
        "The value between the two is used inside the body of an If, Loop or Scan.",
        "Pass the value into the body behind the batch norm.",
    )
    NO_GAIN = (
        "no-gain",
        "Folding would put one operation in the place of another.",
        "Nothing: it costs as little as it can.",
    )
    UNVERIFIED = (
        "unverified",
        "Folding it failed its own check against float64, so it was taken back.",
        "Report the model: this is a defect of a rule.",
    )
    NO_RULE = (
        "no-rule",
        "Neither neighbour can take it in: the operation there is not linear, or has no rule.",
        "Put the batch norm next to a dense or convolution layer.",
    )
    EDGE = (
        "edge-of-graph",
        "There is no layer on that side: the graph begins or ends there.",
        "Put the batch norm next to a dense or convolution layer.",
    )

    @property
    def id(self) -> str:
        """The stable name that reports and ``bnfold explain`` use."""
        return self.value[0]

    @property
    def says(self) -> str:
        """What it means, one sentence."""
        return self.value[1]

    @property
    def remedy(self) -> str:
        """What the model's owner could change, one sentence."""
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rule does not hold here: a value, never an exception.

    Attributes:
        reason: The kind.
        detail: This case, with names and numbers.
        unless: The option of the plan that would make it fold; empty where none does.
    """

    reason: Reason
    detail: str = ""
    unless: str = ""
