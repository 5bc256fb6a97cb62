"""The configurations of diffusers' schedulers: what each class does with its fields. Written for 0.42.

A class is a row of CLASSES: the levels it visits, and the fields that decide them, with the class's own
defaults. A field is taken, or refused by its name where it asks for more than is taken, or not a network's
matter: SOLVER, what the class's own solver does, which is the Sampler's to say, and INERT, what nothing
reads without a field that is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..grids import distilled
from ..processes import Discrete, FlowMatching, GaussianProcess, Point

Fields = Mapping[str, Any]
Array = np.ndarray

SOLVER = (
    "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final", "predict_x0",
    "disable_corrector", "solver_p", "predictor_order", "corrector_order", "tau_func", "skip_prk_steps",
    "stochastic_sampling", "noise_sampler_seed", "variance_type",
)  # fmt: skip
INERT = (
    "dynamic_thresholding_ratio", "sample_max_value", "time_shift_type", "base_shift", "max_shift",
    "base_image_seq_len", "max_image_seq_len", "timestep_scaling",
)  # fmt: skip
# Fields that only these values of are taken.
ONLY: dict[str, tuple[Any, ...]] = {
    "thresholding": (False, None),
    "use_beta_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
    "invert_sigmas": (False, None),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete", "continuous"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "timestep_scaling": (10.0,),
    "original_inference_steps": (50,),
}
INSTEAD = {
    "timestep_scaling": "give a configuration with 10, and the solver 'lcm' its scaling=",
    "original_inference_steps": "give a configuration with 50, and the solver 'lcm' its original=",
}


def spaced(c: Fields, n: int, last: int, extra: int = 0) -> Array:
    """n timesteps of a table that ends before `last`, noisiest first, of a spacing that has n + extra."""
    count, spacing = c["num_train_timesteps"], c.get("timestep_spacing", "linspace")
    if spacing == "linspace":
        times: Array = np.linspace(0.0, last - 1.0, n + extra)[::-1]
    elif spacing == "leading":
        times = np.arange(n + extra)[::-1] * float(last // (n + extra)) + c["steps_offset"]
    else:
        times = np.round(np.arange(float(last), 0.0, -count / n)) - 1.0
    if n > count or times[0] > count - 1.0:
        raise ValueError(
            f"{n} steps of timestep_spacing={spacing!r} with steps_offset={c.get('steps_offset', 0)} begin "
            f"outside the {count} timesteps; ask for fewer"
        )
    return times[:n]


def ended(made: list[Point], end: Point) -> list[Point]:
    """A run with its end. A step that stays on its level changes nothing: it is left out."""
    return made if math.isclose(made[-1].lam, end.lam, abs_tol=1e-6) else [*made, end]


def strided(c: Fields, process: Discrete, n: int) -> list[Point]:
    """DDIM, DDPM, PNDM: whole timesteps, then alpha_bar of 1, or the first of the table."""
    times = np.round(spaced(c, n, c["num_train_timesteps"]))
    zero = c.get("set_alpha_to_one", True)
    return ended([process.at(t) for t in times], process.clean if zero else process.at(0.0))


def few(c: Fields, process: Discrete, n: int, zero: bool = True) -> list[Point]:
    """LCM and TCD: places of the distillation's timesteps."""
    made = [process.at(t) for t in distilled(process, n, c["original_inference_steps"])]
    return ended(made, process.clean if zero else process.at(0.0))


def along(kind: str, high: float, low: float, n: int) -> Array:
    """n levels from high to low."""
    if kind == "use_karras_sigmas":
        made = np.linspace(high ** (1 / 7), low ** (1 / 7), n) ** 7
    else:
        made = np.exp(np.linspace(math.log(high), math.log(low), n))
    made[-1], made[0] = low, high
    return made


def asked(c: Fields) -> list[str]:
    """The fields that ask for other levels than those of timesteps."""
    flags = ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas", "use_flow_sigmas")
    return [flag for flag in flags if c.get(flag)]


def labelled(process: Discrete, ratios: Array, label: Callable[[float], float]) -> list[Point]:
    """The points of levels, told the label that a class makes of the level's place in the table."""
    made = [process.at_ratio(g) for g in ratios.tolist()]
    if (
        ratios[0] == process.ratios[-1]
    ):  # the last timestep's, though a terminal 4096 may not be the largest
        made[0] = process.noisiest
    return [replace(at, t=label(at.t)) for at in made]


def _ends(c: Fields, ratios: Array) -> tuple[float, float]:
    """The levels that Karras and exponential ones run between."""
    high, low = c.get("sigma_max"), c.get("sigma_min")
    return ratios[0] if high is None else high, ratios[-1] if low is None else low


