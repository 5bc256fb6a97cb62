"""Records what networks of the NCSN++ family say in their own repositories: tests/golden/ncsnpp.safetensors.

    PYTHONPATH=.:tests:tests/helpers:tests/adapters python tests/adapters/record_ncsnpp.py FOLDER

FOLDER holds score_sde_pytorch, CLD-SGM, GENIE and denoising-diffusion-gan; needs ml_collections. Their
CUDA resampling is replaced by a plain one. Weights and inputs are those of `ncsnpp_cases`.
"""

import importlib
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import ncsnpp_cases as cases
import safetensors.torch
import test_cld_sgm
import test_ddgan_checkpoint as test_ddgan
import test_genie_checkpoint as test_genie
import test_score_sde
import torch
from torch.nn import functional as F

# What the small configs of the tests leave to the readers' defaults.
DEFAULTS = {
    "dropout": 0.0, "init_scale": 0.0, "resamp_with_conv": True, "conditional": True, "skip_rescale": True,
    "resblock_type": "biggan", "progressive": "none", "progressive_input": "none",
    "progressive_combine": "sum", "nonlinearity": "swish", "act_name": "swish", "fourier_scale": 16.0,
    "fir": False, "fir_kernel": [1, 3, 3, 1], "use_fir": False, "normalization": "GroupNorm",
    "sigma_min": 0.01, "sigma_max": 50.0, "centered": True, "not_use_tanh": False, "num_classes": None,
    "apply_act_before_res": False, "image_size": 4, "embedding_type": "positional",
}  # fmt: skip


def upfirdn2d(x, kernel, up=1, down=1, pad=(0, 0)):
    """Zeros between the pixels and around them, a convolution, every `down`-th pixel."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n * c, 1, h * up, w * up)
    spread[:, 0, ::up, ::up] = x.reshape(n * c, h, w)
    spread = F.pad(spread, (*pad, *pad))
    made = F.conv2d(spread, kernel.flip(0, 1)[None, None].to(x))[:, :, ::down, ::down]
    return made.reshape(n, c, *made.shape[2:])


class Repository:
    """Imports of one of them: `with Repository(path, op="op")`, forgotten at the end."""

    def __init__(self, path, op, **modules):
        self.path, self.modules = str(path), modules | {op: SimpleNamespace(upfirdn2d=upfirdn2d)}

    def __enter__(self):
        self.before = set(sys.modules)
        for name, content in self.modules.items():
            made = types.ModuleType(name)
            vars(made).update(vars(content))
            sys.modules[name] = made
        sys.path.insert(0, self.path)

    def __exit__(self, *error):
        sys.path.remove(self.path)
        for name in set(sys.modules) - self.before:
            if not name.startswith(("torch", "numpy")):
                del sys.modules[name]


def said(config):
    own = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k != "format"}
    return SimpleNamespace(**DEFAULTS | own)


def output(module, *inputs, **named):
    module.load_state_dict(cases.weights(module), strict=False)
    with torch.no_grad():
        return module.eval()(*inputs, **named)


def score_sde(root):
    with Repository(root / "score_sde_pytorch", "op"):
        kinds = {n: importlib.import_module(f"models.{n}") for n in ("ncsnpp", "ddpm")}
        for name in test_score_sde.CONFIGS:
            config = test_score_sde.config_of(name)
            own = SimpleNamespace(
                **{part: said(config[part]) for part in ("model", "data", "training")}
            )
            kind = {"ncsnpp": "NCSNpp", "ddpm": "DDPM"}[own.model.name]
            made = getattr(kinds[own.model.name], kind)(own)
            if own.training.sde != "vesde" and own.model.name == "ncsnpp":
                made.sigmas = torch.ones(1000)  # they are looked up, and not used
            yield f"score_sde {name}", made, output(made, cases.image(), cases.labels(config))


def cld_sgm(root):
    stand_in = SimpleNamespace(add_dimensions=None)
    with Repository(root / "CLD-SGM", "op", **{"util.utils": stand_in}):
        kind = importlib.import_module("models.ncsnpp").NCSNpp
        made = kind(said(test_cld_sgm.CONFIG))
        yield "cld_sgm", made, output(made, cases.image(2), cases.labels(test_cld_sgm.CONFIG))


def ddgan(root):
    with Repository(root / "denoising-diffusion-gan", "score_sde.op"):
        kind = importlib.import_module("score_sde.models.ncsnpp_generator_adagn").NCSNpp
        for name, changed in (("ddgan", {}), ("ddgan one", test_ddgan.ONE)):
            config = {"fir": True, "progressive_input": "residual"} | test_ddgan.CONFIG | changed
            made = kind(said(config))
            yield name, made, output(made, cases.image(), cases.labels(config), cases.latent())


def genie(root):
    def add_dimensions(x, count):
        return x.view(-1, *[1] * count)

    def get_resize_fn(side):
        return lambda x: F.interpolate(x, (side, side), mode="bilinear", antialias=True)

    stand_in = SimpleNamespace(add_dimensions=add_dimensions, get_resize_fn=get_resize_fn)
    names = {"op": "models.score_sde_pytorch.op", "utils.util": stand_in}
    with Repository(root / "GENIE", names.pop("op"), **names):
        from ml_collections import ConfigDict

        models = importlib.import_module("models.util")
        for model, normalise in [*test_genie.CASES, (test_genie.UPSAMPLER, False)]:
            base = models.get_diffusion_model(ConfigDict(vars(said(model))))
            head = models.get_genie_model(
                ConfigDict({
                    "genie_model": vars(said(test_genie.head_of(model, normalise))),
                    "sde": {"beta_min": 0.1, "beta_d": 19.9},
                })
            )  # fmt: skip
            t, seen = cases.times(), {}
            if "cond_res" in model:
                seen = {"context": (cases.small(), cases.times())}
            out, features, embedding = output(base, cases.image(), model["M"] * t, **seen)
            eps = out
            if model["pred"] == "v":
                wrapper = importlib.import_module("wrappers").VPredictor(
                    base, model["M"], 0.1, 19.9
                )
                with torch.no_grad():
                    eps = wrapper.eps(cases.image(), t, **seen)
            slope = output(head, cases.image(), t, eps, features, embedding, **seen)
            yield f"genie {model['name']}", base, out
            yield f"genie {model['name']} slope", head, slope


def main(root):
    made, keys = {}, {}
    for family in (score_sde, cld_sgm, ddgan, genie):
        for name, module, out in family(root):
            made[name], keys[name] = out.float().contiguous(), cases.digest(module)
    safetensors.torch.save_file(made, cases.GOLDEN, metadata=keys)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
