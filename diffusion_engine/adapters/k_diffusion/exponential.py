"""Functions of k-diffusion's form that ComfyUI has beside k-diffusion's: RES, gradient estimation, Heun++ and
exponential Heun.

Their arguments are ComfyUI's, and those of `Asked`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ... import checks
from ...solvers import solver
from .loop import Asked, Callback, run
from .noise import NoiseSampler, default_noise_sampler
from .sampling import Extra, Model, drawn_by

# Heun's exponential method with phi_1 alone, as SEEDS-2 has it.
PHI_1 = {"c": [0, 1], "a": [[], [[[1, 1]]]], "b": [[[0.5, 1]], [[0.5, 1]]]}


def sample_res_multistep(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """RES' multistep method of order 2 (Zhang et al. 2023). It draws no noise."""
    return sample_res_multistep_ancestral(
        model, x, sigmas, extra_args, callback, disable, 0.0, s_noise, noise_sampler
    )


def sample_res_multistep_ancestral(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """RES' multistep method to a lower level, then noise up to the next."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    rule = solver("res_multistep", eta=eta, s_noise=s_noise)
    return run(asked, rule, drawn_by(asked, noise_sampler), multistep=True)


def sample_gradient_estimation(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, ge_gamma: float = 2.0,
) -> Tensor:  # fmt: skip
    """Euler's method along ge_gamma of this slope and 1 - ge_gamma of the last (Permenter & Yuan 2024)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    return run(asked, solver("gradient_estimation", gamma=ge_gamma), multistep=True)


def sample_heunpp2(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:  # fmt: skip
    """Heun++ of three calls a step, with churn."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    options = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
    return run(asked, solver("heunpp2", **options), default_noise_sampler(asked.x))


def sample_exp_heun_2_x0(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, solver_type: str = "phi_2",
) -> Tensor:  # fmt: skip
    """Heun's exponential method on x0 in log sigma; solver_type is "phi_1" or "phi_2"."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    tableau = {"phi_1": PHI_1, "phi_2": "exp_heun"}
    named = tableau[checks.one_of("solver_type", solver_type, tuple(tableau))]
    return run(asked, solver("exp_rk", tableau=named), multistep=True)


EXPONENTIAL: dict[str, Callable[..., Tensor]] = {
    "res_multistep": sample_res_multistep,
    "res_multistep_ancestral": sample_res_multistep_ancestral,
    "gradient_estimation": sample_gradient_estimation,
    "heunpp2": sample_heunpp2,
    "exp_heun_2_x0": sample_exp_heun_2_x0,
}
