"""Writes comfyui_exponential.safetensors: what ComfyUI's own functions make of small inputs.

    PYTHONPATH=FOLDER:.:tests/helpers:tests/golden python tests/golden/make_comfyui_exponential.py

FOLDER is as of make_comfyui.py.
"""

from pathlib import Path

import comfyui_exponential_cases as cases
import torch
from k_diffusion_cases import noise_sampler, start
from make_comfyui import sampling
from safetensors.torch import save_file

OUT = Path(__file__).parent / "comfyui_exponential.safetensors"


def main():
    theirs, made = sampling(), {}

    def run(key, function, options, model, sigmas, x):
        calls = []
        drawing = function in cases.DRAWING
        more = {"noise_sampler": noise_sampler(x, calls)} if drawing else {}
        end = getattr(theirs, f"sample_{function}")(model, x, sigmas, **more, **options)
        made[f"{key}/x"] = end.contiguous()
        made[f"{key}/calls"] = torch.tensor(calls, dtype=torch.float64).view(-1, 2)

    for name, (function, options) in cases.CASES.items():
        for levels, sigmas in cases.SIGMAS.items():
            x = start(sigmas[0]).double()
            run(f"{name} {levels}", function, options, cases.of_sigmas(), cases.tensor(sigmas), x)
    flow = cases.of_times(theirs.comfy.model_sampling.CONST())
    for name, (function, options, _, _) in cases.FLOWS.items():
        run(f"{name} flow", function, options, flow, cases.tensor(cases.TIMES), start(1.0).double())
    save_file(made, OUT)
    print(f"{len(made)} tensors, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
