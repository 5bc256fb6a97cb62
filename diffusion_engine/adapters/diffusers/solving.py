"""The solver that a scheduler class is, with its options, by the class's fields.

A function of (fields, run) gives a Choice. What diffusers does otherwise than the formula says is a note, and
`published` says which of both is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from ... import checks
from ...processes import Point
from .levels import Fields
from .published import StridedDDIM, StridedPLMS


@dataclass(frozen=True)
class Run:
    """What a choice needs to know of a run: its whole points, where it begins among them, what is passed to
    the scheduler's step, and whether diffusers is followed where it is wrong."""

    points: tuple[Point, ...]
    begin: int = 0
    step: Mapping[str, Any] = field(default_factory=dict)
    published: bool = True

    @property
    def n(self) -> int:
        """The steps of the whole run."""
        return len(self.points) - 1

    def take(self, *names: str) -> dict[str, Any]:
        """Those of what is passed to `step`. Raises ValueError on another."""
        checks.names("the scheduler's step", self.step, names)
        return {name: self.step[name] for name in names if name in self.step}


@dataclass(frozen=True)
class Choice:
    """A solver's name, or an object, its options, and what is to be said."""

    solver: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def named(name: str) -> Callable[[Fields, Run], Choice]:
    """A class that is one solver without options."""

    def choose(c: Fields, run: Run) -> Choice:
        run.take()
        return Choice(name)

    return choose


def one_of(c: Fields, name: str, *values: Any) -> Any:
    """A field's value. Raises ValueError where it is none of these."""
    if c[name] not in values:
        raise ValueError(
            f"the scheduler's {name}={c[name]!r} is none of {', '.join(map(repr, values))}"
        )
    return c[name]


STRIDES = (
    "diffusers steps from t to t - num_train_timesteps // n whatever the next timestep of its list is, which "
    "here is another, so that steps end on other levels than the next ones begin on (published=True); "
    "published=False steps from each timestep to the next"
)


def stride(c: Fields, run: Run) -> int | None:
    """num_train_timesteps // n, where the timesteps do not keep to it."""
    by = c["num_train_timesteps"] // run.n
    times = [p.t for p in run.points[:-1]]
    kept = all(a - b == by for a, b in pairwise(times)) and times[-1] < by
    return None if kept else by


def ddim(c: Fields, run: Run) -> Choice:
    step = run.take("eta", "use_clipped_model_output")
    options = {
        "eta": step.get("eta", 0.0),
        "clipped_eps": bool(step.get("use_clipped_model_output", False)),
    }
    by = stride(c, run)
    if by is None:
        return Choice("ddim", options)
    notes = (STRIDES,)
    if run.published:
        return Choice(StridedDDIM(stride=by, **options), {}, notes)
    return Choice("ddim", options, notes)


def cogvideox(c: Fields, run: Run) -> Choice:
    run.take("eta", "use_clipped_model_output")  # which diffusers takes and does not read
    plain = replace(run, step={"use_clipped_model_output": True})
    return ddim(c, plain)


LAST_NOISE = (
    "diffusers adds noise of fixed_large to the clean x where the last timestep is above 0 (published=True); "
    "published=False leaves the last x as it is"
)


def ddpm(c: Fields, run: Run) -> Choice:
    run.take()
    kind = one_of(
        c, "variance_type", "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned",
        "learned_range",
    )  # fmt: skip
    if kind == "fixed_large_log":
        raise ValueError(
            "variance_type='fixed_large_log' of the scheduler takes the root of a negative logarithm, which "
            "is no number: give 'fixed_large'"
        )
    if kind == "learned" and run.published:
        raise ValueError(
            "variance_type='learned' of diffusers' DDPM takes the network's output for the variance, where "
            "it is trained as its logarithm: no table has the root of an output; published=False takes the "
            "logarithm"
        )
    options: dict[str, Any] = {"variance": kind.removesuffix("_log")}
    if kind != "fixed_large" or run.points[-2].t == 0.0:
        return Choice("ddpm", options)
    return Choice("ddpm", options | {"last_noise": run.published}, (LAST_NOISE,))


MIXES_V = (
    "diffusers' PNDM mixes the predictions v of several times, each of which is of its own axes "
    "(published=True); published=False mixes their eps"
)


STRIDED_PRK = (
    "diffusers' PNDM steps by its own stride whatever the next timestep of its list is, which here is "
    "another; here each step leads to the next timestep"
)


CUT = (
    "diffusers' image to image cuts a list of timesteps that has the second one twice, and so makes its "
    "first step twice and leaves out the next (published=True); published=False makes each once"
)


