"""The configurations of diffusers' schedulers: what each class does with its fields. Written for 0.42.

A class is a row of CLASSES: the levels it visits, the solver it is, and its fields with the class's own
defaults. REFUSED are the classes that no network here goes with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ...processes import GaussianProcess, Point
from . import levels, orders, solving, straight
from .levels import NOTHING, Asked, Fields
from .solving import Choice, Run
from .straight import or_straight


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
CLIPS = {"clip_sample": True, "clip_sample_range": 1.0}
CLIP = CLIPS | THRESHOLD
SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
FLOW_SIGMAS = {"use_flow_sigmas": False, "flow_shift": 1.0}
SHIFTING = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
PLAIN = TABLE | SIGMAS | FLOW_SIGMAS | THRESHOLD
WHOLE = PLAIN | SHIFTING
END = {"final_sigmas_type": "zero"}
CLIPPED = {"lambda_min_clipped": -math.inf}
ORDERS = {
    "solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "lower_order_final": True,
}  # fmt: skip
DISTILLED = LATENT | ZERO | LEADING | CLIP | {
    "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": True,
    "original_inference_steps": 50, "timestep_scaling": 10.0,
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
        {**LATENT, **CLIPS, **LEADING, **ZERO, "set_alpha_to_one": True, "beta_schedule": "scaled_linear",
         "snr_shift_scale": 3.0},
    ),
    "DDPMScheduler": DDPM,
    "DDPMParallelScheduler": DDPM,
    "PNDMScheduler": Class(
        levels.strided,
        solving.pndm,
        TABLE | LEADING | {"set_alpha_to_one": False, "skip_prk_steps": False},
    ),
    "LCMScheduler": Class(levels.few, solving.lcm, DISTILLED),
    "TCDScheduler": Class(partial(levels.few, zero=False), solving.tcd, DISTILLED),
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
    "SASolverScheduler": Class(
        or_straight(partial(levels.whole, stays=True)),
        orders.stochastic_adams,
        {**PLAIN, **SPACED, **CLIPPED, "lower_order_final": True, "algorithm_type": "data_prediction",
         "predictor_order": 2, "corrector_order": 2, "tau_func": None, "variance_type": None},
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
    "SCMScheduler": Class(
        straight.trig, solving.named("scm"),
        {"num_train_timesteps": 1000, "prediction_type": "trigflow", "sigma_data": 0.5},
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
    "FlowMapEulerDiscreteScheduler": "its network is told where a step ends: wrap it with end_label=",
    "HeliosDMDScheduler": "its sample grows while it runs",
    "HeliosScheduler": "its sample grows while it runs",
    "KarrasVeScheduler": "diffusers itself has left it",
    "LTXEulerAncestralRFScheduler": LATER,
    "MiniMaxH3Scheduler": LATER,
    "PiflowScheduler": "its network's output is a policy of several steps",
    "RFD4ProteinaScheduler": LATER,
    "RePaintScheduler": "it goes back and forth in time",
    "ScoreSdeVeScheduler": "its corrector reads the norm of the score, and no table does",
    "UnCLIPScheduler": "its pipeline tells it the end of each step",
    "VQDiffusionScheduler": TOKENS,
}


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
