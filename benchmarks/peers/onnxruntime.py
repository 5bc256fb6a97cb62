"""ONNX Runtime: the network exported once at its shape, the DDIM update in NumPy, in place."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from ..ddim_run import DDIMRun
from . import Contender
from .host import Loop


def session(ddim_run: DDIMRun) -> Contender:
    loop = Loop(ddim_run)
    program = torch.onnx.export(
        ddim_run.network(), (ddim_run.noise, loop.example), dynamo=True, verbose=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x_name, t_name = (given.name for given in session.get_inputs())

    def network(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return session.run(None, {x_name: x, t_name: t})[0]

    return loop.contender(network, onnxruntime.__version__)
