"""ER-SDE, SEEDS and SA-Solver under ComfyUI's names, against what its own functions made (tests/golden)."""

from pathlib import Path

import pytest
import torch
from comfyui_cases import CASES, SIGMAS, Model, sigmas_of
from k_diffusion_cases import DOWN, TWICE, denoiser, noise_sampler, start
from safetensors.torch import load_file

from diffusion_engine.adapters.comfyui import sampler_function
from diffusion_engine.adapters.k_diffusion.extended import EXTENDED, interval_of
from diffusion_engine.processes import Discrete

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "comfyui.safetensors")


def made(name, sigmas, calls, model=None, **more):
    function, options = CASES[name]
    x = start(sigmas[0]).to(sigmas.dtype)
    run = sampler_function(function, **options)
    return run(
        model or Model(), x, sigmas, disable=True, noise_sampler=noise_sampler(x, calls), **more
    )


@pytest.mark.parametrize("levels", SIGMAS)
@pytest.mark.parametrize("name", CASES)
def test_the_same_samples_and_calls_of_the_noise(name, levels):
    calls = []
    ours = made(name, sigmas_of(levels), calls)
    assert torch.allclose(ours, GOLDEN[f"{name} {levels}/x"], rtol=0, atol=1e-7)
    theirs = GOLDEN[f"{name} {levels}/calls"]
    ours = torch.tensor(calls, dtype=torch.float64).view(-1, 2)
    assert torch.allclose(ours, theirs[: len(ours)], rtol=1e-6, atol=0)
    ends = name in ("seeds_2 phi_2", "exp_heun_2_x0_sde")  # whose last draw is multiplied by 0
    assert len(theirs) - len(ours) <= ends


@pytest.mark.parametrize("name", EXTENDED)
def test_a_step_that_stays_on_its_level(name):
    end = made(name, torch.tensor(TWICE), [])
    assert end.isfinite().all()
    told = []
    made(name, torch.tensor(DOWN), [], callback=told.append)
    assert [info["i"] for info in told] == list(range(len(DOWN) - 1))


def test_the_interval_of_a_model_without_a_schedule_is_stable_diffusions():
    low, high = interval_of(None)
    table = Discrete.scaled_linear()
    assert table.at(199).ratio < low < table.at(201).ratio
    assert table.at(798).ratio < high < table.at(800).ratio
    calls = []
    made("sa_solver", torch.tensor(DOWN), calls, denoiser)
    assert all(low <= after <= high for _, after in calls) and calls


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("er_sde", {"noise_scaler": 3}, "noise_scaler=3: give a function of sigma"),
        ("er_sde", {"noise_scaler": lambda s: s**0.5}, "does not rise with the level"),
        ("er_sde", {"max_stage": 4}, "max_order=4: er_sde has orders 1 to 3"),
        ("seeds_2", {"solver_type": "heun"}, "solver_type='heun': choose phi_1, phi_2"),
        ("seeds_2", {"r": 0.0}, "r=0: the second call lies above 0"),
        ("seeds_3", {"r_1": 0.7}, "r_1=0.7 and r_2=0.666667: give 0 < r_1 < r_2 <= 1"),
        ("sa_solver", {"tau_func": 1.0}, "tau_func=1.0: give a function of sigma"),
        ("sa_solver", {"predictor_order": 5}, "predictor_order=5: give 1 to 4"),
        ("sa_solver", {"corrector_order": 5}, "corrector_order=5: give 1 to 4, or 0"),
    ],
)
def test_what_is_refused(name, options, said):
    x = start(14.6)
    with pytest.raises(ValueError, match=said):
        sampler_function(name, **options)(denoiser, x, torch.tensor(DOWN), disable=True)
