"""Solvers by name, and what one is written with. Adding one is a file and a line here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from .. import checks
from ..plan.linear import denoised, normal, raw, slot, x
from .adams import DEIS, IPNDM, LMS
from .ald import ALD
from .base import (
    Points,
    Ring,
    Solver,
    Update,
    eps_of,
    first_order_only,
    score_of,
    steps,
    transfer,
)  # fmt: skip
from .cld import CLDEulerMaruyama, CLDHeun
from .cld_exp import CLDExponential
from .cld_sscs import SSCS, SSCS2, SSCSExact, SSCSMid, SSCSMixed
from .consistency import LCM, SCM, Consistency
from .ddgan import DDGAN
from .ddim import DDIM, DDPM
from .dpm_solver import DPMFast, DPMSolver2, DPMSolver3
from .dpmpp import DPMpp2M, DPMpp3M, DPMSolver2M, DPMSolver3M
from .dpmpp_2s import DPMpp2SAncestral
from .dpmpp_sde import DPMpp2MSDE, DPMpp3MSDE, DPMppSDE, DPMSolverSDE
from .er_sde import ERSDE
from .euler import Euler, EulerAncestral
from .exponential import ExpRK, RESMultistep
from .flow_map import FlowMap
from .genie import GENIE
from .gradient import GradientEstimation
from .heun import DPM2, DPM2Ancestral, FlowHeun, Heun
from .heunpp import HeunPP2
from .learned import Learned
from .overshoot import EulerOvershoot
from .own import Rule, adopted
from .pndm import PLMS, PNDM
from .policy import CPS, FlowSDE
from .sa_solver import SASolver
from .sde import DPDMSDE, Ancestral, EulerMaruyama, ReverseDiffusion
from .seeds import SEEDS2, SEEDS3
from .singlestep import DPMppSinglestep, DPMSolverSinglestep
from .stork import STORK
from .tcd import TCD
from .unipc import UniPC
from .vdm import VDM

# The classes of the shipped solvers by name; their options are the fields of the class.
SOLVERS: dict[str, type[Solver]] = {
    "euler": Euler,
    "euler_ancestral": EulerAncestral,
    "euler_overshoot": EulerOvershoot,
    "heun": Heun,
    "dpm_2": DPM2,
    "dpm_2_ancestral": DPM2Ancestral,
    "flow_heun": FlowHeun,
    "ddim": DDIM,
    "ddpm": DDPM,
    "dpmpp_2m": DPMpp2M,
    "dpmpp_2s_ancestral": DPMpp2SAncestral,
    "dpmpp_sde": DPMppSDE,
    "dpmpp_2m_sde": DPMpp2MSDE,
    "dpmpp_3m": DPMpp3M,
    "dpmpp_3m_sde": DPMpp3MSDE,
    "dpm_solver_2m": DPMSolver2M,
    "dpm_solver_3m": DPMSolver3M,
    "dpm_solver_sde": DPMSolverSDE,
    "er_sde": ERSDE,
    "seeds_2": SEEDS2,
    "seeds_3": SEEDS3,
    "sa_solver": SASolver,
    "dpm_solver_2": DPMSolver2,
    "dpm_solver_3": DPMSolver3,
    "dpm_fast": DPMFast,
    "dpmpp_singlestep": DPMppSinglestep,
    "dpm_solver_singlestep": DPMSolverSinglestep,
    "exp_rk": ExpRK,
    "res_multistep": RESMultistep,
    "gradient_estimation": GradientEstimation,
    "heunpp2": HeunPP2,
    "stork": STORK,
    "unipc": UniPC,
    "deis": DEIS,
    "ipndm": IPNDM,
    "lms": LMS,
    "plms": PLMS,
    "pndm": PNDM,
    "cld_em": CLDEulerMaruyama,
    "cld_ode": CLDHeun,
    "cld_exp": CLDExponential,
    "sscs": SSCS,
    "sscs_mid": SSCSMid,
    "sscs_mixed": SSCSMixed,
    "sscs2": SSCS2,
    "sscs_exact": SSCSExact,
    "euler_maruyama": EulerMaruyama,
    "reverse_diffusion": ReverseDiffusion,
    "ancestral": Ancestral,
    "ald": ALD,
    "dpdm_sde": DPDMSDE,
    "flow_sde": FlowSDE,
    "cps": CPS,
    "consistency": Consistency,
    "lcm": LCM,
    "tcd": TCD,
    "scm": SCM,
    "flow_map": FlowMap,
    "vdm": VDM,
    "genie": GENIE,
    "ddgan": DDGAN,
    "learned": Learned,
}


def solver(name: str | Rule, also: Iterable[str] = (), /, **options: Any) -> Solver:
    """The solver of a name with its options, or a user's object as a solver.

    also  other names that a misspelled option may have meant
    Raises ValueError on an unknown name or option, or one of another kind, and on an object that is no
    solver or has the name of another.
    """
    if not isinstance(name, str):
        if options:
            raise ValueError(
                f"options {sorted(options)} go with a solver's name, not with an object"
                f"{checks.nearest(options, also)}"
            )
        made = adopted(name)
        if SOLVERS.get(made.name, type(made)) is not type(made):
            raise ValueError(
                f"solver name {made.name!r} is that of {SOLVERS[made.name].__name__}, which recipes would be "
                f"replayed with; give yours another"
            )
        return made
    if name not in SOLVERS:
        raise ValueError(
            f"unknown solver {name!r}; the solvers are {', '.join(SOLVERS)}"
            f"{checks.nearest([name], SOLVERS)}"
        )
    kind = SOLVERS[name]
    fields: tuple = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    known = {field.name: field for field in fields}
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"solver {name!r} has no option {', '.join(unknown)}; it has "
            f"{', '.join(sorted(known)) or 'none'}{checks.nearest(unknown, [*known, *also])}"
        )
    return kind(**{key: _option(known[key], given) for key, given in options.items()})


def _option(field: dataclasses.Field, given: Any) -> Any:
    """An option as Python's value of the kind that its field declares."""
    kind, _, optional = str(field.type).partition(" | ")
    if given is None and optional:
        return None
    if kind == "float":
        return checks.number(field.name, given, infinite=field.default == math.inf)
    if kind == "int":
        return checks.whole(field.name, given, 0, "give an integer")
    if kind == "bool":
        return checks.flag(field.name, given)
    if kind == "str" and not isinstance(given, str):
        raise ValueError(f"{field.name}={checks.said(given)}: it is a name")
    if kind.startswith("tuple"):
        wanted = "it is a sequence of numbers"
        return tuple(map(checks.plain, checks.entries(field.name, given, wanted)))
    return given


__all__ = [
    "SOLVERS", "Points", "Ring", "Rule", "Solver", "Update", "denoised", "eps_of", "first_order_only",
    "normal", "raw", "score_of", "slot", "solver", "steps", "transfer", "x",
]  # fmt: skip
