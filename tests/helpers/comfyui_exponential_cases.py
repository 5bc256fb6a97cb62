"""Runs of ComfyUI's own functions that both sides make, on levels sigma and on a flow's times.

Nothing here imports either.
"""

import torch
from k_diffusion_cases import NO_ZERO, denoiser

SIGMAS = {"no zero": NO_ZERO, "zero": (14.6, 6.0, 2.5, 1.4, 0.9, 0.0)}
TIMES = (0.95, 0.8, 0.62, 0.5, 0.31, 0.2)
CASES = {
    "res_multistep": ("res_multistep", {}),
    "res_multistep_ancestral": ("res_multistep_ancestral", {"eta": 0.7, "s_noise": 0.9}),
    "gradient_estimation": ("gradient_estimation", {}),
    "gradient_estimation 1.5": ("gradient_estimation", {"ge_gamma": 1.5}),
    "heunpp2": ("heunpp2", {}),
    "exp_heun_2_x0": ("exp_heun_2_x0", {}),
    "exp_heun_2_x0 phi_1": ("exp_heun_2_x0", {"solver_type": "phi_1"}),
    "dpmpp_2s_ancestral": ("dpmpp_2s_ancestral", {}),
    "dpmpp_2s_ancestral eta": ("dpmpp_2s_ancestral", {"eta": 0.5, "s_noise": 0.9}),
}
# Of a flow, with the engine's solver and its options.
FLOWS = {
    "res_multistep": ("res_multistep", {}, "res_multistep", {}),
    "gradient_estimation": ("gradient_estimation", {}, "gradient_estimation", {}),
    "heunpp2": ("heunpp2", {}, "heunpp2", {}),
    "exp_heun_2_x0": (
        "exp_heun_2_x0", {}, "exp_rk", {"tableau": "exp_heun", "coordinates": "edm"},
    ),
    "dpmpp_2s_ancestral": (
        "dpmpp_2s_ancestral", {"eta": 0.6, "s_noise": 0.9},
        "dpmpp_2s_ancestral", {"eta": 0.6, "s_noise": 0.9},
    ),
    "euler_ancestral": (
        "euler_ancestral_RF", {"eta": 0.7, "s_noise": 0.9},
        "euler_overshoot", {"eta": 0.7, "s_noise": 0.9, "relative": True},
    ),
    "dpmpp_2s_ancestral ode": ("dpmpp_2s_ancestral", {"eta": 0.0}, "dpmpp_2s_ancestral", {"eta": 0.0}),
}  # fmt: skip
DRAWING = ("euler_ancestral_RF", "res_multistep_ancestral", "dpmpp_2s_ancestral")


def flow_denoiser(x, t, **extra):
    """The posterior mean of data at -0.9 and 1.1 where x = (1 - t) x0 + t eps."""
    t = t.view(-1, *[1] * (x.ndim - 1))
    return 0.1 + ((x - 0.1 * (1.0 - t)) * (1.0 - t) / t**2).tanh()


class Model:
    """A denoiser as ComfyUI's samplers are given one, with its schedule's object."""

    def __init__(self, function, schedule):
        self.function, self.model_sampling = function, schedule
        self.inner_model = self.model_patcher = self

    def get_model_object(self, name):
        return self.model_sampling

    def __call__(self, x, sigma, **extra):
        return self.function(x, sigma)


def of_sigmas(schedule=None):
    return Model(denoiser, schedule)


def of_times(schedule=None):
    return Model(flow_denoiser, schedule)


def tensor(levels):
    return torch.tensor(levels, dtype=torch.float64)
