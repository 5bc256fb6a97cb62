"""Faults that others met and reported in public, tried here: one test a report (docs/public-reports.md)."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from analytic import propagated, suited

from diffusion_engine import Sampler
from diffusion_engine.cli import files
from diffusion_engine.ops.philox import normals
from diffusion_engine.processes import VP, Discrete, FlowMatching, grids
from diffusion_engine.testing import Gaussian, Mixture, labelled_mixture

SD = Discrete.scaled_linear()
SHARP = Gaussian(0.5, 0.01)  # noise left in a sample of it shows


def off_the_data(samples):
    """How far the worst value is from SHARP's mean."""
    return float((samples - 0.5).abs().max())


def test_a_sampler_takes_another_batch_size_than_before():
    """https://github.com/huggingface/diffusers/issues/4875"""
    own = Sampler(Mixture().network(VP(), (2, 3)), "dpmpp_sde", 4)
    three = own.sample(3, noise="brownian").samples
    assert torch.equal(own.sample(2, noise="brownian").samples, three[:2])
    assert torch.equal(own.sample(5, noise="brownian").samples[:3], three)


@pytest.mark.parametrize(
    "solver", ["dpmpp_2m", "dpmpp_3m", "unipc", "deis", "lms", "ipndm", "plms"]
)
def test_no_prediction_of_one_run_is_used_in_the_next(solver):
    """https://github.com/huggingface/diffusers/issues/8711"""
    own = Sampler(Mixture().network(VP(), (2, 3)), solver, 5)
    first = own.sample(3).samples
    own.sample(5, seed=50)
    assert torch.equal(own.sample(3).samples, first)


@pytest.mark.parametrize("order", ["dpm_solver_2", "dpm_solver_3"])
def test_no_order_meets_infinity_at_the_end(order):
    """https://github.com/huggingface/diffusers/issues/9007"""
    for steps in range(1, 15):
        made = Sampler(SHARP.network(SD), order, steps, grid="karras")
        assert made.points[-1].sigma == 0.0
        assert off_the_data(made.sample(4).samples) < (0.5 if steps < 5 else 0.05)


@pytest.mark.parametrize("solver", suited(VP()))
def test_one_step_is_enough(solver):
    """https://github.com/crowsonkb/k-diffusion/issues/72"""
    network = Gaussian(0.3, 0.5).network(VP())
    made = Sampler(network, solver, 1).sample(64)
    assert made.nfe >= 1 and torch.isfinite(made.samples).all()
    assert (made.samples - 0.3).abs().max() < 2.5  # five standard deviations


def test_the_kept_region_has_the_level_of_the_step_that_ends():
    """https://github.com/huggingface/diffusers/issues/3730"""
    process, seen = VP(), []
    own = Sampler(Mixture().network(process, (1, 2, 4)), "heun", 5)
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0])
    own.sample(
        2, mask=mask, known=torch.full((4,), 0.7),
        noise=lambda row, m, seeds: torch.full((len(seeds), 1, 2, 4), 0.1),
        on_step=lambda p: seen.append((p.t, p.x[..., 2:].clone())),
    )  # fmt: skip
    assert len(seen) == 5
    for t, kept in seen:
        at = process.clean if t == process.clean.t else process.at(t)
        wanted = torch.full_like(kept, at.alpha * 0.7 + at.sigma * 0.1)
        torch.testing.assert_close(kept, wanted, rtol=0, atol=1e-6)


def test_noise_of_a_step_is_not_that_of_the_start():
    """https://github.com/Comfy-Org/ComfyUI/issues/9819"""
    n = 4096
    drawn = [
        normals(torch.tensor([seed]), torch.tensor([key]), m, n)[0]
        for seed in (7, 8)
        for key in range(3)
        for m in (0, 1, 2)
    ]
    correlation = np.corrcoef(torch.stack(drawn).numpy()) - np.eye(len(drawn))
    assert np.abs(correlation).max() < 5.0 / n**0.5
    own = Sampler(Gaussian(0.3, 0.5).network(VP(), (n,)), "euler_ancestral", 20)
    made = own.sample(1).samples
    one = Sampler(Gaussian(0.3, 0.5).network(VP()), "euler_ancestral", 20)
    mean, variance = propagated(one)  # of noise that is independent from row to row
    assert abs(float(made.mean()) - mean) < 0.03 and abs(float(made.var()) - variance) < 0.02


@pytest.mark.parametrize("solver", ["euler_ancestral", "dpmpp_2m_sde"])
def test_a_seed_counts_where_the_state_is_given(solver):
    """https://github.com/Comfy-Org/ComfyUI/issues/2833"""
    own = Sampler(Mixture().network(VP(), (2, 3)), solver, 4)
    x = torch.linspace(-1, 1, 12).reshape(2, 2, 3)
    made = []
    for state in (1, 2):
        torch.manual_seed(state)
        made.append(own.sample(x=x, noised=True, seeds=[5, 6]).samples)
    assert torch.equal(*made)
    assert not torch.equal(own.sample(x=x, noised=True, seeds=[6, 5]).samples, made[0])