def pndm(c: Fields, run: Run) -> Choice:
    run.take()
    notes: tuple[str, ...] = ()
    mixes = "eps"
    if one_of(c, "prediction_type", "epsilon", "v_prediction") == "v_prediction":
        mixes, notes = "v" if run.published else "eps", (MIXES_V,)
    by = stride(c, run)
    if run.begin and c["skip_prk_steps"]:
        notes += (CUT,)
        if run.published:
            by = c["num_train_timesteps"] // run.n
            return Choice(StridedPLMS(by, mixes, cut=True), {}, notes)
        return Choice("plms", {"mixes": mixes, "start": "euler"}, notes)
    if run.begin:
        notes += (
            "diffusers cuts its list of timesteps, some of which it has twice, and so begins within a step; "
            "here no step is cut",
        )
    if not c["skip_prk_steps"]:
        notes += (STRIDED_PRK,) if by else ()
        return Choice("pndm", {"mixes": mixes, "published": run.published}, notes)
    if by is None:
        return Choice("plms", {"mixes": mixes}, notes)
    notes += (STRIDES,)
    if run.published:
        return Choice(StridedPLMS(by, mixes), {}, notes)
    return Choice("plms", {"mixes": mixes}, notes)


def lcm(c: Fields, run: Run) -> Choice:
    run.take()
    original = int(c["original_inference_steps"])
    return Choice("lcm", {"scaling": float(c["timestep_scaling"]), "original": original})


def tcd(c: Fields, run: Run) -> Choice:
    eta = run.take("eta").get("eta", 0.3)
    return Choice("tcd", {"eta": float(eta), "original": int(c["original_inference_steps"])})


CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")


def euler(c: Fields, run: Run) -> Choice:
    step = run.take(*CHURN)
    if not step.get("s_churn"):
        return Choice("euler")
    if c["prediction_type"] == "v_prediction":
        raise ValueError(
            "s_churn with prediction_type='v_prediction': diffusers' Euler takes the level before the churn "
            "for v and the one behind it for x; give s_churn=0"
        )
    return Choice("euler", step | {"call_before_noise": True})


def dpm_2_ancestral(c: Fields, run: Run) -> Choice:
    run.take()
    steep = any(0.0 < b.ratio < 0.1 * a.ratio for a, b in pairwise(run.points))
    note = (
        "diffusers takes the lower level of a step for the root of a difference of squares in float32, which "
        "loses its digits, or is none, where the levels fall steeply, as here; here it is made in float64"
    )
    return Choice("dpm_2_ancestral", {}, (note,) if steep else ())


def lms(c: Fields, run: Run) -> Choice:
    note = (
        "diffusers' LMS in image to image takes weights of steps before its first one, of which it has no "
        "predictions; here the first step is Euler's"
    )
    options = {"max_order": run.take("order").get("order", 4)}
    return Choice("lms", options, (note,) if run.begin else ())


def sde(c: Fields, run: Run) -> Choice:
    step = run.take("s_noise")
    note = "diffusers' Brownian path has sigma for its clock, and here e^(2 lam), in which it is Brownian"
    return Choice("dpmpp_sde", step, (note,))


def flow_euler(c: Fields, run: Run) -> Choice:
    run.take(*CHURN)  # which diffusers takes and does not read
    return renoised(c, run) if c["stochastic_sampling"] else Choice("euler")


def renoised(c: Fields, run: Run) -> Choice:
    """x0, noised anew to the next level. Raises ValueError where diffusers' x0 would be another."""
    if c["invert_sigmas"]:
        raise ValueError(
            "invert_sigmas of the scheduler, whose networks predict x0 - eps, with noise in its steps, which "
            "take their x0 from eps - x0: set one of them"
        )
    return Choice("euler_ancestral", {"eta": 1e9})  # an eta at which all noise is fresh


def flow_lcm(c: Fields, run: Run) -> Choice:
    run.take()
    if c["scale_factors"]:
        raise ValueError(
            "scale_factors of the scheduler grow the sample while it runs, whose shape here stays"
        )
    return renoised(c, run)


def consistency(c: Fields, run: Run) -> Choice:
    run.take()
    if c["s_noise"] != 1.0:
        raise ValueError(f"s_noise={c['s_noise']:g} of the scheduler: the solver takes 1")
    note = "diffusers' last noise is the root of sigma_min's rounding to float32, and here there is none"
    return Choice("consistency", {}, (note,))


def ipndm(c: Fields, run: Run) -> Choice:
    run.take()
    note = (
        "diffusers' first step, from alpha = 0, takes the estimate of x0 for 0 (published=True); "
        "published=False takes the network's"
    )
    if run.points[run.begin].alpha > 0.0:
        return Choice("ipndm")
    return Choice("ipndm", {"start": "blind" if run.published else "euler"}, (note,))
