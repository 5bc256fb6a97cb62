"""Writes cfg_pp.json: the ends of ComfyUI's own CFG++ functions on a small problem.

    PYTHONPATH=.:tests/helpers python tests/golden/make_cfg_pp.py FOLDER

FOLDER is a clone of ComfyUI, of which comfy/k_diffusion/sampling.py is loaded alone.
"""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from cfg_pp_cases import CASES, LEVELS, estimate, noise, start

OUT = Path(__file__).with_name("cfg_pp.json")


class Const:
    """What ComfyUI asks for to know a flow."""


def stub(name, **content):
    made = sys.modules[name] = ModuleType(name)
    vars(made).update(content, __path__=[])
    return made


def keep(options, function, disable_cfg1_optimization):
    return options | {"post": function}


def load(folder):
    """Its module, over stubs of what that imports."""
    package = stub("comfy")
    package.model_patcher = stub("comfy.model_patcher", set_model_options_post_cfg_function=keep)
    package.model_sampling = stub("comfy.model_sampling", CONST=Const)
    stub("comfy.memory_management")
    package.utils = stub("comfy.utils", model_trange=lambda n, disable: range(n))
    inner = stub("comfy.k_diffusion")
    for name in ("utils", "deis", "sa_solver"):
        vars(inner)[name] = stub(f"comfy.k_diffusion.{name}")
    inner.utils.append_dims = lambda x, ndim: x.reshape(*x.shape, *[1] * (ndim - x.ndim))
    for name in ("torchsde", "scipy"):
        stub(name, integrate=None)
    module = stub("comfy.k_diffusion.sampling")
    module.__package__ = "comfy.k_diffusion"
    code = (Path(folder) / "comfy" / "k_diffusion" / "sampling.py").read_text()
    exec(compile(code, "sampling.py", "exec"), vars(module))
    return module


def model_of(kind, scale):
    def model(x, sigma, model_options, **_):
        sigma = sigma.view(-1, 1)
        alpha = torch.ones_like(sigma) if kind == "ve" else 1.0 - sigma
        with_it, without = (estimate(x, alpha, sigma, k) for k in range(2))
        denoised = without + scale * (with_it - without)
        return model_options["post"]({"denoised": denoised, "uncond_denoised": without})

    sampling = Const() if kind == "flow" else SimpleNamespace()
    patcher = SimpleNamespace(get_model_object=lambda _: sampling)
    model.inner_model = SimpleNamespace(model_patcher=patcher)
    return model


def main(folder):
    sampling, made = load(folder), {}
    for name, (function, kind, options, _, _, scale) in CASES.items():
        calls = iter(range(99))
        if "ancestral" in function:
            options = options | {"noise_sampler": lambda _, __, calls=calls: noise(next(calls))}
        sigmas = torch.tensor(LEVELS[kind], dtype=torch.float64)
        made[name] = getattr(sampling, function)(
            model_of(kind, scale), start(kind), sigmas, extra_args={}, disable=True, **options
        ).tolist()
    OUT.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
