"""The loop around a network of NumPy arrays: x <- a x + b eps, in place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..ddim_run import DDIMRun
from . import Contender

Call = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Loop:
    def __init__(self, ddim_run: DDIMRun) -> None:
        if ddim_run.dtype != torch.float32:
            raise ValueError(f"it runs in float32, not {ddim_run.dtype}")
        self.noise = ddim_run.noise.numpy()
        self.updates = [
            (np.array(t, np.int64), np.float32(a), np.float32(b))
            for t, a, b in ddim_run.schedule.updates(ddim_run.steps)
        ]
        self.example = torch.tensor(int(self.updates[0][0]))  # a timestep to export with

    def __call__(self, network: Call) -> Tensor:
        x, term = self.noise.copy(), np.empty_like(self.noise)
        for t, a, b in self.updates:
            np.multiply(network(x, t), b, out=term)
            x *= a
            x += term
        return torch.from_numpy(x)

    def contender(self, network: Call, version: str) -> Contender:
        ready = np.ones_like(self.noise)
        return Contender(lambda: self(network), lambda: self(lambda x, t: ready), version)
