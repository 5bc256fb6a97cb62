"""`EngineScheduler`: a scheduler of diffusers whose steps are rows of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils import BaseOutput, DummyObject
from torch import Tensor

from ... import checks
from ...executors.lru import Lru
from ...solvers import Solver, solver
from .classes import CLASSES
from .course import Course
from .current import begin, current
from .like import Like, like
from .networks import ENGINES as OWN
from .noising import Noising
from .scheduler_run import Run
from .state import AGAIN, KEPT, Generators, State
from .told import asked, asked_of, class_of, levels, refuse_unknown, seeds_of

COURSES = 16  # that a scheduler keeps


@dataclass
class EngineSchedulerOutput(BaseOutput):
    """What a step leaves, [B, C, *pixel]: prev_sample, which the next call reads, and the estimate of x0."""

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class EngineScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A scheduler of diffusers that runs a solver of this package over the timesteps of another.

        pipe.scheduler = EngineScheduler.from_config(pipe.scheduler.config, solver="dpmpp_2m")

    solver   a name of SOLVERS; None does what the other class does
    options  of the solver, by name
    seeds    one for each sample, for the engine's own noise in place of generators: that which
             Sampler.sample(x=first sample, noised=True, seeds=seeds) draws
    like     the class whose fields the others are, a name; None where the configuration says it
    fields   of that class, as in its own configuration

    A sample is x = alpha x0 + sigma eps, also of classes that keep x / alpha (Euler, Heun, LMS, KDPM2):
    scale_model_input returns it as it is, init_noise_sigma and add_noise are of it. What such a class returns
    at a last level that is not clean is x / alpha, as from diffusers.

    The object is immutable. `set_timesteps` begins a run that belongs to the thread or task (contextvars)
    which called it, so that threads may share a scheduler; two runs that take turns in one thread need two
    schedulers. Raises ValueError where a field, the solver or an option is not understood.
    """

    _compatibles: ClassVar[list[str]] = [  # type: ignore[misc]
        kind.name
        for kind in KarrasDiffusionSchedulers
        if not isinstance(getattr(diffusers, kind.name), DummyObject)  # whose packages are missing
    ]

    def __init__(
        self,
        solver: str | None = None,
        options: Mapping[str, Any] | None = None,
        seeds: Sequence[int] | None = None,
        like: str | None = None,
        **fields: Any,
    ) -> None:
        name = like or class_of(fields)
        refuse_unknown(name, fields, solver, options)
        chosen = None if seeds is None else list(seeds_of(seeds))
        own = {"solver": solver, "options": dict(options or {}), "seeds": chosen, "like": name}
        usual = dict(CLASSES[name].fields)
        unsaid = sorted(usual.keys() - fields.keys())
        told = {"_use_default_values": unsaid} if unsaid else {}
        self.register_to_config(**usual | fields, **own, **told, _class_name=type(self).__name__)
        self._ended: Lru[tuple, State] = Lru(KEPT)

    def register_to_config(self, **fields: Any) -> None:
        """Keeps fields, also after the scheduler was made, as pipelines do: the next run reads them."""
        super().register_to_config(**fields)
        self._courses: Lru[tuple, Course] = Lru(COURSES)
        for made in ("_noising", "named"):
            vars(self).pop(made, None)

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """The scheduler of another's configuration, all of whose fields are kept.

        config  of a scheduler of diffusers or of this class, told by its _class_name or else its fields
        kwargs  solver, options, seeds, like, and fields in place of the configuration's
        """
        if isinstance(config, SchedulerMixin) and isinstance(config, ConfigMixin):
            config = {**config.config, "_class_name": type(config).__name__}
        if not isinstance(config, Mapping):
            raise ValueError(
                f"config={checks.said(config)}: give the config of a scheduler of diffusers"
            )
        said = config.get("_class_name")
        other = config.get("like") if said in (None, cls.__name__) else said
        name = other or kwargs.get("like") or class_of(config)
        given = asked_of(config, name)
        if other == said:  # where an EngineScheduler may have left its own
            given = {k: v for k, v in given.items() if k not in OWN}
        made = cls(**{"like": name, **given, **kwargs})
        # Fields that nobody reads are kept too: of the class itself, and not of one that it came by.
        others = () if "like" in config else config.keys() - made.config.keys() - {"_class_name"}
        kept = {k: config[k] for k in config if k in others or k == "_diffusers_version"}
        made.register_to_config(**kept)
        return (made, {}) if return_unused_kwargs else made

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    @property
    def order(self) -> int:
        """Network calls a step."""
        if (run := current(self)) is not None:
            return run.course.solver.calls
        return (self.named or self._least.solver).calls

    @property
    def init_noise_sigma(self) -> float:
        """What a pipeline multiplies its normals by: the other class's, of x."""
        found = self._least if (run := current(self)) is None else run.course.like
        return found.init_noise_sigma * (found.points[0].alpha if found.scaled else 1.0)

    @property
    def timesteps(self) -> Tensor:
        """[calls] of this thread's run, int64 or float32; those of training where it has none."""
        run = current(self)
        return torch.arange(len(self) - 1, -1, -1) if run is None else run.timesteps

    @property
    def sigmas(self) -> Tensor:
        """[calls + 1] float32 on the CPU, sigma / alpha of this thread's run; of flow matching sigma."""
        return torch.tensor(self._begun("sigmas").course.sigmas)

    @property
    def num_inference_steps(self) -> int | None:
        """Of this thread's run."""
        return None if (run := current(self)) is None else len(run.course.like.points) - 1

    @property
    def begin_index(self) -> int | None:
        """What set_begin_index said of this thread's run."""
        return None if (run := current(self)) is None else run.begin

    @property
    def step_index(self) -> int | None:
        """The call that the next step of this thread's run belongs to; None before the first."""
        return None if (run := current(self)) is None else run.index

    @property
    def betas(self) -> Tensor:
        """[num_train_timesteps] float32, of a chain of timesteps."""
        if (given := self.config["trained_betas"]) is not None:
            return torch.tensor(np.asarray(given), dtype=torch.float32)
        bar = self.alphas_cumprod.double()
        return (1.0 - bar / torch.cat([torch.ones(1).double(), bar[:-1]])).float()

    @property
    def alphas_cumprod(self) -> Tensor:
        """[num_train_timesteps] float32, alpha^2 of every timestep of training."""
        return self._noising.alphas_cumprod

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        original_inference_steps: int | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Begins a run of this thread or task, in place of the one it had.

        device   of `timesteps`
        timesteps, sigmas, mu  as the other class's set_timesteps takes them; both fall, from noise to data
        original_inference_steps  of LCM, in place of the configuration's
        seeds    in place of the configuration's

        Raises ValueError, and the thread keeps the run it had, where the levels are not those of a run.
        """
        seeds = self.config["seeds"] if seeds is None else seeds
        own = None if seeds is None else seeds_of(seeds)
        course = self._course(num_inference_steps, timesteps, sigmas, mu, original_inference_steps)
        begin(self, Run(course, own, device, self._ended))

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Says with which of `timesteps` the run begins: where image to image noises its image to."""
        run = self._begun("set_begin_index")
        wanted = f"an index of the run's {len(run.timesteps)} timesteps"
        at = checks.whole("begin_index", begin_index, 0, wanted)
        if at >= len(run.timesteps):
            raise ValueError(f"begin_index={at}: {wanted}")
        if run.index is not None:
            raise ValueError(f"begin_index={at}: the run has made steps already; {AGAIN}")
        run.begin = at

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """What the network reads: the sample as it is, but for EDM's classes, which scale it."""
        return sample if (run := current(self)) is None else run.scaled(sample, timestep)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float | None = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: Generators = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> EngineSchedulerOutput | tuple[Tensor, Tensor]:
        """The sample that the next network call reads, and the estimate of x0.

        model_output  [B, C, *pixel] of the network, or 2C channels with a learned variance
        timestep    of the call, one of `timesteps`
        sample      [B, C, *pixel] that the network read
        eta, use_clipped_model_output  of DDIM; other solvers have their eta in `options`, and take 0 here
        generator   of the noise, or one for each sample; not read with seeds
        variance_noise  the noise itself, like sample

        Of the sample's dtype; between, all is float32, or float64 of a float64 sample. Raises ValueError
        where the run has not begun or is elsewhere, and where a tensor is not one of the run.
        """
        run = self._begun("step")
        told = asked(eta, use_clipped_model_output)
        given = generator if variance_noise is None else variance_noise
        made = run.step(model_output, timestep, sample, told, given)
        return EngineSchedulerOutput(*made) if return_dict else made

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x = alpha x0 + sigma eps, timesteps [B] of the run, or of training."""
        alpha, sigma = self._noising.law(current(self), timesteps, original_samples)
        return (alpha * original_samples.float() + sigma * noise.float()).to(original_samples.dtype)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise`, as flow matching's classes spell it."""
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = alpha eps - sigma x0, what networks of prediction_type="v_prediction" are trained on."""
        alpha, sigma = self._noising.law(current(self), timesteps, sample)
        return (alpha * noise.float() - sigma * sample.float()).to(sample.dtype)

    def _begun(self, who: str) -> Run:
        run = current(self)
        if run is None:
            raise ValueError(
                f"{who} before set_timesteps: call set_timesteps(num_inference_steps) in the thread that "
                "makes the steps; the run of another thread is its own"
            )
        return run

    @cached_property
    def _noising(self) -> Noising:
        return Noising(self._least.process, len(self))

    @property
    def _source(self) -> dict[str, Any]:
        """The other scheduler's configuration, as one saves it."""
        kept = {k: v for k, v in self.config.items() if k not in OWN}
        return kept | {"_class_name": self.config["like"]}

    @property
    def _least(self) -> Like:
        """A run of the fewest steps, for what all runs have in common."""
        return like(self._source, min(2, len(self)))

    @cached_property
    def named(self) -> Solver | None:
        """The solver that was chosen; None where it is the other class's own."""
        named = self.config["solver"]
        return None if named is None else solver(named, **self.config["options"])

    def _course(
        self, steps: int | None, timesteps: Any, sigmas: Any, mu: float | None, original: int | None
    ) -> Course:
        given, source = levels(steps, timesteps, sigmas), self._source
        key = (*given.items(), mu, original)
        if (course := self._courses.get(key)) is None:
            # Of the configuration alone: what a run holds must not hold its scheduler.
            source |= {} if original is None else {"original_inference_steps": original}
            again = partial(like, source, **given, mu=mu)
            course = Course(again(), again, self.named)
            self._courses.put(key, course, 1)
        return course
