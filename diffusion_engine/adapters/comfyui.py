"""ComfyUI's sampler interface over k-diffusion's functions. ComfyUI itself is not imported.

A sampler there is a function of (model, x, sigmas, extra_args, callback, disable, **options), which a
KSAMPLER holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import Tensor

from .. import checks
from . import k_diffusion
from .k_diffusion import SAMPLERS, BrownianTreeNoiseSampler
from .k_diffusion.cfg_pp import CFG_PP
from .k_diffusion.exponential import EXPONENTIAL
from .k_diffusion.extended import EXTENDED
from .seeded import ImageNoise as ImageNoise
from .seeded import Nvidia as Nvidia
from .seeded import prepare_noise as prepare_noise
from .seeded import step_noise as step_noise

ASKED = ("model", "x", "sigmas", "extra_args", "callback", "disable")
SDE = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")


def _dpm_fast(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None, disable: bool | None = None, eta: float = 0.0,
    s_noise: float = 1.0, noise_sampler: Callable[[Any, Any], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver-fast between the ends of sigmas above 0, of as many calls as they have steps."""
    levels = k_diffusion.levels(sigmas)
    ends = [g for g in levels if g > 0.0]
    if len(levels) < 2:
        return x
    return k_diffusion.sample_dpm_fast(
        model, x, ends[-1], ends[0], len(levels) - 1, extra_args, callback, disable, eta, s_noise,
        noise_sampler,
    )  # fmt: skip


def _dpm_adaptive(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None, disable: bool | None = None, order: int = 3,
    rtol: float = 0.05, atol: float = 0.0078, eta: float = 0.0, s_noise: float = 1.0,
    noise_sampler: Callable[[Any, Any], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver-12 or -23 between the ends of sigmas above 0, in steps by their errors."""
    ends = [g for g in k_diffusion.levels(sigmas) if g > 0.0]
    if len(ends) < 2:
        return x
    made: Tensor = k_diffusion.sample_dpm_adaptive(
        model, x, ends[-1], ends[0], extra_args, callback, disable, order=order, rtol=rtol, atol=atol,
        eta=eta, s_noise=s_noise, noise_sampler=noise_sampler,
    )  # fmt: skip
    return made


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    **SAMPLERS,
    **EXTENDED,
    **EXPONENTIAL,
    **CFG_PP,
    "dpm_fast": _dpm_fast,
    "dpm_adaptive": _dpm_adaptive,
    **{f"{name}_gpu": SAMPLERS[name] for name in SDE},
}
"""By the names that ComfyUI has them under; "_gpu" says there where noise is drawn, and nothing here."""


def sampler_function(name: str, **options: Any) -> Callable[..., Tensor]:
    """What a KSAMPLER of ComfyUI calls, by the solver's name there.

    name     "euler", "dpmpp_2m", "dpmpp_2m_sde_gpu", ...: of FUNCTIONS
    options  of the function, such as eta, s_noise, s_churn, solver_type, r and noise_sampler; those of a call
             come on top

    The noise of ancestral steps is ComfyUI's of extra_args["seed"]; an SDE solver's is the path of that seed,
    where ComfyUI's is torchsde's: give a noise_sampler for that. Without a seed torch's global generator
    decides. Raises ValueError on an unknown name or option.
    """
    function = FUNCTIONS[checks.one_of("name", name, tuple(FUNCTIONS))]
    known = tuple(k for k in signature(function).parameters if k not in ASKED)
    checks.names(name, options, known)

    def sample(
        model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None, disable: bool | None = None, **more: Any,
    ) -> Tensor:  # fmt: skip
        checks.names(name, more, known)
        given = options | more
        seed = (extra_args or {}).get("seed")
        if "noise_sampler" in known and given.get("noise_sampler") is None and seed is not None:
            path = name.removesuffix("_gpu") in SDE
            given["noise_sampler"] = (
                BrownianTreeNoiseSampler(x, seed=seed) if path else step_noise(x, seed)
            )
        return function(model, x, sigmas, extra_args, callback, disable, **given)

    sample.__name__ = f"sample_{name}"
    return sample
