"""`Run`: what a driver that leads is told of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..executors.job import Job
from ..networks.network import ScoreNetwork
from ..networks.parameterisation import Parameterisation
from ..plan import Plan, Row
from ..plan.linear import normal, x
from ..processes import GaussianProcess, Point
from ..solvers import Solver
from ..solvers.update import Update
from .driven import Driver
from .plans import Plans, Scale
from .request import Request


@dataclass(frozen=True, eq=False)
class Run:
    """A sample that is about to be led.

    plan    the solver's own table of it, guided
    job     its seed, its conditions and what else was given for it
    scale   of guidance, or the weights of composed conditions
    plans   what makes rows: the sampler's
    """

    plan: Plan
    job: Job
    scale: Scale
    plans: Plans

    @property
    def network(self) -> Parameterisation:
        return self.plans.network

    @property
    def process(self) -> GaussianProcess:
        return self.plans.network.process

    @property
    def solver(self) -> Solver:
        return self.plans.solver

    @property
    def points(self) -> tuple[Point, ...]:
        """Of the run; of a plan that starts later, the first may be another (`plan.rows[0].state`)."""
        return self.plans.points

    @property
    def seed(self) -> int:
        return self.job.seed

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the sample, (C, *pixel)."""
        return self.plans.network.shape

    def row(self, update: Update, key: int = 0) -> Row:
        """The row of an update: the network's parameterisation, guidance, clipping and the known region are
        in it.

        key  names its normals; not 0, which is that of the start
        """
        return self.plans.row(update, self.scale, self.job.mask is not None, key)

    def seat(self, slots: int, blocks: int = 1) -> Job:
        """The job of a seat with room for so many slots.

        blocks  the most channel blocks of the network's output that a row reads, of each branch
        """
        widest = max(self.plan.rows[1:], key=lambda row: (len(row.entries), len(row.q)))
        spare = [b for b in widest.entries for _ in range(blocks - 1)]
        widest = replace(
            widest,
            q=(*widest.q, *(0.0 for _ in spare)),
            e=widest.e and (*widest.e, *(0.0 for _ in spare)),
            channel_blocks=(*widest.channel_blocks, *(0 for _ in spare)),
            branches=(*widest.branches, *spare),
        )
        new = {0: x + normal(0) + normal(1)} | {k: x for k in range(1, slots)}
        call = widest.call and replace(widest.call, read=tuple(range(len(widest.call.read))))
        row = replace(widest, call=call, new=new, p=(), state=None, spans=())
        plan = Plan((self.plan.rows[0], row), self.plan.name, exact=False)
        return replace(self.job, plan=plan)


def refuse(
    made: Driver, network: ScoreNetwork, points: Sequence[Point], captured: bool, guided: bool = False
) -> None:  # fmt: skip
    """Raises ValueError where a driver does not suit what it shall run.

    captured  whether the executor records steps
    guided    whether a guider weighs the outputs, which it does after a driver has seen them
    """
    objection = made.objection(network.parameterisation, points)
    if made.leads and captured:
        objection = (
            "it decides between the network's call and the step, and a captured step has no such moment; use "
            "executor='eager' or 'native'"
        )
    if made.leads and guided:
        objection = "it decides by estimates that a guider has not weighed yet; leave guider out"
    if made.leads and network.parameterisation.latent:
        objection = (
            "it leads the calls, and this network draws a latent for each; use a solver of its own"
        )
    if objection:
        raise ValueError(f"driver {made.name!r} cannot run this: {objection}")


def check_request(made: Driver, part: Request) -> None:
    """Raises ValueError where a request asks for what a driver does not do."""
    if part.encoding is not None:
        raise ValueError(
            f"encode runs a solver's own table upwards, and driver {made.name!r} is none; encode without it"
        )
    if not made.leads:
        return
    if part.record:
        raise ValueError(
            f"record={list(part.record)}: driver {made.name!r} writes its rows while they run, and a rollout "
            "is of a plan; leave one out"
        )
    if part.noise is not None:
        raise ValueError(
            f"noise is given and driver {made.name!r} draws its own, by keys of its rows; leave noise out"
        )
