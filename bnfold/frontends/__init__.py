"""From a trained artifact on disk to an ONNX model in inference mode."""
