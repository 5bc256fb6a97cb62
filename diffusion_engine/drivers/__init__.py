"""What is no table, because it needs a norm, an acceptance, a quantile or a tolerance: one file a method."""

from __future__ import annotations

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
    checks.one_of("driver", given, tuple(DRIVERS))
    module, name = DRIVERS[given].split(":")
    made: type[Driver] = getattr(import_module(f"{__name__}.{module}"), name)
    checks.names(f"driver {given!r}", options, made.options())
    return made(**options)
