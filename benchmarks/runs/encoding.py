"""Writes the round trips of benchmarks/pages/samplers_encoding.md: python -m benchmarks.runs.encoding, then
python -m benchmarks.pages.samplers puts them into docs/samplers.md."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork, testing
from diffusion_engine.genie import exact_derivative
from diffusion_engine.solvers.base import orders
from diffusion_engine.zoo import load_network

TABLE = Path(__file__).parents[1] / "pages" / "samplers_encoding.md"
STEPS = (10, 20, 50)
# (solver, refine)
WAYS = [("ddim", 0), ("ddim", 1), ("ddim", 3), ("heun", 0), ("dpmpp_2m", 0), ("unipc", 0)]
WAYS += [("genie", 0), ("genie", 3)]

TEXT = """## Encoding: how far from an image its latent leads back

Root mean square of sample(encode(x)) - x with `end="t_min"`, the same solver and steps up and down, from
`python -m benchmarks.runs.encoding`. Mixture: its exact network in float64, 4,096 draws of it. Digits: the
shipped network in float32, 20 images of its own with their classes. *Calls* are those of encoding with
N steps. `refine=0` has the error of the solver on the ODE, up and down; `refine=k` that of k
iterations towards the inverse of the steps down. GENIE has the exact derivative here, which on the
digits network says little of a whole step ([genie.md](genie.md)): it is no better than DDIM there.
"""


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


def _times(number: int) -> str:
    return "N" if number == 1 else f"{number} N"


def row(solver: str, refine: int) -> str:
    made = SOLVERS[solver]()
    calls = f"1 + {_times(refine)}" if refine else _times(made.calls)
    cells = [f"`{solver}`", orders(made), str(refine), calls]
    for case in (mixture, digits):
        cells += [f"{error(case, solver, refine, steps):.1e}" for steps in STEPS]
    print(*cells, file=sys.stderr, flush=True)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    head = ["solver", "order", "refine", "calls"]
    head += [f"{name}, N = {n}" for name in ("mixture", "digits") for n in STEPS]
    lines = [TEXT, f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    TABLE.write_text("\n".join([*lines, *(row(*way) for way in WAYS)]) + "\n")
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
