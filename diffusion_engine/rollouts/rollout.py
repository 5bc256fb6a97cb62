"""`Rollout`: what the rows of a request drew, and how likely it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..networks.network import Condition
from ..plan import Plan


@dataclass(frozen=True, eq=False)
class Rollout:
    """n samples of one request. T rows of the plan's R draw, after row 0, which makes the first state; no
    other row is told of.

    rows        T indices of the rows that draw
    labels      [T] float64, what the network was told in them; without a call, in the one before
    slots       K slots of the state, (0,) but for solvers that draw others too, as those of [x, v] do
    log_prob    [n, T] float64, the log-density of what each row drew, summed over the elements that it is
                free to draw; None where it was not recorded, as below
    trajectory  [n, R, K C, *pixel], the state after each row, its slots on the channel axis
    mean        [n, T, K C, *pixel], of what each row drew; of a region that is kept, the state itself
    std         [n, T, K C, *pixel], or ones for pixels, its standard deviation; 0 of a slot that the row does
                not draw
    noise       [R, draws, n, C, *pixel] float32, the normals as `sample(noise=)` takes them
    plans, seeds  of each sample
    conditions  of each branch, [n, ...] tensors or mappings of them
    mask        [n, C, *pixel] of inpainting
    dtype       of the network's input
    """

    rows: tuple[int, ...]
    labels: Tensor
    slots: tuple[int, ...]
    plans: tuple[Plan, ...]
    seeds: tuple[int, ...]
    conditions: tuple[Condition | None, ...]
    dtype: torch.dtype
    mask: Tensor | None = None
    log_prob: Tensor | None = None
    trajectory: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    noise: Tensor | None = None

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def before(self) -> Tensor:
        """[n, T, K C, *pixel], the states that the rows which draw began with."""
        return self.states[:, [row - 1 for row in self.rows]]

    @property
    def after(self) -> Tensor:
        """[n, T, K C, *pixel], the states that they drew."""
        return self.states[:, list(self.rows)]

    @property
    def states(self) -> Tensor:
        """The trajectory. Raises ValueError where it was not recorded."""
        if self.trajectory is None:
            raise ValueError("no trajectory was recorded; sample with record=('trajectory',)")
        return self.trajectory

    def select(self, samples: Sequence[int]) -> Rollout:
        """Some of the samples, for a minibatch."""
        chosen = [range(self.n)[i] for i in samples]

        def of(tensor: Tensor | None, axis: int = 0) -> Any:
            index = torch.tensor(chosen)
            return None if tensor is None else tensor.index_select(axis, index.to(tensor.device))

        return dataclasses.replace(
            self,
            plans=tuple(self.plans[i] for i in chosen),
            seeds=tuple(self.seeds[i] for i in chosen),
            conditions=tuple(
                {k: of(t) for k, t in c.items()} if isinstance(c, Mapping) else of(c)
                for c in self.conditions
            ),
            noise=of(self.noise, 2),
            **{name: of(getattr(self, name)) for name in PARTS},
        )

    @classmethod
    def join(cls, parts: Sequence[Rollout]) -> Rollout:
        """The parts of one request."""
        if len(parts) == 1:
            return parts[0]

        def of(name: str, axis: int = 0) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            return None if tensors[0] is None else torch.cat(tensors, axis)

        return dataclasses.replace(
            parts[0],
            plans=tuple(plan for part in parts for plan in part.plans),
            seeds=tuple(seed for part in parts for seed in part.seeds),
            conditions=tuple(map(_joined, zip(*(part.conditions for part in parts), strict=True))),
            noise=of("noise", 2),
            **dict[str, Any]((name, of(name)) for name in PARTS),
        )


PARTS = ("mask", "log_prob", "trajectory", "mean", "std")


def _joined(parts: Sequence[Condition | None]) -> Condition | None:
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: torch.cat([part[name] for part in parts]) for name in first}  # type: ignore[index]
    return None if first is None else torch.cat(parts)  # type: ignore[arg-type]
