"""The perfect generator of a denoising diffusion GAN on Gaussian data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..processes import Discrete


class GaussianGenerator(nn.Module):
    """G(x, i, z) draws x0 from its posterior given x = x_i where the data is N(mu, s2), independently
    for each element: with it a chain of any number of steps ends at N(mu, s2).

        x0 = mu + a s2 / V (x - a mu) + sqrt(s2 (1 - a^2) / V) z,  a^2 = alpha_bar[i],  V = a^2 s2 + 1 - a^2

    process  the chain; its last alpha_bar is what the end misses of N(mu, s2)
    z is [N, latent], with an entry for every element of a sample.
    """

    gain: Tensor
    offset: Tensor
    std: Tensor

    def __init__(self, process: Discrete, mu: float = 0.3, s2: float = 0.25) -> None:
        super().__init__()
        a = np.sqrt(process.alpha_bar)
        total = a**2 * s2 + 1.0 - a**2
        gain = a * s2 / total
        self.register_buffer("gain", torch.from_numpy(gain))
        self.register_buffer("offset", torch.from_numpy(mu - gain * a * mu))
        self.register_buffer("std", torch.from_numpy(np.sqrt(s2 * (1.0 - a**2) / total)))

    def forward(self, x: Tensor, label: Tensor, z: Tensor) -> Tensor:
        def column(table: Tensor) -> Tensor:
            return table[label.long()].to(x.dtype).view(-1, *[1] * (x.ndim - 1))

        return column(self.offset) + column(self.gain) * x + column(self.std) * fresh(x, z)


def fresh(x: Tensor, z: Tensor) -> Tensor:
    """The first entries of z in the shape of x. Raises ValueError where they are too few."""
    size = x.shape[1:].numel()
    if z.shape[1] < size:
        raise ValueError(
            f"the latent has {z.shape[1]} entries and a sample {size} elements, each of which takes one; "
            f"give ScoreNetwork latent={size}"
        )
    return z[:, :size].reshape(x.shape)
