"""What networks are trained to do: a file a family, and the table that recipes name them by."""

from __future__ import annotations

import importlib
from functools import partial
from inspect import signature
from typing import Any

from ... import checks
from .base import Given, Objective

# name: where it is. A function loss(network, batch, generator, **options), or a class of Objective.
OBJECTIVES = {
    "autoencoding": "autoencoder:Autoencoding",
    "classification": "classification:Classification",
    "classifier": "classifier:Classifier",
    "denoising": "denoising:denoising",
    "genie": "genie:GenieHead",
    "hybrid": "hybrid:hybrid",
    "ddgan": "ddgan:DDGAN",
    "sliced": "sliced:sliced",
    "consistency": "consistency:Consistency",
    "progressive": "progressive:Progressive",
    "student": "student:Student",
    "guided": "student:Guided",
    "mean_flow": "flow_map:MeanFlow",
    "shortcut": "flow_map:Shortcut",
    "private": "private:Private",
    "vdm": "vdm:bound",
}


def objective(given: Given) -> Objective:
    """The objective of a recipe, with its options.

    Raises ValueError where its name is not known or an option does not suit.
    """
    options: dict[str, Any] = dict(given.recipe.objective)
    name = checks.one_of("objective", options.pop("name", None), tuple(OBJECTIVES))
    module, _, attribute = OBJECTIVES[name].partition(":")
    kind = getattr(importlib.import_module(f".{module}", __name__), attribute)
    make = kind if isinstance(kind, type) else partial(Objective, loss=kind)
    known = [p.name for p in signature(kind).parameters.values() if p.default is not p.empty]
    checks.names(f"the objective {name!r}", options, known)
    return make(given, **options)
