"""The solvers of several orders: DPM-Solver's, DEIS's and UniPC's classes; see solving.py."""

from __future__ import annotations

from typing import Any

from ...processes import Point
from .levels import Fields
from .published import TimedSASolver
from .solving import Choice, Run, one_of


def variant(c: Fields) -> str:
    """Of DPM-Solver: names of other classes' formulas count as midpoint, as in diffusers."""
    kind = one_of(c, "solver_type", "midpoint", "heun", "logrho", "bh1", "bh2")
    return kind if kind == "heun" else "midpoint"


def lowered(c: Fields, run: Run) -> bool:
    """Whether the last orders fall: only in short runs."""
    return bool(c["lower_order_final"]) and run.n < 15


FLIPPED = (
    "diffusers' third-order step of sde-dpmsolver++ weighs D2 with -1/2 where the expansion has +1/2 "
    "(published=True); published=False has +1/2"
)


FRESH = (
    "diffusers draws noise of its own for each state of a step, of which the states before it know nothing "
    "(published=True); published=False has one path for all, which is of second order in law"
)


def multistep(c: Fields, run: Run) -> Choice:
    run.take()
    kind = algorithm(c, "dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver")
    order = one_of(c, "solver_order", 1, 2, 3)
    ends = lowered(c, run)
    euler_last = bool(c["euler_at_final"])
    if order == 1 and kind != "sde-dpmsolver":
        return Choice("ddim", {"eta": 1.0 if kind == "sde-dpmsolver++" else 0.0})
    options: dict[str, Any] = {"variant": variant(c), "lower_order_final": euler_last or ends}
    third = options | {"lower_order_final": ends, "euler_at_final": euler_last, "kappa": 1.0}
    if kind == "dpmsolver++":
        return Choice("dpmpp_2m", options) if order == 2 else Choice("dpmpp_3m", third)
    if kind == "dpmsolver":
        return Choice("dpm_solver_2m", options) if order == 2 else Choice("dpm_solver_3m", third)
    if kind == "sde-dpmsolver":
        if order == 3:
            raise ValueError(
                "solver_order=3 of algorithm_type='sde-dpmsolver' is no formula of diffusers: give 2"
            )
        return Choice("dpm_solver_sde", options | {"max_order": order})
    if order == 2:
        return Choice("dpmpp_2m_sde", options)
    return Choice("dpmpp_3m_sde", third | {"flipped": run.published}, (FLIPPED,))


def algorithm(c: Fields, *kinds: str) -> str:
    """algorithm_type, "deis" being another class's word for "dpmsolver++"."""
    kind = one_of(c, "algorithm_type", *kinds, "deis")
    kind = "dpmsolver++" if kind == "deis" else kind
    if not kind.endswith("++") and c["final_sigmas_type"] == "zero":
        raise ValueError(
            f"algorithm_type={kind!r} with final_sigmas_type='zero' of the scheduler: the formula has no end "
            "at clean data; give 'sigma_min'"
        )
    return kind


def singlestep(c: Fields, run: Run) -> Choice:
    run.take()
    kind = algorithm(c, "dpmsolver++", "sde-dpmsolver++", "dpmsolver")
    order = one_of(c, "solver_order", 1, 2, 3)
    ends = c["lower_order_final"] or run.n % order != 0 or c["final_sigmas_type"] == "zero"
    options: dict[str, Any] = {
        "max_order": order, "variant": variant(c), "lower_order_final": bool(ends), "begin": run.begin,
    }  # fmt: skip
    if kind == "dpmsolver":
        return Choice("dpm_solver_singlestep", options)
    if kind == "dpmsolver++":
        return Choice("dpmpp_singlestep", options)
    options |= {"eta": 1.0, "fresh": run.published}
    if order == 3 and options["variant"] == "heun":
        return Choice("dpmpp_singlestep", options | {"flipped": run.published}, (FRESH, FLIPPED))
    return Choice("dpmpp_singlestep", options, (FRESH,) if order > 1 else ())


def deis(c: Fields, run: Run) -> Choice:
    run.take()
    order = one_of(c, "solver_order", 1, 2, 3)
    return Choice(
        "deis", {"variant": "logrho", "max_order": order, "lower_order_final": lowered(c, run)}
    )


BH1_AT_0 = (
    "diffusers' last step of bh1 to sigma=0 multiplies 0 by infinity and is no number; here it ends on the "
    "last estimate of x0"
)


def unipc(c: Fields, run: Run) -> Choice:
    run.take()
    kind = one_of(c, "solver_type", "bh1", "bh2", "midpoint", "heun", "logrho")
    kind = kind if kind == "bh1" else "bh2"
    options = {
        "max_order": one_of(c, "solver_order", 1, 2, 3),
        "variant": kind,
        "lower_order_final": bool(c["lower_order_final"]),
        "predict_x0": bool(c["predict_x0"]),
        "disable_corrector": tuple(c["disable_corrector"]),
    }
    ends = run.points[-1].sigma == 0.0
    return Choice("unipc", options, (BH1_AT_0,) if ends and kind == "bh1" else ())


NEAR_1 = (
    "diffusers takes alpha = 1 - sigma of sigmas in float32, which leaves it few digits where the first "
    "sigma is near 1, as here; here it is made in float64"
)
NOISY = (200, 800)  # the timesteps between which diffusers' tau is 1 where nothing else is said


def stochastic_adams(c: Fields, run: Run) -> Choice:
    run.take()
    if one_of(c, "algorithm_type", "data_prediction", "noise_prediction") == "noise_prediction":
        raise ValueError(
            "algorithm_type='noise_prediction' of the scheduler interpolates eps, and SA-Solver here x0: "
            "give 'data_prediction'"
        )
    options: dict[str, Any] = {
        "predictor_order": c["predictor_order"], "corrector_order": c["corrector_order"], "simple": True,
        "lower_order_final": bool(c["lower_order_final"]), "tau_at": "start",
    }  # fmt: skip
    notes = (NEAR_1,) if c["use_flow_sigmas"] and run.points[0].alpha < 5e-4 else ()
    if c["tau_func"] is not None:
        times = tuple(zip(*((p.ratio, timestep(c, p)) for p in run.points), strict=True))
        taus = tuple(float(c["tau_func"](t)) for t in times[1])
        return Choice(TimedSASolver(**options, levels=times[0], taus=taus), {}, notes)
    low, high = NOISY
    noisy = [p.ratio for p in run.points if low <= timestep(c, p) <= high]
    if not noisy:
        return Choice("sa_solver", options | {"eta": 0.0}, notes)
    return Choice("sa_solver", options | {"s_tmin": min(noisy), "s_tmax": max(noisy)}, notes)


def timestep(c: Fields, at: Point) -> int:
    """What a scheduler calls the time of a point."""
    return int(at.t * c["num_train_timesteps"] if c["use_flow_sigmas"] else at.t)
