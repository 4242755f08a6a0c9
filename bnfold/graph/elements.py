"""The floating element types of the file format, and how far their numbers reach."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

__all__ = ["LARGEST", "NO_FINER"]

LARGEST: Mapping[int, float] = {
    TensorProto.FLOAT16: float(np.finfo(np.float16).max),
    TensorProto.BFLOAT16: float.fromhex("0x1.fep127"),
    TensorProto.FLOAT: float(np.finfo(np.float32).max),
    TensorProto.DOUBLE: float(np.finfo(np.float64).max),
}
"""The largest number of each, by ``TensorProto``'s own number of the type."""

NO_FINER = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
"""Those whose numbers float32 tells apart, which attributes are in."""
