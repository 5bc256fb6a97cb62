"""The divergence of a network's output in its input, exact or estimated, by products with its Jacobian.

Hutchinson's estimator (Hutchinson 1989; Grathwohl et al. 2019, FFJORD): for directions e with mean 0
and covariance I,

    tr J = E[e^T J e],    e^T J e = <e, grad_x <e, out(x)>>

Rademacher's e, +1 or -1 by a coin, leave the diagonal of J without variance; Gaussian ones do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import philox
from ..ops.functional import norms

EXACT = 1024  # dimensions up to which a Jacobian's diagonal is taken one by one
PROBES = ("rademacher", "gaussian")
# What the draws of a likelihood have for m (ops/philox.py): probes, places within a pixel's level, first
# velocities, and the noise and times of a variational bound.
PROBE, WITHIN, VELOCITY, NOISE, TIME = 8, 9, 10, 11, 12

# Directions [n, *shape] -> their product with the Jacobian, [n, *shape]
Products = Callable[[Tensor], Tensor]


def normals(seeds: Sequence[int], key: int, m: int, shape: Sequence[int]) -> Tensor:
    """The normals [n, *shape] float32 of samples with these seeds, the same on every machine."""
    seed = torch.tensor([s - (s >> 63 << 64) for s in seeds], dtype=torch.int64)
    keys = torch.full_like(seed, key)
    return philox.normals(seed, keys, m, torch.Size(shape).numel()).reshape(len(seeds), *shape)


def uniforms(seeds: Sequence[int], key: int, m: int, shape: Sequence[int]) -> Tensor:
    """Numbers in (0, 1), [n, *shape] float64: Phi of those normals."""
    return torch.special.ndtr(normals(seeds, key, m, shape).double())


def dots(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of every sample, [n] float64, the same alone and among others."""
    kind = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return norms(a.to(kind), b.to(kind))[:, 4]


@dataclass(frozen=True, eq=False)
class Hutchinson:
    """An estimate for each of k directions, which stay the same for a whole solve.

    directions  [k, n, *shape]
    """

    directions: Tensor

    @classmethod
    def of(
        cls, seeds: Sequence[int], shape: Sequence[int], count: int, kind: str, device: torch.device
    ) -> Hutchinson:
        """Directions of samples with these seeds; kind is one of PROBES."""
        drawn = torch.stack([normals(seeds, k, PROBE, shape) for k in range(count)])
        if kind == "rademacher":
            drawn = torch.where(drawn < 0.0, -1.0, 1.0)
        return cls(drawn.to(device))

    @property
    def count(self) -> int:
        return len(self.directions)

    def of_samples(self, low: int, high: int) -> Hutchinson:
        return Hutchinson(self.directions[:, low:high])

    def __call__(self, products: Products) -> Tensor:
        """tr J of every direction and sample, [k, n] float64."""
        return torch.stack([dots(e, products(e)) for e in self.directions])


@dataclass(frozen=True, eq=False)
class Exact:
    """The sum of the diagonal, with a product for each of a sample's elements.

    like  [n, *shape], of which the directions have shape and device
    """

    like: Tensor
    count: int = 1

    def of_samples(self, low: int, high: int) -> Exact:
        return Exact(self.like[low:high])

    def __call__(self, products: Products) -> Tensor:
        """tr J of every sample, [1, n] float64."""
        total = torch.zeros(1, len(self.like), dtype=torch.float64, device=self.like.device)
        unit = torch.zeros(self.like.shape, device=self.like.device)
        places = unit.view(len(unit), -1)
        for i in range(places.shape[1]):
            places[:, i] = 1.0
            total += products(unit).flatten(1)[:, i].double()
            places[:, i] = 0.0
        return total


Divergence = Hutchinson | Exact


def with_divergence(
    function: Callable[[Tensor], Tensor], x: Tensor, divergence: Divergence
) -> tuple[Tensor, Tensor]:
    """out = function(x), and tr(d out / d x) over the last channels of x where out has fewer than it.

    x  [n, C, *pixel]; out [n, c, *pixel] with c <= C, a velocity's own where x is [x, v]
    Returns out and [k, n] float64. Raises ValueError where out has no derivative in x.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        out = function(leaf)
        if not out.requires_grad:
            raise ValueError(_without("it detaches its input, or runs under no_grad"))
        first = x.shape[1] - out.shape[1]

        def products(e: Tensor) -> Tensor:
            (found,) = torch.autograd.grad(
                out, leaf, e.to(out.dtype), retain_graph=True, allow_unused=True
            )
            if found is None:
                raise ValueError(_without("it does not depend on it"))
            return found[:, first:]

        return out.detach(), divergence(products)


def _without(why: str) -> str:
    return (
        f"the network's output has no derivative in its input: {why}. A likelihood takes one at each call; "
        "give a module that torch differentiates"
    )
