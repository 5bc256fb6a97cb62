"""Runs of ComfyUI's own functions that both sides make: by this package's, and in tests/golden by ComfyUI's.

Nothing here imports either.
"""

import torch
from k_diffusion_cases import NO_ZERO, denoiser


def power(sigma):
    return sigma**1.5


def steady(sigma):
    return 0.7


CASES = {
    "er_sde": ("er_sde", {}),
    "er_sde 2": ("er_sde", {"max_stage": 2, "s_noise": 0.9}),
    "er_sde power": ("er_sde", {"noise_scaler": power}),
    "seeds_2": ("seeds_2", {}),
    "seeds_2 eta": ("seeds_2", {"eta": 0.5, "r": 0.3, "s_noise": 0.9}),
    "seeds_2 phi_2": ("seeds_2", {"solver_type": "phi_2", "r": 1.0}),
    "seeds_2 ode": ("seeds_2", {"eta": 0.0}),
    "exp_heun_2_x0_sde": ("exp_heun_2_x0_sde", {"eta": 0.6}),
    "seeds_3": ("seeds_3", {}),
    "seeds_3 eta": ("seeds_3", {"eta": 0.5, "s_noise": 0.9, "r_1": 0.4, "r_2": 0.8}),
    "sa_solver": ("sa_solver", {}),
    "sa_solver simple": (
        "sa_solver", {"simple_order_2": True, "predictor_order": 2, "corrector_order": 2},
    ),
    "sa_solver predictor": ("sa_solver", {"tau_func": steady, "corrector_order": 0}),
    "sa_solver 4": ("sa_solver", {"tau_func": steady, "predictor_order": 4}),
    "sa_solver_pece": ("sa_solver_pece", {"s_noise": 0.9}),
}  # fmt: skip
# To 0.03, and to 0 from a level at which the end still tells what came before.
SIGMAS = {"no zero": NO_ZERO, "zero": (14.6, 6.0, 2.5, 1.4, 0.9, 0.0)}


class Schedule:
    """Of a model, as ComfyUI's carry one."""

    def percent_to_sigma(self, percent):
        return {0.2: 6.5, 0.8: 0.3}[percent]


class Model:
    """A denoiser as ComfyUI's samplers are given one."""

    def __init__(self):
        self.inner_model = self.model_patcher = self

    def get_model_object(self, name):
        return SCHEDULE

    def __call__(self, x, sigma, **extra):
        return denoiser(x, sigma)


SCHEDULE = Schedule()


def sigmas_of(name):
    return torch.tensor(SIGMAS[name], dtype=torch.float64)
