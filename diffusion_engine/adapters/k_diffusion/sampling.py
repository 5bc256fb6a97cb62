"""k-diffusion's `sample_*` functions: its names, arguments and order of noise, over the solvers' tables.

x, sigmas, extra_args, callback and disable are those of `Asked`. noise_sampler(sigma, sigma_next) returns
normals like x. Each function returns x after the last step, and raises ValueError with what was given where
sigmas rise, or an argument makes no sense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ... import checks
from ...drivers.dpm_adaptive import DPMAdaptive
from ...solvers import solver
from .adaptive import adaptive
from .loop import Asked, Callback, run
from .noise import BrownianTreeNoiseSampler, NoiseSampler, default_noise_sampler
from .tables import first_and_whole

Model = Callable[..., Tensor]
Extra = Mapping[str, Any] | None


def _churned(name: str, asked: Asked, **options: float) -> Tensor:
    return run(asked, solver(name, **options), default_noise_sampler(asked.x))


def _ancestral(name: str, asked: Asked, given: NoiseSampler | None, **options: float) -> Tensor:
    return run(asked, solver(name, **options), drawn_by(asked, given))


def drawn_by(asked: Asked, given: NoiseSampler | None) -> NoiseSampler:
    if given is None:
        return default_noise_sampler(asked.x)
    return checks.function(
        "noise_sampler", given, "give a function of (sigma, sigma_next), or None"
    )


def _path(asked: Asked, given: NoiseSampler | None) -> NoiseSampler:
    """Of solvers of the reverse SDE: a Brownian path where nothing else is given."""
    return BrownianTreeNoiseSampler(asked.x) if given is None else drawn_by(asked, given)


def _range(sigma_min: Any, sigma_max: Any) -> tuple[float, float]:
    low, high = checks.number("sigma_min", sigma_min), checks.number("sigma_max", sigma_max)
    if not 0.0 < low < high:
        raise ValueError(
            f"sigma_min={low:g} and sigma_max={high:g}: give 0 < sigma_min < sigma_max"
        )
    return low, high


def sample_euler(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:  # fmt: skip
    """Euler's method with churn (Karras et al. 2022, algorithm 2 without its correction)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    options = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
    return _churned("euler", asked, **options)


