"""What of a pipeline's call a sampler is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ....networks.parameterisation import LABELS
from ....processes import Point
from ..like import Like, like
from ..told import asked_of_ddim
from .asked import Kind
from .called import EXTRA, Call
from .whole import Schedule

# What a scheduler's set_timesteps may be asked, beside the device.
TIMES = ("timesteps", "sigmas", "mu")


@dataclass(frozen=True)
class Label:
    """What a network is told for a point, where pipelines scale the times of their schedulers."""

    rule: str | Callable[[Point], float]
    factor: float

    def __call__(self, at: Any) -> Any:
        rule = LABELS[self.rule] if isinstance(self.rule, str) else self.rule
        return self.factor * rule(at)


@dataclass(frozen=True)
class Setting:
    """What of a run a sampler is made of.

    found     what samples as the scheduler does, from the run's first point
    config    of the scheduler, by which it is known
    shape     of the state, whose channels lie on `axis` of a batch
    outputs   channels of the network's output that are read
    factor    of the labels
    variance  what a second half of the output is, as in ScoreNetwork
    times     the scheduler's timestep of each step
    """

    found: Like
    config: str
    shape: tuple[int, ...]
    axis: int
    outputs: int
    factor: float
    variance: str | None
    times: tuple[Any, ...]

    @classmethod
    def of(
        cls, pipe: Any, kind: Kind, call: Call, schedule: Schedule, step: Mapping[str, Any]
    ) -> Setting:
        """Of the call with which a run begins. Raises ValueError where the scheduler is asked for what no
        solver here does."""
        scheduler, about = schedule.scheduler, getattr(pipe, kind.network).config
        axis = 2 if call.x.ndim == 3 else 1
        channels = min(call.x.shape[axis], about.get("out_channels") or call.x.shape[axis])
        learned = str(scheduler.config.get("variance_type") or "")
        variance = learned if kind.variance and learned.startswith("learned") else None
        shape = list(call.x.shape[1:])
        shape[axis - 1] = channels
        found, times = _like(schedule, call, step)
        return cls(
            found=found,
            config=repr(sorted(scheduler.config.items(), key=str)),
            shape=tuple(shape),
            axis=axis,
            outputs=channels * (2 if variance else 1),
            factor=_factor(call.time, float(times[0])),
            variance=variance,
            times=times,
        )

    def until(self, end: float | None, scheduler: Any) -> tuple[Any, ...]:
        """The timesteps of the steps down to `denoising_end`, the part of the noise that is taken away."""
        if end is None or not 0.0 < end < 1.0:
            return self.times
        if getattr(scheduler, "order", 1) > 1:
            raise ValueError(
                f"denoising_end={end:g} ends within a step of {type(scheduler).__name__}, which makes "
                f"{scheduler.order} calls a step: give a scheduler of one call, or no denoising_end"
            )
        last = round(scheduler.config["num_train_timesteps"] * (1.0 - end))
        return tuple(time for time in self.times if time >= last)

    def state(self, x: Tensor) -> Tensor:
        """The channels of an input that are the state."""
        return x.narrow(self.axis, 0, self.shape[self.axis - 1])

    def example(self, call: Call) -> dict[str, Tensor] | None:
        """The condition of one sample, which fused ops are tried with."""
        (first, *_) = self.branches(call, len(call.x))
        return {name: one[0] for name, one in first.items()} or None

    def branches(self, call: Call, n: int) -> list[dict[str, Tensor]]:
        """The conditions of each branch of n samples, with the channels that stay beside the state."""
        channels, tensors = self.shape[self.axis - 1], dict(call.tensors)
        if more := call.x.shape[self.axis] - channels:
            tensors[EXTRA] = call.x.narrow(self.axis, channels, more)
        return [
            {name: one[low : low + n] for name, one in tensors.items()}
            for low in range(0, len(call.x), n)
        ]


def _like(schedule: Schedule, call: Call, step: Mapping[str, Any]) -> tuple[Like, tuple[Any, ...]]:
    """What samples as the scheduler does from a call on, and its timestep of each step from there."""
    asked = {name: value for name, value in schedule.asked.items() if value is not None}
    asked.pop("device", None)
    steps = asked.pop("num_inference_steps", None)
    scheduler: Any = schedule.scheduler
    if original := asked.pop("original_inference_steps", None):
        config = {**scheduler.config, "original_inference_steps": original}
        scheduler = config | {"_class_name": type(schedule.scheduler).__name__}
    if other := sorted(asked.keys() - set(TIMES)):
        raise ValueError(
            f"the scheduler is asked for {other[0]}={asked[other[0]]!r}, which is not taken over: leave it "
            "out"
        )
    named = schedule.solver
    asked |= step if named is None else {}
    found = like(scheduler, steps, **asked)
    times = _times(found, schedule.scheduler.timesteps)
    if begin := _begin(schedule, call.time):
        n = len(times)
        found = like(scheduler, steps, strength=(n - begin + 0.5) / n, **asked)
    if named is not None:
        found = replace(found, solver=asked_of_ddim(named, tuple(step.items())) if step else named)
    return found, times[1 - len(found.points) :]


def _times(found: Like, timesteps: Tensor) -> tuple[Any, ...]:
    """The scheduler's timestep of each step, of those of each call."""
    told = timesteps.tolist()
    nearest = (min(range(len(told)), key=lambda i: abs(told[i] - label)) for label in found.labels)
    return tuple(timesteps[i] for i in nearest)


def _begin(schedule: Schedule, time: float) -> int:
    """The step at which a run begins whose first call is told `time`, as pipelines count them."""
    scheduler = schedule.scheduler
    order = int(getattr(scheduler, "order", 1))
    step, within = divmod(schedule.first(time), order)
    if within:
        raise ValueError(
            f"the run begins at timestep {time:g}, within a step of {type(scheduler).__name__}, which has "
            f"{order} of them a step: begin at another, with denoising_start or strength"
        )
    return step


def _factor(told: float, time: float) -> float:
    """Of the times that the network is told: Flux' pipelines divide them by 1000."""
    scaled = time and told and abs(told / time - 1.0) > 1e-2
    return 1.0 / round(time / told) if scaled else 1.0
