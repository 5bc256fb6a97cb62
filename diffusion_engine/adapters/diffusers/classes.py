"""The configurations of diffusers' schedulers: what each class does with its fields. Written for 0.42.

A class is a row of CLASSES: the levels it visits, the solver it is, and its fields with the class's own
defaults. A field is taken, or refused by its name where it asks for more than is taken; INERT is what nothing
reads without a field that is refused. REFUSED are the classes that no solver here is the same as.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ...processes import GaussianProcess, Point
from . import levels, orders, solving, straight
from .levels import NOTHING, Asked, Fields, asked
from .solving import Choice, Run
from .straight import or_straight

INERT = (
    "dynamic_thresholding_ratio", "time_shift_type", "base_shift", "max_shift", "base_image_seq_len",
    "max_image_seq_len", "noise_sampler_seed",
)  # fmt: skip
# Fields that only these values of are taken.
ONLY: dict[str, tuple[Any, ...]] = {
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "time_shift_type": ("exponential", "linear"),
    "sigma_schedule": ("karras", "exponential"),
    "solver_p": (None,),
}


@dataclass(frozen=True)
class Class:
    """The levels of a scheduler class for (fields, process, steps, what else is asked), the solver it is for
    (fields, run), and the fields it takes. `scaled`: its sample is x / alpha."""

    levels: Callable[[Fields, Any, int, Asked], list[Point]]
    solver: Callable[[Fields, Run], Choice]
    fields: Fields
    scaled: bool = False


TABLE = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon",
}  # fmt: skip
LATENT = TABLE | {"beta_start": 0.00085, "beta_end": 0.012}
SPACED = {"timestep_spacing": "linspace", "steps_offset": 0}
LEADING = SPACED | {"timestep_spacing": "leading"}
ZERO = {"rescale_betas_zero_snr": False}
THRESHOLD = {"thresholding": False, "sample_max_value": 1.0}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0} | THRESHOLD
SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
FLOW_SIGMAS = {"use_flow_sigmas": False, "flow_shift": 1.0}
SHIFTING = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
WHOLE = TABLE | SIGMAS | FLOW_SIGMAS | SHIFTING | THRESHOLD
END = {"final_sigmas_type": "zero"}
CLIPPED = {"lambda_min_clipped": -math.inf}
ORDERS = {
    "solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "lower_order_final": True,
}  # fmt: skip
DISTILLED = LATENT | ZERO | LEADING | CLIP | {
    "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": True,
    "original_inference_steps": 50,
}  # fmt: skip
FLOWS = {"num_train_timesteps": 1000, "shift": 1.0}
EDMS = {
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "sigma_min": 0.002, "sigma_max": 80.0,
    "sigma_data": 0.5, "sigma_schedule": "karras", "rho": 7.0,
}  # fmt: skip

DDIM = Class(
    levels.strided, solving.ddim, TABLE | CLIP | LEADING | ZERO | {"set_alpha_to_one": True}
)
DDPM = Class(
    levels.strided, solving.ddpm, TABLE | CLIP | LEADING | ZERO | {"variance_type": "fixed_small"}
)
CLASSES: dict[str, Class] = {
    "DDIMScheduler": DDIM,
    "DDIMParallelScheduler": DDIM,
    "CogVideoXDDIMScheduler": Class(
        levels.strided,
        solving.cogvideox,
        {**DDIM.fields, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
         "snr_shift_scale": 3.0},
    ),
    "DDPMScheduler": DDPM,
    "DDPMParallelScheduler": DDPM,
    "PNDMScheduler": Class(
        levels.strided,
        solving.pndm,
        TABLE | LEADING | {"set_alpha_to_one": False, "skip_prk_steps": False},
    ),
    "LCMScheduler": Class(levels.few, solving.lcm, DISTILLED | {"timestep_scaling": 10.0}),
    "EulerDiscreteScheduler": Class(
        levels.interpolated,
        solving.euler,
        TABLE | SPACED | ZERO | SIGMAS | END
        | {"interpolation_type": "linear", "timestep_type": "discrete", "sigma_min": None, "sigma_max": None},
        scaled=True,
    ),
    "EulerAncestralDiscreteScheduler": Class(
        levels.interpolated, solving.named("euler_ancestral"), TABLE | SPACED | ZERO, scaled=True
    ),
    "LMSDiscreteScheduler": Class(
        levels.interpolated, solving.lms, TABLE | SPACED | SIGMAS, scaled=True
    ),
    "HeunDiscreteScheduler": Class(
        levels.interpolated,
        solving.named("heun"),
        LATENT | SPACED | SIGMAS | {"clip_sample": False, "clip_sample_range": 1.0},
        scaled=True,
    ),
    "DPMSolverSDEScheduler": Class(
        levels.interpolated,
        solving.sde,
        LATENT | SPACED | SIGMAS,
        scaled=True,
    ),
    "KDPM2DiscreteScheduler": Class(
        partial(levels.interpolated, rounds=("use_karras_sigmas",)),
        solving.named("dpm_2"),
        LATENT | SPACED | SIGMAS,
        scaled=True,
    ),
    "KDPM2AncestralDiscreteScheduler": Class(
        partial(levels.interpolated, rounds=("use_karras_sigmas",)),
        solving.dpm_2_ancestral,
        LATENT | SPACED | SIGMAS,
        scaled=True,
    ),
    "DPMSolverMultistepScheduler": Class(
        or_straight(levels.multistep),
        orders.multistep,
        WHOLE | SPACED | ZERO | END | CLIPPED | ORDERS
        | {"use_lu_lambdas": False, "euler_at_final": False, "variance_type": None},
    ),
    "DPMSolverSinglestepScheduler": Class(
        or_straight(levels.whole),
        orders.singlestep,
        WHOLE | END | CLIPPED | ORDERS | {"lower_order_final": False, "variance_type": None},
    ),
    "DEISMultistepScheduler": Class(
        or_straight(partial(levels.whole, stays=True)),
        orders.deis,
        WHOLE | SPACED | ORDERS | {"algorithm_type": "deis", "solver_type": "logrho"},
    ),
    "UniPCMultistepScheduler": Class(
        or_straight(partial(levels.whole, stays=True)),
        orders.unipc,
        WHOLE | SPACED | ZERO | END
        | {"sigma_min": None, "sigma_max": None, "shift_terminal": None, "solver_order": 2,
           "solver_type": "bh2", "lower_order_final": True, "predict_x0": True, "disable_corrector": [],
           "solver_p": None},
    ),
    "FlowMatchEulerDiscreteScheduler": Class(
        straight.flow,
        solving.flow_euler,
        FLOWS | SIGMAS | SHIFTING
        | {"invert_sigmas": False, "shift_terminal": None, "stochastic_sampling": False},
    ),
    "FlowMatchLCMScheduler": Class(
        straight.flow,
        solving.flow_lcm,
        FLOWS | SIGMAS | SHIFTING
        | {"invert_sigmas": False, "shift_terminal": None, "scale_factors": None, "upscale_mode": "bicubic"},
    ),
    "FlowMatchHeunDiscreteScheduler": Class(
        straight.flow, solving.named("flow_heun"), FLOWS
    ),
    "EDMEulerScheduler": Class(straight.edm, solving.named("euler"), EDMS | END),
    "EDMDPMSolverMultistepScheduler": Class(
        straight.edm,
        orders.multistep,
        EDMS | END | ORDERS | THRESHOLD | {"euler_at_final": False},
    ),
    "CMStochasticIterativeScheduler": Class(
        straight.consistency,
        solving.consistency,
        {"num_train_timesteps": 40, "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5,
         "s_noise": 1.0, "rho": 7.0, "clip_denoised": True},
    ),
    "IPNDMScheduler": Class(
        straight.angles, solving.ipndm, {"num_train_timesteps": 1000, "trained_betas": None}
    ),
}  # fmt: skip
TOKENS = "its states are tokens, and no noised numbers"
LATER = "no solver here is the same"
REFUSED = {
    "AmusedScheduler": TOKENS,
    "BlockRefinementScheduler": TOKENS,
    "CogVideoXDPMScheduler": LATER,
    "CosineDPMSolverMultistepScheduler": "its noise is that of another package's Brownian path",
    "DDIMInverseScheduler": "it encodes: see Sampler.encode",
    "DDPMWuerstchenScheduler": LATER,
    "DPMSolverMultistepInverseScheduler": "it encodes: see Sampler.encode",
    "DiscreteDDIMScheduler": TOKENS,
    "EntropyBoundScheduler": TOKENS,
    "FlowMapEulerDiscreteScheduler": "its network is told where a step ends",
    "HeliosDMDScheduler": "its sample grows while it runs",
    "HeliosScheduler": "its sample grows while it runs",
    "KarrasVeScheduler": "diffusers itself has left it",
    "LTXEulerAncestralRFScheduler": LATER,
    "MiniMaxH3Scheduler": LATER,
    "PiflowScheduler": "its network's output is a policy of several steps",
    "RFD4ProteinaScheduler": LATER,
    "RePaintScheduler": "it goes back and forth in time",
    "SASolverScheduler": LATER,
    "SCMScheduler": LATER,
    "ScoreSdeVeScheduler": "its corrector reads the norm of the score, and no table does",
    "TCDScheduler": LATER,
    "UnCLIPScheduler": "its pipeline tells it the end of each step",
    "VQDiffusionScheduler": TOKENS,
}
# Their "sigma_min" is that of the table, whatever else the levels are.
TABLES_END = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler")
KNOWN = {*INERT, *(field for kind in CLASSES.values() for field in kind.fields)}


@dataclass(frozen=True)
class Levels:
    """The levels that a scheduler visits, with the end of its run: a grid.

    A last step that stays on its level changes nothing and is left out.
    """

    complete: ClassVar[bool] = True
    name: str
    fields: Fields

    def __call__(self, process: GaussianProcess, n: int) -> list[Point]:
        made = CLASSES[self.name].levels(self.fields, process, n, NOTHING)
        return made[:-1] if math.isclose(made[-2].lam, made[-1].lam, abs_tol=1e-6) else made


def understood(name: str, config: Fields) -> Fields:
    """The fields that a class takes, with its defaults, once none asks for more."""
    if name not in CLASSES:
        said = f"of the class {name}" if name else "without a _class_name"
        why = f": {REFUSED[name]}" if name in REFUSED else ", and the class decides the times"
        raise ValueError(
            f"a scheduler configuration {said} is not understood{why}; give a scheduler, or a saved "
            f"configuration, of {', '.join(CLASSES)}, or make the ScoreNetwork yourself"
        )
    given = {k: v for k, v in config.items() if not k.startswith("_")}
    made = {field: given.get(field, usual) for field, usual in CLASSES[name].fields.items()}
    # Most classes read the ends of Karras levels without having such fields.
    if "use_karras_sigmas" in made:
        made |= {f: given[f] for f in ("sigma_min", "sigma_max") if given.get(f) is not None}
    if made.get("thresholding") and made["sample_max_value"] != 1.0:
        raise ValueError(
            f"thresholding with sample_max_value={made['sample_max_value']!r} of the scheduler finds a "
            "threshold for every sample, and no table does; at 1 it is a clip to -1 and 1, which is taken"
        )
    for field, value in given.items():
        if not _fine(field, value, made):
            raise ValueError(
                f"the scheduler's configuration asks for {field}={value!r}, which is not taken over: give a "
                "configuration without it, and the levels as the sampler's sigmas="
            )
    _check_agreement(name, made)
    return made


def _fine(field: str, value: Any, made: Fields) -> bool:
    if field in made:
        return value in ONLY.get(field, (value,))
    return field in KNOWN or value is None or value is False


def _check_agreement(name: str, made: Fields) -> None:
    """Raises ValueError where fields contradict each other."""
    flags = asked(made)
    both = ["use_karras_sigmas", "use_flow_sigmas"]
    if len(flags) > 1 and not (flags == both and name == "UniPCMultistepScheduler"):
        raise ValueError(
            f"{flags[0]} and {flags[1]} of the scheduler are both set: set one of them"
        )
    flow = made.get("use_flow_sigmas")
    if name in TABLES_END and flow and made["final_sigmas_type"] != "zero":
        raise ValueError(
            "the scheduler's configuration asks for final_sigmas_type='sigma_min' with use_flow_sigmas, "
            "which would end straight paths on a level of the table: give 'zero'"
        )
    if "use_flow_sigmas" in made and not flow and made["prediction_type"] == "flow_prediction":
        raise ValueError(
            "prediction_type='flow_prediction' of the scheduler is of straight paths: set use_flow_sigmas"
        )
    if flow and made["prediction_type"] == "v_prediction":
        raise ValueError(
            "prediction_type='v_prediction' of the scheduler is of a variance-preserving table, and "
            "use_flow_sigmas of straight paths: set one of them"
        )
    if made.get("shift_terminal") is not None and flow is False:
        raise ValueError("shift_terminal of the scheduler goes with use_flow_sigmas: set both")