@pytest.mark.parametrize("start", [0.2, 0.5])
@pytest.mark.parametrize("solver, noise", [("heun", None), ("dpmpp_2m_sde", "brownian")])
def test_an_image_may_begin_with_the_seed_it_was_made_from(solver, noise, start):
    """https://github.com/AUTOMATIC1111/stable-diffusion-webui/issues/1392"""
    own = Sampler(Gaussian(0.3, 0.5).network(VP(), (8192,)), solver, 40)
    again = own.sample(x=own.sample(1, noise=noise).samples, start=start, noise=noise).samples
    assert abs(float(again.std()) - 0.5) < 0.03


def test_a_run_goes_on_with_the_seed_it_began_with():
    """https://github.com/Comfy-Org/ComfyUI/issues/2833"""
    network = Gaussian(0.3, 0.5).network(VP(), (8192,))
    whole = Sampler(network, "euler_ancestral", 40)
    first, second = (
        Sampler(network, "euler_ancestral", times=points)
        for points in (whole.points[:21], whole.points[20:])
    )
    made = second.sample(x=first.sample(1).samples, noised=True).samples
    assert abs(float(made.std()) - float(whole.sample(1).samples.std())) < 0.012


@pytest.mark.parametrize("noise", [None, "brownian"])
def test_a_sample_is_the_same_in_any_batch(noise):
    """https://github.com/crowsonkb/k-diffusion/issues/25"""
    own = Sampler(Mixture().network(VP(), (2, 3)), "dpmpp_sde", 4)
    whole = own.sample(seeds=range(9), noise=noise).samples
    assert torch.equal(own.sample(seeds=range(9), noise=noise, batch_size=4).samples, whole)
    assert torch.equal(own.sample(seeds=[7, 2], noise=noise).samples, whole[[7, 2]])


@pytest.mark.parametrize("grid", ["karras", "exponential"])
def test_levels_that_share_a_timestep_stay_apart(grid):
    """https://github.com/huggingface/diffusers/issues/12771"""
    network = SHARP.network(
        Discrete.cosine(), label=lambda at: max(at.t, 0.0), label_dtype=torch.int64, scale=None
    )
    own = Sampler(network, "dpmpp_2m", 20, grid=grid)
    labels = [row.call.label for row in own.plan().rows[1:]]
    levels = [point.lam for point in own.points]
    assert len(labels) == 20 and len(set(labels)) < 20  # some share one
    assert all(a < b for a, b in pairwise(levels))
    assert own.plan().nfe == 20


def test_a_start_between_the_steps_suits_solvers_of_two_calls():
    """https://github.com/huggingface/diffusers/issues/3116"""
    network, x = Mixture().network(VP(), (2,)), torch.tensor([[0.1, -0.9], [0.8, 0.2]])
    for start in (0.3, 0.5):
        fine = Sampler(network, "heun", 150).sample(x=x, start=start).samples
        for steps in (30, 31):
            for solver in ("dpm_2", "heun", "dpm_solver_2", "dpm_solver_3"):
                made = Sampler(network, solver, steps).sample(x=x, start=start).samples
                assert (made - fine).abs().max() < 0.02, (solver, steps, start)


@pytest.mark.parametrize("solver", ["lms", "ipndm", "deis", "plms", "dpmpp_3m", "unipc"])
def test_no_noise_is_left_after_few_steps_from_a_low_level(solver):
    """https://github.com/huggingface/diffusers/issues/5630"""
    own = Sampler(SHARP.network(SD, (8,)), solver, 50)
    x = torch.full((2, 8), 0.5)
    assert off_the_data(own.sample(x=x, start=99.0).samples) < 0.05


def test_guidance_of_zero_is_unconditional():
    """https://github.com/huggingface/diffusers/issues/9680"""
    own = Sampler(labelled_mixture(), "ddim", 6)
    none = own.sample(8, condition=[3] * 8).samples  # the component that stands for all
    told = own.sample(8, condition=[0] * 8).samples
    assert torch.allclose(own.sample(8, condition=[0] * 8, guidance=0.0).samples, none, atol=1e-6)
    assert not torch.allclose(told, none, atol=0.1)
    half = own.sample(8, condition=[0] * 8, guidance=0.5).samples
    assert not torch.allclose(half, none, atol=0.01) and not torch.allclose(half, told, atol=0.01)


