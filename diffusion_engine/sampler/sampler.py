"""`Sampler`: a network, a solver and the times of a run; `.sample()` makes samples.

One file because it is one class, and more than a third of it what users read of its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import checks, guiders, solvers
from ..executors import Executor
from ..executors.course import Course
from ..networks.decoder import Decoder, fitting
from ..networks.network import ScoreNetwork
from ..plan import Plan, brownian
from ..plan import guidance as guided
from ..processes import Point, grids
from ..rollouts.tape import objection as rollout_objection
from ..rollouts.tape import recordable
from ..solvers import Rule, Solver
from . import defaults, driven
from .led import Run, check_request, refuse
from .place import Place
from .plans import Plans, points_of
from .progress import Progress
from .request import ASKED, Request
from .result import Result, copied, counted
from .runner import BATCH, Runner
from .saved import Saved

if TYPE_CHECKING:  # pydantic is loaded with the first sampler
    from .spec import Recipe

# What `encode` passes on to `sample`.
ENCODES = frozenset(
    ("condition", "guidance", "compose", "batch_size", "on_step", "every", "progress")
)


RUN = frozenset(("batch_size", "on_step", "every", "progress"))


class Sampler(Runner):
    """Samples of a trained network. Immutable: several threads may use one, and make others meanwhile; it
    can be copied and pickled for other processes.

    network    a ScoreNetwork
    solver     a name (see `diffusion-engine solvers`), with its options as keywords, or an object with
               `updates(process, points)`; None is the network's own (its `defaults`), or "dpmpp_2m"
    steps      intervals of the grid, 1 or more; None are the network's own, or 20
    grid       name of a grid or a function; None is the solver's, the network's, or else the process's own
    end        "zero", which None is too where the network says nothing: end at clean data; "t_min": at the
               process's t_min
    times      the user's own descending times t, verbatim, in place of steps, grid and end
    sigmas     the user's own noise-to-signal ratios sigma / alpha, verbatim; a last 0 is clean data
    guidance   classifier-free scale, 1 for none; a sequence gives each sample its own
    interval   (low, high] of sigma / alpha in which guidance acts
    classifier_scale  of the classifier of `with_classifier`, 0 for none
    clip       range of `denoised`; None leaves it alone; "network" takes the network's own
    driver     what leads samples beside the solver's table (diffusion_engine.drivers): a name, {"name": ...,
               "options": {...}}, or an object
    guider     guidance by a number of each sample (diffusion_engine.guiders), "apg" say: given as a driver is
    forecast   calls that are not made, their outputs being extrapolated from those before: {"order": 1,
               "every": 2, "after": 2} makes the first `after` and then one in `every`, {"order": 1, "calls":
               [3, 5]} all but these, from 0
    dtype      in which the network is computed, and of its input and conditions that are not whole numbers;
               None is what the module computes in: that of its first weight of 16 bits or more, or of its
               layerwise casting. Another runs a copy of the module, which follows what you change of yours.
               "auto" is bfloat16 on a CPU with AMX, float32 on others, and elsewhere as None. The executors
               "native", "openvino" and "auto" compute in bfloat16 by themselves: the copy, its input and
               conditions are float32 then
    device     where to run; None is the module's device
    backend    of the step: "auto", "torch", "cpp", "triton" or "cuda"
    batch_size samples per batched call at most
    accelerate run the network with fused ops in it (diffusion_engine.accelerate): a copy of the
               module over the same weights, which follows what you change of yours, from run to run;
               `sampler.accelerated` says what was done in the first run, whose batch is what the form that
               is the fastest is measured with. A text is a form that a recipe names
    executor   "eager"; "graph" to replay CUDA graphs; "native" to replay the network in C++ on the CPU
               (`sampler.recording` says what was recorded); "onnxruntime" or "openvino" to run it in these,
               on the CPU; "auto" for the fastest of those that are installed; or an Executor, which several
               samplers may share
    threads    of the CPU that run the network: a number; or "measured", which tries 1, powers of two and
               torch's own number in calls of the size that runs, and keeps the fastest under the user's cache
               folder. None is torch's own with the eager executor, and measured with the others on the CPU
    compile    run the network through torch.compile, within the graph where there is one
    decoder    makes images of the final latents: "network" for the network's own, a Decoder, or None for
               the latents. A recipe keeps its scale, and is replayed with it

    Raises ValueError on unknown names, bad steps or times, a solver that does not suit them, and bfloat16
    where an executor would have the processor emulate it; torch does so, and you are warned. GraphError
    where a graph cannot run on the device.
    """

    def __init__(
        self,
        network: ScoreNetwork,
        solver: str | Rule | None = None,
        steps: int | None = None,
        *,
        grid: str | grids.Grid | None = None,
        end: str | None = None,
        times: Sequence[float | Point] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance: float | Sequence[float] = 1.0,
        interval: tuple[float, float] = (0.0, math.inf),
        classifier_scale: float = 1.0,
        clip: tuple[float, float] | str | None = "network",
        driver: Any = None,
        guider: Any = None,
        forecast: Any = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        backend: str = "auto",
        batch_size: int = 64,
        accelerate: bool | str = False,
        executor: str | Executor = "eager",
        threads: int | Mapping[int, int] | str | None = None,
        compile: bool = False,
        decoder: Decoder | str | None = "network",
        **options: Any,
    ) -> None:
        _check_network(network)
        from .recipe import about, about_driver, about_guider

        self.driver, self.guider = driven.driver(driver), guiders.guider(guider)
        own = defaults.asked(
            network, solver=solver, steps=steps, grid=grid, end=end, times=times, sigmas=sigmas
        )
        if solver is None:
            solver, said = defaults.solver(network)
            options = said | options
        given, network = network, self.wrapped(network)
        self._wraps, rule = network is not given, network.parameterisation
        self.solver: Solver | None = solvers.solver(solver, OPTIONS, **options)
        self.points = points_of(
            self.solver, rule, own.get("steps", defaults.STEPS), own.get("grid"), own.get("end", "zero"),
            own.get("times"), own.get("sigmas"),
        )  # fmt: skip
        named = isinstance(clip, str) and clip == "network"
        asked = {
            "solver": about(self.solver), "guidance": guidance, "interval": interval,
            "classifier_scale": classifier_scale, "clip": rule.clip if named else clip,
            "driver": about_driver(self.driver), "guider": about_guider(self.guider), "forecast": forecast,
        }  # fmt: skip
        self._settle(
            network, asked, dtype=dtype, device=device, backend=backend, batch_size=batch_size,
            accelerate=accelerate, executor=executor, threads=threads, compile=compile, decoder=decoder,
        )  # fmt: skip
        self._plans: Plans | Saved = Plans(
            self.solver,
            self.points,
            rule,
            self.interval,
            self.classifier_scale,
            self.clip,
            self.driver,
            self.guider,
            self.spec.forecast,
        )
        if self.driver is not None:
            captured = self.executor.captures(self.device)
            refuse(self.driver, network, self.points, captured, self.guider is not None)
        if self.spec.forecast is not None:
            self.spec.forecast.check(self.driver, self.guider)
        self.plan()  # an unsuitable solver fails here, not at the first sample

    @classmethod
    def from_plan(cls, network: ScoreNetwork, plan: Plan, **how: Any) -> Sampler:
        """A sampler that runs a saved plan as it is: its times, guidance, clipping and start.

        plan  of this network or one that is called alike: `plan()` of a sampler, Plan.from_json of its text
        how   dtype, device, backend, batch_size, accelerate, executor, threads, compile and decoder, as in
              Sampler

        `sample` takes what the plan needs: a condition where it guides, compose=[condition, ...] where it has
        their weights, x where it begins with one, mask and known; `encode` is for a plan that encodes. The
        recipe knows the plan by a digest and needs it: Sampler.replay(network, recipe, plan=plan). Raises
        ValueError where the plan does not suit the network.
        """
        checks.names("from_plan", how, HOW)
        _check_network(network)
        saved, made = Saved(plan, network.parameterisation), cls.__new__(cls)
        made.solver, made.points, made._plans = None, saved.points, saved
        made.driver = made.guider = None
        made._wraps = False
        own = {"name": plan.name, "options": {"plan": saved.digest}}
        made._settle(network, {"solver": own, "classifier_scale": 0.0, "clip": None}, **how)
        return made

    def _settle(self, network: ScoreNetwork, asked: Mapping[str, Any], **how: Any) -> None:
        """Checks what was asked, and places the network.

        asked  of a Spec, but for the times, which are the sampler's points
        """
        from .recipe import written
        from .spec import Spec

        place = Place.of(network.module, **{n: how.pop(n) for n in PLACE & how.keys()})
        own = {"steps": max(1, len(self.points) - 1), "times": self.points, "dtype": place.dtype}
        self.spec = Spec.model_validate({**asked, **own})
        self.guidance, self.interval = self.spec.guidance, self.spec.interval
        self.classifier_scale = self.spec.classifier_scale
        self.clip = None if isinstance(self.spec.clip, str) else self.spec.clip
        about = network.parameterisation
        if objection := guided.objection(about, self.interval, self.classifier_scale):
            raise ValueError(objection)
        if self.guider is not None and (objection := self.guider.objection(about)):
            raise ValueError(f"guider {self.guider.name!r} cannot guide this network: {objection}")
        super().__init__(network, self.points[0], place, **how)
        self._recipe = written(self.spec, network.name, self.decoder)

    def plan(
        self,
        guidance: float | None = None,
        start: float | None = None,
        kind: str = "prior",
        masked: bool = False,
        refine: int | None = None,
    ) -> Plan:
        """The table of a run.

        guidance  the classifier-free scale; None is the sampler's own (its first)
        start     begin at this time with a given image
        kind      "prior", or what is given: "image", "state" or "whole", as in Solver.plan
        masked    keep a known region
        refine    the plan that encodes
        """
        if isinstance(self._plans, Saved):
            if (guidance, start, kind, masked, refine) != (None, None, "prior", False, None):
                raise ValueError("this sampler runs a saved plan as it is; call plan() alone")
            return self._plans.plan
        if guidance is None:
            own = self.guidance
            guidance = own if isinstance(own, float) else own[0]
        checks.one_of("kind", kind, ("prior", "image", "state", "whole"))
        scale = checks.number("guidance", guidance)
        start = None if start is None else checks.number("start", start)
        return self._plans.of(scale, start, kind, checks.flag("masked", masked), refine)

    def sample(self, n: int | None = None, **request: Any) -> Result:
        """n samples in one Result; sample i depends on the network, the recipe and its seed alone.

        n          how many; None follows seeds, condition or x
        seed       seeds seed, seed + 1, ...; default 0
        seeds      one integer below 2^64 a sample, in place of seed
        condition  a class, one class a sample, a tensor [n, ...], or a mapping of tensors; of a network that
                   has a text encoder a prompt, or one a sample
        guidance   as in Sampler, for this call
        compose    [(condition, weight), ...] in place of condition and guidance: the score is
                   s_u + sum_i w_i (s_i - s_u), or sum_i w_i s_i of a network without a null condition
        negative   a condition for the unconditional branch in place of the network's null: guidance w leads
                   from it to the condition, s_neg + w (s - s_neg)
        x, start   clean images [n, *shape], or one [*shape] for all, that are noised to time `start` (to the
                   level of the run's point there) and sampled on, with other normals than without x
        noised     x is already the state at `start` (default: the first time); of CLD [x, v] on the channel
                   axis, or at the first time x alone, whose velocity is drawn
        mask, known  inpainting: mask is 1 where samples are free, 0 where they follow `known` images; bool,
                   floats, or uint8 where 255 is 1
        measurement  of a driver of inverse problems, [n, *measured], or one [*measured] for all samples
        every      call on_step after every so many steps, and after the last
        noise      "brownian": an SDE solver's noise follows one path of each sample, whatever the steps, so
                   that 20 and 40 steps come to nearly the same sample (brownian.py). Or
                   normals to use: a tensor [rows, draws, n, *shape], or a function
                   (row, m, seeds) -> [len(seeds), *shape]; m = 2 is the known region's
        bucket     entries that every call of the network has, padded: as batch="fixed" calls it in an Engine
        calls      sizes of each sample's calls, and its places there, as Recipe says them
        record     some of "log_prob", "trajectory" and "noise": what the result's `rollout` holds of the rows
                   that draw noise, for policy gradients
        batch_size at most this many samples a batch
        on_step    called with a Progress after each completed step
        progress   True or False; None shows a bar on a terminal
        Raises ValueError with what was given and what to do.
        """
        results = list(self.chunks(n, **request))
        return results[0] if len(results) == 1 else Result.join(results)

    def encode(
        self, x: Tensor, *, start: float | None = None, refine: int = 0, **request: Any
    ) -> Result:
        """The latents from which this sampler's solver leads back to x: its ODE run upwards.

        x        [n, *shape], images, or states of time `start`. With CLD [x, v] on the channel axis, or x
                 alone, whose velocity is drawn from its law given a clean image x
        start    the time of x; None is the process's t_min
        refine   fixed-point iterations a step towards the exact inverse of the solver's steps, for
                 solvers of one call a step and no history; 0 takes the solver's own steps upwards
        request  condition, guidance, compose, batch_size, on_step, every and progress, as in `sample`;
                 with a decoder, x and the result are latents as it takes them

        `sample(x=result.samples, noised=True)` returns the images, up to an error of the solver's order; with
        end="t_min" it ends at the very time that encoding began at. Latents of CLD are [x, v]. Raises
        ValueError where the solver is stochastic or does not suit.
        """
        if unknown := sorted(request.keys() - ENCODES):
            raise ValueError(
                f"encode takes no {', '.join(unknown)}: it draws nothing and keeps no region; it takes "
                f"{', '.join(sorted(ENCODES))}{checks.nearest(unknown, ENCODES)}"
            )
        if x is None:
            raise ValueError("x is None: give the images to encode, [n, *shape]")
        return self.sample(x=x, start=start, encoding=refine, **request)

    def chunks(
        self,
        n: int | None = None,
        *,
        batch_size: int | None = None,
        on_step: Callable[[Progress], None] | None = None,
        every: int = 1,
        progress: bool | None = None,
        **request: Any,
    ) -> Iterator[Result]:
        """The same samples as `sample`, whose arguments it takes: a Result for every batch, made as it is
        asked for."""
        checks.names("sample", request, ASKED | RUN)
        full = Request.of(self, n, **self._plans.request(request))
        size = self.batch_size if batch_size is None else batch_size
        size = checks.whole("batch_size", size, 1, BATCH)
        every = checks.whole("every", every, 1, "call on_step after every 1 step or more")
        if on_step is not None:
            checks.function("on_step", on_step, "give a function of a Progress, or None")
        progress = None if progress is None else checks.flag("progress", progress)
        return (
            self._part(full.part(low, low + size), on_step, every, progress)
            for low in range(0, full.n, size)
        )

    def _part(
        self,
        part: Request,
        on_step: Callable[[Progress], None] | None,
        every: int,
        progress: bool | None,
    ) -> Result:
        plans = self.planned(part)
        courses = self.led(part, plans)
        samples, finite, latents, rollout = self._run(
            part, plans, courses, on_step, every, progress
        )
        return Result(
            samples=samples,
            seeds=list(part.seeds),
            **counted(plans, courses),
            recipe=self.recipe_of(part),
            finite=finite,
            latents=latents,
            rollout=rollout,
        )

    @property
    def saved(self) -> bool:
        """Whether it runs a saved plan, which says its guidance itself."""
        return isinstance(self._plans, Saved)

    @property
    def wraps(self) -> bool:
        """Whether its driver has another network in the place of the one it was given."""
        return self._wraps

    def wrapped(self, network: ScoreNetwork) -> ScoreNetwork:
        """What its driver has in the place of a network."""
        return network if self.driver is None else self.driver.network(network)

    def led(self, part: Request, plans: Sequence[Plan]) -> list[Course]:
        """What leads the samples of a part of a request; nothing where their plans do."""
        if self.driver is None or not self.driver.leads:
            return []
        assert isinstance(self._plans, Plans)
        scales, prepared = part.scales, self.jobs(part, plans)
        made = zip(plans, prepared, scales, strict=True)
        return self.driver.courses([Run(*each, self._plans) for each in made])

    def planned(self, part: Request) -> list[Plan]:
        """The plan of each sample of a part of a request."""
        kind = "prior" if part.x is None else "state" if part.noised else "image"
        if part.x is not None and part.x.shape[1] > self.network.shape[0]:
            kind = "whole"
        masked = part.mask is not None
        if self.driver is not None:
            check_request(self.driver, part)
        scales = dict.fromkeys(part.scales)
        of = {s: self._plans.of(s, part.start, kind, masked, part.encoding) for s in scales}
        if isinstance(part.noise, str):  # "brownian", of which Request made sure
            for objection in filter(None, map(brownian.objection, of.values())):
                raise ValueError(objection)
        if part.record:
            for plan in of.values():
                if why := rollout_objection(plan, part.record, part.noise, part.mask):
                    raise ValueError(f"record={list(part.record)}: {why}")
            of = {scale: recordable(plan) for scale, plan in of.items()}
        return [of[scale] for scale in part.scales]

    def recipe(self) -> dict[str, Any]:
        """What reproduces the sampler, given the network, as JSON-able values."""
        made = {
            "dtype": str(self.dtype).removeprefix("torch."), "network_form": self.form,
            "threads": self.executor.threads_of(self.network),
        }  # fmt: skip
        return copied(self._recipe) | made

    def recipe_of(self, part: Request) -> dict[str, Any]:
        from .recipe import told

        made = self.recipe() | part.recipe()
        if isinstance(self._plans, Saved):
            made["needs"] = ["plan", *made["needs"]]
        if not told(self.driver):
            made["needs"] = [*made["needs"], "driver"]
        return made

    @classmethod
    def replay(
        cls,
        network: ScoreNetwork,
        recipe: Mapping[str, Any] | Recipe,
        how: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Result:
        """The samples of a recipe, made again; what it could not hold comes as keywords.

        how  arguments of Sampler that a recipe does not fix: backend, batch_size, executor and the like; the
             decoder where one made images that is not the network's, or None for the latents; the solver
             where it is an object of your own, which has to be the same, with the same options
        more tensors, and the plan of a sampler `from_plan`; or what replaces something in the recipe
        Raises ValueError where something that was needed is not given, or something else is.
        """
        from . import computed
        from . import recipe as recipes

        how = {} if how is None else how
        if not isinstance(how, Mapping):
            raise ValueError(
                f"how={checks.said(how)}: give a mapping of Sampler's arguments, as {{'backend': 'cpp'}}"
            )
        checks.names("replay's how", how, OPEN)
        recipe = recipes.read(recipe)
        options, given = recipe.arguments(), recipe.request()
        how = computed.formed(recipe, how)
        if recipe.decoder is None or network.decoder is not None:
            how.setdefault("decoder", None if recipe.decoder is None else "network")
        if "plan" in recipe.needs:
            recipes.check(network, recipe, how, more)
            plan, own = more.pop("plan"), {"dtype": options["dtype"]}
            sampler = cls.from_plan(network, plan, **dict(how) | own)
            recipes.check_plan(recipe, sampler.spec)
            given = sampler._plans.again(given)
        else:
            rule = recipes.solver_in(recipe, how.get("solver"))
            led = recipes.driver_in(recipe, how.get("driver"))
            recipes.check(network, recipe, how, more)
            sampler = cls(network, **dict(how) | options | {"solver": rule, "driver": led})
        computed.check_form(recipe, sampler.form)
        computed.check_threads(recipe, sampler.executor.threads_of(sampler.network))
        if sampler.decoder is not None:
            fitting(sampler.decoder, recipe.decoder)
        return sampler.sample(**given | more)


OPTIONS = frozenset(signature(Sampler).parameters) - {"network", "options"}
PLACE = frozenset(signature(Place.of).parameters) - {"module"}
# How the network is run, which no plan says.
HOW = PLACE | frozenset(signature(Runner.__init__).parameters) - {
    "self", "network", "first", "place",
}  # fmt: skip
# What a recipe leaves open. It holds the solver too, but for a user's own.
OPEN = HOW - {"dtype"} | {"solver", "driver"}


def _check_network(network: Any) -> None:
    if not isinstance(network, ScoreNetwork):
        raise ValueError(
            f"network={type(network).__name__}: wrap the module in ScoreNetwork(module, process, shape), "
            "which says how it is called"
        )
