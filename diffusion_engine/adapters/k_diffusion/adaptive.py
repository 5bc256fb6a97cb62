"""The loop under `sample_dpm_adaptive`: steps of driver 'dpm_adaptive' over the batch of a user's model."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...drivers.dpm_adaptive import DPMAdaptive
from ...drivers.embedded import combined, rms
from ...executors.batch import plain
from ...processes import Point
from .loop import Asked, called
from .noise import NoiseSampler
from .tables import PROCESS

NEAR = 1e-5  # of the end in log sigma, as k-diffusion's loop ends


def adaptive(
    asked: Asked, rule: DPMAdaptive, ends: tuple[float, float], noise: NoiseSampler
) -> tuple[Tensor, dict[str, int]]:
    """x after the last step in its own dtype, and counts: steps tried, calls, accepted and rejected."""
    dtype, extra = asked.x.dtype, dict(asked.extra_args or {})
    info = {"steps": 0, "nfe": 0, "n_accept": 0, "n_reject": 0}
    s, last = (PROCESS.at_ratio(g) for g in ends)
    lengths, x = rule.lengths(), asked.x.detach().double()
    before, first = x, None
    with plain(), tqdm(disable=asked.disable) as bar:

        def denoised(at: Point, state: Tensor) -> Tensor:
            sigma = torch.full((len(x),), at.sigma, dtype=dtype, device=x.device)
            made = called(asked, state.to(dtype), sigma, extra).detach()
            info["nfe"] += 1
            bar.update()
            return made.double()

        while s.lam < last.lam - NEAR:
            place = s.lam + lengths.h
            t = last if place >= last.lam else rule.point(PROCESS, place)
            step = rule.step(PROCESS, s, t, last)
            first = denoised(s, x) if first is None else first  # a rejected step has it still
            known = [x, first]
            for at, state in step.calls:
                known.append(denoised(at, combined(state, known)))
            end, low = combined(step.end, known), combined(step.low, known)
            error = rms((end - low) / rule.allowed(before, end, low))
            good, shown = lengths.accepts(error, t.lam - s.lam), first
            info["steps"] += 1
            info["n_accept" if good else "n_reject"] += 1
            if good:
                if rule.eta:
                    sigmas = asked.x.new_tensor([s.sigma, t.sigma], dtype=_wide(dtype)).unbind()
                    end = end + step.noise * noise(*sigmas)
                x, s, before, first = end, t, low, None
            if asked.callback is not None:
                _tell(asked, x, s, shown, error, lengths.h, info)
    return x.to(dtype), info


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _tell(
    asked: Asked,
    x: Tensor,
    s: Point,
    denoised: Tensor,
    error: float,
    h: float,
    info: dict[str, int],
) -> None:
    assert asked.callback is not None
    dtype = asked.x.dtype
    sigma, t, said = asked.x.new_tensor([s.sigma, s.lam, error], dtype=_wide(dtype)).unbind()
    asked.callback(
        {
            "sigma": sigma, "sigma_hat": sigma, "x": x.to(dtype), "i": info["steps"] - 1, "t": t, "t_up": t,
            "denoised": denoised.to(dtype), "error": said, "h": h, **info,
        }
    )  # fmt: skip
