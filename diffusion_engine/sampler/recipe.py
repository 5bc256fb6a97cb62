"""Recipes: with a network, what makes the same samples again, as JSON-able values."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .. import checks
from ..guiders import Guider
from ..model import Model
from ..networks.condition import origins
from ..networks.decoder import Decoder
from ..networks.network import ScoreNetwork
from ..processes import GaussianProcess
from ..processes.grids import point_at
from ..solvers import SOLVERS, Solver, solver
from ..solvers.own import Own
from .driven import Driver
from .driven import driver as named_driver
from .methods import Driven, Method, Steered
from .spec import FIRST, FORMAT, INFINITY, RNG, Asked, Recipe, Spec


def _plain(value: Any) -> Any:
    """A value that JSON holds, where it is one of numpy or torch, a collection, or infinite."""
    if getattr(value, "ndim", 0):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Model):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    value = checks.plain(value)
    infinite = isinstance(value, float) and value == math.inf
    return INFINITY if infinite else value


def about(rule: Solver) -> Method:
    """A solver in a recipe: its name, and the fields of a dataclass, or else what a user's object holds under
    public names; but for what JSON does not hold."""
    given: Any = rule.given if isinstance(rule, Own) else rule
    if dataclasses.is_dataclass(given):
        names = [field.name for field in dataclasses.fields(given) if field.init]
    else:
        names = [name for name in getattr(given, "__dict__", ()) if not name.startswith("_")]
    options = {name: _plain(getattr(given, name)) for name in names if name != "name"}
    return Method(name=rule.name, options={k: v for k, v in options.items() if _is_json(v)})


def about_driver(made: Driver | None) -> Method | None:
    """A driver in a recipe, as `about` says it of a solver."""
    if made is None:
        return None
    options = {f.name: _plain(getattr(made, f.name)) for f in dataclasses.fields(made) if f.init}  # type: ignore[arg-type]
    return Driven(name=made.name, options={k: v for k, v in options.items() if _is_json(v)})


def about_guider(made: Guider | None) -> Method | None:
    """A guider in a recipe."""
    if made is None:
        return None
    return Steered(name=made.name, options=_plain(dataclasses.asdict(made)))  # type: ignore[call-overload]


def told(made: Driver | None) -> bool:
    """Whether a recipe says all options of a driver."""
    about = about_driver(made)
    return about is None or len(about.options) == sum(f.init for f in dataclasses.fields(made))  # type: ignore[arg-type]


def _is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False


def written(spec: Spec, network: str, decoder: Decoder | None) -> dict[str, Any]:
    """A sampler's part of a recipe; Request.recipe is the other.

    spec  of its own points
    """
    shared = Asked.model_fields.keys() - {*Asked.REQUEST}
    made = spec.model_dump(mode="json", include={*shared, "times"})
    levels = None if decoder is None else decoder.levels
    return {
        "format": FORMAT, "rng": RNG, "network": network, "points": made.pop("times"), "decoder": levels,
    } | made  # fmt: skip


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The recipe of the parts of one request, each of which knows what was chosen before it."""
    made = dict(parts[0]) | {name: parts[-1][name] for name in ("dtype", "network_form", "threads")}
    for name in Recipe.PER_SAMPLE:
        if made[name] is not None:
            made[name] = [value for part in parts for value in part[name]]
    return made


def read(given: Any) -> Recipe:
    """The recipe of Result.recipe, or of its JSON. Raises ValueError where it is none of this engine."""
    return given if isinstance(given, Recipe) else Recipe.model_validate(given)


def check(
    network: ScoreNetwork, recipe: Recipe, how: Mapping[str, Any], more: Mapping[str, Any]
) -> None:
    """Raises ValueError where something that the recipe could not hold is not given, or where this version
    would make other samples.

    how, more  as in Sampler.replay
    """
    _check_start(network.process, recipe)
    if needs := [name for name in recipe.needs if name not in more and name != "driver"]:
        raise ValueError(f"the recipe was made with {', '.join(needs)}; give them again")
    _check_origins(network, recipe, more)
    if recipe.decoder is not None and "decoder" not in how:
        raise ValueError(
            "the recipe's samples are images that a decoder made: give how={'decoder': ...}, or None in its "
            "place for the latents"
        )


