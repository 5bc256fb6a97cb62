"""Networks whose bits depend on what the test wants, and on nothing else."""

import torch
from executor_cases import classes, elementwise
from torch import nn

from diffusion_engine import ScoreNetwork
from diffusion_engine.processes import VP

SHAPE = (3, 5, 7)


def network(module, **options):
    return ScoreNetwork(module, VP(), SHAPE, **options)


def conditional(module=classes):
    return network(module, null=10, classes=10)


def tailed(x, label, y):
    """As a matrix product whose last rows, behind a multiple of 4, take another way; and whose sums are split
    by the size."""
    place, size = torch.arange(len(x)), len(x)
    other = 1e-3 * (place >= size // 4 * 4) + 1e-4 * size
    return classes(x, label, y) + other.to(x.dtype).view(-1, 1, 1, 1)


def placed(x, label, y):
    """Other bits at every place of every size."""
    other = 1e-4 * torch.arange(len(x)) + 1e-2 * len(x)
    return classes(x, label, y) + other.to(x.dtype).view(-1, 1, 1, 1)


def normed():
    """A module in eval mode with a part that is in training mode, as fine-tuning leaves it."""
    module = nn.Sequential(nn.BatchNorm2d(3)).eval()
    module[0].train()
    return lambda x, label: module(x)


def centred(x, label):
    return elementwise(x, label) - x.mean()


def scaled(x, label):
    """Rounded to a grid whose step is the batch's."""
    step = x.abs().max() / 127
    return (x / step).round() * step


def one_time(x, label):
    """Reads the time of the first entry."""
    return elementwise(x, label[:1].expand(len(label)))


def attending(x, label):
    flat = x.flatten(1)
    return (torch.softmax(flat @ flat.T / flat.shape[1], -1) @ flat).view_as(x)


class Cached:
    """Reckons a part in every second call, and keeps it for the one after."""

    def __init__(self):
        self.calls, self.kept = 0, None

    def __call__(self, x, label):
        self.calls += 1
        if self.calls % 2 or len(self.kept) != len(x):
            self.kept = x.abs()
        return elementwise(x, label) + 0.1 * self.kept


def dropped(x, label):
    return nn.functional.dropout(elementwise(x, label), 0.5)
