"""Recipes: with a network, what makes the same samples again, as JSON-able values."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from .. import checks
from ..processes import GaussianProcess, Point
from ..processes.grids import point_at
from ..solvers import SOLVERS, Solver, solver
from ..solvers.own import Own

if TYPE_CHECKING:
    from .sampler import Sampler


FORMAT, RNG = "diffusion-engine-recipe/2", "philox4x32-10/2"
FIRST = "diffusion-engine-recipe/1"  # its solvers' `max_order` was named `order`
BEFORE = "philox4x32-10/1"  # drew other normals where x was given, and the same elsewhere
# What `written` and Request.recipe write.
KEYS = {
    "format", "rng", "network", "solver", "points", "interval", "classifier_scale", "clip", "dtype",
    "decoder", "seeds", "condition", "compose", "guidance", "start", "noised", "encoding", "noise", "needs",
}  # fmt: skip


def _plain(value: Any) -> Any:
    """A value that JSON holds, where it is one of numpy or torch, a collection, or infinite."""
    if getattr(value, "ndim", 0):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    value = checks.plain(value)
    infinite = isinstance(value, float) and value == math.inf
    return 1e308 if infinite else value  # JSON has no infinity


def about(rule: Solver) -> dict[str, Any]:
    """A solver in a recipe: its name, and the fields of a dataclass, or else what a user's object holds under
    public names; but for what JSON does not hold."""
    given: Any = rule.given if isinstance(rule, Own) else rule
    if dataclasses.is_dataclass(given):
        names = [field.name for field in dataclasses.fields(given) if field.init]
    else:
        names = [name for name in getattr(given, "__dict__", ()) if not name.startswith("_")]
    options = {name: _plain(getattr(given, name)) for name in names if name != "name"}
    return {"name": rule.name, "options": {k: v for k, v in options.items() if _is_json(v)}}


def _is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False


def written(sampler: Sampler) -> dict[str, Any]:
    """A sampler's part of a recipe; Request.recipe is the other."""
    clip, decoder = sampler.clip, sampler.decoder
    return {
        "format": FORMAT,
        "rng": RNG,
        "network": sampler.network.name,
        "solver": about(sampler.solver),
        "points": [_plain([p.t, p.alpha, p.sigma]) for p in sampler.points],
        "interval": [sampler.interval[0], min(sampler.interval[1], 1e308)],
        "classifier_scale": sampler.classifier_scale,
        "clip": None if clip is None else list(clip),
        "dtype": str(sampler.dtype).removeprefix("torch."),
        "decoder": None if decoder is None else decoder.levels,
    }


def check(recipe: Any) -> None:
    """Raises ValueError where this is no recipe, one of another version, or holds what no version knows."""
    if not isinstance(recipe, Mapping) or "format" not in recipe:
        raise ValueError(
            "this is not a recipe of this engine: it says no format; use Result.recipe"
        )
    needs = recipe.get("needs", ())
    if not isinstance(needs, (list, tuple)):
        raise ValueError(f"the recipe's needs={needs!r} are no list of names; use Result.recipe")
    same = RNG if "x" in needs else BEFORE
    for key, own, also in (("format", FORMAT, FIRST), ("rng", RNG, same)):
        if recipe.get(key) not in (own, also):
            raise ValueError(
                f"the recipe's {key} is {recipe.get(key)!r} and this version reads {own!r}; use the version "
                "that made it"
            )
    if unknown := sorted(map(str, recipe.keys() - KEYS)):
        raise ValueError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(sorted(KEYS))}")


def _check_start(process: GaussianProcess, points: list[Point], recipe: Mapping[str, Any]) -> None:
    """Raises ValueError where a recipe of the first format began beside a point of its run, with a step that
    went nowhere: point_at begins at the point."""
    start = recipe["start"]
    if start is None and recipe.get("encoding") is not None:
        start = process.t_min
    if start is None or recipe["format"] != FIRST:
        return
    if point_at(process, points, start) != process.at(start):
        raise ValueError(
            f"the recipe's format is {FIRST!r}, in which a start at t={start:g}, beside a point of the run, "
            "made other samples; use the version that made it"
        )


def read(
    process: GaussianProcess,
    recipe: Mapping[str, Any],
    how: Mapping[str, Any],
    more: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of Sampler and of its `sample`.

    process    of the network
    how, more  as in Sampler.replay
    Raises ValueError where this is no recipe, or something that it could not hold is not given.
    """
    check(recipe)
    rule = solver_in(recipe, how.get("solver"))
    try:
        low, high = _floats(recipe["interval"])
        options: dict[str, Any] = {
            "solver": rule,
            "times": [Point(*_floats(p)) for p in recipe["points"]],
            "interval": (low, math.inf if high >= 1e308 else high),
            "classifier_scale": recipe.get("classifier_scale", 1.0),
            "clip": None if recipe["clip"] is None else tuple(recipe["clip"]),
            "dtype": _dtype(recipe["dtype"]),
        }
        given = {k: recipe[k] for k in ("seeds", "condition", "guidance", "start", "noised")}
        given |= again(recipe)
        given["noise"] = recipe.get("noise")
        needs = [name for name in recipe["needs"] if name not in more]
        _check_start(process, options["times"], recipe)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"this is not a recipe of this engine ({error!r}); use Result.recipe"
        ) from error
    if needs:
        raise ValueError(f"the recipe was made with {', '.join(needs)}; give them again")
    if recipe.get("decoder") is not None and "decoder" not in how:
        raise ValueError(
            "the recipe's samples are images that a decoder made: give how={'decoder': ...}, or None in its "
            "place for the latents"
        )
    return dict(how) | options, given | dict(more)


def solver_in(recipe: Mapping[str, Any], given: Any = None) -> Solver:
    """The solver of a recipe.

    given  the object that it was made with, where that is a user's own
    Raises ValueError where the recipe names none, names one that is not given, or another than is given.
    """
    try:
        name, options = str(recipe["solver"]["name"]), dict(recipe["solver"]["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"this is not a recipe of this engine, it names no solver ({error!r}); use Result.recipe"
        ) from error
    if recipe.get("format") == FIRST and name in SOLVERS:
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
    known = about(solver(name, **options)) if name in SOLVERS else {}
    recorded = {"name": name, "options": options} | known
    if about(made) != recorded:
        raise ValueError(
            f"the recipe was made with {_call(recorded)} and {_call(about(made))} is given; give the same one"
        )
    return made


def _call(solver: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in solver["options"].items())
    return f"{solver['name']}({options})"


def _floats(values: Any) -> tuple[float, ...]:
    if not all(type(value) in (int, float) for value in values):
        raise TypeError(f"{values!r} are no numbers")
    return tuple(map(float, values))


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is no dtype")
    return dtype


def again(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says of encoding and composition, as a request does."""
    made: dict[str, Any] = {"encoding": recipe.get("encoding")}
    if recipe["guidance"] and isinstance(recipe["guidance"][0], list):
        made["guidance"] = None
        if recipe["compose"] is not None:
            made["compose"] = list(
                zip(zip(*recipe["compose"]), zip(*recipe["guidance"]), strict=True)  # noqa: B905
            )
    return made
