"""Writes comfyui.safetensors: what ComfyUI's own functions make of small inputs.

    PYTHONPATH=FOLDER:.:tests/helpers python tests/golden/make_comfyui.py

FOLDER is a checkout of ComfyUI, of which comfy/k_diffusion/sampling.py and what it imports from its own
folder are loaded; the rest of its imports are stood in for.
"""

import importlib
import sys
from pathlib import Path
from unittest.mock import MagicMock

import torch
from comfyui_cases import CASES, SIGMAS, Model, sigmas_of
from k_diffusion_cases import noise_sampler, start
from safetensors.torch import save_file

OUT = Path(__file__).parent / "comfyui.safetensors"
STOOD_IN = ("model_patcher", "model_sampling", "memory_management", "utils")


def sampling():
    """ComfyUI's module of samplers."""
    import comfy

    sys.modules |= {name: MagicMock() for name in ("torchsde", "scipy")}
    for part in STOOD_IN:
        sys.modules[f"comfy.{part}"] = MagicMock()
        setattr(comfy, part, sys.modules[f"comfy.{part}"])
    comfy.model_sampling.CONST = type("CONST", (), {})
    comfy.utils.model_trange = lambda n, **how: range(n)
    return importlib.import_module("comfy.k_diffusion.sampling")


def main():
    theirs, made = sampling(), {}
    for name, (function, options) in CASES.items():
        for levels in SIGMAS:
            sigmas, calls = sigmas_of(levels), []
            x = start(sigmas[0]).double()
            run = getattr(theirs, f"sample_{function}")
            end = run(Model(), x, sigmas, noise_sampler=noise_sampler(x, calls), **options)
            made[f"{name} {levels}/x"] = end.contiguous()
            made[f"{name} {levels}/calls"] = torch.tensor(calls, dtype=torch.float64).view(-1, 2)
    save_file(made, OUT)
    print(f"{len(made)} tensors, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
