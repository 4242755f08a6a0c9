"""Our own float64 kernels of the usual operations, by operation name."""

from collections.abc import Mapping

from bnfold.parity.kernels.call import Array, Call, Inputs, Kernel, computes_with, roundoff, widen
from bnfold.parity.kernels.contractions import CONTRACTIONS
from bnfold.parity.kernels.layout import LAYOUT
from bnfold.parity.kernels.pointwise import POINTWISE
from bnfold.parity.kernels.recurrent import RECURRENT
from bnfold.parity.kernels.sampling import SAMPLING, is_plain_resize
from bnfold.parity.kernels.selection import SELECTION
from bnfold.parity.kernels.windows import WINDOWS

__all__ = ["KERNELS", "Array", "Call", "Inputs", "Kernel", "computes_with", "is_plain_resize", "roundoff", "widen"]

KERNELS: Mapping[str, Kernel] = {**POINTWISE, **CONTRACTIONS, **LAYOUT, **WINDOWS, **SAMPLING, **RECURRENT, **SELECTION}
"""Operations of the standard domain that need no other implementation."""
