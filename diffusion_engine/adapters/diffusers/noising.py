"""The laws of the timesteps that training draws and that pipelines noise an image to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...processes import Discrete, FlowMatching, GaussianProcess
from .scheduler_run import Run

# (alpha, sigma), numbers or [B, 1, ...] float32
Law = tuple[Tensor | float, Tensor | float]


@dataclass(frozen=True, eq=False)
class Noising:
    """x = alpha x0 + sigma eps of any timestep: of a run, or of the `count` that a network is trained on.

    Raises ValueError where a process has no such timesteps.
    """

    process: GaussianProcess
    count: int
    _tables: dict[torch.device, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def alphas_cumprod(self) -> Tensor:
        """[count] float32, alpha^2 of every timestep of training. AttributeError where there is no table."""
        if not isinstance(self.process, Discrete):
            raise AttributeError(f"{type(self.process).__name__} has no alphas_cumprod")
        return torch.tensor(self.process.alpha_bar)

    def law(self, run: Run | None, timesteps: Tensor, like: Tensor) -> Law:
        """alpha and sigma of timesteps [B] or [] for images like [B, C, *pixel], on their device.

        Of a run that was told where it begins, and has not begun, the level there.
        """
        if run is not None and run.begin is not None and run.index is None:
            at = run.course.levels[run.begin]
            return at.alpha, at.sigma
        times = timesteps.to(like.device).flatten()
        shape = (-1, *[1] * (like.ndim - 1))
        if run is None:
            alpha, sigma = self._trained(times, None)
        else:
            # Karras' levels and the like lie between those of the table, whatever they are told as.
            same = times[:, None] == run.timesteps.to(like.device)
            found, place = same.any(1), same.int().argmax(1)
            trained = self._trained(times, found)
            pairs = zip(run.laws(like.device), trained, strict=True)
            alpha, sigma = (torch.where(found, own[place], other) for own, other in pairs)
        return alpha.view(shape), sigma.view(shape)

    def _trained(self, times: Tensor, found: Tensor | None) -> tuple[Tensor, Tensor]:
        """alpha and sigma of timesteps of training; of those that were found elsewhere, anything."""
        if isinstance(self.process, FlowMatching):
            sigma = times.float() / self.count
            return 1.0 - sigma, sigma
        inside = (times >= 0) & (times < self.count)
        inside = inside if found is None else inside | found
        if times.device.type == "cpu" and not bool(inside.all()):
            raise ValueError(
                f"timesteps={times.tolist()}: they go from 0 to {self.count - 1}, or are those of a run"
            )
        place = times.long().clamp(0, self.count - 1)
        alpha, sigma = self._table(times.device)
        return alpha[place], sigma[place]

    def _table(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._tables:
            process = self.process
            if not isinstance(process, Discrete):
                raise ValueError(f"{type(process).__name__} has no table of timesteps to noise to")
            times = np.arange(float(len(process.alpha_bar)))
            both = np.stack([process.alpha(times), process.sigma(times)]).astype(np.float32)
            self._tables[device] = torch.from_numpy(both).to(device).unbind()
        return self._tables[device]