def interpolated(c: Fields, process: Discrete, n: int, rounds: tuple[str, ...] = ()) -> list[Point]:
    """Euler, Heun, LMS and the like: fractional timesteps whose sigma is interpolated."""
    times = spaced(c, n, c["num_train_timesteps"])
    ratios = np.interp(times, np.arange(float(len(process.ratios))), process.ratios)
    if flags := asked(c):
        label = round if flags[0] in rounds else float
        made = labelled(process, along(flags[0], *_ends(c, ratios), n), label)
    else:
        made = [replace(process.at_ratio(g), t=t) for g, t in zip(ratios, times, strict=True)]
    zero = c.get("final_sigmas_type", "zero") == "zero"
    return ended(made, process.clean if zero else process.at(0.0))


def whole(
    c: Fields,
    process: GaussianProcess,
    n: int,
    rounds: tuple[str, ...] = ("use_karras_sigmas", "use_lu_lambdas"),
    stays: bool = False,
) -> list[Point]:
    """DPM-Solver, DEIS, UniPC and SA-Solver: timesteps of a run of n + 1 without the last, told whole.

    rounds  the fields whose labels are rounded; others are cut off
    stays   with other levels than those of timesteps, "sigma_min" ends on the last of them
    """
    zero = c.get("final_sigmas_type", "sigma_min") == "zero"
    if isinstance(process, FlowMatching):
        made = flow_sigmas(c, n)
        return ended(made, process.clean if zero else made[-1])
    assert isinstance(process, Discrete)
    if flags := asked(c):
        label = round if flags[0] in rounds else math.floor
        made = labelled(process, along(flags[0], *_ends(c, process.ratios[::-1]), n), label)
        return ended(made, process.clean if zero else made[-1] if stays else process.at(0.0))
    clipped = int(np.sum(-np.log(process.ratios) < c.get("lambda_min_clipped", -math.inf)))
    extra = 0 if c.get("timestep_spacing") == "trailing" else 1
    times = np.round(spaced(c, n, c["num_train_timesteps"] - clipped, extra)).astype(int)
    made = [replace(process.at_ratio(process.ratios[t]), t=float(t)) for t in times]
    return ended(made, process.clean if zero else process.at(0.0))


def flow_sigmas(c: Fields, n: int) -> list[Point]:
    """use_flow_sigmas: the levels of straight paths; UniPC starts at all noise but 1e-6."""
    count, unipc = c["num_train_timesteps"], "shift_terminal" in c
    if unipc:
        sigmas = shift(np.linspace(1.0, 1.0 / count, n + 1)[:-1], c["flow_shift"])
        sigmas = stretch(sigmas, c["shift_terminal"])
        sigmas[0] -= 1e-6 * (abs(sigmas[0] - 1.0) < 1e-6)
    else:
        sigmas = shift(np.linspace(1.0 - 1.0 / count, 0.0, n + 1)[:-1], c["flow_shift"])
    return [Point(math.floor(s * count) / count, 1.0 - s, s) for s in sigmas.tolist()]


def shift(sigmas: Array, by: float) -> Array:
    """by s / (1 + (by - 1) s) (Esser et al. 2024, eq. 23)."""
    return by * sigmas / (1.0 + (by - 1.0) * sigmas)


def stretch(sigmas: Array, last: float | None) -> Array:
    """1 - s scaled so that the levels end at `last`."""
    return 1.0 - (1.0 - sigmas) * (1.0 - last) / (1.0 - sigmas[-1]) if last else sigmas


def flow(c: Fields, process: FlowMatching, n: int) -> list[Point]:
    """Flow matching: uniform from 1 to the shifted last level of training, and shifted again."""
    first, by = 1.0 / c["num_train_timesteps"], c["shift"]
    sigmas = shift(np.linspace(1.0, float(shift(np.array(first), by)), n), by)
    sigmas = stretch(sigmas, c.get("shift_terminal"))
    if flags := asked(c):
        sigmas = along(flags[0], sigmas[0], sigmas[-1], n)
    return [*map(process.at, np.minimum(sigmas, 1.0)), process.clean]


@dataclass(frozen=True)
class Class:
    """The levels of a scheduler class for (fields, process, steps), and the fields it takes."""

    levels: Callable[[Fields, Any, int], list[Point]]
    fields: Fields


TABLE = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon",
}  # fmt: skip
LATENT = TABLE | {"beta_start": 0.00085, "beta_end": 0.012}
SPACED = {"timestep_spacing": "linspace", "steps_offset": 0}
LEADING = SPACED | {"timestep_spacing": "leading"}
ZERO = {"rescale_betas_zero_snr": False}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0, "thresholding": False}
SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
FLOW_SIGMAS = {"use_flow_sigmas": False, "flow_shift": 1.0}
SHIFTING = {"use_dynamic_shifting": False}
WHOLE = TABLE | SIGMAS | FLOW_SIGMAS | {"thresholding": False}
END = {"final_sigmas_type": "zero"}
CLIPPED = {"lambda_min_clipped": -math.inf}
DISTILLED = LATENT | ZERO | LEADING | CLIP | {
    "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": True,
    "original_inference_steps": 50,
}  # fmt: skip
FLOWS = {"num_train_timesteps": 1000, "shift": 1.0}

