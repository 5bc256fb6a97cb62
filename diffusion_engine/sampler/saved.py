"""A saved plan, in the place of those that a solver makes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .. import checks
from ..guiders import kind
from ..networks.parameterisation import Parameterisation
from ..ops.philox import IMAGE
from ..plan import Plan, Row
from ..plan.guidance import UNCONDITIONAL
from ..processes import Point

CLOSE = 1e-6  # of numbers that another machine's libm made


@dataclass(frozen=True, eq=False)
class Saved:
    """A plan that runs on a network as it is.

    Raises ValueError where the plan was made for a network that is called otherwise, or offers other things.
    """

    plan: Plan
    network: Parameterisation

    def __post_init__(self) -> None:
        if not isinstance(self.plan, Plan):
            raise ValueError(
                f"plan={checks.said(self.plan)}: give a Plan; Plan.from_json(text) reads a saved one"
            )
        if self.plan.rows[0].state is None:
            raise ValueError(f"the plan {self.plan.name!r} does not say which state row 0 leaves")
        for i, row in enumerate(self.plan.rows):
            if objection := self._objection(row):
                raise ValueError(
                    f"the plan {self.plan.name!r} does not suit the network {self.network.name!r}: row {i} "
                    f"{objection}"
                )

    def of(self, *_: Any) -> Plan:
        """The plan, whatever is asked: `request` made sure that it suits."""
        return self.plan

    @property
    def points(self) -> tuple[Point, ...]:
        """Those that its rows reach."""
        return tuple(row.state for row in self.plan.rows if row.state is not None)

    @cached_property
    def digest(self) -> str:
        """Of its JSON, by which recipes know it."""
        return hashlib.sha256(self.plan.to_json().encode()).hexdigest()[:16]

    @cached_property
    def encodes(self) -> bool:
        """Whether it goes up to the noise."""
        return self.points[-1].lam < self.points[0].lam

    @cached_property
    def reads(self) -> frozenset[str]:
        """What of the state its first row takes as it is given: S0 is x, S1 a velocity."""
        return frozenset(name for update in self.plan.rows[0].new.values() for name, _ in update)

    @cached_property
    def concepts(self) -> int:
        """How many conditions its branches follow."""
        branches = {branch for row in self.plan.rows for branch in row.branches}
        return max(branches - {UNCONDITIONAL}, default=1) or 1

    def request(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What Request is asked, of what `sample` was; with `compose` the conditions alone.

        Raises ValueError where something is asked that the plan says, or what it needs is not given.
        """
        fixed = ["start", "noised"] + ["guidance"] * (not self.network.reads_scale)
        if said := [name for name in fixed if asked.get(name) not in (None, False)]:
            raise ValueError(f"the plan says {', '.join(said)} itself; leave that out")
        self._check_given(asked)
        made = dict(asked)
        if asked.get("x") is not None:
            image = bool(self.plan.rows[0].key & IMAGE)
            made |= {"start": self.points[0].t if image else None, "noised": not image}
        if asked.get("encoding") is not None:
            made |= {"start": self.points[0].t, "noised": False}
        if asked.get("compose") is not None:
            made["compose"] = [(condition, 1.0) for condition in self._conditions(asked)]
        return made

    def again(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """What `sample` was asked, of what a recipe says."""
        made = {k: v for k, v in recorded.items() if k not in ("start", "noised")}
        if not self.network.reads_scale:
            made.pop("guidance", None)
        if made.get("compose") is not None:
            made["compose"] = [condition for condition, _ in made["compose"]]
        return made

    def _check_given(self, asked: Mapping[str, Any]) -> None:
        if (asked.get("encoding") is not None) != self.encodes:
            way, other = ("encodes", "encode") if self.encodes else ("makes samples", "sample")
            raise ValueError(f"the plan {way}; call {other}()")
        if asked.get("encoding"):
            raise ValueError("the plan says refine itself; leave it out")
        for name, needed in (
            ("x", "S0" in self.reads or "S1" in self.reads),
            ("mask", self._masked),
        ):
            if (asked.get(name) is not None) != needed:
                what = f"needs {name}; give it" if needed else f"takes no {name}; leave it out"
                raise ValueError(f"the plan {what}")
        if asked.get("negative") is not None and not self._unconditional:
            raise ValueError("the plan calls no unconditional branch; leave negative out")
        if self.concepts > 1 and len(self._conditions(asked)) != self.concepts:
            raise ValueError(
                f"the plan follows {self.concepts} conditions, whose weights it has: give them alone, as "
                f"compose={list(range(self.concepts))}"
            )
        if self.concepts == 1 and asked.get("compose") is not None:
            raise ValueError("the plan follows one condition; give condition= in place of compose")
        given = asked.get("condition") is not None or asked.get("compose") is not None
        if self._guides and not given and not self.network.guide:
            raise ValueError("the plan guides to a condition; give condition=")

    @staticmethod
    def _conditions(asked: Mapping[str, Any]) -> list[Any]:
        given = asked.get("compose")
        return list(given) if isinstance(given, (list, tuple)) else []

    @cached_property
    def _masked(self) -> bool:
        return any(row.known is not None for row in self.plan.rows)

    @cached_property
    def _unconditional(self) -> bool:
        return any(UNCONDITIONAL in row.branches for row in self.plan.rows)

    @cached_property
    def _guides(self) -> bool:
        """Whether a row needs a condition: it has further branches, or the gradient of a classifier."""
        gradient = self.network.gradient
        return any(
            any(row.branches) or (gradient is not None and gradient in row.channel_blocks)
            for row in self.plan.rows
        )

    def _objection(self, row: Row) -> str | None:
        """Why the network cannot run a row, as a sentence that begins with the row."""
        network, call = self.network, row.call
        if call is None:
            return None
        parts, (_, offered) = network.process.parts, network.promise
        if len(call.read) != parts:
            return f"gives it {len(call.read)} parts of a state, and it reads {parts}"
        if max(row.channel_blocks, default=0) >= offered:
            return (
                f"reads its channel block {max(row.channel_blocks)}, and it has {offered}: a derivative, a "
                "variance or a classifier is missing"
            )
        if UNCONDITIONAL in row.branches and not network.unconditional:
            return "calls it without a condition; give ScoreNetwork its null condition"
        if any(row.branches) and network.reads_scale:
            return "guides it, and it reads its guidance scale"
        if (call.end_label is None) != (network.end_label is None):
            told = "no end" if call.end_label is None else "an end"
            return f"tells it {told} of its step; run it on the network that it was made for"
        checked: list[tuple[str, float | None, Any]] = [
            ("label", call.label, network.label_of(call.at)),
            ("input scale", call.c_in[0], network.c_in(call.at)),
            ("weight of its output", _output(row), network.weights(call.at)[1]),
        ]
        if call.until is not None:
            own = network.end_label_of(call.at, call.until)
            checked.append(("end label", call.end_label, own))
        for name, given, own in checked:
            if given is not None and not math.isclose(given, own, rel_tol=CLOSE, abs_tol=CLOSE):
                return (
                    f"has the {name} {given:g} at t={call.at.t:g}, and this network's is {own:g}; run it on "
                    "the network that it was made for"
                )
        return None


def _output(row: Row) -> float | None:
    """The weight of a network's output in `denoised`, of all branches together, or of each where a guider
    weighs them; None where nothing of it is read, or they are composed without an unconditional one, whose
    weights have another sum."""
    if max(row.branches, default=0) > UNCONDITIONAL and UNCONDITIONAL not in row.branches:
        return None
    apart = row.guider is not None and kind(row.guider[0]).scaled
    outputs = zip(row.q, row.channel_blocks, row.branches, strict=True)
    weights = [q for q, block, branch in outputs if block == 0 and not (apart and branch)]
    return math.fsum(weights) if any(weights) else None
