"""Hybrid score matching, the loss of networks of critically-damped Langevin diffusion (CLD)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...networks.network import ScoreNetwork
from ...networks.prediction import Velocity
from ...processes import CLD
from ...processes.levels import per_sample
from ..data import Batch
from .denoising import dropped, told
from .times import spread


def hybrid(
    network: ScoreNetwork,
    batch: Batch,
    generator: torch.Generator,
    *,
    drop: float = 0.1,
    loss_eps: float = 1e-5,
    power: float = 1.0,
) -> Tensor:
    """Mean of |s_v / ell + e_v|^2 over t and over x, v given the image alone (Dockhorn et al. 2022, section
    3.2 with lambda(t) = ell^-2, "reweighted v2" of its code).

    x = m_x x0 + L11 e_x and v = m_v x0 + L21 e_x + L22 e_v with L L^T the covariance given x0, the first
    velocity averaged over; the score of v is then -ell e_v, ell = 1 / L22. All of these in float64, as the
    process has them.

    Args:
        network: of CLD; predicts "velocity" or "mixed_velocity"; a class is its condition.
        batch: images in [-1, 1] and their classes.
        generator: source of the times, the noise and the dropped labels, on the CPU.
        drop: probability in [0, 1] that a class is replaced by the network's null.
        loss_eps: the first time, from 0 (excluded) to the process's last.
        power: 1 draws times uniform on (loss_eps, t_max), as published; 2 the law of quadratic striding's
            steps, more of them where there is little noise. Positive.

    Returns:
        A scalar that can be differentiated.

    Raises:
        ValueError: the network is none of CLD, or an option makes no sense.
    """
    process, rule = network.process, network.parameterisation.rule
    if not isinstance(process, CLD) or not isinstance(rule, Velocity) or rule.powers:
        raise ValueError(
            f"hybrid score matching trains a network of CLD that predicts 'velocity' or 'mixed_velocity'; "
            f"{network.name!r} is one of {type(process).__name__} that predicts {rule!r}"
        )
    if not (0.0 < loss_eps < process.t_max and power > 0.0):
        raise ValueError(
            f"loss_eps={loss_eps!r}, power={power!r}: give a time between 0 and {process.t_max:g}, and a "
            "power above 0"
        )
    x0, y = batch
    t = loss_eps + (process.t_max - loss_eps) * spread(len(x0), generator) ** power
    e_x, e_v = torch.randn((2, *x0.shape), generator=generator, dtype=x0.dtype).to(x0.device)
    m_x, m_v, l11, l21, l22, on_v, on_output = _numbers(process, rule, t, x0)
    x = m_x * x0 + l11 * e_x
    v = m_v * x0 + l21 * e_x + l22 * e_v
    y = dropped(network, y, drop, generator)
    condition = told(network, y)
    label = t.to(network.label_dtype).to(x0.device)
    output = network(torch.cat((x, v), dim=1), label, condition)[0]
    return (l22 * (on_v * v + on_output * output) + e_v).square().mean()


def _numbers(process: CLD, rule: Velocity, t: Tensor, like: Tensor) -> list[Any]:
    """Of every time: m_x, m_v, L11, L21, L22, and the weights of v and of the output in s_v."""
    times = t.numpy()
    of_score = np.array([rule.score(process, at) for at in times.tolist()]).reshape(-1, 2)
    kernel = (*process.mean(times), *process.covariance(times).cholesky, *of_score.T)
    return [per_sample(torch.from_numpy(n).to(like.device), like) for n in kernel]
