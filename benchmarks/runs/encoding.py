"""How far from an image its latent leads back: python -m benchmarks.runs.encoding."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from diffusion_engine import Sampler, ScoreNetwork, testing
from diffusion_engine.genie import exact_derivative
from diffusion_engine.zoo import load_network

from .. import results

STEPS = (10, 20, 50)
# (solver, refine)
WAYS = [("ddim", 0), ("ddim", 1), ("ddim", 3), ("heun", 0), ("dpmpp_2m", 0), ("unipc", 0)]
WAYS += [("genie", 0), ("genie", 3)]


def mixture(solver: str) -> tuple[ScoreNetwork, Tensor, dict]:
    """A network for a solver, images of it, and options of Sampler."""
    data, generator = testing.Mixture(), torch.Generator().manual_seed(0)
    which = torch.multinomial(torch.tensor(data.weights), 4096, True, generator=generator)
    means, stds = (torch.tensor(v, dtype=torch.float64) for v in (data.means, data.stds))
    z = torch.randn(len(which), generator=generator, dtype=torch.float64)
    network = testing.exact_network(solver)
    x = (means[which] + stds[which] * z)[:, None]
    return network, x, {"dtype": torch.float64, "batch_size": len(x)}


@cache
def images() -> tuple[ScoreNetwork, Tensor]:
    network = load_network("digits")
    made = Sampler(network, "dpm_solver_3", 30).sample(20, condition=[*range(10), *range(10)])
    return network, made.samples.clamp(-1.0, 1.0)


def digits(solver: str) -> tuple[ScoreNetwork, Tensor, dict]:
    """The same of the digits network."""
    network, x = images()
    return exact_derivative(network) if solver == "genie" else network, x, {}


def error(
    case: Callable[[str], tuple[ScoreNetwork, Tensor, dict]], solver: str, refine: int, steps: int
) -> float:
    """The root mean square distance of what comes back from what was encoded."""
    network, x, options = case(solver)
    sampler = Sampler(network, solver, steps, end="t_min", **options)
    told = {} if case is mixture else {"condition": [*range(10), *range(10)]}
    latents = sampler.encode(x, refine=refine, **told).samples
    back = sampler.sample(x=latents, noised=True, **told).samples
    return float((back - x).square().mean().sqrt())


def measure() -> Iterator[results.Row]:
    for solver, refine in WAYS:
        for case in (mixture, digits):
            for steps in STEPS:
                off = error(case, solver, refine, steps)
                print(
                    solver, refine, case.__name__, steps, f"{off:.1e}", file=sys.stderr, flush=True
                )
                yield results.row(
                    torch.device("cpu"), results.ENCODING_KEYS, solver=solver, refine=refine,
                    data=case.__name__, steps=steps, error=off,
                )  # fmt: skip


def main() -> None:
    rows = list(measure())
    print(f"wrote {results.replace(rows, results.ENCODING)}")


if __name__ == "__main__":
    main()
