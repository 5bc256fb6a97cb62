"""`like`: the same as a scheduler of diffusers, as a solver, its options and the points of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from ... import checks, solvers
from ...networks.network import ScoreNetwork
from ...networks.parameterisation import Parameterisation
from ...processes import GaussianProcess, Point
from ...sampler.sampler import Sampler
from ...solvers import Solver
from .classes import CLASSES
from .fields import understood
from .levels import Asked, falling
from .levels import asked as levels_asked
from .networks import from_diffusers, scheduler_of
from .solving import Choice, Run
from .tables import learned
from .told import asked_of_ddim

STEPS = "a run has a whole number of steps, 1 or more"


@dataclass(frozen=True)
class Like:
    """What samples the same as a scheduler of diffusers.

    name         the scheduler's class
    solver       with its options
    points       of the run, from noise to data, with the level and the time of each: one more than the
                 network's timesteps
    process      the noise
    prediction   of the network, as in ScoreNetwork
    label        what the network is told for a point, as in ScoreNetwork
    clip         range of `denoised`, or None
    scaled       whether the scheduler's sample is x / alpha, and not x
    init_noise_sigma  what the scheduler multiplies the first normals by
    notes        sentences: where diffusers differs from the formula, and which of both this is
    network      that was given, or None
    """

    name: str
    solver: Solver
    points: tuple[Point, ...]
    process: GaussianProcess
    prediction: Any
    label: str | Callable[[Point], float]
    clip: tuple[float, float] | None
    scaled: bool
    init_noise_sigma: float
    notes: tuple[str, ...]
    network: ScoreNetwork | None = None

    def __post_init__(self) -> None:
        if self.network is not None:
            self._refuse_another(self.network)

    def parameterisation(self, shape: Sequence[int], **more: Any) -> Parameterisation:
        """That of a network for this scheduler, of samples [*shape]; `more` as in Parameterisation."""
        return Parameterisation(
            self.process, tuple(shape), prediction=self.prediction, label=self.label, **more
        )  # fmt: skip

    @property
    def labels(self) -> tuple[float, ...]:
        """What the network is told at the beginning of each step: the scheduler's timesteps, each once."""
        rule = self.parameterisation((1,))
        return tuple(rule.label_of(at) for at in self.points[:-1])

    def sampler(self, network: ScoreNetwork | None = None, **how: Any) -> Sampler:
        """A sampler of `network` that does what the scheduler does.

        network  as from_diffusers(module, scheduler) makes it; None for the one that like was given
        how      of Sampler, but for the solver, its options, the times and the clip
        Raises ValueError where the network is of another noise or predicts something else.
        """
        network = self.network if network is None else network
        if network is None:
            raise ValueError(
                "network=None: give from_diffusers(module, scheduler), here or to like(scheduler, network, "
                "steps)"
            )
        self._refuse_another(network)
        if taken := how.keys() & {"solver", "steps", "times", "sigmas", "grid", "end", "clip"}:
            raise ValueError(
                f"{', '.join(sorted(taken))}: this is what the scheduler says; make a Sampler where another "
                "is wanted"
            )
        return Sampler(network, self.solver, times=self.points, clip=self.clip, **how)

    def _refuse_another(self, network: ScoreNetwork) -> None:
        """Raises ValueError on a network of another noise, or one that predicts something else."""
        own = network.parameterisation
        for name, here in (("process", self.process), ("prediction", self.prediction)):
            if getattr(own, name) != here:
                raise ValueError(
                    f"the network has {name}={checks.said(getattr(own, name))} and {self.name} says "
                    f"{checks.said(here)}: give from_diffusers(module, scheduler) of the same scheduler"
                )


def like(
    scheduler: Any,
    network: ScoreNetwork | nn.Module | int | None = None,
    steps: int | None = None,
    *,
    strength: float | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
    published: bool = True,
    **step: Any,
) -> Like:
    """What samples the same as a scheduler of diffusers: like(scheduler, network, steps).sampler().

    scheduler  one of those in classes.py or an EngineScheduler, or its saved configuration with _class_name
    network    of its samples, or the module of diffusers that from_diffusers makes one of. like(scheduler,
               steps) is of none: then `sampler` is given it
    steps      as its set_timesteps is given; None with timesteps or sigmas
    strength   of image to image, above 0 and at most 1: the run begins at points[steps - int(steps strength)]
    timesteps, sigmas, mu  as its set_timesteps is given
    published  what diffusers does where it is wrong; False is what the formula says. `notes` has both
    step       what is passed to the scheduler's step, as eta of DDIM

    Raises ValueError, which names the field, where a configuration contradicts itself, asks for levels that
    rise or for what no solver here does.
    """
    if network is not None and not isinstance(network, (ScoreNetwork, nn.Module)):
        if steps is not None:
            raise ValueError(
                f"network={checks.said(network)}: give from_diffusers(module, scheduler), or the module"
            )
        network, steps = None, network
    elif isinstance(network, nn.Module):
        network = from_diffusers(network, scheduler)
    config, name, named = scheduler_of(scheduler)
    fields = understood(name, config)
    kind, rule = CLASSES[name], learned(fields)
    asked, n = _asked(name, fields, steps, timesteps, sigmas, mu)
    whole = falling(name, kind.levels(fields, rule.process, n, asked))
    begin = _begin(len(whole) - 1, strength)
    if begin > 1 and fields.get("skip_prk_steps"):
        begin -= 1  # PNDM's list, which pipelines cut, has its second timestep twice
    run = Run(whole, begin, step, published)
    choice = kind.solver(fields, run) if named is None else _named(named, run)
    points = whole[begin:]
    return Like(
        name=name,
        solver=solvers.solver(choice.solver, **choice.options),
        points=points,
        process=rule.process,
        prediction=rule.prediction,
        label=rule.label,
        clip=rule.clip,
        scaled=kind.scaled,
        init_noise_sigma=_first(kind.scaled, fields, whole),
        notes=choice.notes,
        network=network,
    )


