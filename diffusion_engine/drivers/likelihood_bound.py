"""The variational bound on the cost of pixels (Kingma et al. 2021, VDM, sections 4 and 5).

With z_t = alpha f + sigma eps, gamma = log(sigma^2 / alpha^2), f the middles of pixels' levels in [-1, 1],

    -log P(pixels) <= -E log P(pixels | z_0) + KL(q(z_1) || prior)
                      + 1/2 E_t gamma'(t) |eps - eps_hat(z_t)|^2           of continuous time
                      + T/2 E_t expm1(gamma_t - gamma_s) |eps - eps_hat(z_t)|^2    of T steps from t to s

A sample's times t_i = (u + i / k) mod 1 are spread evenly, u being its own draw: the paper spreads a batch's,
which makes a sample depend on its neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..networks.network import ScoreNetwork
from ..networks.placement import evaluating
from ..networks.wrapper import unwrapped
from ..processes import GaussianProcess, Point
from ..sampler.branches import branches
from ..sampler.request import Request
from ..sampler.sampler import Sampler
from .likelihood_asked import check_network, images
from .likelihood_divergence import NOISE, TIME, dots, normals, uniforms
from .likelihood_prior import LEVELS, Measured, spread

PIXELS = (-1.0, 1.0)


@dataclass(frozen=True, eq=False)
class VariationalBound(Measured):
    """What pixels cost at most under a network, one entry an image, all in bits/dim, float64.

    bits_per_dim    [n], the sum of the three
    error           [n], standard error that the drawn times and noise leave, taken for independent; NaN of
                    one time
    seeds           of the images
    reconstruction  [n], of the pixels given z_0
    prior           [n], of z_1 under the prior
    diffusion       [n], of all between
    nfe             network calls of an image
    """

    reconstruction: Tensor
    prior: Tensor
    diffusion: Tensor
    nfe: int


def variational_bound(
    network: ScoreNetwork,
    x: Tensor,
    *,
    condition: Any = None,
    steps: int | None = None,
    times: int = 16,
    seed: int | None = None,
    seeds: Any = None,
    batch_size: int = 64,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> VariationalBound:
    """A bound on -log2 P(pixels) / dim of images of 256 levels (Kingma et al. 2021, eq. 11).

    x           [n, *shape], or one [*shape]: uint8, or floats in [-1, 1] that are rounded to levels
    condition   as in `Sampler.sample`
    steps       T of discrete time; None is continuous time
    times       that are drawn for each image, each a call of the network; with as many as `steps` every step
                is taken once
    seed, seeds  of the times and noise, as in `Sampler.sample`
    batch_size  images a call
    dtype, device  as in Sampler

    The network is one of a process with noise at t_min and a finite log-SNR at t_max, VDM's, say, whose
    decoder is `log_likelihood`. Raises ValueError where it is not, where it is guided, and on
    numbers or images that make no sense.
    """
    check_network(network, {})
    process = network.process
    ends = process.at(process.t_max), process.at(process.t_min)
    _check_process(process, ends)
    steps = None if steps is None else checks.whole("steps", steps, 1, "1 step or more, or None")
    times = checks.whole("times", times, 1, "an image is seen at 1 time or more")
    sampler = Sampler(
        network, "ddim", times=ends, clip=None, dtype=dtype, device=device, batch_size=batch_size
    )
    request = Request.of(
        sampler, x=images(x, PIXELS), condition=condition, seed=seed, seeds=seeds, encoding=0
    )
    assert request.x is not None
    levels = ((request.x.double() + 1.0) * (0.5 * (LEVELS - 1))).round()
    sampler.ready(min(request.n, sampler.batch_size))
    network, rows = sampler.network, []
    with torch.no_grad(), evaluating(network.module, unwrapped(network.module)):
        for low in range(0, request.n, sampler.batch_size):
            part = request.part(low, low + sampler.batch_size)
            rows.append(_parts(sampler, part, levels[low : low + part.n], steps, times))
    reconstruction, prior, diffusion = (torch.cat(row, dim=-1) for row in zip(*rows, strict=True))
    whole = reconstruction + prior + diffusion.mean(dim=0)
    return VariationalBound(
        whole, spread(diffusion), request.seeds, reconstruction, prior, diffusion.mean(dim=0), times
    )


def _check_process(process: GaussianProcess, ends: tuple[Point, Point]) -> None:
    if process.parts > 1 or not all(math.isfinite(at.lam) for at in ends):
        what = "has a velocity" if process.parts > 1 else "has an end of infinite log-SNR"
        raise ValueError(
            f"{type(process).__name__} {what}, and the variational bound is one of x between two finite "
            "levels of noise: give a process such as VDM(), or t_min and t_max of such"
        )


def _parts(
    sampler: Sampler, part: Request, levels: Tensor, steps: int | None, times: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction [n], prior [n] and diffusion [times, n] of some images, in bits/dim.

    levels  [n, *shape] float64, 0 ... 255
    """
    last, first = sampler.points
    f = (2.0 * levels + 1.0) / LEVELS - 1.0
    to_bits = 1.0 / (f[0].numel() * math.log(2.0))
    noise = normals(part.seeds, 0, NOISE, f.shape[1:]).to(f)
    z = first.alpha * f + first.sigma * noise
    pixels = torch.stack(  # image by image, as each has 256 numbers a pixel
        [
            log_likelihood(one, sampler.network.process).gather(-1, k[..., None].long())[..., 0]
            for one, k in zip(z, levels, strict=True)
        ]
    )
    start = uniforms(part.seeds, 0, TIME, (1,))[:, 0]
    drawn = [
        _diffusion(sampler, part, f, ((start + i / times) % 1.0).tolist(), 1 + i, steps)
        for i in range(times)
    ]
    return (
        -dots(pixels, torch.ones_like(pixels)) * to_bits,
        _prior(sampler.network.process, last, f) * to_bits,
        torch.stack(drawn) * to_bits,
    )


