"""Small networks for an engine, whose samples have the same bits in every batch, and requests of them."""

import copy

import torch
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP

SHAPE = (3, 4, 4)
WAIT = 60  # seconds that a test waits for anything


class Mixing(nn.Module):
    """Channels mixed by weights, one product after another, so that no batch changes their order."""

    def __init__(self, seed=0, seen=None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.mix = nn.Parameter(0.3 * torch.randn(3, 3))
            self.point = nn.Parameter(0.3 * torch.randn(3, 3, 1, 1))
            self.bias = nn.Parameter(0.1 * torch.randn(3))
            self.register_buffer("shift", torch.tensor(0.05))
        self.seen = [] if seen is None else seen

    def forward(self, x, label):
        if isinstance(self.seen, list):
            self.seen.append(len(x))
        else:
            self.seen(x)
        for weight in (self.mix, self.point[:, :, 0, 0]):
            x = sum(weight[:, i, None, None] * x[:, i : i + 1] for i in range(3)) * 0.5 + 0.4 * x
        return x + self.bias[:, None, None] - self.shift * label.to(x.dtype).view(-1, 1, 1, 1)


def network(seed=0, **options):
    return ScoreNetwork(Mixing(seed), VP(), SHAPE, **options)


def alone(of, solver="dpmpp_2m", steps=4, seeds=(0,), **how):
    return Sampler(of, solver, steps, **how).sample(seeds=list(seeds)).samples


def drawn(*shape, seed):
    return 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weight_of(weight, delta):
    """W + D or W + scale B A in float32, rounded once."""
    if isinstance(delta, torch.Tensor):
        return (weight.float() + delta.float()).to(weight.dtype)
    a, b, scale = (*delta, 1.0)[:3]
    product = b.float().flatten(1) @ a.float().flatten(1)
    return (weight.float() + scale * product.reshape(weight.shape)).to(weight.dtype)


def merged(of, deltas):
    """The network with other weights."""
    module = copy.deepcopy(of.module)
    with torch.no_grad():
        for name, delta in deltas.items():
            weight = module.get_parameter(name)
            weight.copy_(weight_of(weight, delta))
    return of.with_module(module)


WHOLE = {"mix": drawn(3, 3, seed=1), "bias": drawn(3, seed=2)}
PAIR = {"mix": (drawn(2, 3, seed=3), drawn(3, 2, seed=4))}
SCALED = {"point": (drawn(1, 3, 1, 1, seed=5), drawn(3, 1, 1, 1, seed=6), 0.5)}
