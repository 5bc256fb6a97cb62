"""Guidance that needs a number of each sample, a norm or a quantile: one file a paper."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .. import checks
from .base import Guider

# name -> "module:class"; a module is loaded when its guider is first asked for.
GUIDERS = {
    "rescale": "rescale:Rescale",
    "apg": "apg:AdaptiveProjected",
    "cfg_zero": "cfg_zero:CFGZeroStar",
    "tcfg": "tcfg:Tangential",
    "threshold": "threshold:DynamicThreshold",
}
NUMBERS = {
    name: i for i, name in enumerate(GUIDERS, 1)
}  # of a row in the table of guiders; 0 is none

HINT = "give a name, {'name': ..., 'options': {...}}, or an object of guiders.Guider"


def kind(name: str) -> type[Guider]:
    """The class of a name. Raises ValueError where there is none such."""
    checks.one_of("guider", name, tuple(GUIDERS))
    module, found = GUIDERS[name].split(":")
    made: type[Guider] = getattr(import_module(f"{__name__}.{module}"), found)
    return made


def guider(given: Any, **options: Any) -> Guider | None:
    """The guider of a name, of a name with options as a Spec has them, or an object.

    Raises ValueError where there is no such guider, or it has no such option.
    """
    if given is None or isinstance(given, Guider):
        if options:
            raise ValueError(f"guider={checks.said(given)} takes no {', '.join(sorted(options))}")
        return given
    name = given
    if isinstance(given, Mapping):
        checks.names("guider", given, ("name", "options"))
        name, options = given.get("name"), {**(given.get("options") or {}), **options}
    if not isinstance(name, str):
        raise ValueError(f"guider={checks.said(given)}: {HINT}")
    made = kind(name)
    checks.names(f"guider {name!r}", options, made.options())
    return made(**options)
