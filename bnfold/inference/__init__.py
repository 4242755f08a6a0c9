"""Training mode out of an ONNX graph."""

from bnfold.inference.mode import Change, to_inference_mode

__all__ = ["Change", "to_inference_mode"]