DDPM = Class(strided, TABLE | CLIP | LEADING | ZERO)
DDIM = Class(strided, {**DDPM.fields, "set_alpha_to_one": True})
CLASSES: dict[str, Class] = {
    "DDIMScheduler": DDIM,
    "DDIMParallelScheduler": DDIM,
    "DDPMScheduler": DDPM,
    "DDPMParallelScheduler": DDPM,
    "PNDMScheduler": Class(strided, TABLE | LEADING | {"set_alpha_to_one": False}),
    "LCMScheduler": Class(few, DISTILLED | {"timestep_scaling": 10.0}),
    "TCDScheduler": Class(partial(few, zero=False), DISTILLED),
    "EulerDiscreteScheduler": Class(
        interpolated,
        TABLE | SPACED | ZERO | SIGMAS | END
        | {"interpolation_type": "linear", "timestep_type": "discrete", "sigma_min": None, "sigma_max": None},
    ),
    "EulerAncestralDiscreteScheduler": Class(interpolated, TABLE | SPACED | ZERO),
    "LMSDiscreteScheduler": Class(interpolated, TABLE | SPACED | SIGMAS),
    "HeunDiscreteScheduler": Class(
        interpolated,
        LATENT | SPACED | SIGMAS | {"clip_sample": False, "clip_sample_range": 1.0},
    ),
    "DPMSolverSDEScheduler": Class(interpolated, LATENT | SPACED | SIGMAS),
    "KDPM2DiscreteScheduler": Class(
        partial(interpolated, rounds=("use_karras_sigmas",)), LATENT | SPACED | SIGMAS
    ),
    "KDPM2AncestralDiscreteScheduler": Class(
        partial(interpolated, rounds=("use_karras_sigmas",)), LATENT | SPACED | SIGMAS
    ),
    "DPMSolverMultistepScheduler": Class(
        whole,
        WHOLE | SPACED | ZERO | END | CLIPPED | SHIFTING | {"use_lu_lambdas": False},
    ),
    "DPMSolverSinglestepScheduler": Class(whole, WHOLE | END | CLIPPED | SHIFTING),
    "DEISMultistepScheduler": Class(partial(whole, stays=True), WHOLE | SPACED | SHIFTING),
    "SASolverScheduler": Class(partial(whole, stays=True), WHOLE | SPACED | CLIPPED),
    "UniPCMultistepScheduler": Class(
        partial(whole, stays=True),
        WHOLE | SPACED | ZERO | END | SHIFTING
        | {"sigma_min": None, "sigma_max": None, "shift_terminal": None},
    ),
    "FlowMatchEulerDiscreteScheduler": Class(
        flow, FLOWS | SIGMAS | SHIFTING | {"invert_sigmas": False, "shift_terminal": None}
    ),
    "FlowMatchHeunDiscreteScheduler": Class(flow, FLOWS),
}  # fmt: skip
# Their "sigma_min" is that of the table, whatever else the levels are.
TABLES_END = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler")
KNOWN = {*SOLVER, *INERT, *(field for kind in CLASSES.values() for field in kind.fields)}


@dataclass(frozen=True)
class Levels:
    """The levels that a scheduler visits, with the end of its run: a grid."""

    complete: ClassVar[bool] = True
    name: str
    fields: Fields

    def __call__(self, process: GaussianProcess, n: int) -> list[Point]:
        return CLASSES[self.name].levels(self.fields, process, n)


def understood(name: str, config: Fields) -> Fields:
    """The fields that a class takes, with its defaults, once none asks for more."""
    if name not in CLASSES:
        said = f"of the class {name}" if name else "without a _class_name"
        raise ValueError(
            f"a scheduler configuration {said} is not understood, and the class decides the times: give a "
            f"scheduler, or a saved configuration, of {', '.join(CLASSES)}, or make the ScoreNetwork yourself"
        )
    given = {k: v for k, v in config.items() if not k.startswith("_")}
    made = {field: given.get(field, usual) for field, usual in CLASSES[name].fields.items()}
    for field, value in given.items():
        if not _fine(field, value, made):
            instead = (
                "give a configuration without it, and the levels as the sampler's times= or sigmas="
            )
            raise ValueError(
                f"the scheduler's configuration asks for {field}={value!r}, which is not taken over: "
                + INSTEAD.get(field, instead)
            )
    if len(flags := asked(made)) > 1:
        raise ValueError(
            f"{flags[0]} and {flags[1]} of the scheduler are both set: set one of them"
        )
    if name in TABLES_END and made["use_flow_sigmas"] and made["final_sigmas_type"] != "zero":
        raise ValueError(
            "the scheduler's configuration asks for final_sigmas_type='sigma_min' with use_flow_sigmas, "
            "which would end straight paths on a level of the table: give 'zero'"
        )
    return made


def _fine(field: str, value: Any, made: Fields) -> bool:
    if field in made:
        return value in ONLY.get(field, (value,))
    if field in (
        "sigma_min",
        "sigma_max",
    ):  # most classes read them, though they have no such field
        return value is None or not any(made.get(flag) for flag in SIGMAS)
    return field in KNOWN or value is None or value is False
