"""The levels of every scheduler class of diffusers that is taken, against what it visits itself, and every
field of its configuration: taken, refused by name, or known to be no matter of the network's."""

import importlib
import inspect
import itertools
import math
import sys
import types

import numpy as np
import pytest
import torch
from optional import diffusers

from diffusion_engine import Sampler, from_diffusers
from diffusion_engine.adapters.diffusers.classes import CLASSES, INERT, ONLY
from diffusion_engine.processes import FlowMatching, grids

NET = diffusers.UNet2DModel(
    sample_size=8,
    block_out_channels=(32,),
    layers_per_block=1,
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
).eval()
STEPS = 7


def class_of(name):
    if name == "DPMSolverSDEScheduler":  # its times need no torchsde, which its module imports
        sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
        return getattr(
            importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde"), name
        )
    return getattr(diffusers, name)


def configurations():
    """Every class with every spacing and offset, and with every choice of sigmas on every way to end."""
    for name in CLASSES:
        taken = inspect.signature(class_of(name).__init__).parameters
        spacings = ["leading", "trailing", "linspace"] if "timestep_spacing" in taken else [None]
        flags = [f for f in FLAGS if f in taken]
        ends = {k: v for k, v in ENDS.items() if k in taken} or {None: [None]}
        for spacing, (end, values) in itertools.product(spacings, ends.items()):
            for value, flag, extra in itertools.product(values, [None, *flags], EXTRAS):
                if not (set(extra) <= set(taken)) or (
                    extra and (flag or value != values[0]) and "shift" not in extra
                ):
                    continue
                if flag == "use_flow_sigmas" and value == "sigma_min" and "UniPC" not in name:
                    continue  # a level of the table would end a run of straight paths
                config = {"timestep_spacing": spacing, end: value, flag: True, **TABLE, **extra}
                yield name, {k: v for k, v in config.items() if k in taken}


FLAGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas", "use_flow_sigmas")
ENDS = {"final_sigmas_type": ["zero", "sigma_min"], "set_alpha_to_one": [True, False]}
EXTRAS = (
    {},
    {"steps_offset": 1},
    {"rescale_betas_zero_snr": True},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"lambda_min_clipped": -3.0},
    {"shift": 3.0},
    {"shift": 3.0, "shift_terminal": 0.1},
    {"num_train_timesteps": 140},
)
TABLE = {
    "num_train_timesteps": 60,
    "beta_start": 0.0005,
    "beta_end": 0.08,
}  # quick for diffusers' loops


def distinct(values):
    """Without those that repeat the one before; diffusers' are float32."""
    return values[:1] + [
        b for a, b in itertools.pairwise(values) if not math.isclose(a, b, rel_tol=1e-5)
    ]


def visited(scheduler, steps):
    """Timesteps, one a step, and levels with the end of the run, as diffusers has them."""
    scheduler.set_timesteps(steps)
    name, times = type(scheduler).__name__, scheduler.timesteps.tolist()
    if name.startswith("KDPM2"):
        times = times[::2]  # its midpoints lie between
    elif "Heun" in name or "SDE" in name:
        times = times[:1] + times[(1 if "Heun" in name else 2) :: 2]
    times = distinct(times)
    if hasattr(scheduler, "sigmas"):
        sigmas = distinct(scheduler.sigmas.tolist())
        return times[: len(sigmas) - 1], sigmas
    bar = scheduler.alphas_cumprod.double()
    end = getattr(scheduler, "final_alpha_cumprod", torch.tensor(1.0)).double()
    end = {"LCMScheduler": torch.ones(()), "TCDScheduler": bar[0]}.get(name, end)
    sigmas = [float((1.0 / b - 1.0) ** 0.5) for b in [*(bar[int(t)] for t in times), end]]
    sigmas = distinct(sigmas)
    return times[: len(sigmas) - 1], sigmas


def id_of(value):
    return value if isinstance(value, str) else ",".join(f"{k}={v}" for k, v in value.items())


@pytest.mark.parametrize("name", CLASSES)
def test_levels_are_the_schedulers(name):
    for config in (c for n, c in configurations() if n == name):
        if "prediction_type" in CLASSES[name].fields:  # eps says nothing where alpha is 0
            config["prediction_type"] = "v_prediction"
        scheduler = class_of(name)(
            **({"skip_prk_steps": True} if name == "PNDMScheduler" else {}), **config
        )
        times, sigmas = visited(scheduler, STEPS)
        network = from_diffusers(NET, scheduler)
        points = grids.points(network.process, STEPS, network.parameterisation.grid)
        flow = isinstance(network.process, FlowMatching)
        ours = [p.sigma if flow else p.ratio for p in points]
        labels = [network.parameterisation.label_of(p) for p in points[:-1]]
        # Labels that are cut off lie a whole one lower where float32 rounds below.
        cut = config.get("use_exponential_sigmas") or config.get("use_flow_sigmas")
        off = 1.0 if cut and isinstance(times[0], int) else 5e-3
        assert labels == pytest.approx(times, rel=1e-4, abs=off), config
        # diffusers' table is float32, where 1 - alpha_bar has few digits near data.
        assert ours == pytest.approx(sigmas, rel=3e-3), config


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
    "thresholding": True, "use_beta_sigmas": True, "use_dynamic_shifting": True, "invert_sigmas": True,
    "interpolation_type": "log_linear", "timestep_type": "odd", "final_sigmas_type": "odd",
    "timestep_spacing": "odd", "timestep_scaling": 5.0, "original_inference_steps": 100,
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_not_taken_is_refused_by_name(name):
    assert ASKED.keys() == ONLY.keys()
    for field in [f for f in ASKED if f in CLASSES[name].fields] + ["of_a_later_release"]:
        config = {"_class_name": name, field: ASKED.get(field, 1)}
        with pytest.raises(ValueError, match=f"asks for {field}="):
            from_diffusers(NET, config)
    from_diffusers(NET, {"_class_name": name, "of_a_later_release": None})


def test_classes_that_are_not_taken_are_refused_by_name():
    names = [n for n in dir(diffusers) if n.endswith("Scheduler")]
    for name in {*names} - {*CLASSES, "DPMSolverSDEScheduler"}:
        with pytest.raises(ValueError, match=f"of the class {name} is not understood"):
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
    karras = {
        "_class_name": "DPMSolverMultistepScheduler",
        "use_karras_sigmas": True,
        "sigma_min": 0.1,
    }
    with pytest.raises(ValueError, match=r"asks for sigma_min=0\.1"):
        from_diffusers(NET, karras)
    for_flow = {"final_sigmas_type": "sigma_min", "use_flow_sigmas": True}
    with pytest.raises(ValueError, match="asks for final_sigmas_type='sigma_min'"):
        from_diffusers(NET, {"_class_name": "DPMSolverMultistepScheduler", **for_flow})
    both = {
        "_class_name": "UniPCMultistepScheduler",
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
