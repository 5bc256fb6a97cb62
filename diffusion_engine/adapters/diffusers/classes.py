"""The configurations of diffusers' schedulers: what each class does with its fields. Written for 0.42.

A class is a row of CLASSES: the levels it visits, and the fields that decide them, with the class's own
defaults. A field is taken, or refused by its name where it asks for more than is taken, or not a network's
matter: SOLVER, what the class's own solver does, which is the Sampler's to say, and INERT, what nothing
reads without a field that is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ...processes import GaussianProcess, Point
from .levels import Fields, asked, few, flow, interpolated, multistep, strided, whole

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
KDPM2 = Class(partial(interpolated, rounds=("use_karras_sigmas",)), LATENT | SPACED | SIGMAS)
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
    "KDPM2DiscreteScheduler": KDPM2,
    "KDPM2AncestralDiscreteScheduler": KDPM2,
    "DPMSolverMultistepScheduler": Class(
        multistep,
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
            instead = "give a configuration without it, and the levels as the sampler's sigmas="
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
    if field in ("sigma_min", "sigma_max"):  # most classes read them without having such a field
        return value is None or not any(made.get(flag) for flag in SIGMAS)
    return field in KNOWN or value is None or value is False
