"""Arrays of every datatype that numpy has, as the clients are given them."""

import numpy as np

ELEMENTS = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [7, 1]], np.uint8),
    "UINT16": np.array([[0, 65535], [7, 1]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [7, 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [2**63, 1]], np.uint64),
    "INT8": np.array([[-128, 127], [0, 1]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1], [0, 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [0, 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [0, 1]], np.int64),
    "FP16": np.array([[0.5, -65504], [1, 2]], np.float16),
    "FP32": np.array([[0.1, -3.4e38], [1, 1e-45]], np.float32),
    "FP64": np.array([[0.1, -1.7e308], [1, 5e-324]], np.float64),
    "BYTES": np.array([[b"", b"a"], ["ü→".encode(), b"x" * 300]], dtype=object),
}


def arrays() -> dict[str, np.ndarray]:
    return dict(ELEMENTS)
