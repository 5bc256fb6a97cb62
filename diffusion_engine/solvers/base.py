"""What every solver shares: how its updates become a plan, and what steps are written with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan import Plan, Row, Span
from ..plan.brownian import span
from ..plan.linear import Linear, denoised, normal, slot, x
from ..processes import GaussianProcess, Point
from ..processes.grids import Grid
from .update import Update, arrived, call_of, without_outputs, written

# The points of a run, from noise to data.
Points = Sequence[Point]
STARTS = ("euler", "heun")  # of multistep solvers: first steps of one call, and of two


class Solver:
    """A rule that turns the points of a run into a plan. A subclass writes `updates`; its options are the
    fields of a frozen dataclass. What else it may say, with the defaults below:

    name        in recipes and errors; where it says none, its class's
    order       of convergence in the step size, with these options, on the default grids up to t_min; weakly
                where noise enters. From pure noise, where no first step has more than first order, 2 at
                most; 0 where more steps do not lead to the data's law
    asymptotic  the order of the formula, where every step has it: from exact or tiny first steps, to tiny
                last ones, and evenly spaced where it takes its steps for equal; `order` unless it says more
    calls       network calls a step
    stochastic  whether fresh noise enters after the start, for lists; a run goes by what its plan draws
    source      the paper, and the equation
    differs     what it does otherwise than the published code, and why; "" where nothing
    parts       of the state that it moves: 1, x, or 2, [x, v] of CLD
    exact       whether a row that completes a step transports x0 exactly, given a perfect network
    keeps_noise whether it then also leaves the noise level of its state, where a paper lets it
    on_path     whether its noise is that of an SDE, so that a Brownian path can drive it
    needs       options without which it runs nothing
    """

    if TYPE_CHECKING:  # subclasses reckon it from their options, or say it, also as a field

        @property
        def order(self) -> int: ...

    else:
        order = 1

    name: ClassVar[str] = "Solver"
    calls: ClassVar[int] = 1
    source: ClassVar[str] = ""
    differs: ClassVar[str] = ""
    exact: ClassVar[bool] = True
    parts: ClassVar[int] = 1
    keeps_noise: ClassVar[bool] = True
    on_path: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **how: Any) -> None:
        super().__init_subclass__(**how)
        # An inherited name is another solver's, by which recipes find it.
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @property
    def asymptotic(self) -> int:
        return self.order

    @property
    def stochastic(self) -> bool:
        return False

    def updates(self, process: GaussianProcess, points: Points) -> Iterable[Update]:
        """The rows after the first, in order."""
        raise ValueError(f"solver {self.name!r} writes no updates(process, points)")

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        """Why it cannot run this process, network or these points, as a sentence; None where it can."""
        return None

    def default_grid(self, process: GaussianProcess) -> str | Grid | None:
        """The times a run has where none are given; None are the network's or the process's own."""
        return None

    def plan(
        self,
        parameterisation: Parameterisation,
        points: Points,
        start: str = "prior",
        clip: tuple[float, float] | None = None,
    ) -> Plan:
        """The table of a run over `points` of a network that is parameterised so.

        start  "prior" draws the first x, "image" noises a given clean x to points[0], "state" takes a
               given x as it is, "whole" also the velocity of CLD's [x, v]
        clip   range of `denoised`; None leaves it alone
        Raises ValueError where the solver does not suit the process, the points or the network.
        """
        refuse_unsuited(self, parameterisation, points)
        process = parameterisation.process
        rows = [first_row(process, points[0], start)]
        for i, update in enumerate(written(self, process, points), 1):
            if update.churn:
                rows[-1] = _add_noise(rows[-1], update)
            row = row_of(update, parameterisation, clip, i)
            taken = None if update.churn else update.span
            spans = spans_of(row, rows, taken) if self.on_path else ()
            rows.append(replace(row, spans=spans))
        arrived(self.name, rows[-1].state, points[-1])
        return Plan(tuple(rows), self.name, self.exact)


def refuse_unsuited(rule: Solver, parameterisation: Parameterisation, points: Points) -> None:
    """Raises ValueError where a solver does not suit the process, the network or the points."""
    process, parts = parameterisation.process, {1: "x alone", 2: "[x, v]"}
    if rule.parts != process.parts:
        other = {1: "'dpmpp_2m'", 2: "'sscs' or 'cld_ode'"}[process.parts]
        objection: str | None = (
            f"it moves {parts[rule.parts]} and {type(process).__name__} has a state of "
            f"{parts[process.parts]}; use a solver such as {other}"
        )
    else:
        objection = rule.objection(parameterisation, points)
    if objection:
        raise ValueError(f"solver {rule.name!r} cannot run this: {objection}")


def row_of(
    update: Update, network: Parameterisation, clip: tuple[float, float] | None, key: int
) -> Row:
    """The row of an update: the network's parameterisation becomes weights of slots and outputs."""
    at, read, count = update.at, update.read, update.channel_blocks
    if update.slope:
        update = replace(update, raw=network.slope_weights(at))
        count = update.channel_blocks
    weights, q = network.weights(at)
    own = any(new["U"] for new in update.new.values())
    update = without_outputs(update, weights, q)
    p = [0.0] * (1 + max(read))
    for k, weight in zip(read, weights, strict=True):
        p[k] = weight
    return Row(
        call=call_of(network, at, read, update.until),
        new=update.new,
        p=tuple(p),
        q=(q,) + (0.0,) * (count - 1),
        e=update.raw and (*update.raw, *(0.0,) * (count - len(update.raw))),
        channel_blocks=tuple(range(count)),
        branches=(0,) * count,
        clip=clip,
        learned=update.learned,
        key=key,
        state=update.state,
        unconditional=own,
    )


