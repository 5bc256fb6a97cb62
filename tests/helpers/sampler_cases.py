"""Samplers of networks made of elementwise ops, for the tests of requests."""

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP

SHAPE = (3, 5, 7)


def elementwise(x, label):
    """A network made of elementwise ops: every sample's bits are independent of its batch."""
    return x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, *[1] * (x.ndim - 1))


def classes(x, label, y):
    return elementwise(x, label) + 0.01 * y.to(x.dtype).view(-1, 1, 1, 1)


def sampler(solver="dpmpp_2m", steps=5, **options):
    return Sampler(ScoreNetwork(elementwise, VP(), SHAPE), solver, steps, **options)


def conditional(**options):
    net = ScoreNetwork(classes, VP(), SHAPE, null=10, classes=10)
    return Sampler(net, "dpmpp_2m", 5, **options)