def _named(rule: Solver, run: Run) -> Choice:
    """The solver that an EngineScheduler names, with what is passed to its step."""
    step = run.take("eta", "use_clipped_model_output")
    return Choice(asked_of_ddim(rule, tuple(step.items())) if step else rule)


def _asked(
    name: str,
    fields: Mapping[str, Any],
    steps: int | None,
    timesteps: Sequence[float] | None,
    sigmas: Sequence[float] | None,
    mu: float | None,
) -> tuple[Asked, int]:
    """What a run is asked, checked, and its number of steps."""
    given = [
        None if values is None else tuple(checks.entries(what, values, "give falling numbers"))
        for what, values in (("timesteps", timesteps), ("sigmas", sigmas))
    ]
    taken = TAKES.get(name, ())
    for what, values in zip(("timesteps", "sigmas"), given, strict=True):
        if values is not None and what not in taken:
            raise ValueError(f"{what}=: the set_timesteps of {name} takes none; give steps")
        if values is not None and any(b >= a for a, b in pairwise(values)):
            raise ValueError(f"{what}={checks.said(list(values))}: they have to fall")
    if timesteps is not None and (flags := levels_asked(fields)):
        raise ValueError(
            f"timesteps= and {flags[0]} of the scheduler both say the levels: give one of them"
        )
    if mu is not None and "use_dynamic_shifting" not in fields:
        raise ValueError(f"mu={checks.said(mu)}: the set_timesteps of {name} takes none")
    if mu is not None and "use_flow_sigmas" in fields and not fields["use_dynamic_shifting"]:
        raise ValueError(
            f"mu={checks.said(mu)} goes with use_dynamic_shifting, which the scheduler has off"
        )
    asked = Asked(given[0], given[1], None if mu is None else checks.number("mu", mu))
    count = next((len(values) for values in given if values is not None), None)
    if given[1] is not None and name == "EulerDiscreteScheduler":
        count = len(given[1]) - 1  # with the end of the run
    if steps is None:
        if count is None:
            raise ValueError("steps=None: give steps, or timesteps or sigmas")
        return asked, count
    steps = checks.whole("steps", steps, 1, STEPS)
    if count not in (None, steps):
        raise ValueError(f"steps={steps} and {count} levels are given: leave steps out")
    return asked, steps


# What a class's set_timesteps takes beside steps.
TAKES: dict[str, tuple[str, ...]] = {
    "DDPMScheduler": ("timesteps",),
    "DDPMParallelScheduler": ("timesteps",),
    "LCMScheduler": ("timesteps",),
    "TCDScheduler": ("timesteps",),
    "CMStochasticIterativeScheduler": ("timesteps",),
    "EulerDiscreteScheduler": ("timesteps", "sigmas"),
    "HeunDiscreteScheduler": ("timesteps",),
    "DPMSolverMultistepScheduler": ("timesteps",),
    "DPMSolverSinglestepScheduler": ("timesteps",),
    "UniPCMultistepScheduler": ("sigmas",),
    "FlowMatchEulerDiscreteScheduler": ("timesteps", "sigmas"),
    "FlowMatchLCMScheduler": ("timesteps", "sigmas"),
}


def _begin(n: int, strength: float | None) -> int:
    """Where image to image begins."""
    if strength is None:
        return 0
    strength = checks.number("strength", strength)
    if not 0.0 < strength <= 1.0 or int(n * strength) < 1:
        raise ValueError(
            f"strength={strength:g} of {n} steps: give one above 0 and at most 1, of one step or more"
        )
    return n - min(int(n * strength), n)


def _first(scaled: bool, fields: Mapping[str, Any], points: Sequence[Point]) -> float:
    """init_noise_sigma, as diffusers says it."""
    if "sigma_max" in fields and "sigma_data" in fields:
        return (fields["sigma_max"] ** 2 + 1.0) ** 0.5
    if not scaled:
        return 1.0
    largest = max(p.ratio for p in points)
    return largest if fields["timestep_spacing"] != "leading" else (largest**2 + 1.0) ** 0.5
