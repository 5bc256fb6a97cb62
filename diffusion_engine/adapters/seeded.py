"""Noise by the seeds of other tools, from torch's generators alone: their seeds give their pictures.

What a tool draws depends on its settings. ComfyUI draws all latents of a batch at once from one seed on the
CPU; A1111 draws each image from a generator of its own seed: on the CPU, on the GPU, or as an NVIDIA GPU
would ("NV").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..ops.philox import MASK, philox

NoiseSampler = Callable[[Any, Any], Tensor]
SEED = "a seed is a whole number from 0 on, below 2^64"
SOURCES = ("cpu", "gpu", "nv")
# cuRAND's constants in float32: 2^-32, and that times 2 pi.
UNIT = 2.0**-32
TURN = float(torch.tensor(6.2831855, dtype=torch.float32)) * UNIT


def seed_of(given: Any, name: str = "seed") -> int:
    """A seed. Raises ValueError where it is none."""
    seed = checks.whole(name, given, 0, SEED)
    if seed >= 1 << 64:
        raise ValueError(f"{name}={seed}: {SEED}")
    return seed


def _generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def prepare_noise(latent: Tensor, seed: int, noise_inds: Sequence[int] | None = None) -> Tensor:
    """ComfyUI's first noise: normals like a latent [B, ...], float32 on the CPU, all from one generator.

    noise_inds  of each latent its index in a larger batch, which is drawn one after the other up to the last
                that is asked: latents of one index have one noise
    torch's global generator is left alone, and would give the same after torch.manual_seed(seed).
    """
    generator = _generator(seed_of(seed))
    if noise_inds is None:
        return torch.randn(latent.shape, generator=generator)
    listed = checks.entries("noise_inds", noise_inds, "give the index of each latent in its batch")
    inds = [
        checks.whole("noise_inds", i, 0, "an index is a whole number from 0 on") for i in listed
    ]
    if len(inds) != len(latent):
        raise ValueError(
            f"noise_inds has {len(inds)} entries for {len(latent)} latents; give one a latent"
        )
    drawn = [
        torch.randn(1, *latent.shape[1:], generator=generator)
        for _ in range(max(inds, default=-1) + 1)
    ]
    return torch.cat([drawn[i] for i in inds])


def step_noise(x: Tensor, seed: int) -> NoiseSampler:
    """ComfyUI's noise of ancestral steps: a generator of x's device, drawn in order, in x's dtype.

    On the CPU its seed is one more, where the first noise was drawn from the seed itself.
    """
    seed = seed_of(seed)
    if x.device.type == "cpu":
        seed = seed_of(seed + 1, "seed + 1")
    generator = _generator(seed, x.device)
    return lambda sigma, sigma_next: torch.randn(
        x.shape, generator=generator, device=x.device, dtype=x.dtype
    )


class Nvidia:
    """Normals as an NVIDIA GPU draws them after torch.manual_seed, on the CPU: A1111's source "NV".

    torch's kernel gives element e of draw k the words of Philox4x32-10 of counter (k, 0, e, 0) under the seed
    (cuRAND), as long as there are no more elements than threads that run at once, and

        z = sqrt(-2 log u) sin v,   u = 2^-32 (w_0 + 1/2),   v = 2 pi 2^-32 (w_1 + 1/2)

    Reckoned in float64, where the GPU's logarithm and sine round in float32: equal to some 1e-6.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.draws = seed_of(seed), 0

    def randn(self, shape: Sequence[int]) -> Tensor:
        """The next normals, float32 on the CPU."""
        element = torch.arange(math.prod(shape))
        zero = torch.zeros_like(element)
        key = zero + (self.seed & MASK), zero + (self.seed >> 32)
        first, second, *_ = philox(zero + self.draws, zero, element, zero, *key)
        self.draws += 1
        u = first.double() * UNIT + UNIT / 2.0
        v = second.double() * TURN + TURN / 2.0
        return ((-2.0 * u.log()).sqrt() * v.sin()).float().reshape(*shape)


class ImageNoise:
    """A1111's noise: a generator for each image's seed. The first draw is the first noise, the next are those
    of ancestral steps, in order.

    shape   of one latent
    seeds   of the first image, the others count on, or one for each
    n       how many images, where `seeds` is one
    ensd    A1111's "eta noise seed delta": with another than 0 steps draw from generators of seed + ensd
    source  "cpu", "gpu" (the generator of `device`), or "nv", whose numbers are an NVIDIA GPU's anywhere
    device  where the noise is wanted

    `first()` is [n, *shape], to be multiplied by the first sigma. The object is a noise_sampler of the steps.
    Variations, and seeds resized from another size, are not drawn.
    """

    def __init__(
        self, shape: Sequence[int], seeds: int | Sequence[int], n: int = 1, *, ensd: int = 0,
        source: str = "cpu", device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.shape, self.device = checks.shape(shape), torch.device(device)
        self.source = checks.one_of("source", source, SOURCES)
        if isinstance(checks.plain(seeds), int):
            first = seed_of(seeds, "seeds")
            seeds = [first + i for i in range(checks.whole("n", n, 1, "1 image or more"))]
        listed = checks.entries("seeds", seeds, "give a seed, or one for each image")
        self.seeds = [seed_of(seed, "seeds") for seed in listed]
        self.ensd = checks.whole("ensd", ensd, 0, "a delta of seeds is a whole number from 0 on")
        self._draws: list[Callable[[], Tensor]] | None = None

    def first(self) -> Tensor:
        """The first noise [n, *shape]; what steps draw begins behind it."""
        self._draws = [self._from(seed) for seed in self.seeds]
        made = self._next()
        if self.ensd:
            self._draws = [self._from(seed + self.ensd) for seed in self.seeds]
        return made

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        """The next noise of steps [n, *shape]."""
        if self._draws is None:
            self.first()
        return self._next()

    def _next(self) -> Tensor:
        assert self._draws is not None, "first() makes the generators"
        return torch.stack([draw() for draw in self._draws]).to(self.device)

    def _from(self, seed: int) -> Callable[[], Tensor]:
        if self.source == "nv":
            own = Nvidia(seed)
            return lambda: own.randn(self.shape)
        device = self.device if self.source == "gpu" else torch.device("cpu")
        generator = _generator(seed, device)
        return lambda: torch.randn(self.shape, generator=generator, device=device)
