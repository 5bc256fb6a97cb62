"""CFG++ (Chung et al. 2024, arXiv 2406.08070, algorithm 2): a step to the guided estimate of x0, along the
noise of the unconditional one.

    x_t = alpha_t D_guided + sigma_t eps_u,   eps_u = (x_s - alpha_s D_u) / sigma_s

so that guidance moves the estimate, and the noise stays on the manifold. The scale is the paper's lambda, 0
to 1, where D_guided = (1 - lambda) D_u + lambda D_c lies between the two.
"""

from __future__ import annotations

from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, uncond
from ..processes import Point


def renoised(s: Point, t: Point) -> Linear:
    """What is added to a step of `transfer(s, t, x, denoised)` to take its noise from the unconditional
    estimate. Upwards, from data to noise, it goes back: from the unconditional estimate along the guided
    noise."""
    if t.lam < s.lam:
        return t.alpha * (uncond - denoised)
    return (t.sigma / s.sigma * s.alpha) * (denoised - uncond)


def objection(network: Parameterisation) -> str | None:
    """Why CFG++ cannot sample a network, as a sentence; None where it can."""
    if network.reads_scale or network.guided:
        return "cfg_pp moves along the unconditional output, and this network, guided within, has one alone"
    if network.guide:
        return "cfg_pp moves along the unconditional output, and this network's second branch is its guide's"
    if not network.unconditional:
        return (
            "cfg_pp moves along the unconditional output and the network has no such branch; give "
            "ScoreNetwork its null condition, or leave cfg_pp out"
        )
    return None
