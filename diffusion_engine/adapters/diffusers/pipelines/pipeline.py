"""`EnginePipeline`: a pipeline of diffusers whose loop the engine makes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from threading import RLock
from typing import Any

import torch
from torch import nn

from .... import checks
from ....executors import Executor
from ....networks.decoder import Decoder
from ....networks.network import ScoreNetwork
from ....sampler.place import Place
from ....sampler.sampler import Sampler
from ..networks import VAE
from .asked import Kind, bound, kind_of
from .called import Call, Called, same
from .loop import Loop
from .setting import Label, Setting
from .whole import Autoencoder, Network, Schedule

KEPT = 8  # networks, and samplers, that are kept for the next call


def run(
    pipe: Any,
    *args: Any,
    solver: Any = None,
    executor: str | Executor = "eager",
    dtype: torch.dtype | str | None = None,
    **kwargs: Any,
) -> Any:
    """What `pipe(*args, **kwargs)` returns, made by the engine: accelerate_pipeline(pipe)(...), once.

    solver           a name, or a Solver; None is that of the pipeline's scheduler
    executor, dtype  as in Sampler
    Raises ValueError where the pipeline, or an argument, does what the engine's loop does not.
    """
    return accelerate_pipeline(pipe, solver=solver, executor=executor, dtype=dtype)(*args, **kwargs)


def accelerate_pipeline(
    pipe: Any,
    *,
    solver: Any = None,
    executor: str | Executor = "eager",
    dtype: torch.dtype | str | None = None,
    accelerate: bool = False,
    tile: int | None = None,
    **options: Any,
) -> EnginePipeline:
    """A pipeline of diffusers that is called as `pipe` is and returns the same, with the engine's loop.

    pipe        one of the classes in asked.py; it is not changed, and what you change of it later is seen
    solver      a name of SOLVERS, or a Solver, on the levels of the pipeline's scheduler; None is that
                scheduler's own
    executor    its name, or an Executor, as in Sampler
    dtype       in which the network is computed, as in Sampler; None is that of its weights
    accelerate  run the network with fused ops in it, as in Sampler
    tile        latents a side that the autoencoder decodes at once, overlapping; None leaves that to the
                pipeline
    options     of the solver

    Raises ValueError at a pipeline, or later at an argument, that does what the engine's loop does not.
    """
    return EnginePipeline(pipe, solver, executor, dtype, accelerate, tile, options)


class EnginePipeline:
    """See accelerate_pipeline. Several threads may call one; attributes are the pipeline's."""

    def __init__(
        self,
        pipe: Any,
        solver: Any,
        executor: str | Executor,
        dtype: torch.dtype | str | None,
        accelerate: bool,
        tile: int | None,
        options: Mapping[str, Any],
    ) -> None:
        self.kind: Kind = kind_of(pipe)
        self.pipe = pipe
        self._asked: dict[str, Any] = {"executor": executor, "dtype": dtype}
        self._solver, self._options = solver, dict(options)
        self._accelerate = checks.flag("accelerate", accelerate)
        self._tile = (
            None if tile is None else checks.whole("tile", tile, 2, "2 latents a side, or more")
        )
        if solver is None and options:
            raise ValueError(f"{next(iter(options))}= is an option of a solver: give solver= too")
        # The last ones, with what they were made of.
        self._networks: list[tuple[tuple, Mapping[str, Any], ScoreNetwork]] = []
        self._samplers: list[tuple[tuple, Sampler]] = []
        self._executors: dict[torch.dtype, Executor] = {}  # by what they compute in
        self._lock = RLock()
        _ = self.executor  # refused here, and not in a run

    def __getattr__(self, name: str) -> Any:
        if name == "pipe":  # a copy asks before there is one
            raise AttributeError(name)
        return getattr(self.pipe, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the pipeline's own. Raises ValueError on an argument that acts between the network's calls."""
        asked, own = bound(self.pipe, self.kind, args, kwargs), copy.copy(self.pipe)
        schedule = Schedule(self.pipe.scheduler)
        loop = Loop(self.sampler, self.kind, own, asked, schedule)
        network = Network(getattr(self.pipe, self.kind.network), loop.made)
        vars(own).update({"scheduler": schedule.scheduler, self.kind.network: network})
        loop.watch()
        if self._tile is not None:
            vars(own)["vae"] = Autoencoder(own.vae, Decoder(VAE(own.vae), tile=self._tile))
        theirs = {name: asked[name] for name in asked if name != "callback_on_step_end"}
        made = type(self.pipe).__call__(own, **theirs)
        # What a call leaves, as guidance_scale and num_timesteps read it.
        left = {n: v for n, v in vars(own).items() if n.startswith("_") and n != "_internal_dict"}
        vars(self.pipe).update(left | {"_interrupt": False} if "_interrupt" in left else left)
        return made

    def sampler(self, call: Call, setting: Setting) -> Sampler:
        """A sampler of a run like this one: the one of an earlier call, where it is the same."""
        module = getattr(self.pipe, self.kind.network)
        with self._lock:
            network, executor = self._network(module, call, setting), self.executor
            found = setting.found
            for known, sampler in self._samplers:
                if known == (network, found, executor):
                    return sampler
            made = Sampler(
                network,
                found.solver if self._solver is None else self._solver,
                times=found.points,
                executor=executor,
                dtype=self._asked["dtype"],
                accelerate=self._accelerate,
                **self._options,
            )
            self._samplers = [((network, found, executor), made), *self._samplers][:KEPT]
            return made

    @property
    def executor(self) -> Executor:
        """What runs the network as it is now: one for all runs in a dtype."""
        place = Place.of(getattr(self.pipe, self.kind.network), **self._asked)
        return self._executors.setdefault(place.dtype, place.executor)

    def _network(self, module: nn.Module, call: Call, setting: Setting) -> ScoreNetwork:
        key = (module, setting.shape, setting.axis, setting.config, setting.factor)
        for known, constant, network in self._networks:
            if known == key and same(constant, call.constant):
                return network
        found = setting.found
        made = ScoreNetwork(
            Called(module, call.constant, setting.outputs, setting.axis),
            found.process,
            setting.shape,
            found.prediction,
            Label(found.label, setting.factor),
            clip=found.clip,
            name=type(module).__name__,
            variance=setting.variance,
            null=setting.example(call) if self._accelerate else None,
        )
        self._networks = [(key, call.constant, made), *self._networks][:KEPT]
        return made
