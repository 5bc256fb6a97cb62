"""Runs of CFG++ whose ends ComfyUI's own functions made, and the networks they ran on."""

import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.processes import EDM, FlowMatching

LEVELS = {
    "ve": (14.6, 6.0, 2.5, 1.1, 0.4, 0.12, 0.0),
    "flow": (0.98, 0.8, 0.6, 0.45, 0.25, 0.1, 0.0),
}
# name -> (ComfyUI's function, kind of levels, its options, our solver and its options, scale)
CASES = {
    "euler": ("sample_euler_cfg_pp", "ve", {}, "euler", {}, 0.6),
    "euler, all": ("sample_euler_cfg_pp", "ve", {}, "euler", {}, 1.0),
    "euler, flow": ("sample_euler_cfg_pp", "flow", {}, "euler", {}, 0.6),
    "ddim": ("sample_euler_cfg_pp", "ve", {}, "ddim", {}, 0.8),
    "ancestral": ("sample_euler_ancestral_cfg_pp", "ve", {}, "euler_ancestral", {}, 0.6),
    "ancestral, half": (
        "sample_euler_ancestral_cfg_pp", "ve", {"eta": 0.5, "s_noise": 1.1}, "euler_ancestral",
        {"eta": 0.5, "s_noise": 1.1}, 0.6,
    ),
    "ancestral, flow": ("sample_euler_ancestral_cfg_pp", "flow", {}, "euler_ancestral", {}, 0.6),
    "dpmpp_2m": ("sample_dpmpp_2m_cfg_pp", "ve", {}, "dpmpp_2m", {"lower_order_final": False}, 0.6),
    "2s": ("sample_dpmpp_2s_ancestral_cfg_pp", "ve", {"eta": 0.6}, "dpmpp_2s_ancestral", {"eta": 0.6}, 0.6),
    "2s, flow": ("sample_dpmpp_2s_ancestral_RF_cfg_pp", "flow", {}, "dpmpp_2s_ancestral", {}, 0.6),
    "res": ("sample_res_multistep_cfg_pp", "ve", {}, "res_multistep", {"published": True}, 0.6),
    "res, ancestral": (
        "sample_res_multistep_ancestral_cfg_pp", "ve", {"eta": 0.7, "s_noise": 0.9},
        "res_multistep", {"eta": 0.7, "s_noise": 0.9, "published": True}, 0.6,
    ),
    "res, flow": ("sample_res_multistep_cfg_pp", "flow", {}, "res_multistep", {"published": True}, 0.6),
    "gradient": ("sample_gradient_estimation_cfg_pp", "ve", {}, "gradient_estimation", {}, 0.6),
    "gradient, flow": ("sample_gradient_estimation_cfg_pp", "flow", {}, "gradient_estimation", {}, 0.6),
}  # fmt: skip
MEANS, STDS = (0.7, -0.2), (0.3, 0.6)  # of the data of the condition, and of all


def estimate(x, alpha, sigma, k):
    """E[x0 | x] of N(MEANS[k], STDS[k]^2)."""
    gain = alpha * STDS[k] ** 2 / (alpha**2 * STDS[k] ** 2 + sigma**2)
    return MEANS[k] + gain * (x - alpha * MEANS[k])


def start(kind):
    return torch.linspace(-1.5, 1.3, 6, dtype=torch.float64).view(2, 3) * LEVELS[kind][0]


def noise(call):
    """What is drawn first, second, ...: the same numbers for both."""
    return torch.sin(torch.arange(6, dtype=torch.float64) * (1.7 + call) + 0.3 * call).view(2, 3)


def network(kind):
    """Condition 0 is the data of k = 0, null that of k = 1."""
    process = {"ve": EDM(), "flow": FlowMatching()}[kind]

    def module(x, label, y):
        alpha, sigma = (torch.ones_like(label), label) if kind == "ve" else (1.0 - label, label)
        alpha, sigma = alpha.view(-1, 1), sigma.view(-1, 1)
        both = [estimate(x, alpha, sigma, k) for k in range(2)]
        return torch.where(y.view(-1, 1) == 0, both[0], both[1])

    return ScoreNetwork(
        module, process, (3,), prediction="x0", label="sigma" if kind == "ve" else "t",
        label_dtype=torch.float64, null=1, classes=1,
    )  # fmt: skip
