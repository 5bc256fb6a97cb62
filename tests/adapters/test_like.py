"""`like`: the same samples as diffusers' schedulers, class by class, and what it refuses."""

import dataclasses
import math

import pytest
import torch
from optional import diffusers, needs
from scheduler_cases import FIRST, SHAPE, Net, difference, made, net_of, ours, theirs
from scheduler_fate import EQUAL, Fate, fate
from scheduler_grid import FLOW, V, cases

from benchmarks import results
from benchmarks.pages import rows
from diffusion_engine import Sampler, ScoreNetwork, from_diffusers
from diffusion_engine.adapters.diffusers import like
from diffusion_engine.adapters.diffusers.classes import CLASSES
from diffusion_engine.processes import Discrete

needs("diffusers")
FEW = 6  # of each class


def recorded(name):
    """(case, row): the cases of a class with what was recorded of each."""
    known = {
        (row["steps"], row["configuration"], row["asked"]): row
        for row in rows.committed(results.SCHEDULERS)
        if row["scheduler"] == name
    }
    for config, steps, asked in cases(name):
        row = Fate("", None, "").row(name, config, steps, asked)
        yield (config, steps, asked), known.get((str(steps), row["configuration"], row["asked"]))


def as_recorded(name, every):
    """Every so many cases of a class end as the committed rows say."""
    for i, (case, row) in enumerate(recorded(name)):
        assert row is not None, f"{case} has no row: run tests/adapters/record_schedulers.py {name}"
        if i % every == 0:
            found = fate(name, *case)
            alike = {"equal", "rounding"}  # the last digits are the machine's
            same = found.outcome == row["outcome"] or {found.outcome, row["outcome"]} == alike
            assert same and found.said == row["said"], (case, found, row)


@pytest.mark.parametrize("name", CLASSES)
def test_some_configurations(name):
    as_recorded(name, max(1, len(cases(name)) // FEW))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_all_configurations(name):
    as_recorded(name, 1)


def test_rows_are_of_all_classes():
    found = rows.committed(results.SCHEDULERS)
    assert {row["scheduler"] for row in found} == {*CLASSES}
    assert not [row for row in found if row["outcome"] == "differs" and not row["said"]]


def test_a_network_of_diffusers():
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(32,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    ).eval()  # fmt: skip
    scheduler = diffusers.UniPCMultistepScheduler(use_karras_sigmas=True)
    network, same = from_diffusers(unet, scheduler), like(scheduler, 6)
    noise = x = torch.randn(2, 3, 8, 8)
    scheduler.set_timesteps(6)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x).prev_sample
    got = same.sampler(network).sample(x=noise, noised=True).samples
    assert float((got - x).abs().max() / x.abs().max()) < EQUAL
    assert same.labels == tuple(scheduler.timesteps.tolist())


def test_what_a_like_says():
    same = like(diffusers.EulerDiscreteScheduler(timestep_spacing="leading"), 10)
    assert same.name == "EulerDiscreteScheduler" and same.scaled and same.clip is None
    assert same.process == Discrete(alpha_bar=same.process.alpha_bar) and same.prediction == "eps"
    scheduler = made(same.name, {"timestep_spacing": "leading"})
    scheduler.set_timesteps(10)
    assert same.init_noise_sigma == pytest.approx(float(scheduler.init_noise_sigma))
    assert same.labels == pytest.approx(scheduler.timesteps.tolist())
    assert len(same.points) == 11 and same.points[-1].sigma == 0.0 and same.notes == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        same.clip = (-1.0, 1.0)


def test_a_saved_configuration_is_a_scheduler():
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3, use_exponential_sigmas=True)
    saved = {"_class_name": type(scheduler).__name__, **scheduler.config}
    assert like(saved, 7) == like(scheduler, 7)
    short = {
        "_class_name": type(scheduler).__name__,
        "solver_order": 3,
        "use_exponential_sigmas": True,
    }
    assert like(short, 7) == like(scheduler, 7)


def test_a_step_that_stays_is_a_step():
    """Karras levels that end on the last of them: one call of the network a timestep, as in diffusers."""
    scheduler = diffusers.DPMSolverMultistepScheduler(
        use_karras_sigmas=True, final_sigmas_type="sigma_min"
    )
    same = like(scheduler, 8)
    assert len(same.points) == 9 and same.points[-1].ratio == pytest.approx(same.points[-2].ratio)
    assert like(scheduler, 8).points[-1].lam > same.points[-2].lam


