"""Times 50 rows of SSCS outside the network against loops of plain torch, as a user would write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import CLD, Point
from diffusion_engine.solvers.cld import flow

from .. import results, shapes, timing
from ..agreement import TOLERANCE, Disagreement, difference
from ..timing import Task

SHAPE = (64, 3, 32, 32)
ROWS = 50
BYTES = 28  # per element: x and v in and out, the network's output in, its next input [x, v] out

Numbers = tuple[float, ...]


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    if shapes.wanted(only, "sscs", SHAPE):
        yield partial(compare, device, repeats)


def compare(device: torch.device, repeats: int) -> list[results.Row]:
    """The rows of the engine, of the published loop, and of one that merges adjacent halves of the flow.

    Every run draws its prior and calls a network that returns a ready tensor.
    """
    network = ready(device)
    sampler = Sampler(network, "sscs", ROWS + 1, device=device, batch_size=SHAPE[0])
    loops = {
        f"plain:{name}": Loop.of(network.process, sampler.points, name == "merged")
        for name in ("published", "merged")
    }
    runs: dict[str, Callable[[], object]] = {"ours": partial(sampler.sample, SHAPE[0])}
    for name, loop in loops.items():
        check(name, sampler, loop, device)
        runs[name] = partial(loop.run, network.module, device)
    others = timing.Others()
    tasks = [Task(name, [run]) for name, run in runs.items()]
    times = timing.interleave(tasks, repeats, timing.clock(device))
    best = min(times[name].median for name in loops)
    elements = math.prod(SHAPE) * ROWS
    shared = {
        "op": "sscs", "case": f"{ROWS} rows", "dtype": "float32", "shape": results.dims(SHAPE),
        "layout": "contiguous", "repeats": repeats, "others": others.share(),
    }  # fmt: skip
    return [
        results.row(
            device,
            **shared,
            provider=name,
            **results.moved(time, elements, BYTES),
            vs_best_torch=best / time.median if name == "ours" else None,
        )
        for name, time in times.items()
    ]


def ready(device: torch.device) -> ScoreNetwork:
    """A network that returns a ready tensor."""
    generator = torch.Generator().manual_seed(1)
    output = 0.1 * torch.randn(SHAPE, generator=generator).to(device)
    return ScoreNetwork(lambda u, t: output, CLD(), SHAPE[1:], prediction="mixed_velocity")


@dataclass(frozen=True)
class Part:
    """A call at t with its numbers: svv, ell and the length of the score part; flows before and after it,
    each a 2 x 2 matrix and L11, L21, L22."""

    t: float
    score: Numbers
    before: Numbers | None
    after: Numbers


@dataclass(frozen=True)
class Loop:
    """SSCS in plain torch, with all numbers on the host.

    end  of the final denoising, by which v is taken from x
    """

    parts: tuple[Part, ...]
    std: float
    mass: float
    end: float

    @classmethod
    def of(cls, process: CLD, points: tuple[Point, ...], merged: bool) -> Loop:
        """The loop over the points of a run, the last being clean data."""
        halves = [
            float(process.integral(s.t) - process.integral(t.t)) / 2.0
            for s, t in pairwise(points[:-1])
        ]
        parts = []
        for i, (s, t) in enumerate(pairwise(points[:-1])):
            covariance = process.covariance(s.t)
            length = 2.0 * process.friction * float(process.beta(s.t)) * (s.t - t.t)
            score = float(covariance.vv), 1.0 / float(covariance.cholesky[2]), length
            after = halves[i] + (halves[i + 1] if merged and i + 1 < len(halves) else 0.0)
            before = None if merged and i else numbers(process, halves[i])
            parts.append(Part(s.t, score, before, numbers(process, after)))
        last = points[-2].t
        end = last * float(process.beta(last)) / process.mass
        return cls(tuple(parts), math.sqrt(process.mass), process.mass, end)

    def run(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        device: torch.device,
        normal: Callable[[Tensor], Tensor] = torch.randn_like,
        first: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        x, v = first or (torch.randn(SHAPE, device=device), torch.randn(SHAPE, device=device))
        if first is None:
            v.mul_(self.std)
        for part in self.parts:
            if part.before is not None:
                x, v = move(x, v, part.before, normal)
            t = torch.full((len(x),), part.t, device=device)
            output = network(torch.cat([x, v], dim=1), t)
            svv, ell, length = part.score
            score = output.mul(-ell).sub_(v, alpha=1.0 / svv)
            v.mul_(1.0 + length / self.mass).add_(score, alpha=length)
            x, v = move(x, v, part.after, normal)
        return x.sub_(v, alpha=self.end)


def numbers(process: CLD, b: float) -> Numbers:
    """The matrix of a flow over b and its Cholesky factor, row by row."""
    a, noise = flow(process, b)
    lower = np.linalg.cholesky(noise)
    return (*a.ravel().tolist(), float(lower[0, 0]), float(lower[1, 0]), float(lower[1, 1]))


def move(
    x: Tensor, v: Tensor, n: Numbers, normal: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    z0, z1 = normal(x), normal(v)
    new = x.mul(n[0]).add_(v, alpha=n[1]).add_(z0, alpha=n[4])
    v.mul_(n[3]).add_(x, alpha=n[2]).add_(z0, alpha=n[5]).add_(z1, alpha=n[6])
    return new, v


def check(name: str, sampler: Sampler, loop: Loop, device: torch.device) -> None:
    """Raises Disagreement unless a loop makes what the sampler does from one state without noise."""
    x, v = torch.randn(SHAPE, device=device), loop.std * torch.randn(SHAPE, device=device)
    assert loop.parts[0].before is not None
    moved = move(x.clone(), v.clone(), loop.parts[0].before, torch.zeros_like)
    given = {
        (0, 0): moved[0],
        (0, 1): moved[1] / loop.std,
    }  # the prior of row 0 is behind that flow
    nothing = torch.zeros(SHAPE, device=device)
    want = sampler.sample(SHAPE[0], noise=lambda row, m, seeds: given.get((row, m), nothing))
    got = loop.run(sampler.network.module, device, torch.zeros_like, (x, v))
    error = difference(got, want.samples)
    if not error <= TOLERANCE:
        raise Disagreement(f"{name}: differs from the engine by {error:.2g}")
