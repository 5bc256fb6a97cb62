"""Other runtimes as executors: ONNX Runtime and OpenVINO run a network that is exported once."""

from __future__ import annotations

from .onnxruntime import OnnxRuntime
from .openvino import OpenVINO
from .provider import ProviderError

__all__ = ["OnnxRuntime", "OpenVINO", "ProviderError"]
