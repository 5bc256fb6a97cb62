"""Functions of k-diffusion's form that ComfyUI has beside k-diffusion's: ER-SDE, SEEDS and SA-Solver.

Their arguments are ComfyUI's, and those of `Asked`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import checks
from ...processes import Discrete, Point
from ...solvers import Solver, solver
from ...solvers.er_sde import ERSDE
from ...solvers.sa_solver import SASolver
from .loop import Asked, Callback, run
from .noise import NoiseSampler
from .sampling import Extra, Model, drawn_by
from .tables import PROCESS

TERMS = 200  # of ComfyUI's sums in place of integrals
PERCENTS = (0.2, 0.8)  # of a run, between which SA-Solver draws noise there
TYPES = {"phi_1": "midpoint", "phi_2": "heun"}


@dataclass(frozen=True)
class Scaled(ERSDE):
    """ER-SDE with a user's phi(g) of tensors."""

    phi: Callable[[Tensor], Tensor] | None = None

    def psi(self, g: np.ndarray) -> np.ndarray:
        assert self.phi is not None
        made: np.ndarray = self.phi(torch.from_numpy(g)).numpy() / g
        return made


@dataclass(frozen=True)
class Told(SASolver):
    """SA-Solver with a user's tau of the level that a step ends on."""

    of_level: Callable[[Tensor], Any] | None = None

    def tau(self, s: Point, t: Point) -> float:
        assert self.of_level is not None
        return float(self.of_level(torch.tensor(t.ratio, dtype=torch.float64)))


def sample_er_sde(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None,
    noise_scaler: Callable[[Tensor], Tensor] | None = None, max_stage: int = 3,
) -> Tensor:  # fmt: skip
    """ER-SDE of order max_stage; noise_scaler is phi of sigma, and None x (e^(x^0.3) + 10)."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    options: dict[str, Any] = {"s_noise": s_noise, "max_order": max_stage, "terms": TERMS}
    rule: Solver = solver("er_sde", **options)
    if noise_scaler is not None:
        wanted = "give a function of sigma, or None"
        rule = Scaled(**options, phi=checks.function("noise_scaler", noise_scaler, wanted))
    return run(asked, rule, drawn_by(asked, noise_sampler), multistep=True)


def between_calls(rule: Any, s: float, t: float) -> list[tuple[float, float]]:
    """The noise between one call of a step and the next, and its end."""
    inner = [s ** (1.0 - r) * t**r for r in rule.shares()]
    return list(pairwise([s, *inner, t]))


def sample_seeds_2(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None, r: float = 0.5, solver_type: str = "phi_1",
) -> Tensor:  # fmt: skip
    """SEEDS-2, its second call at the share r of a step; solver_type is "phi_1" or "phi_2"."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    variant = TYPES[checks.one_of("solver_type", solver_type, tuple(TYPES))]
    rule = solver("seeds_2", eta=eta, s_noise=s_noise, r=r, variant=variant)
    return run(asked, rule, drawn_by(asked, noise_sampler), multistep=True, draws=between_calls)


def sample_exp_heun_2_x0_sde(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None, solver_type: str = "phi_2",
) -> Tensor:  # fmt: skip
    """SEEDS-2 with its second call at the end of a step, Heun's exponential method with noise."""
    return sample_seeds_2(
        model,
        x,
        sigmas,
        extra_args,
        callback,
        disable,
        eta,
        s_noise,
        noise_sampler,
        1.0,
        solver_type,
    )


def sample_seeds_3(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None, r_1: float = 1.0 / 3.0, r_2: float = 2.0 / 3.0,
) -> Tensor:  # fmt: skip
    """SEEDS-3, its calls at the shares r_1 and r_2 of a step."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    rule = solver("seeds_3", eta=eta, s_noise=s_noise, r_1=r_1, r_2=r_2)
    return run(asked, rule, drawn_by(asked, noise_sampler), multistep=True, draws=between_calls)


def where_noisy(rule: Any, s: float, t: float) -> list[tuple[float, float]]:
    """The noise of a step that has a tau."""
    return [(s, t)] if rule.tau(PROCESS.at_ratio(s), PROCESS.at_ratio(t)) else []


@cache
def interval_of(percent_to_sigma: Callable[[float], float] | None) -> tuple[float, float]:
    """The levels between which SA-Solver draws noise: those of a schedule, or of Stable Diffusion's."""
    if percent_to_sigma is None:
        law = Discrete.scaled_linear()
        found = [law.at((1.0 - percent) * law.t_max).ratio for percent in PERCENTS]
    else:
        found = [float(percent_to_sigma(percent)) for percent in PERCENTS]
    return found[1], found[0]


def sample_sa_solver(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, tau_func: Callable[[Tensor], Any] | None = None, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None, predictor_order: int = 3, corrector_order: int = 4,
    use_pece: bool = False, simple_order_2: bool = False,
) -> Tensor:  # fmt: skip
    """SA-Solver. tau_func is tau of the sigma that a step ends on; None is 1 between 20 and 80 percent of the
    schedule of ComfyUI's model, or of Stable Diffusion's where the model has none."""
    asked = Asked(model, x, sigmas, extra_args, callback, disable)
    ends = len(asked.sigmas) > 0 and float(asked.sigmas[-1]) == 0.0
    options: Mapping[str, Any] = {
        "predictor_order": predictor_order, "corrector_order": corrector_order, "s_noise": s_noise,
        "pece": checks.flag("use_pece", use_pece) and corrector_order > 0,
        "simple": checks.flag("simple_order_2", simple_order_2),
        "lower_order_final": ends, "final_corrector": 0,
    }  # fmt: skip
    if tau_func is None:
        low, high = interval_of(_schedule(model))
        rule: Solver = solver("sa_solver", **options, s_tmin=low, s_tmax=high)
    else:
        wanted = "give a function of sigma, or None"
        rule = Told(**options, of_level=checks.function("tau_func", tau_func, wanted))
    return run(asked, rule, drawn_by(asked, noise_sampler), multistep=True, draws=where_noisy)


def _schedule(model: Model) -> Callable[[float], float] | None:
    """percent_to_sigma of the schedule that ComfyUI's models carry."""
    patcher = getattr(getattr(model, "inner_model", None), "model_patcher", None)
    found = None if patcher is None else patcher.get_model_object("model_sampling")
    return getattr(found, "percent_to_sigma", None)


def sample_sa_solver_pece(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback | None = None,
    disable: bool | None = None, tau_func: Callable[[Tensor], Any] | None = None, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None, predictor_order: int = 3, corrector_order: int = 4,
    simple_order_2: bool = False,
) -> Tensor:  # fmt: skip
    """SA-Solver with a second call a step, of the corrected state."""
    return sample_sa_solver(
        model, x, sigmas, extra_args, callback, disable, tau_func, s_noise, noise_sampler, predictor_order,
        corrector_order, True, simple_order_2,
    )  # fmt: skip


EXTENDED: dict[str, Callable[..., Tensor]] = {
    "er_sde": sample_er_sde,
    "seeds_2": sample_seeds_2,
    "seeds_3": sample_seeds_3,
    "exp_heun_2_x0_sde": sample_exp_heun_2_x0_sde,
    "sa_solver": sample_sa_solver,
    "sa_solver_pece": sample_sa_solver_pece,
}
