"""`tune`: a table learned for a network, a family of solvers and a number of calls, by gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from ..compare import Fine, distance, fine_solution
from ..learned import Table, table_of
from ..learned.plans import table_of_states
from ..learned.weights import weights
from ..networks.network import ScoreNetwork
from ..networks.placement import device_of
from ..sampler.sampler import Sampler
from .baselines import Baseline, grids_of
from .families import FAMILIES
from .rollout import Runs

APART = (
    1 << 40
)  # the first of the seeds that are learned from: those that samples are made of begin at 0
EVERY = 10  # steps between two looks at how far it is
LOOK = 64  # samples of such a look
CLASSES = "give classes of the network, which are taken in turn, 'all', or None for none"


@dataclass(frozen=True)
class Progress:
    """How far `tune` is.

    step, steps  that are done, and asked for
    distance     the least so far from the fine solution, of seeds that are learned from
    seconds      since it began
    """

    step: int
    steps: int
    distance: float
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """What was learned.

    table     for the solver "learned"
    begun     the solver and the grid that it began with, and their distance
    distance  of its samples, of seeds that are learned from
    steps     that were taken
    seconds   that it took, with the fine solution
    stopped   whether it was before its last step
    """

    table: Table
    begun: Baseline
    distance: float
    steps: int
    seconds: float
    stopped: bool


def tune(
    network: ScoreNetwork,
    calls: int,
    family: str = "bns",
    *,
    guidance: float = 1.0,
    condition: Sequence[int] | str | None = "all",
    steps: int = 160,
    batch: int = 24,
    samples: int = 256,
    fine_steps: int = 100,
    rate: float = 0.03,
    seed: int = 0,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> Tuned:
    """Learns a table whose samples come near to the ODE's solution from the same noise: the mean square of
    their distance falls by Adam, through the network (Shaul et al. 2024, section 3.2).

    network    of any process but CLD, differentiable
    calls      of it that a sample takes; families.FAMILIES say how many they have
    family     "bns", "multistep" or "epd"
    guidance   classifier-free scale that the samples are for
    condition  classes, in turn; "all" that the network has; None for samples without a class
    steps      of Adam, each of `batch` samples of the `samples` that are learned from
    fine_steps of the solution that is aimed at
    rate       of Adam's steps at their beginning; it falls to 0 as half a cosine
    seed       the same makes the same table on one machine. What is learned from are noise and samples of
               seeds from 2^40 (1 + seed) on
    on_step    called with a Progress before the first step and after every 10
    Returns the best of those after every 10 steps; where it is interrupted, the best until then. Raises
    ValueError where the arguments make no sense, or a network cannot be differentiated.
    """
    checks.one_of("family", family, tuple(FAMILIES))
    whole = {"calls": calls, "steps": steps, "batch": batch, "samples": samples}
    for name, given in (whole | {"fine_steps": fine_steps}).items():
        checks.whole(name, given, 1, "a whole number, 1 or more")
    checks.whole("seed", seed, 0, "a whole number, 0 or more")
    began, kind = time.perf_counter(), FAMILIES[family]
    runs, grid_steps = Runs(network, guidance), kind.steps(calls)
    seeds = [APART * (1 + seed) + i for i in range(samples)]
    classes, place = _classes(network, condition, samples), device_of(network.module, None)
    aim = Fine.of(network, fine_steps)
    fine = fine_solution(network, seeds, classes, fine=aim, guidance=guidance)
    told = _told(network, classes, samples, place)
    learner = Learner(runs, runs.first(seeds).to(place), told, fine.to(place), batch)
    stopped, done = False, 0
    with frozen(network.module):
        made, begun, best = begin(learner, kind, grid_steps, calls)
        try:
            on_step(Progress(0, steps, best[0], time.perf_counter() - began))
            optimizer = torch.optim.Adam(made.parameters, lr=rate, betas=(0.9, 0.99))
            draw = torch.Generator().manual_seed(seed)
            for done in range(1, steps + 1):
                for group in optimizer.param_groups:
                    group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * (done - 1) / steps))
                optimizer.zero_grad()
                learner.loss(made, draw).backward()
                optimizer.step()
                if done % EVERY == 0 or done == steps:
                    best = min(best, learner.looked(made), key=lambda found: found[0])
                    on_step(Progress(done, steps, best[0], time.perf_counter() - began))
        except KeyboardInterrupt:
            stopped = True
    about: dict[str, Any] = {"network": network.name[:200], "family": family, "guidance": guidance}
    process, (t, states) = network.process, best[1]
    levels = [*(process.at(float(time)) for time in t), process.clean]
    table = table_of_states(process, levels, states.numpy(), exact=False, **about)
    return Tuned(table, begun, best[0], done, time.perf_counter() - began, stopped)


Look = tuple[float, tuple[Tensor, Tensor]]  # a distance, and the times and states that have it


def begin(learner: Learner, kind: Any, steps: int, calls: int) -> tuple[Any, Baseline, Look]:
    """The family begun with that of its solvers and grids which comes nearest, that one, and a look at it."""
    network, found, why = learner.runs.network, [], None
    for solver in kind.begins:
        for grid in grids_of(network.process):
            try:
                plan = Sampler(network, solver, steps, grid=grid).plan(kind="state")
                begun = weights(table_of(plan, network.process), network.process)
                made = kind(network.process, begun, calls)
            except (
                ValueError
            ) as error:  # the solver does not suit the process, or the grid the family
                why = why or error
                continue
            look = learner.looked(made)
            found.append((made, Baseline(solver, grid, look[0]), look))
    if not found:
        raise ValueError(f"there is nothing to begin with: {why}")
    return min(found, key=lambda each: each[2][0])


@dataclass(frozen=True, eq=False)
class Learner:
    """What a step of learning needs: first states, and their fine solutions."""

    runs: Runs
    x: Tensor
    condition: Tensor | None
    fine: Tensor
    batch: int

    def loss(self, family: Any, draw: torch.Generator) -> Tensor:
        """The mean square of the distance of a batch that is drawn."""
        which = torch.randint(len(self.x), (self.batch,), generator=draw)
        return (self._ends(which, *family()) - self.fine[which]).square().mean()

    @torch.no_grad()
    def looked(self, family: Any) -> Look:
        """The distance of the first samples."""
        made, which = family(), torch.arange(min(LOOK, len(self.x)))
        found = distance(self._ends(which, *made), self.fine[which])
        return (found if math.isfinite(found) else math.inf), made

    def _ends(self, which: Tensor, t: Tensor, states: Tensor) -> Tensor:
        told = None if self.condition is None else self.condition[which]
        return self.runs.ends(self.x[which], told, t, states)


@contextmanager
def frozen(module: Any) -> Iterator[None]:
    """The module in eval mode, its weights without gradients, and as it was afterwards."""
    if not isinstance(module, nn.Module):
        yield
        return
    training, asked = module.training, [p for p in module.parameters() if p.requires_grad]
    module.eval()
    try:
        for weight in asked:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in asked:
            weight.requires_grad_(True)
        module.train(training)


def _classes(network: ScoreNetwork, given: Any, count: int) -> list[int] | None:
    """A class for each of so many samples, in turn."""
    if given is None or (given == "all" and network.classes is None):
        return None
    known = range(network.classes or 0) if isinstance(given, str) and given == "all" else given
    listed = [
        checks.whole("condition", c, 0, CLASSES)
        for c in checks.entries("condition", known, CLASSES)
    ]
    if not listed or max(listed) >= (network.classes or 0):
        raise ValueError(
            f"condition={checks.said(given)}: {CLASSES}; {network.name!r} has {network.classes}"
        )
    return [listed[i % len(listed)] for i in range(count)]


def _told(
    network: ScoreNetwork, classes: list[int] | None, count: int, place: torch.device
) -> Tensor | None:
    """What the network is given as its condition: the classes, or that of its unconditional branch."""
    null = checks.plain(network.null)
    if classes is None and not isinstance(null, int):
        if null is None:
            return None
        raise ValueError(
            f"{network.name!r} takes a condition that is no class, and a table is learned for classes; give "
            "a network whose module adds the condition"
        )
    return torch.tensor([null] * count if classes is None else classes, device=place)
