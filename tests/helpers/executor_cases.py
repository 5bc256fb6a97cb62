"""Networks whose samples' bits are independent of their batch, and samplers of them by both executors."""

import torch
from tape import taping
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP

SHAPE = (3, 5, 7)


def elementwise(x, label):
    """A network made of elementwise ops: every sample's bits are independent of its batch."""
    return x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, *[1] * (x.ndim - 1))


def classes(x, label, y):
    return elementwise(x, label) + 0.01 * y.to(x.dtype).view(-1, 1, 1, 1)


def of_context(x, label, *, context, bias):
    context, bias = context.mean(dim=(1, 2)).view(-1, 1, 1, 1), bias.view(-1, 1, 1, 1)
    return elementwise(x, label) + context + bias


PLAIN = ScoreNetwork(elementwise, VP(), SHAPE)


CONDITIONAL = ScoreNetwork(classes, VP(), SHAPE, null=10, classes=10)


def pair(network=PLAIN, solver="dpmpp_2m", steps=4, **options):
    """The same sampler under both executors."""
    return (
        Sampler(network, solver, steps, **options),
        Sampler(network, solver, steps, executor=taping(), **options),
    )


def same(a, b):
    return torch.equal(a.samples, b.samples) and a.evaluations == b.evaluations


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, label):
        return self.conv(x)
