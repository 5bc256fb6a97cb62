"""What comes back of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..executors.course import Course
from ..plan import Plan
from ..rollouts.rollout import Rollout


@dataclass(frozen=True, eq=False)
class Result:
    """Samples and how they were made.

    samples      [n, *shape], the final state; with a decoder the images it makes of them. Of `encode`
                 the latents, with CLD [x, v] on the channel axis
    seeds        of each sample
    nfe          rows with a network call: calls a sample sees one after another
    evaluations  network evaluations of all samples together, guidance branches counted
    recipe       JSON-able; with the network it makes the same samples again (Sampler.replay)
    finite       of each sample: False where a value was not finite on the way, or in its image
    latents      [n, *shape], the final state where a decoder made images of it, else None
    rollout      what the rows drew, where it was recorded, else None
    reports      of each sample what its driver says of it, where one led it, else None
    """

    samples: Tensor
    seeds: list[int]
    nfe: int
    evaluations: int
    recipe: dict[str, Any]
    finite: list[bool]
    latents: Tensor | None = None
    rollout: Rollout | None = None
    reports: list[dict[str, Any]] | None = None

    @classmethod
    def join(cls, parts: Sequence[Result]) -> Result:
        """The parts of one request as one result."""
        from .recipe import joined

        return cls(
            torch.cat([part.samples for part in parts]),
            [seed for part in parts for seed in part.seeds],
            parts[0].nfe,
            sum(part.evaluations for part in parts),
            joined([part.recipe for part in parts]),
            [ok for part in parts for ok in part.finite],
            None if parts[0].latents is None else torch.cat([p.latents for p in parts]),  # type: ignore[misc]
            Rollout.join([p.rollout for p in parts if p.rollout]) if parts[0].rollout else None,
            None if parts[0].reports is None else [r for p in parts for r in p.reports or ()],
        )


def counted(plans: Sequence[Plan], courses: Sequence[Course]) -> dict[str, Any]:
    """nfe, evaluations and reports of samples.

    courses  that led them, if any did
    """
    if not courses:
        return {"nfe": plans[0].nfe, "evaluations": sum(plan.evaluations for plan in plans)}
    return {
        "nfe": max(course.calls for course in courses),
        "evaluations": sum(course.evaluations for course in courses),
        "reports": [copied(course.report) for course in courses for _ in range(course.samples)],
    }


def copied(value: Any) -> Any:
    """A copy of what JSON holds, which its user may change."""
    if isinstance(value, dict):
        return {name: copied(part) for name, part in value.items()}
    if isinstance(value, list):
        return [copied(part) if isinstance(part, (list, dict)) else part for part in value]
    return value