@pytest.mark.parametrize("strength", [0.01, 0.3, 0.55, 1.0])
def test_image_to_image_begins_where_a_pipeline_does(strength):
    same = like(diffusers.DDIMScheduler(), 20, strength=max(strength, 0.05))
    n = int(20 * max(strength, 0.05))
    assert same.points == like(diffusers.DDIMScheduler(), 20).points[20 - n :]


NOTED = [
    ("DDIMScheduler", {"timestep_spacing": "trailing"}, 7),
    ("PNDMScheduler", {"timestep_spacing": "trailing", "skip_prk_steps": True}, 7),
    ("PNDMScheduler", {"prediction_type": "v_prediction", "skip_prk_steps": True}, 10),
    ("DDPMScheduler", {"variance_type": "fixed_large", "steps_offset": 1}, 10),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, 10),
    ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}, 10),
    ("IPNDMScheduler", {}, 10),
]


@pytest.mark.parametrize("flow", [{}, {"use_flow_sigmas": True}], ids=["table", "flow"])
def test_a_tau_of_ones_own(flow):
    config = {"tau_func": lambda t: 0.5 if t > 500 else 1.0, "predictor_order": 3} | flow
    off, same = difference("SASolverScheduler", config, 9, torch.float64)
    assert off < EQUAL and {0.5, 1.0} == set(same.solver.taus)


@pytest.mark.parametrize("name, config, steps", NOTED)
def test_both_are_offered(name, config, steps):
    off, same = difference(name, config, steps, torch.float64)
    other, right = difference(name, config, steps, torch.float64, published=False)
    assert off < EQUAL < 1e-4 < other, (off, other)
    assert "published=False" in same.notes[0] and same.notes == right.notes
    assert same.solver != right.solver and same.points == right.points


def test_bh1_to_0_is_no_number_of_diffusers():
    scheduler = made("UniPCMultistepScheduler", {"solver_type": "bh1"})
    same = like(scheduler, 5)
    first, want = theirs(scheduler, 5)
    assert not want.isfinite().all() and "no number" in same.notes[0]
    assert ours(same, net_of(scheduler), first).isfinite().all()


def test_a_learned_variance():
    config = {"variance_type": "learned"}
    with pytest.raises(ValueError, match="variance_type='learned' of diffusers' DDPM"):
        like(diffusers.DDPMScheduler(**config), 5)
    assert like(diffusers.DDPMScheduler(**config), 5, published=False).solver.variance == "learned"
    assert like(diffusers.DDPMScheduler(variance_type="learned_range"), 5).solver.variance


MULTI, EULER = "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"
REFUSED = [
    ("DDIMScheduler", {}, {"steps": 0}, "steps=0: a run has a whole number of steps"),
    ("DDIMScheduler", {}, {"steps": 2000}, "2000 steps of timestep_spacing='leading'"),
    ("DDIMScheduler", {}, {}, "steps=None: give steps"),
    ("DDIMScheduler", {}, {"steps": 5, "mu": 1.0}, "mu=1.0: the set_timesteps of DDIMScheduler takes none"),
    ("DDIMScheduler", {}, {"timesteps": [9, 5]}, "timesteps=: the set_timesteps of DDIMScheduler takes none"),
    ("DDIMScheduler", {}, {"steps": 5, "s_churn": 1.0}, "s_churn"),
    ("DDIMScheduler", {}, {"steps": 5, "strength": 0.1}, "strength=0.1 of 5 steps"),
    ("DDIMScheduler", {}, {"steps": 5, "strength": 1.5}, "strength=1.5 of 5 steps"),
    ("DDPMScheduler", {}, {"timesteps": [5, 9]}, r"timesteps=\[5, 9\]: they have to fall"),
    ("DDPMScheduler", {}, {"timesteps": [1000, 9]}, "timesteps go from 1000 to 9, and the table"),
    ("DDPMScheduler", {}, {"timesteps": [9, 5], "steps": 3}, "steps=3 and 2 levels are given"),
    ("DDPMScheduler", {"variance_type": "fixed_large_log"}, {"steps": 5}, "variance_type='fixed_large_log'"),
    (EULER, {}, {"sigmas": [1.0, 2.0, 0.0]}, "they have to fall"),
    (EULER, {"use_karras_sigmas": True}, {"timesteps": [9, 5]}, "use_karras_sigmas"),
    (EULER, {"use_karras_sigmas": True, "sigma_min": 0.002, "final_sigmas_type": "sigma_min"},
     {"steps": 5}, "the sigmas of EulerDiscreteScheduler rise at entry 5, 0.002 and then"),
    (EULER, {"prediction_type": V}, {"steps": 5, "s_churn": 1.0}, "s_churn with"),
    (MULTI, {"use_flow_sigmas": True, "prediction_type": V}, {"steps": 5},
     "prediction_type='v_prediction' of the scheduler is of a variance-preserving table"),
    (MULTI, {"prediction_type": FLOW}, {"steps": 5}, "set use_flow_sigmas"),
    (MULTI, {}, {"steps": 5, "mu": 1.0}, "mu=1.0 goes with use_dynamic_shifting"),
    (MULTI, {"thresholding": True, "sample_max_value": 3.0}, {"steps": 5},
     "thresholding with sample_max_value=3.0"),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, {"steps": 5}, "give mu="),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True, "stochastic_sampling": True}, {"steps": 5},
     "invert_sigmas of the scheduler"),
    ("LCMScheduler", {}, {"steps": 60}, "60 steps of original_inference_steps=50"),
    (
        "SASolverScheduler", {"algorithm_type": "noise_prediction"}, {"steps": 5},
        "algorithm_type='noise_prediction' of the scheduler interpolates eps",
    ),
]  # fmt: skip


