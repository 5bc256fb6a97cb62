"""EngineScheduler in place of diffusers' schedulers: the same samples, noise, dtypes and configuration."""

import numpy as np
import pytest
import torch
from dispatched import Operations
from engine_scheduler_cases import NOISE, SHAPE, loop, net, scheduler_of, seeded
from optional import diffusers

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.adapters.diffusers import like

SAME = {
    "DDIM": {},
    "DDPM": {"clip_sample_range": 1.5},
    "EulerDiscrete": {"use_karras_sigmas": True},
    "EulerAncestralDiscrete": {"timestep_spacing": "leading", "steps_offset": 1},
    "HeunDiscrete": {"prediction_type": "v_prediction"},
    "KDPM2Discrete": {},
    "LMSDiscrete": {},
    "DPMSolverMultistep": {"use_lu_lambdas": True},
    "FlowMatchEulerDiscrete": {"shift": 3.0},
    "LCM": {},
    "EDMEuler": {},
}


def made(name, config):
    return getattr(diffusers, f"{name}Scheduler")(**config)


def close(a, b, tolerance=1e-5):
    return float((a - b).abs().max() / b.abs().max()) < tolerance


@pytest.mark.parametrize("name", SAME)
def test_without_a_solver_it_is_the_class(name):
    """Timesteps, order, sigmas, the last sample and what is returned on the way, with the same generator."""
    theirs = made(name, SAME[name])
    ours = scheduler_of(theirs)
    want, got = [], []
    a = loop(theirs, 8, generator=seeded(), seen=want)
    b = loop(ours, 8, generator=seeded(), seen=got)
    assert ours.timesteps.dtype == theirs.timesteps.dtype and ours.order == theirs.order
    assert torch.allclose(ours.timesteps.double(), theirs.timesteps.double(), rtol=1e-5, atol=1e-3)
    assert len(got) == len(want) and len(ours) == len(theirs)
    if (
        hasattr(theirs, "sigmas") and name != "KDPM2Discrete"
    ):  # which has no level of its midpoints there
        assert torch.allclose(ours.sigmas, theirs.sigmas.cpu(), rtol=1e-3)
    assert close(b, a)
    if hasattr(want[0], "pred_original_sample"):
        for mine, other in zip(got, want, strict=True):
            assert close(mine.pred_original_sample, other.pred_original_sample)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "dpm_solver_3", "unipc", "dpmpp_2m_sde"])
@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete", "FlowMatchEulerDiscrete"])
def test_a_named_solver_is_the_samplers(name, solver):
    """The bits of Sampler.sample, of the same first x and seeds, by the rounding of which x is alpha x'."""
    source = made(name, {})
    ours = scheduler_of(source, solver=solver, seeds=[5, 77])
    got = loop(ours, 6)
    same = like(source, 6)
    network = ScoreNetwork(Net(), same.process, SHAPE[1:], same.prediction, same.label)
    x = NOISE * ours.init_noise_sigma
    sampler = Sampler(network, solver, times=same.points, clip=same.clip)
    want = sampler.sample(x=x, noised=True, seeds=[5, 77]).samples
    assert torch.equal(got, want)


class Net(torch.nn.Module):
    def forward(self, x, t):
        return net(x, t)


@pytest.mark.parametrize("name, solver", [("DDIM", "dpmpp_2m"), ("EulerDiscrete", "heun")])
def test_it_begins_in_the_middle(name, solver):
    """Image to image: a run of the points from there on, without history."""
    source = made(name, {})
    ours = scheduler_of(source, solver=solver)
    ours.set_timesteps(8)
    first = 3 * ours.order
    t = ours.timesteps[first : first + 1].repeat(2)
    ours.set_begin_index(first)
    x = ours.add_noise(torch.ones(SHAPE), NOISE, t)
    same = like(source, 8)
    at = same.points[3]
    assert torch.allclose(x, at.alpha + at.sigma * NOISE, atol=1e-6)
    got = loop(ours, x=x, first=first)
    network = ScoreNetwork(Net(), same.process, SHAPE[1:], same.prediction, same.label)
    sampler = Sampler(network, solver, times=same.points[3:], clip=same.clip)
    assert torch.equal(got, sampler.sample(x=x, noised=True).samples)
    # By the timestep alone, which in a solver of two calls occurs twice.
    again = scheduler_of(source, solver=solver)
    again.set_timesteps(8)
    for t in again.timesteps[first:].tolist():
        x = again.step(net(x, t), t, x).prev_sample
    assert torch.equal(x, got)


