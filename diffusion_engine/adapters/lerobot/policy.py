"""What stands around a policy's network: observations before it, actions behind it, in their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ... import checks
from ...networks.network import ScoreNetwork
from ...solvers import Solver

EPS = 1e-8
# Statistics by the name of a normalisation: (low, high) of [-1, 1].
RANGES = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
MODES = ("IDENTITY", "MEAN_STD", *RANGES)


@dataclass(frozen=True)
class Scale:
    """scaled = (value - low) / size - offset, and value = (scaled + offset) * back + low."""

    low: Tensor
    size: Tensor
    back: Tensor
    offset: float

    def of(self, value: Tensor) -> Tensor:
        return (value - self.low.to(value)) / self.size.to(value) - self.offset

    def undone(self, scaled: Tensor) -> Tensor:
        return (scaled + self.offset) * self.back.to(scaled) + self.low.to(scaled)


def scale_of(mode: str, statistics: Mapping[str, Tensor], name: str) -> Scale | None:
    """How a feature is normalised; None where it is left alone. Raises ValueError where statistics lack."""
    checks.one_of(f"normalization_mapping of {name}", mode, MODES)
    if mode == "IDENTITY":
        return None
    wanted = RANGES.get(mode, ("mean", "std"))
    if missing := [key for key in wanted if key not in statistics]:
        raise ValueError(
            f"the checkpoint has no {' and '.join(missing)} of {name}, which {mode} needs: newer releases "
            "keep them in policy_preprocessor.json and the files that it names, so copy those too"
        )
    low, high = (statistics[key].double() for key in wanted)
    if mode == "MEAN_STD":
        return Scale(low, high + EPS, high, 0.0)
    half = torch.where(high == low, EPS, high - low) / 2.0
    return Scale(low, half, half, 1.0)


@dataclass(frozen=True, eq=False)
class Policy:
    """A diffusion policy of lerobot: Sampler(policy.network, policy.solver, policy.steps) is its sampler.

    network    makes normalised actions [horizon, actions] of the condition
    solver, steps  of the sampler that its config says
    n_obs_steps, n_action_steps  steps that are observed, and of actions that are done
    state, environment  sizes of observation.state and observation.environment_state, 0 without
    images  how many numbers its vision encoder, which is no part of this, makes of all cameras
    scales  of features, by their names
    """

    network: ScoreNetwork
    solver: Solver
    steps: int
    n_obs_steps: int
    n_action_steps: int
    state: int
    environment: int = 0
    images: int = 0
    scales: Mapping[str, Scale | None] = field(default_factory=dict)

    def condition(
        self, state: Tensor, environment: Tensor | None = None, images: Tensor | None = None
    ) -> Tensor:
        """What the network is told, [n, numbers], of the last n_obs_steps observations.

        state        observation.state [n, n_obs_steps, state]
        environment  observation.environment_state [n, n_obs_steps, environment]
        images       features of lerobot's vision encoder [n, n_obs_steps, images], as they are

        Raises ValueError where one has another shape, or is missing.
        """
        given: dict[str, tuple[Any, int]] = {
            "observation.state": (state, self.state),
            "images": (images, self.images),
            "observation.environment_state": (environment, self.environment),
        }
        made = []
        for name, (tensor, size) in given.items():
            if tensor is None and not size:
                continue
            if tensor is None or tensor.shape[1:] != (self.n_obs_steps, size) or not size:
                raise ValueError(
                    f"{name}={checks.said(tensor)}: this policy observes "
                    f"[n, {self.n_obs_steps}, {size}] of it"
                )
            scale = self.scales.get(name)
            made.append(tensor if scale is None else scale.of(tensor))
        return torch.cat(made, -1).flatten(1)

    def actions(self, samples: Tensor) -> Tensor:
        """The actions to do [n, n_action_steps, actions], in their own units, of samples of the network.

        The first belongs to the last observation; those before it lie in the past.
        """
        first = self.n_obs_steps - 1
        made = samples[:, first : first + self.n_action_steps]
        scale = self.scales.get("action")
        return made if scale is None else scale.undone(made)
