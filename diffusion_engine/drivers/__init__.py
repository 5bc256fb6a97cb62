"""What is no table, because it needs a norm, an acceptance, a quantile or a tolerance: one file a method."""

from __future__ import annotations

import dataclasses
import inspect
from importlib import import_module
from typing import Any

from .. import checks
from .base import Driver

# name -> "module:class"; a module is loaded when its driver is first asked for.
DRIVERS: dict[str, str] = {
    "adaptive": "adaptive:Adaptive",
    "annealed_mcmc": "annealed_mcmc:AnnealedMCMC",
    "daps": "daps:DAPS",
    "ddrm": "ddrm:DDRM",
    "diffpir": "diffpir:DiffPIR",
    "dpm_adaptive": "dpm_adaptive:DPMAdaptive",
    "dps": "dps:DPS",
    "flowdps": "flowdps:FlowDPS",
    "mmps": "mmps:MMPS",
    "paradigms": "paradigms:ParaDiGMS",
    "parataa": "parataa:ParaTAA",
    "pgdm": "pgdm:PGDM",
    "predictor_corrector": "predictor_corrector:PredictorCorrector",
    "multidiffusion": "multidiffusion:MultiDiffusion",
    "restart": "restart:Restart",
    "tds": "tds:TDS",
}


def driver(given: str | Driver, **options: Any) -> Driver:
    """The driver of a name with its options, or the object that is one.

    Raises ValueError where there is no such driver, or it has no such option.
    """
    if isinstance(given, Driver):
        if options:
            raise ValueError(
                f"driver {given.name!r} is an object and has its options already: leave out "
                f"{', '.join(sorted(options))}"
            )
        return given
    made = kind(given)
    checks.names(f"driver {given!r}", options, made.options())
    return made(**options)


def about() -> list[dict[str, Any]]:
    """Of every driver its name, what it does in a sentence, the defaults of its options, which of them have
    none, and its source."""
    listed = []
    for name in DRIVERS:
        made = kind(name)
        fields = [f for f in dataclasses.fields(made) if f.init]  # type: ignore[arg-type]
        options = {f.name: _default(f) for f in fields}
        needs = [name for name, default in options.items() if default is dataclasses.MISSING]
        text = inspect.cleandoc(made.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        listed.append(
            {
                "name": name,
                "about": text.partition(". ")[0].rstrip("."),
                "options": {k: v for k, v in options.items() if k not in needs},
                "needs": needs,
                "source": made.source,
            }
        )
    return listed


def kind(name: str) -> type[Driver]:
    """The class of a name. Raises ValueError where there is none."""
    module, named = DRIVERS[checks.one_of("driver", name, tuple(DRIVERS))].split(":")
    made: type[Driver] = getattr(import_module(f"{__name__}.{module}"), named)
    return made


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()
