"""Writes k_diffusion.safetensors: what k-diffusion's own functions make of small inputs.

Run in an environment that has k-diffusion, which wants numpy below 2, with torchsde and torchdiffeq:

    pip install --target FOLDER --no-deps k-diffusion torchsde trampoline torchdiffeq
    PYTHONPATH=FOLDER:.:tests/helpers python tests/golden/make_k_diffusion.py

Of its package sampling.py and external.py are loaded alone: the rest asks for what nothing here uses.
"""

from pathlib import Path

import torch
from k_diffusion_cases import ADAPTIVE, CASES, MAKERS, SCHEDULES, denoiser, noise_sampler, start
from safetensors.torch import save_file

from benchmarks.peers import k_diffusion_alone

OUT = Path(__file__).with_name("k_diffusion.safetensors")


def adaptive(sampling, name, options):
    """In float64 throughout, which its levels are where they are given so."""
    low, high = torch.tensor([0.03, 14.6], dtype=torch.float64)
    x, calls, told = start(high), [], []
    x, info = sampling.sample_dpm_adaptive(
        denoiser, x.double(), low, high, callback=told.append, disable=True, return_info=True,
        noise_sampler=noise_sampler(x.double(), calls), **options,
    )  # fmt: skip
    sigma = torch.stack([t["sigma"] for t in told])
    counts = torch.tensor([info[key] for key in ("steps", "n_accept", "n_reject")])
    made = {"x64": x, "sigma": sigma, "calls": torch.tensor(calls).view(-1, 2), "counts": counts}
    return {f"{name}/{key}": value for key, value in made.items()}


def main():
    sampling, external = k_diffusion_alone.modules()
    made = {}
    for name, (function, sigmas, options) in CASES.items():
        options = dict(options)
        for dtype in (torch.float32, torch.float64):
            calls = []
            sigma = torch.tensor(sigmas, dtype=dtype)
            x = start(sigma[0]).to(dtype)
            given = dict(options)
            if given.pop("noise", False):
                given["noise_sampler"] = noise_sampler(x, calls)
            torch.manual_seed(11)
            run = getattr(sampling, function)
            told = []
            how = {"callback": told.append, "disable": True}
            if function == "sample_dpm_fast":
                out = run(
                    denoiser, x, float(sigma[-1]), float(sigma[0]), given.pop("n"), **how, **given
                )
            else:
                out = run(denoiser, x, sigma, **how, **given)
            kind = "32" if dtype == torch.float32 else "64"
            made[f"{name}/x{kind}"] = out
            if kind == "32":
                for key in ("x", "denoised", "sigma", "sigma_hat"):
                    made[f"{name}/{key}"] = torch.stack([torch.as_tensor(t[key]) for t in told])
                made[f"{name}/i"] = torch.tensor([t["i"] for t in told])
                made[f"{name}/calls"] = torch.tensor(calls).view(-1, 2)
    for name, options in ADAPTIVE.items():
        made |= adaptive(sampling, f"dpm_adaptive {name}", options)
    for name, (function, args) in SCHEDULES.items():
        made[name] = getattr(sampling, function)(**args)
    x = start(3.0)
    for name, make in MAKERS.items():
        wrapped = make(external)
        levels = torch.tensor([0.05, 0.7, 3.0, 14.0, 30.0])[: len(x)]
        more = {"cond": None} if name.startswith("CompVis") else {}
        made[f"wrapper/{name}"] = wrapped(x, levels, **more)
        if hasattr(wrapped, "get_sigmas"):
            made[f"wrapper/{name}/sigmas"] = wrapped.get_sigmas(7)
    save_file({k: v.contiguous() for k, v in made.items()}, OUT)
    print(f"{len(made)} tensors, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
