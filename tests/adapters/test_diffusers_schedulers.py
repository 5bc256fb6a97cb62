"""The levels of every scheduler class of diffusers that is taken, against what it visits itself, and every
field of its configuration: taken, refused by name, or known to be read by nothing."""

import inspect
import math

import numpy as np
import pytest
import torch
from optional import diffusers
from scheduler_cases import class_of, made
from scheduler_grid import FLOW, levels

from diffusion_engine import Sampler, from_diffusers
from diffusion_engine.adapters.diffusers.classes import CLASSES, REFUSED
from diffusion_engine.adapters.diffusers.fields import INERT, understood
from diffusion_engine.adapters.diffusers.levels import NOTHING
from diffusion_engine.adapters.diffusers.tables import learned
from diffusion_engine.networks.parameterisation import Parameterisation
from diffusion_engine.processes import FlowMatching, grids

NET = diffusers.UNet2DModel(
    sample_size=8,
    block_out_channels=(32,),
    layers_per_block=1,
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
).eval()
STEPS = 7


def visited(scheduler, steps):
    """Timesteps, one a step, and levels with the end of the run, as diffusers has them."""
    name = type(scheduler).__name__
    evenly = {"intermediate_timesteps": None} if name == "SCMScheduler" else {}
    scheduler.set_timesteps(steps, **evenly)
    times = scheduler.timesteps.tolist()
    if name == "SCMScheduler":  # which begins a rounding beyond pi / 2
        data = scheduler.config.sigma_data
        return times[:-1], [math.inf, *(data * math.tan(t) for t in times[1:])]
    if name.startswith("KDPM2"):
        times = times[::2]  # its midpoints lie between
    elif "Heun" in name or "SDE" in name:
        times = times[:1] + times[(1 if "Heun" in name else 2) :: 2]
    elif name == "PNDMScheduler":
        times = times[:1] + times[2:]  # the second is there twice
    if name == "IPNDMScheduler":
        return times, (scheduler.betas / scheduler.alphas).tolist()
    if hasattr(scheduler, "sigmas"):
        every = 2 if "Heun" in name or "KDPM2" in name or "SDE" in name else 1
        sigmas = scheduler.sigmas.tolist()
        sigmas = sigmas if every == 1 else [*sigmas[:1], *sigmas[1:-1:2], sigmas[-1]]
        return times, sigmas[: len(times) + 1]
    bar = scheduler.alphas_cumprod.double()
    end = getattr(scheduler, "final_alpha_cumprod", torch.tensor(1.0)).double()
    end = {"LCMScheduler": torch.ones(()), "TCDScheduler": bar[0]}.get(name, end)
    return times, [float((1.0 / b - 1.0) ** 0.5) for b in [*(bar[int(t)] for t in times), end]]


# The table of alpha_bar is short, whose loops diffusers' classes are quicker in.
SMALL = {"num_train_timesteps": 60, "beta_start": 0.0005, "beta_end": 0.08}


@pytest.mark.parametrize("name", CLASSES)
def test_levels_are_the_schedulers(name):
    fields = inspect.signature(class_of(name).__init__).parameters
    tried = []
    for config in levels():
        own = {k: v for k, v in ({**SMALL, **config}).items() if k in fields}
        if name == "PNDMScheduler":
            own["skip_prk_steps"] = True
        if name == "IPNDMScheduler":
            own.pop("trained_betas", None)  # which are as many as the steps
        if own in tried or (config.get("prediction_type") == FLOW and "use_flow_sigmas" not in own):
            continue
        tried.append(own)
        scheduler = made(name, own)
        try:
            taken = understood(name, scheduler.config)
            process = learned(taken).process
        except ValueError as error:  # contradictions
            assert "use_flow_sigmas" in str(error) or "prediction_type=" in str(error), own
            continue
        times, sigmas = visited(scheduler, STEPS)
        points = CLASSES[name].levels(taken, process, STEPS, NOTHING)
        rule = Parameterisation(process, (1,), "x0", learned(taken).label)
        flow = isinstance(process, FlowMatching)
        if name == "CMStochasticIterativeScheduler":  # whose last level is never visited
            sigmas[-1] = 0.0
        assert [p.sigma if flow else p.ratio for p in points] == pytest.approx(sigmas, rel=2e-6), (
            own
        )
        assert [rule.label_of(p) for p in points[:-1]] == pytest.approx(
            times, rel=2e-6, abs=1e-4
        ), own


@pytest.mark.parametrize("kind", ["use_karras_sigmas", "use_lu_lambdas"])
def test_labels_of_a_cosine_table_are_cut_off(kind):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", **{kind: True}
    )
    scheduler.set_timesteps(20)
    points = Sampler(from_diffusers(NET, scheduler), steps=20).points
    # The first and the last are exact here, and one lower there where float32 rounds below.
    assert [p.t for p in points[1:-2]] == scheduler.timesteps.tolist()[1:-1]


def test_labels_of_straight_paths_are_cut_off_alike():
    scheduler = diffusers.DEISMultistepScheduler(use_flow_sigmas=True)
    scheduler.set_timesteps(3)
    network = from_diffusers(NET, scheduler)
    labels = [
        network.parameterisation.label_of(p)
        for p in grids.points(network.process, 3, network.parameterisation.grid)[:3]
    ]
    assert labels == pytest.approx(scheduler.timesteps.tolist()) == [999.0, 666.0, 332.0]


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_is_known(name):
    own = {k: p.default for k, p in inspect.signature(class_of(name).__init__).parameters.items()}
    assert own.keys() - {"self"} <= {*CLASSES[name].fields, *INERT}
    assert {k: own[k] for k in CLASSES[name].fields} == dict(CLASSES[name].fields)


