"""A network in an ONNX file: what the file asks for, and its calls."""

from .module import OnnxModule

__all__ = ["OnnxModule"]
