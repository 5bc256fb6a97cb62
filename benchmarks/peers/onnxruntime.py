"""ONNX Runtime: the network exported once at its shape, the DDIM update in NumPy, in place."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from ..ddim_run import DDIMRun
from . import Contender
from .host import Call, Loop


def session(ddim_run: DDIMRun) -> Contender:
    network = opened(exported(ddim_run), torch.get_num_threads())
    return Loop(ddim_run).contender(network, onnxruntime.__version__)


def exported(ddim_run: DDIMRun) -> bytes:
    """The network at the run's shape, as an ONNX file."""
    program = torch.onnx.export(
        ddim_run.network(), (ddim_run.noise, Loop(ddim_run).example), dynamo=True, verbose=False
    )
    return program.model_proto.SerializeToString()


def opened(model: str | bytes, threads: int, spinning: bool = False) -> Call:
    """The network of an ONNX file, or of what is in it.

    spinning  whether threads that wait for work look for it all the time
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x_name, t_name = (given.name for given in session.get_inputs())

    def network(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return session.run(None, {x_name: x, t_name: t})[0]

    return network
