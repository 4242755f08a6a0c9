"""The algebra of folding, on plain float64 arrays."""

from bnfold.affine.field import Field
from bnfold.affine.linear import Linear
from bnfold.affine.per_channel import PerChannelAffine
from bnfold.affine.rounding import Unstorable, round_to, surely_storable

__all__ = ["Field", "Linear", "PerChannelAffine", "Unstorable", "round_to", "surely_storable"]