def sample_heun(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:  # fmt: skip
    """Heun's method with churn (Karras et al. 2022, algorithm 2)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    options = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
    return _churned("heun", asked, **options)


def sample_dpm_2(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:  # fmt: skip
    """The midpoint rule, its midpoint in log sigma, with churn (after Lu et al. 2022, DPM-Solver-2)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    options = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
    return _churned("dpm_2", asked, **options)


def sample_euler_ancestral(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """Euler's method to a lower level, then noise up to the next (Song et al. 2021, DDIM, eq. 16)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    return _ancestral("euler_ancestral", asked, noise_sampler, eta=eta, s_noise=s_noise)


def sample_dpm_2_ancestral(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """The midpoint rule to a lower level, then noise up to the next."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    return _ancestral("dpm_2_ancestral", asked, noise_sampler, eta=eta, s_noise=s_noise)


def sample_lms(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, order: int = 4,
) -> Tensor:  # fmt: skip
    """Linear multistep in sigma of at most `order`, 1 to 4 (k-diffusion; Zhang & Chen 2023, rho-AB)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    order = checks.whole("order", order, 1, "give 1, 2, 3 or 4")
    return run(asked, solver("lms", max_order=order), multistep=True)


def sample_dpmpp_2s_ancestral(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2S) to a lower level, then noise up to the next (Lu et al. 2022, algorithm 1)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    return _ancestral("dpmpp_2s_ancestral", asked, noise_sampler, eta=eta, s_noise=s_noise)


def sample_dpmpp_2m(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2M) (Lu et al. 2022, DPM-Solver++, algorithm 2)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    return run(asked, solver("dpmpp_2m", lower_order_final=False), multistep=True)


def sample_dpmpp_2m_sde(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None, solver_type: str = "midpoint",
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2M) of the reverse SDE; solver_type is "midpoint" or "heun"."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    variant = checks.one_of("solver_type", solver_type, ("midpoint", "heun"))
    rule = solver("dpmpp_2m_sde", eta=eta, s_noise=s_noise, variant=variant)
    return run(asked, rule, _path(asked, noise_sampler), multistep=True)


def sample_dpmpp_3m_sde(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(3M) of the reverse SDE, its second difference with k-diffusion's factor 1."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    rule = solver("dpmpp_3m_sde", eta=eta, s_noise=s_noise, kappa=1.0)
    return run(asked, rule, _path(asked, noise_sampler), multistep=True)


def sample_dpmpp_sde(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None, r: float = 0.5,
) -> Tensor:  # fmt: skip
    """DPM-Solver++ of the reverse SDE, singlestep, with its middle call at the share r of a step."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    noise = _path(asked, noise_sampler)
    one_path = isinstance(noise, BrownianTreeNoiseSampler)
    rule = solver("dpmpp_sde", eta=eta, s_noise=s_noise, r=r, one_path=one_path)
    return run(asked, rule, noise, draws=first_and_whole)


def sample_dpm_fast(
    model: Model, x: Tensor, sigma_min: float, sigma_max: float, n: int, extra_args: Extra = None,
    callback: Callback | None = None, disable: bool | None = None, eta: float = 0.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver-fast of n calls, from sigma_max to sigma_min, both above 0 (Lu et al. 2022)."""
    n = checks.whole("n", n, 1, "a run has a whole number of calls, 1 or more")
    low, high = _range(sigma_min, sigma_max)
    # In float32, as k-diffusion reckons them: another rounding moves x by some 1e-5.
    first, last = torch.tensor([high, low]).log().tolist()
    sigmas = torch.linspace(first, last, n // 3 + 2).exp()
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    rule = solver("dpm_fast", rest=n % 3, eta=eta, s_noise=s_noise)
    return run(asked, rule, drawn_by(asked, noise_sampler))


def sample_dpm_adaptive(
    model: Model, x: Tensor, sigma_min: float, sigma_max: float, extra_args: Extra = None,
    callback: Callback | None = None, disable: bool | None = None, order: int = 3, rtol: float = 0.05,
    atol: float = 0.0078, h_init: float = 0.05, pcoeff: float = 0.0, icoeff: float = 1.0, dcoeff: float = 0.0,
    accept_safety: float = 0.81, eta: float = 0.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None, return_info: bool = False,
) -> Any:  # fmt: skip
    """DPM-Solver-12 or -23 from sigma_max to sigma_min, both above 0, in steps by the error of the batch
    (Lu et al. 2022, appendix C); with return_info also a dict of counts."""
    low, high = _range(sigma_min, sigma_max)
    asked = Asked(model, x, torch.tensor([high, low]), extra_args, callback, disable)
    rule = DPMAdaptive(
        order=order, rtol=rtol, atol=atol, h_init=h_init, pcoeff=pcoeff, icoeff=icoeff, dcoeff=dcoeff,
        accept_safety=accept_safety, eta=eta, s_noise=s_noise, rule="batch",
    )  # fmt: skip
    made, info = adaptive(asked, rule, (high, low), drawn_by(asked, noise_sampler))
    return (made, info) if return_info else made


# The functions over sigmas by the names that tools list them under.
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "euler": sample_euler,
    "euler_ancestral": sample_euler_ancestral,
    "heun": sample_heun,
    "dpm_2": sample_dpm_2,
    "dpm_2_ancestral": sample_dpm_2_ancestral,
    "lms": sample_lms,
    "dpmpp_2s_ancestral": sample_dpmpp_2s_ancestral,
    "dpmpp_sde": sample_dpmpp_sde,
    "dpmpp_2m": sample_dpmpp_2m,
    "dpmpp_2m_sde": sample_dpmpp_2m_sde,
    "dpmpp_3m_sde": sample_dpmpp_3m_sde,
}
