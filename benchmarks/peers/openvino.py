"""OpenVINO: the network converted once at its shape, the DDIM update in NumPy, in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import torch

from ..ddim_run import DDIMRun
from . import Contender
from .host import Call, Loop


def compiled(ddim_run: DDIMRun) -> Contender:
    loop = Loop(ddim_run)
    shapes = [(list(ddim_run.noise.shape), openvino.Type.f32), ([], openvino.Type.i64)]
    model = openvino.convert_model(
        ddim_run.network(), example_input=(ddim_run.noise, loop.example), input=shapes
    )
    return loop.contender(opened(model, torch.get_num_threads()), openvino.__version__)


def opened(model: Any, threads: int, precision: str = "f32") -> Call:
    """The network of a converted model, or of an ONNX file by its path.

    precision  "f32" or "bf16", of its products; inputs and outputs are in float32
    """
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = openvino.compile_model(model, "CPU", settings).create_infer_request()

    def network(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return request.infer([x, t], share_inputs=True, share_outputs=True)[0]

    return network
