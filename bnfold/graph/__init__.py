"""The ONNX graph: files, views of it, its wires."""
