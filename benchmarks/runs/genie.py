"""What GENIE's head gains on the digits network: python -m benchmarks.runs.genie.

Root mean square distances of samples from the ODE's solution, from the same noise to the same clean data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffusion_engine import Sampler, ScoreNetwork, zoo
from diffusion_engine.genie import attach, exact_derivative
from diffusion_engine.training.objectives.genie import HeadLoss
from diffusion_engine.zoo import load_network

from .. import results

CALLS = (5, 10, 15, 20, 25)
GUIDANCE = (1.0, 2.0)
GRIDS = ("lambda", "uniform", "quadratic")
SEEDS = 20
FINE = 200  # steps of the reference, of three calls each

CPU = torch.device("cpu")

Contender = tuple[str, ScoreNetwork, dict[str, bool]]


def main() -> None:
    rows = list(measure())
    print(f"wrote {results.replace(rows, results.GENIE)}")


def measure() -> Iterator[results.Row]:
    """The distances of everybody; how well the solution is known; what the head costs and leaves."""
    networks = contenders()
    for guidance in GUIDANCE:
        exact = solution(guidance, "dpm_solver_3", FINE)
        far = distance(solution(guidance, "dpmpp_3m", 2 * FINE), exact)
        yield row("known", far, guidance=guidance, contender="dpmpp_3m", calls=2 * FINE)
        for name, contender in networks.items():
            yield from distances(name, contender, guidance, exact)
    for name in ("DDIM", "GENIE"):
        yield row("operations", operations(networks[name]), contender=name)
    yield row("unexplained", unexplained(), contender="GENIE")


def distances(
    name: str, contender: Contender, guidance: float, exact: Tensor
) -> Iterator[results.Row]:
    """Those of one contender on every grid, after every number of calls."""
    for calls in CALLS:
        steps = calls + bool(contender[2].get("afs"))
        for grid in GRIDS:
            off = distance(samples(contender, steps, grid, guidance), exact)
            print(name, guidance, calls, grid, f"{off:.4f}", file=sys.stderr, flush=True)
            yield row("distance", off, guidance=guidance, contender=name, grid=grid, calls=calls)


def row(quantity: str, value: float, **known: str | int | float) -> results.Row:
    return results.row(CPU, results.GENIE_KEYS, quantity=quantity, value=value, **known)


def contenders() -> dict[str, Contender]:
    """The solver, network and options of each line."""
    plain, head = load_network("digits"), load_network("digits_genie")
    about = zoo.config("digits_genie")
    places = {key: about["base"][key] for key in ("feature", "embedding")}
    new = attach(load_network("digits"), zoo.build(about["architecture"]).eval(), **places)
    exact = exact_derivative(plain)
    return {
        "DDIM": ("ddim", plain, {}),
        "DDIM, AFS": ("genie", new, {"afs": True}),
        "GENIE": ("genie", head, {}),
        "GENIE, AFS": ("genie", head, {"afs": True}),
        "GENIE, exact": ("genie", exact, {}),
        "GENIE, exact, AFS": ("genie", exact, {"afs": True}),
        "DPM-Solver++(2M)": ("dpmpp_2m", plain, {}),
    }


def solution(guidance: float, solver: str, steps: int) -> Tensor:
    return samples(("ddim", load_network("digits"), {}), steps, "lambda", guidance, solver)


def samples(
    contender: Contender, steps: int, grid: str, guidance: float, solver: str | None = None
) -> Tensor:
    name, of, options = contender
    if of.parameterisation.derivative == "exact" and guidance != 1.0:
        # an exact derivative follows the guided ODE itself
        of, guidance = exact_derivative(load_network("digits"), guidance=guidance), 1.0
    one = Sampler(of, solver or name, steps, grid=grid, guidance=guidance, **options)
    classes = [seed % 10 for seed in range(SEEDS)]
    return one.sample(seeds=range(SEEDS), condition=classes).samples


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


def unexplained() -> float:
    """The head's loss over that of a new one, at states of samples."""
    x0 = solution(1.0, "dpmpp_2m", 20).repeat(10, 1, 1, 1)
    classes = torch.arange(SEEDS).repeat(10) % 10
    losses = []
    for name in ("GENIE", "DDIM, AFS"):
        loss = HeadLoss(contenders()[name][1], span=0.2)
        with torch.no_grad():
            losses.append(float(loss(x0, torch.Generator().manual_seed(0), classes)))
    return losses[0] / losses[1]


def operations(contender: Contender) -> float:
    """The floating-point operations of one call of one sample."""
    inputs = torch.zeros(1, 1, 32, 32), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        contender[1].module(*inputs)
    return float(counter.get_total_flops())


if __name__ == "__main__":
    main()
