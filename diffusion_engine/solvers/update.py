"""One row as a solver writes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan import Call
from ..plan.linear import Linear, raw, slot
from ..processes import GaussianProcess, Point


@dataclass(frozen=True)
class Update:
    """One row as a solver writes it: call the network at a point, then renew the slots.

    at       the law of the state the network reads
    new      slot -> new content, in terms of old slots, `denoised`, `raw` and normals
    state    the law of slot 0 afterwards; None while it holds a partial sum
    read     the slots the network reads, one or two
    churn    standard deviation of noise put into slot 0 before the call
    raw      `raw` is the sum of these weights times the network's channel blocks 0, 1, ...
    learned  (v0, v1, block): normals are multiplied by exp(v0 + v1 times that channel block)
    slope    `raw` is d eps / dg along the ODE, in the form the network offers it, in place of `raw=`
    span     with noise="brownian", the interval of the sample's path whose increment the churn, or else
             normal 0, is; None: for every normal that from the last complete state to `state`
    until    where the step ends that the call alone makes, for networks that are told it; None where the
             call serves more than one, or a part of one

    All of `new` is made of the slots as they were before the row.

    Raises ValueError where `at` or `state` is no point, or `new` no mapping of slots to what they become.
    """

    at: Point
    new: dict[int, Linear]
    state: Point | None
    read: tuple[int, ...] = (0,)
    churn: float = 0.0
    raw: tuple[float, ...] = ()
    learned: tuple[float, float, int] | None = None
    slope: bool = False
    span: tuple[Point, Point] | None = None
    until: Point | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.at, Point):
            raise ValueError(f"Update(at={checks.said(self.at)}): give the point of the call")
        if not isinstance(self.state, Point | None):
            raise ValueError(f"Update(state={checks.said(self.state)}): give a point, or None")
        if not isinstance(self.until, Point | None):
            raise ValueError(f"Update(until={checks.said(self.until)}): give a point, or None")
        written = self.new.items() if isinstance(self.new, Mapping) else ((None, None),)
        if not all(isinstance(k, int) and isinstance(content, Linear) for k, content in written):
            raise ValueError(
                f"Update(new={checks.said(self.new)}): give slot -> its new content, written with x, "
                "denoised, slot(k), normal(m) and raw, as {0: 0.5 * x + 0.5 * denoised}"
            )

    @property
    def channel_blocks(self) -> int:
        """How many channel blocks the row takes from the network; block 0 is its prediction."""
        return max(1, len(self.raw), 1 + self.learned[2] if self.learned else 0)


def call_of(
    network: Parameterisation, at: Point, read: tuple[int, ...], until: Point | None
) -> Call:
    """The call of a network at a point, for the step to `until`.

    Raises ValueError where it is told a step's end, and the solver says none.
    """
    c_in = (network.c_in(at),) * len(read)
    if network.end_label is None:
        return Call(at, network.label_of(at), read, c_in)
    if until is None:
        raise ValueError(
            f"the network {network.name!r} is told where its step ends (end_label), and this solver's calls "
            "have no single end; use 'flow_map', 'ddim' or 'euler', or say Update(until=) in your own solver"
        )
    return Call(at, network.label_of(at), read, c_in, network.end_label_of(at, until), until)


def written(rule: Any, process: GaussianProcess, points: Sequence[Point]) -> Iterator[Update]:
    """The updates of a solver, made sure of, since users write them.

    Raises ValueError where one is no Update, or a point's alpha or sigma of 0 divides.
    """
    try:
        made = rule.updates(process, points)
        for update in made if isinstance(made, Iterable) else (made,):
            if not isinstance(update, Update):
                raise ValueError(
                    f"solver {rule.name!r}: updates(process, points) gave {checks.said(update)}; yield an "
                    "Update(at, new, state) for every row"
                )
            yield update
    except ZeroDivisionError as error:
        raise ValueError(
            f"solver {rule.name!r} divides by 0: alpha is 0 at pure noise and sigma at clean data; "
            "first_order_only(s, t) tells steps from and to them"
        ) from error


def without_outputs(update: Update, p: Sequence[float], q: float) -> Update:
    """Writes uncond = p x + raw, or eps = (x - alpha (p x + raw)) / sigma, with raw = q out and x what the
    network read."""
    asked = {s for content in update.new.values() for s, _ in content if s in ("eps", "U")}
    if not asked:
        return update
    if update.raw or len(asked) > 1:
        raise ValueError("an update has one `raw`: for weights of its own, for eps or for uncond")
    at = update.at
    estimate = sum(
        (weight * slot(k) for k, weight in zip(update.read, p, strict=True)), Linear()
    ) + raw  # fmt: skip
    made = {"U": estimate}
    if "eps" in asked:
        made = {"eps": (slot(update.read[0]) - at.alpha * estimate) / at.sigma}
    new = {
        k: sum((w * made.get(s, Linear(((s, 1.0),))) for s, w in content), Linear())
        for k, content in update.new.items()
    }
    return replace(update, new=new, raw=(q,))


def arrived(name: str, state: Point | None, last: Point) -> None:
    """Raises ValueError where the last row of a solver ends elsewhere than at a run's last point, or at clean
    data."""
    if state is None or (state.sigma > 0.0 and not math.isclose(state.lam, last.lam, abs_tol=1e-9)):
        ends = None if state is None else f"t={state.t:g}"
        raise ValueError(
            f"solver {name!r}: the last row has the state {ends}, and the run's last point is t={last.t:g}; "
            "write rows for all of `points`, and give every step's end as its state"
        )
