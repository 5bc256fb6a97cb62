"""Small networks with weights, for policies."""

import torch
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import CLD, VP

CLASSES = 3


class Policy(nn.Module):
    """`blocks` channel blocks of the shape of x, of x, the label and, where there is one, a class."""

    def __init__(self, blocks=1, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(0.4 * torch.randn(blocks, 3, generator=generator, dtype=dtype))
        self.known = nn.Parameter(torch.randn(CLASSES + 1, generator=generator, dtype=dtype))
        self.calls = []

    def forward(self, x, label, y=None):
        self.calls.append(len(x))
        told = 0.1 * label.to(x.dtype) if y is None else self.known[y] + 0.1 * label.to(x.dtype)
        told = told.view(-1, *[1] * (x.ndim - 1))
        return torch.cat([a * x + 0.3 * torch.tanh(b * x + told) + c for a, b, c in self.weight], 1)


class OfVelocity(Policy):
    """The same of [x, v], with an output of half the channels."""

    def forward(self, x, label, y=None):
        position, v = x.chunk(2, dim=1)
        return super().forward(v + 0.5 * position, label, y)


def policy(solver="flow_sde", steps=4, dtype=torch.float64, **options):
    """A sampler of one, which runs the very module of its network."""
    told = {"label_dtype": torch.float64, "classes": CLASSES, "null": CLASSES}
    learned = options.get("variance", "")
    blocks = 2 if learned.startswith("learned") else 1
    if blocks == 2:
        told["variance"] = learned
    if solver.startswith(("sscs", "cld")):
        module = OfVelocity(dtype=dtype)
        network = ScoreNetwork(module, CLD(), (2, 3), "mixed_velocity", **told)
    else:
        module = Policy(blocks, dtype)
        network = ScoreNetwork(module, VP(), (2, 3), "v", **told)
    return Sampler(network, solver, steps, backend="torch", **options)
