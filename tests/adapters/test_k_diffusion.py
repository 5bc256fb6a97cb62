"""k-diffusion's functions here, against what its own made of the same inputs (tests/golden)."""

from pathlib import Path

import pytest
import torch
from k_diffusion_cases import CASES, SCHEDULES, denoiser, noise_sampler, start
from safetensors.torch import load_file

from diffusion_engine.adapters import k_diffusion

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "k_diffusion.safetensors")


def made(name, dtype=torch.float32, **how):
    function, sigmas, options = CASES[name]
    given, calls = dict(options), []
    sigma = torch.tensor(sigmas, dtype=dtype)
    x = start(sigma[0]).to(dtype)
    if given.pop("noise", False):
        given["noise_sampler"] = noise_sampler(x, calls)
    torch.manual_seed(11)
    run = getattr(k_diffusion, function)
    how = {"disable": True, **how}
    if function == "sample_dpm_fast":
        ends = float(sigma[-1]), float(sigma[0])
        return run(denoiser, x, *ends, given.pop("n"), **how, **given), calls
    return run(denoiser, x, sigma, **how, **given), calls


@pytest.mark.parametrize("name", CASES)
def test_the_same_samples(name):
    ours, _ = made(name)
    theirs = GOLDEN[f"{name}/x32"]
    assert ours.dtype == torch.float32 and ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("dpm_fast")])
def test_the_same_samples_in_float64(name):
    """dpm_fast's levels are float32 there."""
    if not CASES[name][2].keys().isdisjoint(("s_churn", "eta")) and "noise" not in CASES[name][2]:
        return  # torch draws other normals in float64
    ours, _ = made(name, torch.float64)
    theirs = GOLDEN[f"{name}/x64"]
    assert ours.dtype == torch.float64
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_the_noise_sampler_is_called_alike(name):
    if "noise" not in CASES[name][2]:
        return
    _, calls = made(name)
    theirs = GOLDEN[f"{name}/calls"] if CASES[name][2].get("eta", 1.0) else torch.empty(0, 2)
    assert torch.allclose(torch.tensor(calls).view(-1, 2), theirs[: len(calls)], rtol=1e-6, atol=0)
    # What is drawn last and multiplied by 0 is not drawn here.
    assert len(theirs) - len(calls) <= 1


@pytest.mark.parametrize("name", CASES)
def test_callbacks(name):
    told = []
    made(name, callback=told.append)
    for key in ("x", "denoised", "sigma", "sigma_hat"):
        ours = torch.stack([torch.as_tensor(info[key]) for info in told])
        theirs = GOLDEN[f"{name}/{key}"]
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-5), key
    assert [info["i"] for info in told] == GOLDEN[f"{name}/i"].tolist()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    function, args = SCHEDULES[name]
    ours = getattr(k_diffusion, function)(**args)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, GOLDEN[name], rtol=3e-6, atol=3e-6)  # exp(u) - 1 in float32
