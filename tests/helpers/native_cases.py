"""Small networks that are recorded in a second, without an operation that torch does."""

import torch
from torch import nn

from diffusion_engine import ScoreNetwork, with_classifier
from diffusion_engine.processes import VP

WAIT = 120
SHAPE = (1, 6, 5)


class Small(nn.Module):
    """Convolutions, a norm and a linear layer of the time and the class."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.told = nn.Embedding(3, 8)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x, label, y):
        h = self.first(x)
        h = nn.functional.silu(self.norm(h) + self.told(y)[:, :, None, None])
        return self.last(h)


def small(seed=0, **how):
    """Of three classes, one of them for none."""
    torch.manual_seed(seed)
    return ScoreNetwork(Small(), VP(), SHAPE, null=2, classes=3, name="small", **how)


def function(scale, **how):
    """A function that reads a tensor."""

    def module(x, label):
        return torch.sin(x * scale) + label[:, None, None, None]

    return ScoreNetwork(module, VP(), SHAPE, **how)


def gradient():
    """Differentiates in its forward."""
    return with_classifier(small(), Classifier())


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(30, 3)

    def forward(self, x, label):
        return self.logits(x.flatten(1))
