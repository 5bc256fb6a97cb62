"""Small networks of the NCSN++ family as their repositories save them: a folder each, with random weights."""

import json
import math

import safetensors.torch
import torch

from diffusion_engine.adapters.checkpoint import on_meta
from diffusion_engine.adapters.ncsnpp.network import NCSNpp, sigma_row
from diffusion_engine.ops import philox

REFERENCE = {"dtype": torch.float64, "backend": "torch"}


def weights(module, seed=0):
    """Random numbers for all that a module of the meta device holds, of a size at which it stays tame."""
    make = torch.Generator().manual_seed(seed)
    made = {}
    for name, tensor in module.state_dict().items():
        size = tensor[0].numel() if tensor.ndim > 1 else 25
        made[name] = torch.randn(tensor.shape, generator=make) / math.sqrt(size)
        if name.endswith("weight") and tensor.ndim == 1:
            made[name] += 1.0  # of a norm
        if name == "all_modules.0.W":
            made[name] *= 5.0
    return made


def save(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_network(folder, config, architecture, seed=0, **more):
    tensors = weights(on_meta(lambda: NCSNpp(architecture)), seed)
    return save(folder, config, tensors | more)


def levels(low, high, count):
    """The buffer that score_sde's networks carry."""
    return {"sigmas": sigma_row(low, high, count)}


def called(module):
    """A network of torch as a function of numpy, in float64: model(x, label), whole labels as int64."""
    module = module.double()

    def model(x, label):
        dtype = torch.int64 if isinstance(label, int) else torch.float64
        labels = torch.full((len(x),), label, dtype=dtype)
        with torch.no_grad():
            return module(torch.from_numpy(x), labels).numpy()

    return model


def normals(key, shape, seeds):
    """[samples, *shape], those of a row's key."""
    seed = torch.tensor(seeds)
    made = philox.normals(seed, torch.full_like(seed, key), 0, math.prod(shape))
    return made.double().numpy().reshape(len(seeds), *shape)
