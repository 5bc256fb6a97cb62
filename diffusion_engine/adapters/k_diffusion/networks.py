"""k-diffusion's denoiser wrappers as ScoreNetworks: recognised by what they have, not by their class."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ...networks.network import ScoreNetwork
from ...processes import EDM, Discrete, GaussianProcess


def from_k_diffusion(denoiser: Any, shape: tuple[int, ...], **options: Any) -> ScoreNetwork:
    """A ScoreNetwork of a denoiser D(x, sigma), with the levels that its wrapper was made for.

    denoiser  one of k-diffusion's external wrappers, or any denoiser. With `sigmas` and `get_sigmas`
              (CompVisDenoiser, CompVisVDenoiser, DiscreteEpsDDPMDenoiser, OpenAIDenoiser and their kin) its
              process is the discrete table of them, and runs visit timesteps. With `sigma_to_t` and
              `inner_model` alone (VDenoiser) any level will do, and it is EDM's, as of a plain denoiser
    shape     of one sample, (C, *pixel)
    options   of ScoreNetwork, such as null and clip

    The wrapper is called as it is, denoiser(x, sigma, **condition). Raises ValueError where its sigmas are no
    table.
    """
    return ScoreNetwork.from_denoiser(denoiser, shape, process_of(denoiser), **options)


def process_of(denoiser: Any) -> GaussianProcess:
    """The law of a wrapper's levels: alpha_bar = 1 / (1 + sigma^2)."""
    sigmas = getattr(denoiser, "sigmas", None)
    if sigmas is None or not callable(getattr(denoiser, "get_sigmas", None)):
        return EDM()
    levels = sigmas.detach().double().cpu().numpy() if isinstance(sigmas, Tensor) else sigmas
    levels = np.asarray(levels, np.float64)
    if (
        levels.ndim != 1
        or not len(levels)
        or not (levels[0] > 0.0 and np.all(np.diff(levels) > 0.0))
    ):
        raise ValueError(
            f"{type(denoiser).__name__}.sigmas {list(levels.shape)} is no table of a wrapper: rising levels "
            "above 0, that of timestep 0 first"
        )
    return Discrete(alpha_bar=tuple((1.0 / (1.0 + levels**2)).tolist()))