def test_eta_and_clipped_outputs_of_ddim():
    theirs = diffusers.DDIMScheduler()
    ours = scheduler_of(theirs)
    for step in ({"eta": 0.7}, {"eta": 1.0, "use_clipped_model_output": True}):
        a, b = (loop(s, 7, generator=seeded(), **step) for s in (theirs, ours))
        assert close(b, a)
    assert not close(loop(ours, 7, eta=0.7, generator=seeded()), loop(ours, 7), 0.1)
    given = torch.randn(SHAPE, generator=seeded())
    noise = [s.step for s in (theirs, ours)]
    for s in (theirs, ours):
        s.set_timesteps(5)
    a, b = (
        step(net(NOISE, 800), s.timesteps[0], NOISE, eta=1.0, variance_noise=given)[0]
        for step, s in zip(noise, (theirs, ours), strict=True)
    )
    assert close(b, a)


def test_a_generator_for_each_sample():
    theirs = diffusers.EulerAncestralDiscreteScheduler()
    ours = scheduler_of(theirs)
    a, b = (loop(s, 5, generator=[seeded(1), seeded(2)]) for s in (theirs, ours))
    assert close(b, a)
    alone = loop(ours, 5, x=NOISE[1:], generator=seeded(2))
    assert torch.equal(alone[0], b[1])


