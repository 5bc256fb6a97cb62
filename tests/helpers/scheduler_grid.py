"""The configurations of diffusers' schedulers that are compared: products of the values of some fields."""

import inspect
import itertools

from scheduler_cases import class_of

EPS, V, X0, FLOW = "epsilon", "v_prediction", "sample", "flow_prediction"
SPACINGS = ("leading", "trailing", "linspace")
KINDS = (None, "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
SHIFTED = {"use_flow_sigmas": True, "prediction_type": FLOW}
BETAS = (
    {},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": [0.0002 * (i + 1) for i in range(100)], "num_train_timesteps": 100},
    {"rescale_betas_zero_snr": True, "prediction_type": V},
)


def kind(name):
    """The fields that ask for other levels."""
    return {name: True} if name else {}


def levels():
    """What decides the levels alone: spacings, offsets, kinds of sigmas, ends, tables, predictions."""
    for spacing, offset in itertools.product(SPACINGS, (0, 1)):
        yield {"timestep_spacing": spacing, "steps_offset": offset}
    for name, spacing, end in itertools.product(KINDS, SPACINGS, ("zero", "sigma_min")):
        yield kind(name) | {"timestep_spacing": spacing, "final_sigmas_type": end}
    for name, betas in itertools.product(KINDS, BETAS):
        yield kind(name) | betas
    for name, prediction in itertools.product(KINDS, (EPS, V, X0)):
        yield kind(name) | {"prediction_type": prediction}
    for spacing, betas in itertools.product(SPACINGS, BETAS):
        yield {"timestep_spacing": spacing} | betas
    for spacing, one in itertools.product(SPACINGS, (True, False)):
        yield {"timestep_spacing": spacing, "set_alpha_to_one": one, "steps_offset": 1}
    for name in KINDS[1:4]:
        yield kind(name) | {"sigma_min": 0.1, "sigma_max": 10.0}
    for spacing, name in itertools.product(SPACINGS, KINDS):
        yield kind(name) | {"timestep_spacing": spacing, "interpolation_type": "log_linear"}
    for name in KINDS[:4]:
        yield kind(name) | {"timestep_type": "continuous", "prediction_type": V}
    for spacing, limit in itertools.product(SPACINGS, (-3.0, -1.0)):
        yield {"timestep_spacing": spacing, "lambda_min_clipped": limit}
    for by, end in itertools.product((1.0, 3.0), ("zero", "sigma_min")):
        yield SHIFTED | {"flow_shift": by, "final_sigmas_type": end}
    yield SHIFTED | {"use_karras_sigmas": True}
    yield SHIFTED | {"shift_terminal": 0.1}
    yield SHIFTED | {"prediction_type": EPS}


def clipped():
    """Clips, and thresholds that are clips."""
    for prediction, spacing in itertools.product((EPS, V, X0), SPACINGS):
        own = {"prediction_type": prediction, "timestep_spacing": spacing}
        yield own | {"clip_sample": False}
        yield own | {"clip_sample": True, "clip_sample_range": 0.5}
        yield own | {"thresholding": True}
    yield {"thresholding": True, "sample_max_value": 2.0}


def orders(**fields):
    """The products of a solver's own fields, on four kinds of levels."""
    names, values = fields.keys(), fields.values()
    for chosen in itertools.product(*values):
        own = dict(zip(names, chosen, strict=True))
        for name, end in itertools.product((None, "use_karras_sigmas"), ("zero", "sigma_min")):
            yield own | kind(name) | {"final_sigmas_type": end}
        yield own | SHIFTED
        yield own | {"prediction_type": V, "timestep_spacing": "trailing", "thresholding": True}


DPM = {
    "solver_order": (1, 2, 3),
    "solver_type": ("midpoint", "heun"),
    "lower_order_final": (True, False),
}
SINGLE = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++")
OWN = {
    "DPMSolverMultistepScheduler": orders(
        algorithm_type=(*SINGLE, "sde-dpmsolver"), **DPM, euler_at_final=(False, True)
    ),
    "DPMSolverSinglestepScheduler": orders(algorithm_type=SINGLE, **DPM),
    "EDMDPMSolverMultistepScheduler": orders(
        algorithm_type=("dpmsolver++", "sde-dpmsolver++"), **DPM, euler_at_final=(False, True)
    ),
    "DEISMultistepScheduler": orders(solver_order=(1, 2, 3), lower_order_final=(True, False)),
    "UniPCMultistepScheduler": orders(
        solver_order=(1, 2, 3), solver_type=("bh1", "bh2"), lower_order_final=(True, False),
        predict_x0=(True, False), disable_corrector=([], [0, 2]),
    ),
    "SASolverScheduler": orders(
        predictor_order=(1, 2, 3, 4), corrector_order=(1, 2, 3, 4), lower_order_final=(True, False)
    ),
    "DDPMScheduler": orders(
        variance_type=("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
        timestep_spacing=SPACINGS, steps_offset=(0, 1),
    ),
    "PNDMScheduler": orders(
        skip_prk_steps=(True, False), timestep_spacing=SPACINGS, set_alpha_to_one=(True, False)
    ),
    "TCDScheduler": orders(
        original_inference_steps=(20, 50), set_alpha_to_one=(True, False), prediction_type=(EPS, V, X0)
    ),
    "SCMScheduler": orders(sigma_data=(0.5, 1.0)),
    "LCMScheduler": orders(
        original_inference_steps=(20, 50), timestep_scaling=(5.0, 10.0), prediction_type=(EPS, V, X0)
    ),
    "EDMEulerScheduler": orders(
        sigma_schedule=("karras", "exponential"), sigma_data=(0.5, 1.0), rho=(5.0, 7.0),
        prediction_type=(EPS, V),
    ),
    "CMStochasticIterativeScheduler": orders(clip_denoised=(True, False), sigma_data=(0.5, 1.0)),
    "CogVideoXDDIMScheduler": orders(snr_shift_scale=(1.0, 3.0), rescale_betas_zero_snr=(True, False)),
}  # fmt: skip
FLOWING = [
    {"shift": by} | kind(name) | more
    for by, name, more in itertools.product(
        (1.0, 3.0), KINDS[:4],
        ({}, {"shift_terminal": 0.1}, {"stochastic_sampling": True}, {"invert_sigmas": True}),
    )
]  # fmt: skip
ASKED = {
    "TCDScheduler": [{"step": {"eta": 0.0}}, {"step": {"eta": 0.7}}, {"timesteps": [900, 500, 20]}],
    "DDIMScheduler": [{"step": {"eta": 0.6}}, {"step": {"eta": 1.0, "use_clipped_model_output": True}}],
    "DDPMScheduler": [{"timesteps": [900, 500, 20]}],
    "EulerDiscreteScheduler": [
        {"timesteps": [900, 500, 20]}, {"sigmas": [10.0, 5.0, 1.0, 0.1, 0.0]},
        {"step": {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 50.0, "s_noise": 1.01}},
    ],
    "LMSDiscreteScheduler": [{"step": {"order": 2}}],
    "HeunDiscreteScheduler": [{"timesteps": [900, 500, 20]}],
    "DPMSolverMultistepScheduler": [{"timesteps": [900, 500, 20]}],
    "DPMSolverSinglestepScheduler": [{"timesteps": [900, 500, 20]}],
    "FlowMatchEulerDiscreteScheduler": [
        {"sigmas": [1.0, 0.7, 0.3]}, {"timesteps": [900.0, 500.0, 20.0]},
        {"fields": {"use_dynamic_shifting": True}, "mu": 0.8},
        {"fields": {"use_dynamic_shifting": True, "time_shift_type": "linear"}, "mu": 0.8},
    ],
    "UniPCMultistepScheduler": [
        {"fields": SHIFTED, "sigmas": [0.9, 0.7, 0.3]},
        {"fields": SHIFTED | {"use_dynamic_shifting": True}, "mu": 0.8},
    ],
    "DEISMultistepScheduler": [{"fields": SHIFTED | {"use_dynamic_shifting": True}, "mu": 0.8}],
    "CMStochasticIterativeScheduler": [{"timesteps": [39, 22, 0]}],
}  # fmt: skip
OWN = {name: list(made) for name, made in OWN.items()}


def cases(name):
    """(configuration, steps, what else is asked) of a class, each once."""
    fields = inspect.signature(class_of(name).__init__).parameters
    few = (
        (4,)
        if name in ("LCMScheduler", "TCDScheduler", "CMStochasticIterativeScheduler")
        else (10, 7)
    )
    few = (2,) if name == "SCMScheduler" else few
    listed = [(config, n) for n in few for config in (*levels(), *clipped())]
    listed += [(config, n) for n in (*few[:1], 16) for config in OWN.get(name, ())]
    listed += [(config, 10) for config in (FLOWING if "shift" in fields else ())]
    found = []
    for config, n in listed:
        if config.get("prediction_type") == FLOW and "use_flow_sigmas" not in fields:
            continue
        own = {k: v for k, v in config.items() if k in fields and fields[k].default != v}
        if (own, n, {}) not in found:
            found.append((own, n, {}))
    for more in ASKED.get(name, ()):
        found.append((more.get("fields", {}), 10, {k: v for k, v in more.items() if k != "fields"}))
    if name == "PNDMScheduler":
        config = {"skip_prk_steps": True, "steps_offset": 1}
        found += [(config, 10, {"strength": s}) for s in (0.3, 0.75, 1.0)]
        found.append((config | {"timestep_spacing": "trailing"}, 7, {"strength": 0.6}))
    if not any(part in name for part in ("Flow", "EDM", "CMS")):
        found += [({}, 10, {"strength": s}) for s in (0.3, 0.75)]
    return found
