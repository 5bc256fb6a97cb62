"""What EngineScheduler is told, checked: a configuration's class, seeds, and what a step says of DDIM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ... import checks
from ...solvers import Solver, solver
from ...solvers.ddim import DDIM
from .classes import CLASSES
from .fields import understood
from .tables import PREDICTIONS

# What a step is told beside its tensors, by name.
Asked = tuple[tuple[str, Any], ...]
NOTHING: Asked = ()


def class_of(config: Mapping[str, Any]) -> str:
    """The class whose fields a configuration has; one that was never saved does not say its name.

    Raises ValueError where several classes, or none, have them.
    """
    usual = {*config.get("_use_default_values", ())}
    fields = {name: {*kind.fields} for name, kind in CLASSES.items() if "Parallel" not in name}
    known = set[str]().union(*fields.values())
    fitting = [name for name, own in fields.items() if usual & known <= own <= config.keys()]
    found = [n for n in fitting if not any(fields[n] < fields[other] for other in fitting)]
    if len(found) == 1:
        return found[0]
    which = f"may be of {', '.join(found)}" if found else "is of no class that is understood"
    raise ValueError(
        f"the configuration has no _class_name, and by its fields it {which}: give the scheduler itself, or "
        f'its class, as like="{(*found, "DDIMScheduler")[0]}"'
    )


def asked_of(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a configuration of a class asks for. What is the class's own by default is left to another's, but
    not what has been written over since, as pipelines do with steps_offset and clip_sample."""
    usual = CLASSES[name].fields if name in CLASSES else {}
    unsaid = {k for k in config.get("_use_default_values", ()) if config.get(k) == usual.get(k)}
    return {k: v for k, v in config.items() if k not in unsaid and k[0] != "_" and k != "like"}


def refuse_unknown(
    name: str, fields: Mapping[str, Any], named: str | None, options: Mapping[str, Any] | None
) -> None:
    """Raises ValueError where a class or a field of its is not understood, and where there is no such solver
    or it has no such option."""
    kind = understood(name, fields).get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise ValueError(f"prediction_type={checks.said(kind)} is none of {', '.join(PREDICTIONS)}")
    if named is not None:
        solver(named, **(options or {}))
    elif options:
        raise ValueError(
            f"options={checks.said(options)} are of a solver, and none is named: give solver="
        )


def seeds_of(given: Sequence[int]) -> tuple[int, ...]:
    """Seeds, one for each sample."""
    wanted = "give a list of whole numbers from 0 to 2^64 - 1, one for each sample"
    made = tuple(
        checks.whole("seeds", seed, 0, wanted) for seed in checks.entries("seeds", given, wanted)
    )
    if not made or max(made) >= 1 << 64:
        raise ValueError(f"seeds={checks.said(given)}: {wanted}")
    return made


def levels(steps: int | None, timesteps: Any, sigmas: Any) -> dict[str, Any]:
    """What a run is asked to visit, of what set_timesteps was given: as like takes it."""
    given: dict[str, Any] = {
        name: tuple(map(float, checks.entries(name, values, "give a list of numbers")))
        for name, values in (("timesteps", timesteps), ("sigmas", sigmas))
        if values is not None
    }
    if steps is None and not given:
        raise ValueError(
            "num_inference_steps, timesteps and sigmas are all None: give set_timesteps one of them"
        )
    if steps is not None:
        steps = checks.whole("num_inference_steps", steps, 1, "a run has 1 step or more")
    return {"steps": steps, **given}


def asked(eta: float | None, clipped: bool | None) -> Asked:
    """What a step is told beside its tensors, as of diffusers' DDIM: 0, False and None say nothing."""
    if type(eta) is float and not (eta or clipped):  # as nearly always: in no time
        return NOTHING
    eta = checks.number(
        "eta", 0.0 if eta is None else eta, "give a number; a generator is generator="
    )
    told: dict[str, Any] = {"eta": eta} if eta else {}
    return tuple((told | ({"use_clipped_model_output": True} if clipped else {})).items())


def asked_of_ddim(rule: Solver, step: Asked) -> Solver:
    """A named solver with what a step is told."""
    if not isinstance(rule, DDIM):
        said = ", ".join(f"{name}={value}" for name, value in step)
        raise ValueError(
            f"step was called with {said}, which is of solver 'ddim', and this run's is {rule.name!r}: "
            "leave it out, and give a solver that has an eta options={'eta': ...}"
        )
    told = dict(step)
    clipped = bool(told.get("use_clipped_model_output")) or rule.clipped_eps
    return replace(rule, eta=told.get("eta", rule.eta), clipped_eps=clipped)