ASKED = {
    "thresholding": (True, "thresholding with sample_max_value=2.0"),
    "use_dynamic_shifting": (True, None),
    "interpolation_type": ("odd", "asks for interpolation_type='odd'"),
    "timestep_type": ("odd", "asks for timestep_type='odd'"),
    "final_sigmas_type": ("odd", "asks for final_sigmas_type='odd'"),
    "timestep_spacing": ("odd", "asks for timestep_spacing='odd'"),
    "time_shift_type": ("odd", "asks for time_shift_type='odd'"),
    "sigma_schedule": ("odd", "asks for sigma_schedule='odd'"),
    "solver_p": ("odd", "asks for solver_p='odd'"),
    "beta_schedule": ("odd", "beta_schedule='odd'"),
    "prediction_type": ("odd", "prediction_type='odd'"),
    "of_a_later_release": (1, "asks for of_a_later_release=1"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_not_taken_is_refused_by_name(name):
    for field in (f for f in ASKED if f in CLASSES[name].fields or f == "of_a_later_release"):
        value, said = ASKED[field]
        config = {"_class_name": name, field: value, "sample_max_value": 2.0}
        if said and not (field == "beta_schedule" and name == "CMStochasticIterativeScheduler"):
            with pytest.raises(ValueError, match=said):
                from_diffusers(NET, config)
    from_diffusers(NET, {"_class_name": name, "of_a_later_release": None})


def test_classes_that_are_not_taken_are_refused_by_name():
    names = [n for n in dir(diffusers) if n.endswith("Scheduler")]
    for name in {*names} - {*CLASSES}:
        assert name in REFUSED
        with pytest.raises(
            ValueError, match=f"of the class {name} is not understood: {REFUSED[name]}"
        ):
            from_diffusers(NET, {"_class_name": name, **diffusers.DDIMScheduler().config})


def test_the_class_is_the_schedulers_own():
    """from_config keeps the fields, and in files the name, of another class."""
    pndm = diffusers.PNDMScheduler(steps_offset=1, skip_prk_steps=True)
    euler = diffusers.EulerDiscreteScheduler.from_config(
        {"_class_name": "PNDMScheduler", **pndm.config}
    )
    network = from_diffusers(NET, euler)
    euler.set_timesteps(5)
    assert network.parameterisation.grid.name == "EulerDiscreteScheduler"
    assert [p.t for p in Sampler(network, "euler", 5).points[:-1]] == euler.timesteps.tolist()
    for_flow = {"final_sigmas_type": "sigma_min", "use_flow_sigmas": True}
    with pytest.raises(ValueError, match="asks for final_sigmas_type='sigma_min'"):
        from_diffusers(NET, {"_class_name": "DPMSolverMultistepScheduler", **for_flow})
    both = {
        "_class_name": "DEISMultistepScheduler",
        "use_karras_sigmas": True,
        "use_flow_sigmas": True,
    }
    with pytest.raises(ValueError, match="use_karras_sigmas and use_flow_sigmas"):
        from_diffusers(NET, both)


@pytest.mark.parametrize("spacing, first", [("leading", 831), ("trailing", 999), ("linspace", 999)])
def test_dpm_solver_multistep(spacing, first):
    """The samples, and the timesteps of the network's calls."""
    config = {"timestep_spacing": spacing, "steps_offset": 1}
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", **config)
    network = from_diffusers(NET, scheduler)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    made = Sampler(network, "dpmpp_2m", 5).sample(x=x, noised=True).samples
    scheduler.set_timesteps(5)
    assert scheduler.timesteps[0] == first
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(NET(x, t, return_dict=False)[0], t, x, return_dict=False)[0]
    assert float((made - x).abs().max() / x.abs().max()) < 2e-4


def test_a_video_schedulers_continuous_labels():
    """Stable Video Diffusion's: Karras levels from 700 to 0.002, told log(sigma) / 4."""
    scheduler = diffusers.EulerDiscreteScheduler(
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, prediction_type="v_prediction",
        timestep_type="continuous", beta_schedule="scaled_linear",
    )  # fmt: skip
    scheduler.set_timesteps(6)
    network = from_diffusers(NET, scheduler)
    points = Sampler(network, "euler", 6).points
    assert [network.parameterisation.label_of(p) for p in points[:-1]] == pytest.approx(
        scheduler.timesteps.tolist()
    )
    assert [p.ratio for p in points] == pytest.approx(scheduler.sigmas.tolist(), rel=1e-6)


def test_a_run_may_still_stop_before_its_end():
    network = from_diffusers(NET, diffusers.PNDMScheduler(steps_offset=1))
    whole, short = (Sampler(network, "plms", 5, end=end).points for end in ("zero", "t_min"))
    assert len(whole) == len(short) == 6 and whole[-1] == network.process.at(0.0)
    assert [p.t for p in short] == [831.0, 665.0, 499.0, 333.0, 167.0, 1.0] or short[-1].t == 1.0
    assert np.all(np.diff([p.t for p in short]) < 0)
