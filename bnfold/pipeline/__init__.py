"""Where the rooms meet: a trained network goes in, a folded and proven ONNX model comes out."""

from bnfold.pipeline.conversion import Conversion, require
from bnfold.pipeline.options import DEFAULTS, Options, Progress
from bnfold.pipeline.run import convert, fold_onnx, inspect, verify

__all__ = ["DEFAULTS", "Conversion", "Options", "Progress", "convert", "fold_onnx", "inspect", "require", "verify"]
