"""A network whose condition is neighbours, with a closed form: data that stand around them."""

import numpy as np
import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.drivers.index import Index
from diffusion_engine.drivers.retrieval import Retrieval
from diffusion_engine.processes import VP
from diffusion_engine.testing.exact import angle, unit

STD = 0.05
WIDTH = 2


def around(x, label, context, context_mask=None):
    """E[x0 | x] of x0 ~ N(c, STD^2 I), c one of the tokens with equal odds. Elementwise, and sums of two and
    of `tokens` numbers: the bits of an entry do not depend on its neighbours."""
    state, tokens = x.double(), context.double()
    alpha, sigma = label.double().cos()[:, None], label.double().sin()[:, None]
    variance = alpha**2 * STD**2 + sigma**2
    apart = state[:, None] - alpha[..., None] * tokens
    log = -apart.square().sum(-1) / (2.0 * variance)
    if context_mask is not None:
        log = log.masked_fill(~context_mask, -torch.inf)
    odds = log.softmax(1)
    means = tokens + (alpha * STD**2 / variance)[..., None] * apart
    return (odds[..., None] * means).sum(1).to(x.dtype)


def network(retrieval):
    return network_of(retrieval.null())


def network_of(null):
    return ScoreNetwork(
        around, VP(), (WIDTH,), prediction="x0", label=angle, label_dtype=torch.float64, scale=unit,
        null=null, name="around",
    )  # fmt: skip


def served():
    """One that a server has, whose requests hold one tensor: three tokens without a name and a mask."""
    return network_of(torch.zeros(3, WIDTH))


def database(seed, m=50, width=WIDTH):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (m, width)).astype(np.float32)


def retrieval(embeddings, k=3, **how):
    index = Index(embeddings, metric="l2", normalise=False)
    return Retrieval(index, k=k, own=False, mask="context_mask", **how)