@pytest.mark.parametrize("name, config, asked, said", REFUSED)
def test_bad_input_is_refused_by_its_field(name, config, asked, said):
    with pytest.raises(ValueError, match=said):
        like(made(name, config), **asked)


SAVED = [
    ({"_class_name": "DDIMScheduler", "prediction_type": "noise"}, "prediction_type='noise' is none of"),
    ({"_class_name": MULTI, "solver_order": 4}, "solver_order=4 is none of 1, 2, 3"),
    ({"_class_name": MULTI, "algorithm_type": "dpmsolver"}, "final_sigmas_type='zero'"),
    ({"_class_name": MULTI, "algorithm_type": "odd"}, "algorithm_type='odd' is none of"),
    ({"_class_name": "UniPCMultistepScheduler", "shift_terminal": 0.1}, "shift_terminal of the"),
    ({"_class_name": "VQDiffusionScheduler"}, "of the class VQDiffusionScheduler is not understood"),
    ({"_class_name": "MyScheduler"}, "of the class MyScheduler is not understood"),
    ({}, "without a _class_name is not understood"),
    ("ddim", "give a scheduler, or its config"),
]  # fmt: skip


@pytest.mark.parametrize("saved, said", SAVED)
def test_bad_configurations_are_refused_by_their_field(saved, said):
    with pytest.raises(ValueError, match=said):
        like(saved, 5)


def test_another_network_is_refused():
    same = like(diffusers.DDIMScheduler(), 5)
    other = ScoreNetwork(Net("epsilon", 1000.0), Discrete.cosine(), SHAPE)
    with pytest.raises(ValueError, match="the network has process="):
        same.sampler(other)
    v = ScoreNetwork(Net("v_prediction", 1000.0), same.process, SHAPE, "v")
    with pytest.raises(
        ValueError, match="the network has prediction='v' and DDIMScheduler says 'eps'"
    ):
        same.sampler(v)
    own = ScoreNetwork(Net("epsilon", 1000.0), same.process, SHAPE, "eps")
    with pytest.raises(ValueError, match="times: this is what the scheduler says"):
        same.sampler(own, times=[1.0, 0.0])
    assert isinstance(same.sampler(own, backend="torch"), Sampler)


def test_two_of_one_scheduler_do_not_meet():
    scheduler = made("DPMSolverMultistepScheduler", {})
    a, b = like(scheduler, 5), like(scheduler, 9)
    assert (len(a.points), len(b.points)) == (6, 10) and scheduler.num_inference_steps is None
    first, want = theirs(scheduler, 5)
    assert torch.equal(first, FIRST)
    assert math.isclose(
        float((ours(a, net_of(scheduler), first) - want).abs().max()), 0.0, abs_tol=1e-5
    )
