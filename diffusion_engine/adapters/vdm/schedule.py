"""VDM's learned noise schedule, and how its last latent becomes an image (Kingma et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...processes import GaussianProcess


class MonotoneGamma(nn.Module):
    """gamma(t) = l1(t) + l3(2 sigmoid(l2(2 (t - 0.5))) - 1) / hidden, all weights by their absolute values.

    For VDM.from_module. l1 and l2 have biases, l3 has none; t is [n] or [n, 1], gamma alike.
    """

    def __init__(
        self, gamma_min: float = -13.3, gamma_max: float = 5.0, hidden: int = 1024
    ) -> None:
        super().__init__()
        self.l1, self.l2 = nn.Linear(1, 1), nn.Linear(1, hidden)
        self.l3 = nn.Linear(hidden, 1, bias=False)
        with torch.no_grad():
            self.l1.weight.fill_(gamma_max - gamma_min)
            self.l1.bias.fill_(gamma_min)

    def forward(self, t: Tensor) -> Tensor:
        column = t.reshape(-1, 1)
        line = functional.linear(column, self.l1.weight.abs(), self.l1.bias)
        hidden = functional.linear(2.0 * (column - 0.5), self.l2.weight.abs(), self.l2.bias)
        bent = functional.linear(2.0 * hidden.sigmoid() - 1.0, self.l3.weight.abs())
        return (line + bent / self.l2.out_features).reshape(t.shape)


def decode(x: Tensor, process: GaussianProcess, levels: int = 256) -> Tensor:
    """The likeliest pixel values 0 ... levels - 1 of the x a run left at the process's t_min, uint8.

    The decoder's logits are -(x / alpha - v)^2 / (2 g^2), g^2 = e^gamma, of v = (2 k + 1) / levels - 1
    (section 3.3): the largest is that of the nearest v.
    """
    if not 2 <= levels <= 256:
        raise ValueError(f"levels={levels}: a byte holds 2 to 256")
    bare = x / float(process.alpha(process.t_min))
    return ((bare + 1.0) * (0.5 * levels)).floor().clamp(0, levels - 1).to(torch.uint8)
