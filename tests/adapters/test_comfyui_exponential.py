"""RES, gradient estimation, Heun++, exponential Heun and DPM-Solver++(2S) under ComfyUI's names, against what
its own functions made of the same inputs (tests/golden)."""

from pathlib import Path

import comfyui_exponential_cases as cases
import pytest
import torch
from k_diffusion_cases import DOWN, TWICE, denoiser, noise_sampler, start
from safetensors.torch import load_file

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.adapters.comfyui import sampler_function
from diffusion_engine.adapters.k_diffusion.exponential import EXPONENTIAL
from diffusion_engine.processes import FlowMatching

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "comfyui_exponential.safetensors")


def made(name, sigmas, calls, **how):
    function, options = cases.CASES[name]
    x = start(float(sigmas[0])).to(sigmas.dtype)
    if function in cases.DRAWING:
        how["noise_sampler"] = noise_sampler(x, calls)
    return sampler_function(function, **options)(cases.of_sigmas(), x, sigmas, disable=True, **how)


@pytest.mark.parametrize("levels", cases.SIGMAS)
@pytest.mark.parametrize("name", cases.CASES)
def test_the_same_samples_and_calls_of_the_noise(name, levels):
    calls = []
    ours = made(name, cases.tensor(cases.SIGMAS[levels]), calls)
    assert torch.allclose(ours, GOLDEN[f"{name} {levels}/x"], rtol=0, atol=1e-7)
    theirs = GOLDEN[f"{name} {levels}/calls"]
    assert torch.allclose(torch.tensor(calls, dtype=torch.float64).view(-1, 2), theirs, rtol=1e-6)


@pytest.mark.parametrize("name", cases.FLOWS)
def test_a_flow_is_solved_in_its_times(name):
    """The engine's solvers, as ComfyUI's functions are run on a flow's sigmas."""
    _, _, solver, options = cases.FLOWS[name]
    x = start(1.0).double()
    network = ScoreNetwork(cases.flow_denoiser, FlowMatching(), tuple(x.shape[1:]), prediction="x0")
    normals = noise_sampler(x, [])
    drawn = {}

    def noise(row, m, seeds):
        return drawn.setdefault(row, normals(0.0, 0.0))

    how = {"times": cases.TIMES, "dtype": torch.float64, "backend": "torch", "batch_size": len(x)}
    ours = Sampler(network, solver, **how, **options).sample(x=x, noised=True, noise=noise).samples
    assert torch.allclose(ours, GOLDEN[f"{name} flow/x"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*EXPONENTIAL, "dpmpp_2s_ancestral"])
def test_a_step_that_stays_on_its_level(name):
    assert made(name, torch.tensor(TWICE), []).isfinite().all()
    told = []
    made(name, torch.tensor(DOWN), [], callback=told.append)
    assert [info["i"] for info in told] == list(range(len(DOWN) - 1))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("exp_heun_2_x0", {"solver_type": "heun"}, "solver_type='heun': choose phi_1, phi_2"),
        ("gradient_estimation", {"ge_gamma": "2"}, "gamma='2'"),
        ("heunpp2", {"eta": 1.0}, "takes no eta"),
    ],
)
def test_what_is_refused(name, options, said):
    x = start(14.6)
    with pytest.raises(ValueError, match=said):
        sampler_function(name, **options)(denoiser, x, torch.tensor(DOWN), disable=True)