def test_seeds_are_a_samples_own():
    source = diffusers.DDPMScheduler()
    both = loop(scheduler_of(source, seeds=[7, 8]), 6)
    one = scheduler_of(source)
    one.set_timesteps(6, seeds=[8])
    assert torch.equal(loop(one, x=NOISE[1:])[0], both[1])
    assert not torch.equal(loop(scheduler_of(source, seeds=[7, 9]), 6)[1], both[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_samples_dtype_is_kept(dtype):
    source = diffusers.DDIMScheduler()
    ours = scheduler_of(source, solver="dpmpp_2m")
    x = NOISE.to(dtype)
    ours.set_timesteps(4)
    exact = scheduler_of(source, solver="dpmpp_2m")
    exact.set_timesteps(4)
    for t in ours.timesteps:
        out = ours.step(net(x, t), t, x)
        want = exact.step(net(x, t).double(), t, x.double())
        for mine, other in zip(out.to_tuple(), want.to_tuple(), strict=True):
            assert mine.dtype == dtype
            limit = max(torch.finfo(dtype).eps, 1e-12)
            assert torch.allclose(mine.double(), other, rtol=limit, atol=1e-6)
        x = out.prev_sample


def test_a_learned_variance():
    theirs = diffusers.DDPMScheduler(variance_type="learned_range")
    ours = scheduler_of(theirs)

    def both(x, t):
        return torch.cat([net(x, t), 0.5 * torch.sin(x)], 1)

    a, b = (loop(s, 6, generator=seeded(), network=both) for s in (theirs, ours))
    assert close(b, a)
    # A solver that reads none leaves the second half alone.
    plain = scheduler_of(theirs, solver="dpmpp_2m")
    assert torch.equal(loop(plain, 6, network=both), loop(plain, 6))


def test_noising_is_that_of_training_and_of_the_run():
    theirs = diffusers.DDPMScheduler(prediction_type="v_prediction")
    ours = scheduler_of(theirs)
    x0, t = torch.full(SHAPE, 0.3), torch.tensor([17, 801])
    for name in ("add_noise", "get_velocity"):
        a, b = (getattr(s, name)(x0, NOISE, t) for s in (theirs, ours))
        assert close(b, a, 1e-6)
        half = getattr(ours, name)(x0.half(), NOISE.half(), t)
        assert half.dtype == torch.float16 and close(half.float(), a, 2e-3)
    assert torch.allclose(ours.alphas_cumprod, theirs.alphas_cumprod)
    assert torch.allclose(ours.betas, theirs.betas, atol=1e-7)
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    straight = scheduler_of(flow)
    for s in (flow, straight):
        s.set_timesteps(5)
    a, b = (s.scale_noise(x0, s.timesteps[2:3], NOISE) for s in (flow, straight))
    assert close(b, a, 1e-6)
    # Levels of a run lie between those of the table, and are found by what they are told as.
    karras = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True)
    between = scheduler_of(karras)
    for s in (karras, between):
        s.set_timesteps(7)
    t = karras.timesteps[3:4].repeat(2)
    a, b = karras.add_noise(x0, NOISE, t), between.add_noise(x0, NOISE, between.timesteps[[3, 3]])
    assert close(b * (1.0 + karras.sigmas[3] ** 2) ** 0.5, a, 1e-5)


def test_levels_may_be_given():
    theirs = diffusers.DDPMScheduler()
    ours = scheduler_of(theirs)
    for s in (theirs, ours):
        s.set_timesteps(timesteps=[900, 500, 100, 3])
    assert ours.timesteps.tolist() == [900, 500, 100, 3] and ours.num_inference_steps == 4
    a, b = (loop(s, generator=seeded()) for s in (theirs, ours))
    assert close(b, a)
    flow = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    shifted = scheduler_of(flow, solver="dpmpp_2m")
    sigmas = np.linspace(1.0, 0.2, 5)
    for s in (flow, shifted):
        s.set_timesteps(sigmas=sigmas, mu=0.8)
    assert torch.allclose(shifted.sigmas, flow.sigmas.float(), atol=1e-6)
    assert torch.allclose(shifted.timesteps, flow.timesteps.float(), rtol=1e-6)


WAITS = {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "masked_select"}


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "ddpm"])
def test_a_step_waits_for_nothing(solver):
    """The sample is copied in, what it made is copied out, and noise is drawn where it is read: nothing is
    read back, and nothing is sent."""
    ours = scheduler_of(diffusers.DDIMScheduler(), solver=solver)
    ours.set_timesteps(6)
    x, out = NOISE, net(NOISE, 500)
    times = list(ours.timesteps)
    x = ours.step(out, times[0], x, return_dict=False)[0]
    with Operations() as ran:
        for t in times[1:]:
            x = ours.step(out, t, ours.scale_model_input(x, t), return_dict=False)[0]
    assert not WAITS & {*ran.names}
    drawn = ["normal_"] if solver == "ddpm" else []
    assert {*ran.names} == {"copy_", "clone", *drawn}
    assert len(ran.names) == 3 * len(times[1:]) + len(drawn) * (len(times) - 2)


def test_the_sample_given_is_the_one_that_is_read():
    """A pipeline that rewrites the latents between steps: an inpainting one, say."""
    theirs, ours = (
        diffusers.DPMSolverMultistepScheduler(),
        scheduler_of(diffusers.DPMSolverMultistepScheduler()),
    )
    made = []
    for s in (theirs, ours):
        s.set_timesteps(6)
        x = NOISE.clone()
        for t in s.timesteps:
            x = s.step(net(x, t), t, x).prev_sample
            x[:, :, :4] = 0.25
        made.append(x)
    assert close(made[1], made[0])


def test_pipelines_call_it():
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
    ).eval()
    pipe = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)

    def images():
        return pipe(num_inference_steps=5, generator=seeded(), output_type="np", eta=0.4).images

    want = images()
    pipe.scheduler = scheduler_of(pipe.scheduler)
    assert np.abs(images() - want).max() < 1e-5


def test_under_inference_mode():
    ours = scheduler_of(diffusers.DDIMScheduler(), solver="dpmpp_2m")
    with torch.inference_mode():
        made = loop(ours, 5)
    assert torch.equal(made, loop(ours, 5))
