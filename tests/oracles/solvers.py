"""Every oracle under one roof: `SOLVERS` and `OTHERS` by name, and `sample` to run one of them.

All share one signature, solver(denoiser, points, x, noise=None, **options):

points     (t, alpha, sigma, lam) tuples, noisier first; the last may have sigma = 0, lam = inf.
denoiser   (x, point) -> the estimate of x0; point is one of `points` or one made by the solver.
noise      (step, stage) -> standard normals shaped like x; called only where the scale is not 0.
options    keyword-only. Solvers that leave the grid also take `schedule`.
"""

import inspect

from .adams import deis, ipndm, lms, plms
from .consistency import consistency, lcm, vdm
from .dpm import dpm_solver_2, dpm_solver_3, dpmpp_2m, dpmpp_3m
from .dpm_sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from .one_step import ddim, ddpm, dpm_2, euler, euler_ancestral, heun
from .sde import ald, ancestral, dpdm_sde, euler_maruyama, reverse_diffusion
from .unipc import unipc

SOLVERS = {
    solver.__name__: solver
    for solver in (
        euler,
        euler_ancestral,
        heun,
        dpm_2,
        ddim,
        ddpm,
        dpm_solver_2,
        dpm_solver_3,
        dpmpp_2m,
        dpmpp_3m,
        dpmpp_sde,
        dpmpp_2m_sde,
        dpmpp_3m_sde,
        unipc,
        deis,
        ipndm,
        plms,
        lms,
    )
}

# Those that do not keep a known x0, or belong to networks of their own kind.
OTHERS = {
    solver.__name__: solver
    for solver in (
        euler_maruyama,
        reverse_diffusion,
        ancestral,
        ald,
        dpdm_sde,
        consistency,
        lcm,
        vdm,
    )
}


def sample(name, denoiser, schedule, points, x, noise=None, **options):
    """Run one oracle, handing it the schedule if it takes one."""
    solver = (SOLVERS | OTHERS)[name]
    if "schedule" in inspect.signature(solver).parameters:
        options["schedule"] = schedule
    return solver(denoiser, points, x, noise, **options)
