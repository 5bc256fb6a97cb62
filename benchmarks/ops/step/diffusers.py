"""The step by diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .cases import SCALE, STEPS, Buffers, Case

Call = Callable[[], Any]


class Diffusers:
    """A scheduler's own `.step`, called as its documentation does, with every per-run cost outside."""

    def __init__(self, case: Case, device: torch.device) -> None:
        import diffusers

        self.case = case
        kind = getattr(diffusers, case.scheduler)
        clip = {} if case.history else {"clip_sample": case.clip}
        self.scheduler = kind(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, **clip)
        if case.history:  # its own spacing rounds to other timesteps
            spacing = 1000 // STEPS
            given = [spacing * i for i in reversed(range(STEPS))]
            self.scheduler.set_timesteps(timesteps=given, device=device)
        else:
            self.scheduler.set_timesteps(STEPS, device=device)
        # DDIM otherwise mixes a clipped estimate with the eps of the unclipped one.
        corrected = case.clip and case.scheduler == "DDIMScheduler"
        self.options = {"use_clipped_model_output": True} if corrected else {}
        self.index = self.scheduler.timesteps.tolist().index(case.timestep)

    def call(self, buffers: Buffers) -> Call:
        """The step on a set, which returns the new x and leaves the set as it was."""
        step, t, eps = self.scheduler.step, self.case.timestep, buffers.eps

        def call() -> Tensor:
            out = eps
            if self.case.guided:
                conditional, unconditional = eps.chunk(2)
                out = unconditional + SCALE * (conditional - unconditional)
            if self.case.history:  # where the step before this one would have left it
                self.scheduler._step_index = self.index
                self.scheduler.lower_order_nums = 2
                self.scheduler.model_outputs[-1] = buffers.past
            x = step(out, t, buffers.x, return_dict=False, **self.options)[0]
            return x.to(eps.dtype) if self.case.net else x

        return call
