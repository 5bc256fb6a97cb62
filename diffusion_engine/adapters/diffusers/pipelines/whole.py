"""What stands in for a pipeline's network and scheduler while the engine makes the run."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from ....solvers import Solver
from ..networks import ENGINES
from .called import Call


class StandIn(nn.Module):
    """In place of a module, whose attributes it has."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class Network(StandIn):
    """In place of a network: answers every call with the end of the run, which the first one makes.

    module  the network, whose attributes it has
    made    what makes the run of a call: the samples, which are as many as a branch of it has entries
    """

    def __init__(self, module: nn.Module, made: Callable[[Call], Tensor]) -> None:
        super().__init__(module)
        self._made = made
        self._end: Tensor | None = None

    def forward(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        call = Call.of(args, kwargs)
        if self._end is None:
            self._end = self._made(call)
        end = self._end.to(call.x.dtype)
        # Where the pipeline mixes two branches it mixes what is equal: u + s (c - u) = u.
        out = end.repeat(len(call.x) // len(end), *(1,) * (end.ndim - 1))
        own = self.config.get("out_channels") or 0
        if end.ndim == 4 and own > end.shape[1]:  # of a learned variance, which is done with
            out = torch.cat([out, out.new_zeros(len(out), own - end.shape[1], *end.shape[2:])], 1)
        return Output(sample=out) if return_dict else (out,)


class Output(dict):
    """A dataclass of diffusers, as far as pipelines read it."""

    __getattr__ = dict.__getitem__


class Stepped(tuple):
    """What a step returns: (prev_sample, denoised), or by name."""

    prev_sample = property(lambda self: self[0])
    pred_original_sample = denoised = property(lambda self: self[1])


class Schedule:
    """A copy of a scheduler that a pipeline asks for times, and whose steps only pass on.

    asked   how `set_timesteps` was called, by name
    solver  that EngineScheduler has in place of its class's, and its seeds; None of other schedulers
    """

    def __init__(self, scheduler: Any) -> None:
        self.solver: Solver | None = None
        self.seeds: Sequence[int] | None = None
        if _engines(scheduler):
            self.solver, self.seeds = scheduler.named, scheduler.config["seeds"]
        self.scheduler = _own_class(scheduler) if _engines(scheduler) else copy.deepcopy(scheduler)
        self.asked: Mapping[str, Any] = {}
        own = self.scheduler.set_timesteps
        names = inspect.signature(own)

        @wraps(own)
        def set_timesteps(*args: Any, **kwargs: Any) -> None:
            self.asked = names.bind(*args, **kwargs).arguments
            own(*args, **kwargs)

        # Pipelines look for `eta` and `generator` in its signature.
        @wraps(self.scheduler.step)
        def step(
            model_output: Tensor, timestep: Any, sample: Tensor, *_: Any, **__: Any
        ) -> Stepped:
            # One that was asked for twice the channels answers with those of the state.
            end = model_output.narrow(1, 0, sample.shape[1])
            return Stepped((end, end))

        @wraps(self.scheduler.step)
        def as_it_is(sample: Tensor, *_: Any, **__: Any) -> Tensor:
            return sample

        vars(self.scheduler).update(
            set_timesteps=set_timesteps, step=step, scale_model_input=as_it_is
        )

    def first(self, time: float) -> int:
        """The step at which a run begins whose first call is told `time`."""
        begin = getattr(self.scheduler, "begin_index", None)
        if begin is None:
            listed = [float(t) for t in self.scheduler.timesteps]
            begin = min(range(len(listed)), key=lambda i: abs(listed[i] - time))
        return int(begin)


def _engines(scheduler: Any) -> bool:
    from ..scheduler import EngineScheduler

    return isinstance(scheduler, EngineScheduler)


def _own_class(scheduler: Any) -> Any:
    """A scheduler of the class that EngineScheduler is like."""
    import diffusers

    fields = {k: v for k, v in scheduler.config.items() if k not in ENGINES and k[0] != "_"}
    return getattr(diffusers, scheduler.config["like"]).from_config(fields)


class Bar:
    """In place of the bar of a pipeline's loop: the run moves it, and not the loop."""

    def __init__(
        self, made: Callable[..., Any], iterable: Any = None, total: int | None = None
    ) -> None:
        self._iterable = iterable
        self.shown = made(total=len(iterable) if total is None else total)

    def __iter__(self) -> Any:
        return iter(self._iterable)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        self.shown.close()

    def update(self, n: int = 1) -> None:
        """The loop's own: nothing."""


class Autoencoder(StandIn):
    """In place of an autoencoder: decodes in tiles.

    decode  [n, C, H, W] to images
    """

    def __init__(self, vae: nn.Module, decode: Callable[[Tensor], Tensor]) -> None:
        super().__init__(vae)
        self._decode = decode

    def decode(self, z: Tensor, return_dict: bool = True, **_: Any) -> Any:
        made = self._decode(z)
        return Output(sample=made) if return_dict else (made,)


def noise_of(generator: Any, like: Tensor) -> Callable[[int, int, Any], Tensor]:
    """Normals as a pipeline's scheduler draws them: of its generators, row after row.

    generator  a torch.Generator, one a sample, or None for torch's own
    like       the pipeline's latents [n, *shape]
    """
    from diffusers.utils.torch_utils import randn_tensor

    def noise(row: int, m: int, seeds: Any) -> Tensor:
        return randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)

    return noise