def _prior(process: GaussianProcess, last: Point, f: Tensor) -> Tensor:
    """KL(N(alpha f, sigma^2) || prior) of every image, [n] in nats."""
    variance = process.prior_std(last) ** 2
    share = last.sigma**2 / variance
    each = last.alpha**2 * f**2 / variance + share - math.log(share) - 1.0
    return 0.5 * dots(each, torch.ones_like(each))


def _diffusion(
    sampler: Sampler, part: Request, f: Tensor, shares: list[float], key: int, steps: int | None
) -> Tensor:
    """The diffusion term of one drawn time of each image, [n] in nats: a share u in [0, 1) of all."""
    network, about = sampler.network, sampler.network.parameterisation
    weighted = [_weighted(about.process, u, steps) for u in shares]
    points = [at for at, _ in weighted]

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=f.dtype, device=f.device).view(-1, *[1] * (f.ndim - 1))

    eps = normals(part.seeds, key, NOISE, f.shape[1:]).to(f)
    z = column([at.alpha for at in points]) * f + column([at.sigma for at in points]) * eps
    given = (column([about.c_in(at) for at in points]) * z).to(sampler.input_dtype)
    label = torch.tensor(
        [about.label_of(at) for at in points], dtype=torch.float64, device=f.device
    )
    (condition, *_) = branches(part, network, sampler.device, sampler.input_dtype)
    out = network(
        given.contiguous(memory_format=network.memory_format),
        label.to(network.label_dtype),
        condition,
    )[0][:, : network.shape[0]].double()
    rules = [about.weights(at) for at in points]
    x0 = column([p[0] for p, _ in rules]) * z + column([q for _, q in rules]) * out
    found = (z - column([at.alpha for at in points]) * x0) / column([at.sigma for at in points])
    weights = column([weight for _, weight in weighted]).flatten()
    return 0.5 * weights * dots(eps - found, eps - found)


def _weighted(process: GaussianProcess, u: float, steps: int | None) -> tuple[Point, float]:
    """The point of a share u of the time, and there gamma' dt/du, or T expm1(gamma_t - gamma_s)."""
    low, length = process.t_min, process.t_max - process.t_min
    if steps is None:
        # gamma is any function that rises: its slope is a difference, right to some nine digits.
        before, after = max(u - 5e-6, 0.0), min(u + 5e-6, 1.0)
        lam = process.lam(low + length * before) - process.lam(low + length * after)
        return process.at(low + length * u), 2.0 * float(lam) / (after - before)
    k = math.floor(u * steps)
    t, s = (process.at(low + length * (k + j) / steps) for j in (1, 0))
    return t, steps * math.expm1(2.0 * (s.lam - t.lam))


def log_likelihood(x: Tensor, process: GaussianProcess, levels: int = 256) -> Tensor:
    """log p(k | x) of every pixel value, [*x.shape, levels], the softmax of VDM's logits
    (adapters.vdm.decode)."""
    at = process.at(process.t_min)
    values = (2.0 * torch.arange(levels, dtype=x.dtype, device=x.device) + 1.0) / levels - 1.0
    distance = (x / at.alpha)[..., None] - values
    return (-0.5 * (distance / at.ratio) ** 2).log_softmax(-1)
