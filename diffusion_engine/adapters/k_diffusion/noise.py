"""Where the noise of a run comes from: k-diffusion's calls in its order, or a path of every sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import checks
from ...ops.brownian import BrownianArgs
from ...ops.layout import HEADER, TERMS
from ...ops.philox import IMAGE, PATH, STATE
from ...ops.registry import resolve
from ...plan import brownian
from ...processes import EDM
from .tables import Table

# (sigma, sigma_next) -> normals like x
NoiseSampler = Callable[[Any, Any], Tensor]
SEEDS = 1 << 64


def default_noise_sampler(x: Tensor) -> NoiseSampler:
    """Normals of torch's global generator of x's device, fresh for every call."""
    return lambda sigma, sigma_next: torch.randn_like(x)


class Drawn:
    """The normals of a run's rows from a noise sampler, called in k-diffusion's order with its arguments.

    sampler  (sigma, sigma_next) -> normals like x
    """

    def __init__(self, sampler: NoiseSampler, table: Table, x: Tensor) -> None:
        self.sampler, self.table, self.x = sampler, table, x
        # One copy to the device, not one a call.
        flat = [sigma for pair in table.calls for sigma in pair]
        self.sigmas = x.new_tensor(flat, dtype=torch.promote_types(x.dtype, torch.float32)).unbind()
        self.next = 0

    def __call__(self, row: int, m: int) -> Tensor:
        """Those of a row's normal; what is drawn before and not used is dropped."""
        place = self.table.places[row, m]
        while self.next <= place:
            made = self.sampler(*self.sigmas[2 * self.next : 2 * self.next + 2])
            self.next += 1
        if not isinstance(made, Tensor) or made.shape != self.x.shape:
            got = list(made.shape) if isinstance(made, Tensor) else checks.said(made)
            raise ValueError(
                f"noise_sampler returned {got}; it returns normals like x, {list(self.x.shape)}"
            )
        return made


class BrownianTreeNoiseSampler:
    """Noise of one Brownian path of each sample, the same for any number of steps.

    x          [B, C, *pixel], whose shape, dtype and device the noise has
    sigma_min, sigma_max  are not needed here: a path covers all levels
    seed       of the first sample, the others count on; or one for each. None draws it from torch's global
               generator, so that torch.manual_seed decides it

    Called with (sigma, sigma_next) it returns the path's increment over its standard deviation, a normal of
    every element. The clock of W is 1 / sigma^2, in which the noise of reverse SDEs is Brownian;
    k-diffusion's is sigma, and its numbers are torchsde's: give its own sampler as noise_sampler for them.
    A function here that is given this one draws inside its kernel, and never calls it.
    """

    def __init__(
        self, x: Tensor, sigma_min: Any = None, sigma_max: Any = None,
        seed: int | Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        self.x = x
        if seed is None:
            seed = int(torch.randint(0, 2**63 - 1, []))
        if isinstance(seed, Integral):
            first = checks.whole("seed", int(seed), 0, "a seed is a whole number from 0 on")
            self.seeds = [(first + i) % SEEDS for i in range(len(x))]
        else:
            listed = checks.entries("seed", seed, "give a seed, or one for each sample")
            self.seeds = [
                checks.whole("seed", s, 0, "a seed is a whole number from 0 on") for s in listed
            ]
        if len(self.seeds) != len(x):
            raise ValueError(
                f"seed has {len(self.seeds)} entries for {len(x)} samples; give one a sample"
            )

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        """Normals like x of the path's interval."""
        process = EDM()
        ends = [process.at_ratio(checks.number("sigma", s)) for s in (sigma, sigma_next)]
        s, t = sorted(ends, key=lambda at: at.lam)
        taken = brownian.span(s, t)
        if taken is None:
            return torch.zeros_like(self.x)
        sign = 1.0 if ends[0].lam < ends[1].lam else -1.0
        return sign * self._increment(*taken[1:])

    def _increment(self, low: int, high: int) -> Tensor:
        keys, values = brownian.weights(np.array([low]), np.array([high]))
        kept = np.abs(values[0]) > brownian.NEGLIGIBLE
        count, device = int(kept.sum()), self.x.device
        terms = torch.zeros(1, 1, HEADER + TERMS, dtype=torch.int32)
        weight = torch.zeros(1, 1, TERMS)
        terms[0, 0, 0], terms[0, 0, 1] = count, PATH
        terms[0, 0, HEADER : HEADER + count] = torch.from_numpy(keys[0][kept] | (STATE & IMAGE))
        weight[0, 0, :count] = torch.from_numpy(values[0][kept])
        signed = [seed - (seed >> 63 << 64) for seed in self.seeds]
        out = torch.empty(1, *self.x.shape, device=device)
        args = BrownianArgs(
            out, torch.tensor(signed, device=device),
            torch.zeros(len(signed), dtype=torch.int32, device=device), terms.to(device), weight.to(device),
        )  # fmt: skip
        resolve("brownian", "auto", args)()
        return out[0].to(self.x.dtype)