def test_one_sampler_serves_several_threads():
    """https://github.com/huggingface/diffusers/issues/7851"""
    own = Sampler(Mixture().network(VP(), (2, 3)), "dpmpp_2m_sde", 10)
    wanted = [own.sample(2, seed=10 * i).samples for i in range(4)]
    same = [False] * 4

    def work(i):
        runs = (own.sample(2, seed=10 * i).samples for _ in range(5))
        same[i] = all(torch.equal(made, wanted[i]) for made in runs)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same)


@pytest.mark.parametrize(
    "options", [{}, {"clip": (-0.8, 0.8)}, {"eta": 0.5}, {"eta": 1.0, "clip": (-0.8, 0.8)}]
)
def test_a_network_of_x0_and_one_of_eps_take_the_same_steps(options):
    """https://github.com/huggingface/diffusers/issues/1486"""
    made = [
        Sampler(Mixture().network(SD, (4,), prediction), "ddim", 10, **options).sample(4).samples
        for prediction in ("x0", "eps")
    ]
    torch.testing.assert_close(*made, rtol=0, atol=2e-5)


def test_the_first_level_does_not_move_with_the_steps():
    """https://github.com/huggingface/diffusers/issues/13887"""
    network = Mixture().network(SD)
    for grid in (None, "trailing", "linspace", "karras", "uniform", "lambda"):
        for n in (1, 7, 10, 15, 50):
            first = Sampler(network, "unipc", n, grid=grid).points[0]
            assert first.t == 999.0, (grid, n)
            assert first.sigma / first.alpha == pytest.approx(SD.at(999.0).ratio, rel=1e-12)


@pytest.mark.parametrize("grid", ["leading", "trailing", "linspace"])
def test_ddim_runs_back_through_the_same_times(grid):
    """https://github.com/huggingface/diffusers/issues/10695"""
    how = {"grid": grid, "end": "t_min", "dtype": torch.float64, "backend": "torch"}
    own = Sampler(Gaussian(0.3, 0.5).network(SD, (4,)), "ddim", 10, **how)
    x = own.sample(3).samples
    latents = own.encode(x, start=own.points[-1].t, refine=20).samples
    back = own.sample(x=latents, noised=True).samples
    assert (back - x).abs().max() < 1e-6


@pytest.mark.parametrize("grid", grids.GRIDS)
@pytest.mark.parametrize("steps", [1, 5, 40])
def test_every_step_moves_and_the_last_ends_at_clean_data(grid, steps):
    """https://github.com/huggingface/diffusers/issues/5689"""
    own = Sampler(SHARP.network(SD), "dpmpp_2m", steps, grid=grid)
    assert own.plan().nfe == steps and own.points[-1].sigma == 0.0
    assert all(b.lam > a.lam for a, b in pairwise(own.points))
    if steps == 40:
        assert off_the_data(own.sample(16).samples) < 0.05


def test_a_file_has_the_seed_of_each_of_its_samples(tmp_path):
    """https://github.com/Comfy-Org/ComfyUI/issues/165"""
    own = Sampler(labelled_mixture(), "euler_ancestral", 5)
    made = own.sample(4, seed=2**64 - 4, condition=[0, 1, 2, 0])
    files.write(tmp_path / "x.npz", made)
    stored, recipe = np.load(tmp_path / "x.npz"), files.read_recipe(tmp_path / "x.npz")
    one = own.sample(seeds=[int(stored["seeds"][2])], condition=[recipe["condition"][2]])
    assert np.array_equal(one.samples.numpy()[0], stored["samples"][2])


@pytest.mark.parametrize(
    "solver, noise",
    [("ddim", None), ("euler", None), ("heun", None), ("euler_ancestral", "brownian")],
)
def test_two_halves_are_the_whole_run(solver, noise):
    """https://github.com/Comfy-Org/ComfyUI/issues/6293"""
    network = Mixture().network(VP(), (2, 3))
    whole = Sampler(network, solver, 8)
    first, second = (
        Sampler(network, solver, times=points) for points in (whole.points[:5], whole.points[4:])
    )
    middle = first.sample(3, noise=noise).samples
    made = second.sample(x=middle, noised=True, seed=0, noise=noise).samples
    torch.testing.assert_close(made, whole.sample(3, noise=noise).samples, rtol=0, atol=2e-5)


@pytest.mark.parametrize("solver", ["euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "ddpm"])
def test_ancestral_noise_suits_flow_matching(solver):
    """https://github.com/lllyasviel/stable-diffusion-webui-forge/pull/2915"""
    network = Gaussian(0.3, 0.5).network(FlowMatching(), (4096,))
    made = Sampler(network, solver, 80).sample(1).samples
    assert abs(float(made.mean()) - 0.3) < 0.04 and abs(float(made.std()) - 0.5) < 0.04
