"""Solvers by name. Adding one is a file and a line here."""

from __future__ import annotations

import dataclasses
from typing import Any

from .adams import DEIS, IPNDM, LMS, PLMS
from .ald import ALD
from .base import Solver, Update
from .cld import CLDEulerMaruyama, CLDHeun
from .cld_exp import CLDExponential
from .cld_sscs import SSCS, SSCS2, SSCSExact, SSCSMid, SSCSMixed
from .consistency import LCM, Consistency
from .ddgan import DDGAN
from .ddim import DDIM, DDPM
from .dpm_solver import DPMSolver2, DPMSolver3
from .dpmpp import DPMpp2M, DPMpp2MSDE, DPMpp3M, DPMpp3MSDE, DPMppSDE
from .euler import Euler, EulerAncestral
from .genie import GENIE
from .heun import DPM2, Heun
from .options import fitting
from .sde import DPDMSDE, Ancestral, EulerMaruyama, ReverseDiffusion
from .unipc import UniPC
from .vdm import VDM

SOLVERS: dict[str, type[Solver]] = {
    "euler": Euler,
    "euler_ancestral": EulerAncestral,
    "heun": Heun,
    "dpm_2": DPM2,
    "ddim": DDIM,
    "ddpm": DDPM,
    "dpmpp_2m": DPMpp2M,
    "dpmpp_sde": DPMppSDE,
    "dpmpp_2m_sde": DPMpp2MSDE,
    "dpmpp_3m": DPMpp3M,
    "dpmpp_3m_sde": DPMpp3MSDE,
    "dpm_solver_2": DPMSolver2,
    "dpm_solver_3": DPMSolver3,
    "unipc": UniPC,
    "deis": DEIS,
    "ipndm": IPNDM,
    "plms": PLMS,
    "lms": LMS,
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
    "consistency": Consistency,
    "lcm": LCM,
    "vdm": VDM,
    "genie": GENIE,
    "ddgan": DDGAN,
}


def solver(name: str | Solver, **options: Any) -> Solver:
    """The solver of a name with its options, or the given object as it is.

    Raises ValueError on an unknown name or option.
    """
    if not isinstance(name, str):
        if options:
            raise ValueError(
                f"options {sorted(options)} go with a solver's name, not with an object"
            )
        return name
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; the solvers are {', '.join(SOLVERS)}")
    known = {field.name: field for field in dataclasses.fields(SOLVERS[name])}  # type: ignore[arg-type]
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(
            f"solver {name!r} has no option {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}"
        )
    return SOLVERS[name](**{key: fitting(known[key], value) for key, value in options.items()})


__all__ = ["SOLVERS", "Solver", "Update", "solver"]
