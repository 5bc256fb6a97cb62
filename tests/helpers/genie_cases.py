"""Networks with exact derivatives, and a U-Net with a head, for the tests of GENIE."""

import torch
from columns import F64, column
from torch import nn
from torch.nn import functional as F

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.genie import Head, exact_derivative
from diffusion_engine.processes import EDM, VP
from diffusion_engine.testing import labelled_mixture as mixture

EXACT = exact_derivative(mixture())
GRIDS = {"lam": "lambda", "karras": "karras", "t": "uniform"}


def run(x, steps, grid="lambda", end="t_min", network=EXACT, **options):
    sampler = Sampler(network, "genie", steps, grid=grid, end=end, **(F64 | options))
    return sampler.sample(x=column(*x), noised=True).samples[:, 0].numpy(), sampler


DENOISER = mixture(EDM()).module


def denoised(x_bar, g):
    """E[x0 | x_bar] at noise-to-signal ratios g [N]."""
    return x_bar - g[:, None] * DENOISER(x_bar, g)


class UNet(nn.Module):
    """A network with what attach needs: a time embedding and a last feature map, here of half the side."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 8))
        self.inner = nn.ModuleDict(
            {"stem": nn.Conv2d(12, 16, 3, padding=1), "up": nn.Conv2d(16, 16, 1)}
        )
        self.out = nn.Conv2d(16, 12, 3, padding=1)
        self.calls = 0

    def forward(self, x, label):
        if not torch.compiler.is_compiling():
            self.calls += 1
        embedding = self.time(label[:, None].to(x.dtype))
        h = self.inner["stem"](F.pixel_unshuffle(x, 2)) + embedding.repeat(1, 2)[:, :, None, None]
        return F.pixel_shuffle(self.out(F.silu(self.inner["up"](h))), 2)


NAMES = {"feature": "inner.up", "embedding": "time"}


def unet():
    torch.manual_seed(0)
    return ScoreNetwork(UNet().eval(), VP(), (3, 8, 8))


def trained_head(network):
    """A head with weights of its own, which a new one's last layer has not."""
    torch.manual_seed(1)
    head = Head(3, 16, 8, width=12, fold=2).eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return head
