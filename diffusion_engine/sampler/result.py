"""What comes back of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
    """

    samples: Tensor
    seeds: list[int]
    nfe: int
    evaluations: int
    recipe: dict[str, Any]
    finite: list[bool]
    latents: Tensor | None = None
    rollout: Rollout | None = None

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
        )


def copied(value: Any) -> Any:
    """A copy of what JSON holds, which its user may change."""
    if isinstance(value, dict):
        return {name: copied(part) for name, part in value.items()}
    if isinstance(value, list):
        return [copied(part) if isinstance(part, (list, dict)) else part for part in value]
    return value
