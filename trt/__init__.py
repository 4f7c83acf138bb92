"""Engines of TensorRT and TensorRT-RTX: building them from ONNX files, and running them on a GPU."""