def _check_origins(network: ScoreNetwork, recipe: Recipe, more: Mapping[str, Any]) -> None:
    """Raises ValueError where a condition is made of something else than the recipe's."""
    asked = recipe.request() | dict(more)
    composed = asked.get("compose") or ()
    parts = [part[0] if isinstance(part, (tuple, list)) else part for part in composed]
    given = origins(network, [asked.get("condition"), *parts, asked.get("negative")])
    if recipe.origins and given != recipe.origins:
        raise ValueError(
            f"the recipe's condition was made of {', '.join(recipe.origins)} and is made of "
            f"{', '.join(given) or 'nothing that is known'} here; give one that was made of the same"
        )


def check_plan(recipe: Recipe, spec: Spec) -> None:
    """Raises ValueError where a sampler runs another plan than the recipe's."""
    if spec.solver != recipe.solver:
        raise ValueError(
            f"the recipe was made with the plan {_call(recipe.solver)} and {_call(spec.solver)} is given; "
            "give the same one"
        )


def _check_start(process: GaussianProcess, recipe: Recipe) -> None:
    """Raises ValueError where a recipe of the first format began beside a point of its run, with a step that
    went nowhere: point_at begins at the point."""
    start = recipe.start
    if start is None and recipe.encoding is not None:
        start = process.t_min
    if start is None or recipe.format != FIRST:
        return
    if point_at(process, recipe.arguments()["times"], start) != process.at(start):
        raise ValueError(
            f"the recipe's format is {FIRST!r}, in which a start at t={start:g}, beside a point of the run, "
            "made other samples; use the version that made it"
        )


def driver_in(recipe: Recipe, given: Any = None) -> Any:
    """The driver of a recipe.

    given  the object that it was made with, where its options are no JSON
    Raises ValueError where another is given, or one is needed and none is.
    """
    if given is None and "driver" in recipe.needs:
        raise ValueError(
            "the recipe's driver has options that JSON does not hold: give the object that it was made with, "
            "how={'driver': ...}"
        )
    if given is None:
        return recipe.driver and recipe.driver.model_dump()
    made = named_driver(given)
    if about_driver(made) != recipe.driver:
        raise ValueError(
            f"the recipe's driver is {recipe.driver} and {about_driver(made)} is given; give the same one"
        )
    return made


def solver_in(recipe: Recipe, given: Any = None) -> Solver:
    """The solver of a recipe.

    given  the object that it was made with, where that is a user's own
    Raises ValueError where the recipe names one that is not given, or another than is given.
    """
    name, options = recipe.solver.name, dict(recipe.solver.options)
    if recipe.format == FIRST and name in SOLVERS:
        if "order" in options:
            options["max_order"] = options.pop("order")
        if name == "dpmpp_sde" and solver(name, **options).stochastic:
            raise ValueError(
                f"the recipe's format is {FIRST!r}, in which dpmpp_sde drew other noise, independent in "
                "a half step and a whole one; use the version that made it"
            )
    if name not in SOLVERS and given is None:
        raise ValueError(
            f"the recipe's solver {name!r} is none of this package's: give the object that it was made with, "
            "how={'solver': ...}, or --solver package.module:name on the command line"
        )
    if given is None:
        return solver(name, **options)
    made = solver(given)
    if name in SOLVERS:  # with the defaults of options that it does not say
        options = about(solver(name, **options)).options
    recorded = Method(name=name, options=options)
    if about(made) != recorded:
        raise ValueError(
            f"the recipe was made with {_call(recorded)} and {_call(about(made))} is given; give the same one"
        )
    return made


def _call(solver: Method) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in solver.options.items())
    return f"{solver.name}({options})"