def first_row(process: GaussianProcess, first: Point, start: str) -> Row:
    """Row 0 of a run that starts at a point; see Solver.plan."""
    new = {
        "prior": normal(0) * process.prior_std(first),
        "image": first.alpha * x + first.sigma * normal(0),
        "state": x,
    }
    return Row(call=None, new={0: new[start]}, key=0, state=first)


def spans_of(
    row: Row, rows: list[Row], taken: tuple[Point, Point] | None = None
) -> tuple[Span | None, ...]:
    """The intervals of the normals of a row behind others: of the first path for normal 0, of the second for
    normal 1; `taken` where the solver says itself which its normal 0 takes.

    Only onwards: a solver that goes back over an interval needs other noise there.
    """
    used = [row.draws(m) for m in range(2)]
    if not any(used):
        return ()
    if taken is not None:
        return (span(*taken),)
    last = next(row.state for row in reversed(rows) if row.state is not None)
    own = None if row.state is None else span(last, row.state)
    reached = next((s[2] for row in reversed(rows) for s in row.spans if s and row.state), 0)
    if own is None or own[1] < reached:
        return ()
    return tuple((m, *own[1:]) if used[m] else None for m in range(2))


def _add_noise(row: Row, update: Update) -> Row:
    """Churn before a call is noise at the end of the row before it, which then leaves the state `at`."""
    assert row.state is not None, "churn starts from a complete state"
    m, at = 1 if row.draws(0) else 0, update.at
    raised = row.new[0] * (at.alpha / row.state.alpha) + update.churn * normal(m)
    taken = None if update.span is None else span(*update.span)
    spans = (*(*row.spans, None)[:m], taken)
    return replace(row, new=row.new | {0: raised}, state=at, spans=spans)


def orders(rule: Solver) -> str:
    """`order`, and `asymptotic` beside it where that is another: "2 (4)"."""
    return f"{rule.order}" + (f" ({rule.asymptotic})" if rule.asymptotic != rule.order else "")


class Ring:
    """Past predictions in slots: a new one takes the place of the oldest, nothing is shifted.

    size      how many are kept
    first     the first of their slots
    infinite  whether those at pure noise are, which no interpolation in lam or g has as nodes
    """

    def __init__(self, size: int, first: int = 1, infinite: bool = False) -> None:
        self.size, self.first, self.count, self.infinite = size, first, 0, infinite
        self.past: list[tuple[Point, Linear]] = []

    def store(self, at: Point) -> int:
        """The slot for the prediction made at `at`, which becomes past[0] of the rows to come."""
        k = self.first + self.count % self.size if self.size else -1
        self.count += 1
        newest = [(at, slot(k))] if at.alpha > 0.0 or self.infinite else []
        self.past = (newest + self.past)[: self.size]
        return k


def steps(points: Points) -> Iterator[tuple[Point, Point]]:
    """The intervals (s, t), s the noisier end."""
    return pairwise(points)


def eps_of(at: Point, state: Linear = x) -> Linear:
    """eps = (x - alpha x0) / sigma, the noise that `denoised` implies in a state."""
    return (state - at.alpha * denoised) / at.sigma


def transfer(s: Point, t: Point, state: Linear, d: Linear) -> Linear:
    """DDIM from s to t: sigma_t / sigma_s x + alpha_t (1 - e^-h) x0 (Song et al. 2021, eq. 12).

    state  x at s
    d      the estimate of x0, `denoised` or a combination of several

    Also right at sigma_t = 0 and at alpha_s = 0, where h is infinite.
    """
    scale = t.sigma / s.sigma
    return scale * state + (t.alpha - scale * s.alpha) * d


def score_of(at: Point) -> Linear:
    """grad log p = (alpha x0 - x) / sigma^2, the score that `denoised` implies."""
    return (at.alpha * denoised - x) / at.sigma**2


def first_order_only(s: Point, t: Point) -> bool:
    """Whether lam is infinite at an end of the step from s to t, so that no expansion in it exists."""
    return 0.0 in (s.alpha, s.sigma, t.alpha, t.sigma)


def off_time(process: GaussianProcess, points: Points) -> str | None:
    """The objection of what takes the law from the time t, where a level has but the nearest one's label."""
    for p in points:
        if p.sigma > 0.0 and not math.isclose(process.at(p.t).lam, p.lam, abs_tol=1e-6):
            return (
                f"sigma / alpha = {p.ratio:g} is not that of {type(process).__name__} at t={p.t:g}, and it "
                "goes by t; give levels of the process, or use 'dpmpp_2m' or 'dpmpp_2m_sde'"
            )
    return None


def finite_start(process: GaussianProcess, points: Points) -> str | None:
    """The objection of solvers that need a finite noise-to-signal ratio at the noisiest time."""
    noisiest = min(points[0], points[-1], key=lambda p: p.alpha)
    if noisiest.alpha == 0.0:
        where = "first" if noisiest is points[0] else "last"
        return (
            f"alpha is 0 at its {where} time t={noisiest.t:g}; start at a smaller t, or use 'dpmpp_2m', "
            f"'heun' or 'unipc'"
        )
    return None
