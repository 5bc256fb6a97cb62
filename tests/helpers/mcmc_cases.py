"""What the tests of composition share: exact energies of Gaussians, and two densities in the plane."""

import math

import numpy as np
import torch

from diffusion_engine import Sampler
from diffusion_engine.drivers import driver
from diffusion_engine.networks.energy import from_energy
from diffusion_engine.processes import VP
from diffusion_engine.processes.levels import Levels, per_sample
from diffusion_engine.testing.plane import plane_mixtures, ring


class GaussianEnergies(torch.nn.Module):
    """-log p_t of N(means[y], stds[y]^2) in every element; `scaled` times sigma."""

    def __init__(self, process, means, stds, scaled=False):
        super().__init__()
        self.process, self.scaled = process, scaled
        self.means, self.stds = (torch.tensor(v, dtype=torch.float64) for v in (means, stds))

    def forward(self, x, t, y):
        at, state = Levels.of(self.process, t.double()), x.double()
        variance = (at.alpha * self.stds[y]) ** 2 + at.sigma**2
        square = (state - per_sample(at.alpha * self.means[y], state)).square().flatten(1).sum(1)
        energy = 0.5 * (square / variance + state[0].numel() * (2 * math.pi * variance).log())
        return energy * at.sigma if self.scaled else energy


def gaussians(means=(0.0, 1.0), stds=(1.0, 1.0), shape=(1,), process=None, scaled=False):
    process = process or VP()
    energy = GaussianEnergies(process, means, stds, scaled)
    return from_energy(
        energy, process, shape, scaled=scaled, classes=len(means), label_dtype=torch.float64
    )


PAIR = [(0, 1.0), (1, 1.0)]
LEFT, RIGHT = ring((-0.8, 0.0)), ring((0.8, 0.0))  # which meet at two places
EDGE, BINS = 3.0, 24


def in_plane(points=None):
    return plane_mixtures(LEFT, RIGHT, points=points)


def mcmc(**options):
    return driver("annealed_mcmc", **options)


def sampled(network, n, steps, compose=PAIR, solver="ddpm", **options):
    """A Result of a sampler with these options."""
    made = Sampler(network, solver, steps, **options)
    return made.sample(n, compose=compose, progress=False)


def at_points(result):
    """The points [n, 2] of a result, of one or several a sample."""
    return result.samples.double().movedim(1, -1).reshape(-1, 2).numpy()


def composed(combine, fine=8):
    """The probability of each bin under a composition of LEFT and RIGHT, by quadrature."""
    line = ((np.arange(BINS * fine) + 0.5) / (BINS * fine) * 2 - 1) * EDGE
    x, y = np.meshgrid(line, line, indexing="ij")
    parts = []
    for density in (LEFT, RIGHT):
        total = sum(weight for weight, _, _ in density)
        parts.append(
            sum(
                w / total / (2 * math.pi * s**2)
                * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2))
                for w, (a, b), s in density
            )
        )  # fmt: skip
    made = combine(*parts).reshape(BINS, fine, BINS, fine).sum((1, 3))
    return made / made.sum()


def total_variation(points, truth):
    """Half the sum of differences between the histogram of points and the probability of each bin."""
    found, _, _ = np.histogram2d(*points.T, bins=BINS, range=[[-EDGE, EDGE]] * 2)
    found /= len(points)
    return 0.5 * (np.abs(found - truth).sum() + 1.0 - found.sum())
