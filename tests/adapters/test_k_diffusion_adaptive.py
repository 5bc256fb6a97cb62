"""sample_dpm_adaptive, against what k-diffusion's own made of the same inputs (tests/golden)."""

import pytest
import torch
from k_diffusion_cases import ADAPTIVE, denoiser, noise_sampler, start
from test_k_diffusion import GOLDEN

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.adapters.comfyui import sampler_function
from diffusion_engine.adapters.k_diffusion import sample_dpm_adaptive
from diffusion_engine.processes import EDM

LOW, HIGH = 0.03, 14.6


def run(options, x, **how):
    return sample_dpm_adaptive(denoiser, x, LOW, HIGH, disable=True, **how, **options)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_same_steps_samples_and_noise(name):
    calls, told = [], []
    x = start(torch.tensor(HIGH, dtype=torch.float64)).double()
    how = {"noise_sampler": noise_sampler(x, calls), "callback": told.append, "return_info": True}
    made, info = run(ADAPTIVE[name], x, **how)
    theirs = {
        key: GOLDEN[f"dpm_adaptive {name}/{key}"] for key in ("x64", "sigma", "calls", "counts")
    }
    assert [info[key] for key in ("steps", "n_accept", "n_reject")] == theirs["counts"].tolist()
    assert made.dtype == torch.float64
    assert torch.allclose(made, theirs["x64"], rtol=0, atol=1e-6)  # tolerances are float32 there
    sigma = torch.stack([t["sigma"] for t in told])
    assert torch.allclose(sigma, theirs["sigma"], rtol=1e-5, atol=0)
    assert [t["i"] for t in told] == list(range(info["steps"]))
    wanted = theirs["calls"] if "eta" in ADAPTIVE[name] else torch.empty(0, 2)
    assert torch.allclose(torch.tensor(calls).view(-1, 2), wanted.float(), rtol=1e-5, atol=0)
    # A step that is tried again has its first call still.
    order = ADAPTIVE[name].get("order", 3)
    assert info["nfe"] == order * info["steps"] - info["n_reject"]


@pytest.mark.parametrize("name", ["23", "12"])
def test_one_sample_is_that_of_the_driver(name):
    x = start(torch.tensor(HIGH, dtype=torch.float64))[:1].double()
    network = ScoreNetwork.from_denoiser(denoiser, tuple(x.shape[1:]), EDM())
    driver = {"name": "dpm_adaptive", "options": ADAPTIVE[name]}
    how = {"sigmas": [HIGH, LOW], "dtype": torch.float64, "backend": "torch", "driver": driver}
    theirs = Sampler(network, "euler", **how).sample(x=x, noised=True)
    made, info = run(ADAPTIVE[name], x, return_info=True)
    assert torch.allclose(made, theirs.samples, rtol=0, atol=1e-5)  # labels are float32 there
    assert info["nfe"] == theirs.nfe and info["n_reject"] == theirs.reports[0]["rejected"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_models_are_called_in_the_dtype_of_x(dtype):
    seen = set()

    def model(x, sigma):
        assert not torch.is_grad_enabled()
        seen.update((x.dtype, sigma.dtype))
        return denoiser(x.float(), sigma.float()).to(dtype)

    x = start(torch.tensor(HIGH)).to(dtype)
    made = sample_dpm_adaptive(model, x, LOW, HIGH, disable=True)
    assert made.dtype == dtype and seen == {dtype}
    whole = GOLDEN["dpm_adaptive 23/x64"].to(dtype)
    assert torch.allclose(made, whole, rtol=0, atol=1e-3 if dtype == torch.float32 else 0.1)


def test_in_comfyui_it_goes_between_the_ends_above_0():
    x = start(torch.tensor(HIGH))
    sigmas = torch.tensor([HIGH, 3.0, LOW, 0.0])
    made = sampler_function("dpm_adaptive", order=2)(denoiser, x, sigmas, {}, None, True)
    assert torch.allclose(made, run({"order": 2}, x), rtol=0, atol=1e-5)
    assert sampler_function("dpm_adaptive")(denoiser, x, sigmas[:1], {}, None, True) is x
