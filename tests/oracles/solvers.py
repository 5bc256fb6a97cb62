"""Oracles by the names of their solvers: that of NAME is the function NAME in a file of this folder.

Those of x share one signature, NAME(denoiser, points, x, noise=None, **options):

points     (t, alpha, sigma, lam) tuples, noisier first; the last may have sigma = 0, lam = inf.
denoiser   (x, point) -> the estimate of x0; point is one of `points` or one made by the solver.
noise      (step, stage) -> standard normals shaped like x; called only where the scale is not 0, and in the
           order in which the solver's rows draw: a test hands both the same normals, one after another.
options    keyword-only. Solvers that leave the grid also take `schedule`.

Those of CLD's [x, v] are in cld.py, and say theirs.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

MODULES = [
    importlib.import_module(f"{__package__}.{found.name}")
    for found in pkgutil.iter_modules([str(Path(__file__).parent)])
    if found.name != "solvers"
]


def named(name):
    """The oracles of a solver: one, where all is well."""
    found = [vars(module).get(name) for module in MODULES]
    return list({f for f in found if inspect.isfunction(f)})


def oracle(name):
    """The oracle of a solver. Raises LookupError where there is none, or more than one."""
    found = named(name)
    if len(found) != 1:
        raise LookupError(
            f"tests/oracles/ has {len(found)} functions {name}, a solver has one oracle: write there, from "
            f"the paper alone, a loop in float64, {name}(denoiser, points, x, noise=None, **options); "
            "tests/oracles/solvers.py says what these are"
        )
    return found[0]


def sample(name, denoiser, schedule, points, x, noise=None, **options):
    """Run one oracle of x, handing it the schedule if it takes one."""
    solver = oracle(name)
    if "schedule" in inspect.signature(solver).parameters:
        options["schedule"] = schedule
    return solver(denoiser, points, x, noise, **options)
